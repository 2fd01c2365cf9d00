//! Flags, help, and refusals that all commands share.

use crate::support::{ModelFile, Outcome, refused, refused_by, tool, usage_error};
use std::io::Read;
use std::process::Stdio;

#[test]
fn every_command_has_help_with_examples() {
    for name in ["run", "profile", "split", "bench"] {
        let outcome = Outcome::from(tool(name).arg("--help").output().unwrap()).ok();
        assert!(outcome.stdout.contains("Examples:"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains(&format!("powerinfer-{name}")), "{}", outcome.stdout);
        let outcome = Outcome::from(tool(name).arg("--version").output().unwrap()).ok();
        let first = format!("powerinfer-{name} {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(outcome.stdout.lines().next(), Some(&*first));
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_names_the_flag() {
    usage_error("run", &["--mode", "foo", "-p", "x"], "--mode");
    usage_error("run", &["-n", "abc", "-p", "x"], "abc");
    usage_error("run", &["-c", "-5", "-p", "x"], "-5");
    usage_error("run", &["--cache-type", "q8_1", "-p", "x"], "--cache-type");
    usage_error("run", &["--isa", "neon", "-p", "x"], "avx512");
    usage_error("run", &["--activation", "softplus", "-p", "x"], "softplus");
    usage_error("run", &["--no-such-flag"], "--no-such-flag");
    usage_error("run", &["-p", "x", "-f", "y"], "--file");
    usage_error("bench", &["-o", "xml"], "xml");
    usage_error("bench", &["--mode", "dense,foo"], "foo");
    usage_error("bench", &["-p", "8,x"], "invalid");
    usage_error("profile", &[], "--file");
    usage_error("profile", &["-f", "a.txt"], "--output");
    usage_error("split", &["-m", "a"], "--profile");
    usage_error("split", &["-m", "a", "--profile", "b", "-o", "c", "--type", "q9_k"], "q9_k");
    usage_error("split", &["-m", "a", "--profile", "b", "-o", "c", "--down", "q2"], "q2");
}

#[test]
fn values_out_of_range_are_refused_and_name_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    for (flag, value) in [
        ("--temp", "nan"),
        ("--temp", "inf"),
        ("--temp", "-1"),
        ("--top-p", "2"),
        ("--top-p", "nan"),
        ("--min-p", "-0.5"),
        ("--repeat-penalty", "0"),
        ("--repeat-penalty", "nan"),
        ("-t", "0"),
        ("-t", "100000"),
    ] {
        refused_by("run", &[&"-m", &model, &"-p", &"x", &"-n", &"1", &flag, &value], &[flag]);
    }
    refused_by("run", &[&"-m", &model, &"-p", &"x", &"-ub", &"0"], &["-ub 0"]);
    for args in [["-r", "0"], ["-t", "0"], ["-t", "100000"]] {
        let mut command = tool("bench");
        command.arg("-m").arg(&model).args(["-p", "4", "-n", "0"]).args(args);
        refused(&mut command, &[&args.join(" ")]);
    }
    refused_by("bench", &[&"-m", &model, &"-p", &"0", &"-n", &"0"], &["-p 0 -n 0"]);
    refused_by("split", &[&"-m", &model, &"--profile", &"x", &"-o", &"y", &"-t", &"0"], &["-t 0"]);
}

#[test]
fn a_context_that_does_not_fit_in_memory_is_refused_and_names_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    // The first is for processes whose memory is limited.
    let n_ctxs = ["10000000", "1000000000000", "18446744073709551615"];
    for n_ctx in &n_ctxs[usize::from(cfg!(windows))..] {
        let mut command = tool("run");
        command.arg("-m").arg(&model).args(["-p", "x", "-n", "1", "-t", "1", "-c", n_ctx]);
        refused(&mut command, &[&format!("-c {n_ctx}")]);
    }
}

#[test]
fn without_colour_and_without_a_terminal_there_are_no_escape_sequences() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    for (variable, value) in [("NO_COLOR", "1"), ("TERM", "xterm-256color")] {
        // Outcome itself looks for them on stderr.
        let run = |name: &str, args: &[&str]| {
            let output = tool(name).env(variable, value).args(args).arg("-m").arg(&model).output().unwrap();
            assert!(!output.stdout.contains(&0x1b) || args.contains(&"--stats"), "{args:?}");
            Outcome::from(output)
        };
        assert_eq!(run("run", &["-p", "x", "-n", "2", "--ignore-eos", "--stats", "--check-tensors"]).code, Some(0));
        assert_eq!(run("bench", &["-p", "4", "-n", "2", "-r", "1"]).code, Some(0));
        assert_eq!(run("run", &["--help"]).code, Some(0));
        assert_eq!(run("run", &["--wrong"]).code, Some(2));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_is_one_line_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (name, args) in [
        ("run", ["-p", "x", "-n", "4"]),
        ("run", ["-p", "x", "--tokenize", "--parse-special"]),
        ("run", ["-p", "x", "-n1", "--json"]),
        ("run", ["-i", "-p", "x", "-n1"]),
        ("bench", ["-p", "4", "-n", "0"]),
    ] {
        let mut command = tool(name);
        command.arg("-m").arg(&model).args(args).stdout(full());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let outcome = Outcome::from(child.wait_with_output().unwrap());
        assert_eq!(outcome.code, Some(1), "{args:?}: {}", outcome.stderr);
        let line = outcome.stderr.lines().last().unwrap();
        assert!(line.starts_with("error: standard output: "), "{args:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("error: ").count(), 1, "{}", outcome.stderr);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stderr_does_not_stop_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = tool("run");
    command.arg("-m").arg(&model).args(["-p", "hello", "-n", "4"]).stderr(full);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
    assert!(outcome.stdout.starts_with("hello"), "{}", outcome.stdout);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let text = ["-p", "x", "-n", "-1", "-c", "2000", "--ignore-eos"];
    let talk = ["-i", "-p", "x", "-n", "-1", "-c", "2000", "--ignore-eos"];
    for (name, args) in [("run", &text[..]), ("run", &talk), ("bench", &["-p", "4", "-n", "0"]), ("run", &["--help"])] {
        let mut command = tool(name);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        if args != ["--help"] {
            command.arg("-m").arg(&model);
        }
        let mut child = command.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
        assert!(!outcome.stderr.contains("error: "), "{args:?}: {}", outcome.stderr);
        // Neither where both go to one pipe, as in `2>&1 | head -c 1`.
        let mut child = command.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
    }
}
