//! What only Windows has: devices in every folder, long paths, lines that end with CR LF, files that are open elsewhere.
#![cfg(windows)]

use crate::support::{ModelFile, Outcome, model_and_text, names_in, refused, tool};
use std::fs;
use std::io::Write;
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Others may read, but neither write nor replace.
const SHARE_READ: u32 = 1;

fn profile(model: &Path, text: &Path, out: &Path) -> Command {
    let mut command = tool("profile");
    command.arg("-m").arg(model).arg("-f").arg(text).arg("-o").arg(out).args(["-t", "1"]);
    command
}

fn quantize(model: &Path, out: &Path) -> Command {
    let mut command = tool("split");
    command.arg("-m").arg(model).args(["--type", "q8_0", "--quantize-only", "-t", "1", "-o"]).arg(out);
    command
}

fn run(model: &Path, args: &[&str]) -> Command {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-n", "3", "--temp", "0", "-t", "1", "--device", "cpu"]).args(args);
    command
}

#[test]
fn paths_may_be_long_and_of_any_script() {
    let (folder, model, text) = model_and_text("once upon a time");
    let mut deep = folder.path().to_owned();
    for name in ["n".repeat(120), "Grüße 猫 и".repeat(9), "x".repeat(120)] {
        deep.push(name);
    }
    fs::create_dir_all(&deep).unwrap();
    assert!(deep.as_os_str().len() > 300);
    let at = |name: &str| deep.join(name);
    fs::copy(&model, at("модель.gguf")).unwrap();
    fs::copy(&text, at("text.txt")).unwrap();
    let model = at("модель.gguf");
    for _ in 0..2 {
        Outcome::from(profile(&model, &at("text.txt"), &at("p.profile")).output().unwrap()).ok();
        let mut split = tool("split");
        split.arg("-m").arg(&model).arg("--profile").arg(at("p.profile")).arg("-o").arg(at("v.gguf")).args(["-t", "1"]);
        Outcome::from(split.output().unwrap()).ok();
    }
    let mut talk = run(&at("v.gguf"), &["-f"]);
    talk.arg(at("text.txt")).arg("--prompt-cache").arg(at("session")).arg("--trace").arg(at("trace.json"));
    let outcome = Outcome::from(talk.output().unwrap()).ok();
    assert!(outcome.stdout.starts_with("once upon a time"), "{}", outcome.stdout);
    let mut names = names_in(&deep);
    names.sort();
    assert_eq!(names, ["p.profile", "session", "text.txt", "trace.json", "v.gguf", "модель.gguf"]);
    let lost = at("none/out");
    refused(&mut profile(&model, &at("text.txt"), &lost), &[&*lost.display().to_string(), "its folder"]);
}

#[test]
fn lines_may_end_with_cr_lf() {
    let (folder, model, _) = model_and_text("x");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let plain = "once upon\na time\n\nthere was\n";
    let (one, two) = (write("one", plain), write("two", &plain.replace('\n', "\r\n")));
    let tokens =
        |path: &Path| Outcome::from(run(&model, &["--tokenize", "-f"]).arg(path).output().unwrap()).ok().stdout;
    assert_eq!(tokens(&one), tokens(&two));
    let lines = |path: &Path| Outcome::from(run(&model, &["--lines", "-f"]).arg(path).output().unwrap()).ok().stdout;
    assert_eq!(lines(&one), lines(&two));
    let piped = |path: &Path, args: &[&str]| {
        let mut command = run(&model, args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&fs::read(path).unwrap()).unwrap();
        Outcome::from(child.wait_with_output().unwrap()).ok().stdout
    };
    assert_eq!(piped(&one, &["--tokenize"]), tokens(&two));
    assert_eq!(piped(&one, &["--tokenize"]), piped(&two, &["--tokenize"]));
    let talk = ["-cnv", "--chat-template", "chatml"];
    assert_eq!(piped(&one, &talk), piped(&two, &talk));
}

#[test]
fn devices_are_in_every_folder_and_streams_in_no_file() {
    let (folder, model, text) = model_and_text("once upon a time");
    let at = |name: &str| folder.path().join(name);
    for nowhere in [PathBuf::from("NUL"), at("nul")] {
        Outcome::from(profile(&model, &text, &nowhere).output().unwrap()).ok();
        Outcome::from(quantize(&model, &nowhere).output().unwrap()).ok();
        // A name without a folder could be that of a model.
        refused(&mut run(&at("nul"), &["-p", "x"]), &["nul: is a device"]);
        refused(&mut profile(&model, &nowhere, &at("out")), &["is empty"]);
    }
    let stream = PathBuf::from(format!("{}:stream", model.display()));
    let before = fs::read(&model).unwrap();
    refused(&mut quantize(&model, &stream), &["tiny.gguf:stream: cannot be written: a file's name has none of"]);
    refused(&mut quantize(&model, &at("what?")), &["what?: cannot be written"]);
    assert!(fs::read(&model).unwrap() == before);
    // The system leaves these out.
    Outcome::from(quantize(&model, &at("out. ")).output().unwrap()).ok();
    assert_eq!(names_in(folder.path()), ["out", "story.txt", "tiny.gguf"]);
}

#[test]
fn an_output_by_another_spelling_is_an_input_all_the_same() {
    let (folder, model, text) = model_and_text("once upon a time");
    for name in ["TINY.GGUF", "tiny.gguf.", r".\nowhere\..\tiny.gguf"] {
        refused(&mut quantize(&model, &folder.path().join(name)), &["is an input and would be overwritten"]);
    }
    let out = folder.path().join("new");
    let mut two = profile(&model, &text, &out);
    refused(two.arg("--plot").arg(folder.path().join("NEW")), &["name the same file"]);
}

#[test]
fn what_may_not_be_replaced_stays_as_it_was() {
    let (folder, model, text) = model_and_text("once upon a time");
    let out = folder.path().join("out");
    fs::write(&out, "old").unwrap();
    let mut permissions = fs::metadata(&out).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&out, permissions.clone()).unwrap();
    // Before the work: there is no such model.
    let none = folder.path().join("none.gguf");
    refused(&mut profile(&none, &text, &out), &["out: cannot be written", "read-only, or open in another program"]);
    #[allow(clippy::permissions_set_readonly_false, reason = "on Windows that is an attribute of the file alone")]
    permissions.set_readonly(false);
    fs::set_permissions(&out, permissions).unwrap();

    let open = fs::File::options().read(true).share_mode(SHARE_READ).open(&out).unwrap();
    let begun = Instant::now();
    refused(&mut quantize(&model, &out), &["out: cannot be written", "read-only, or open in another program"]);
    assert!(begun.elapsed().as_secs() >= 2, "it may be closed soon");
    assert_eq!(fs::read(&out).unwrap(), b"old");
    drop(open);
    Outcome::from(quantize(&model, &out).output().unwrap()).ok();
    assert_ne!(fs::read(&out).unwrap(), b"old");
    assert_eq!(names_in(folder.path()), ["out", "story.txt", "tiny.gguf"]);
}

#[test]
fn what_is_killed_leaves_no_temporary_file_behind_the_next_writer() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let large = ModelFile::sized(32, 8192).written(folder.path(), "large.gguf");
    let quantize = || {
        let mut command = quantize(&large, &out);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let begun = Instant::now();
    Outcome::from(quantize().output().unwrap()).ok();
    let once = begun.elapsed();
    let whole = fs::read(&out).unwrap();
    // Two at a time, so that they might take each other's files away.
    for i in 0..6u32 {
        let (mut killed, other) = (quantize().spawn().unwrap(), quantize().spawn().unwrap());
        std::thread::sleep(once.mul_f64(0.3 * f64::from(i)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(fs::read(&out).unwrap() == whole, "a part of a file");
        Outcome::from(other.wait_with_output().unwrap()).ok();
        assert!(fs::read(&out).unwrap() == whole, "a part of a file");
    }
    fs::write(folder.path().join(".outAbc123.partial"), "part").unwrap();
    Outcome::from(quantize().output().unwrap()).ok();
    assert_eq!(names_in(folder.path()), ["large.gguf", "out"]);
}
