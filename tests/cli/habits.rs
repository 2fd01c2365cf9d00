//! Command lines as users of llama.cpp type them: each flag means what it means there, or says that it does not.

#[cfg(unix)]
use crate::support::ModelFile;
use crate::support::{Outcome, file, tool, usage_error};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

mod lines;
mod more_lines;

/// What these command lines mean to the command.
fn read(name: &str, lines: &[Vec<&str>]) -> Vec<Value> {
    let mut command = Command::new(file(name));
    let mut child = command.arg("--read-lines").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    let writer = std::thread::spawn(move || stdin.write_all((text.join("\n") + "\n").as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), lines.len());
    answers
}

fn read_one(name: &str, line: &[&str]) -> Value {
    read(name, &[line.to_vec()]).remove(0)
}

/// What is set, as `n_predict=4 temp=0.5 special=`, in the order of names.
fn set(answer: &Value) -> String {
    let all = answer["set"].as_object().unwrap_or_else(|| panic!("{answer}"));
    let shown = |(id, values): (&String, &Value)| {
        let values: Vec<&str> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // Some lists are divided later.
        format!("{id}={}", values.join("|").replace(',', "|"))
    };
    all.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// What a line of the lists is to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means<'a> {
    /// These arguments, and no others.
    Set(&'a str),
    /// Nothing, as it is so in any case.
    So,
    /// Nothing, and a line says so.
    Noted,
    /// It is refused by name.
    Refused,
}

/// Holds each line against what it means; how many simply work.
fn check(name: &str, lines: &[(&str, Means)]) -> usize {
    let typed: Vec<Vec<&str>> = lines.iter().map(|(line, _)| line.split(' ').collect()).collect();
    let mut works = 0;
    for ((line, means), answer) in lines.iter().zip(read(name, &typed)) {
        let flag = line.split([' ', '=']).next().unwrap().replace('_', "-");
        let notes = answer["notes"].as_array().map_or(0, Vec::len);
        match means {
            Means::Set(wanted) => assert_eq!((&*set(&answer), notes), (*wanted, 0), "{line}: {answer}"),
            Means::So => assert_eq!((&*set(&answer), notes), ("", 0), "{line}: {answer}"),
            Means::Noted => {
                assert_eq!((&*set(&answer), notes), ("", 1), "{line}: {answer}");
                assert!(answer["notes"][0].as_str().unwrap().starts_with(&flag), "{line}: {answer}");
            }
            Means::Refused => {
                let said = answer["refused"].as_str().unwrap_or_else(|| panic!("{line}: {answer}"));
                assert!(said.starts_with(&flag) && said.len() > flag.len() + 10, "{line}: {answer}");
            }
        }
        if *means != Means::Refused {
            works += 1;
        }
    }
    println!("powerinfer-{name}: of {} lines of llama.cpp {works} work", lines.len());
    works
}

#[test]
fn no_line_of_llama_cli_is_misread_and_most_work() {
    let works = check("run", &lines::RUN);
    assert!(lines::RUN.len() >= 150, "{}", lines::RUN.len());
    assert!(works >= 170, "{works}");
}

#[test]
fn no_line_of_llama_bench_and_llama_perplexity_is_misread() {
    let works = check("bench", &lines::BENCH);
    assert!(works >= 50, "{works}");
}

#[test]
fn no_line_of_llama_imatrix_or_llama_quantize_is_misread() {
    check("profile", &lines::PROFILE);
    check("split", &lines::SPLIT);
}

#[test]
fn newer_flags_and_those_of_other_programs_are_known() {
    check("run", &more_lines::RUN);
    check("bench", &more_lines::BENCH);
    check("split", &more_lines::SPLIT);
    for (line, means) in more_lines::PROFILE {
        let words: Vec<&str> = ["-f", "a", "-o", "b"].into_iter().chain(line.split(' ')).collect();
        let answer = read_one("profile", &words);
        let notes = answer["notes"].as_array().map_or(0, Vec::len);
        match means {
            Means::Refused => {
                let flag = words[4].replace('_', "-");
                assert!(answer["refused"].as_str().is_some_and(|said| said.starts_with(&flag)), "{line}: {answer}");
            }
            _ => {
                let wanted = ("file=a output=b", usize::from(means == Means::Noted));
                assert_eq!((&*set(&answer), notes), wanted, "{line}: {answer}");
            }
        }
    }
}

#[test]
fn every_flag_is_listed_once_for_a_command() {
    for (name, lines) in [("run", &lines::RUN[..]), ("bench", &lines::BENCH), ("profile", &lines::PROFILE)] {
        let distinct: BTreeSet<&str> = lines.iter().map(|(line, _)| *line).collect();
        assert_eq!(distinct.len(), lines.len(), "{name}: a line stands there twice");
    }
}

#[test]
fn the_last_of_a_repeated_flag_counts() {
    for (name, line, wanted) in [
        ("run", &["-n", "4", "--n-predict", "8", "-n=16"][..], "n_predict=16"),
        ("run", &["--temp", "1", "--temperature", "0.5"], "temp=0.5"),
        ("run", &["--special", "--special", "-sp"], "special=true"),
        ("run", &["--no-display-prompt", "--display-prompt"], ""),
        ("run", &["--device", "cpu", "-dev", "none"], "device=none"),
        ("run", &["-ngl", "0", "-ngl", "all"], "n_gpu_layers=all"),
        ("run", &["-ctk", "q8_0", "-ctv", "f32", "-ctk", "f32"], "cache_type_k=f32 cache_type_v=f32"),
        ("run", &["--no-escape", "-e", "-p", "a\\nb"], "escape=true prompt=a\nb"),
        ("run", &["-e", "-p", "a\\nb", "--no-escape"], "no_escape=true prompt=a\\nb"),
        ("bench", &["-r", "5", "-r", "2"], "repetitions=2"),
        ("bench", &["-p", "8", "-p", "16,32"], "n_prompt=8|16|32"),
        ("profile", &["-f", "a", "b", "-o", "x", "-o", "y", "-f", "c"], "file=a|b|c output=y"),
        // Of models bench measures each, and others take the last.
        ("split", &["-m", "a", "-m", "b", "--profile", "p", "-o", "c"], "model=a|b output=c profile=p"),
    ] {
        assert_eq!(set(&read_one(name, line)), wanted, "{line:?}");
    }
}

#[test]
fn values_may_look_like_flags_where_texts_are_meant() {
    for text in ["-hf", "-ngl", "--lora", "-", "-1", "--", "-p", "", "a=b", "--temp=2"] {
        let answer = read_one("run", &["-p", text, "-n", "1"]);
        assert_eq!(set(&answer), format!("n_predict=1 prompt={text}"), "{answer}");
        let answer = read_one("run", &[&format!("--prompt={text}"), "-n", "1"]);
        assert_eq!(set(&answer), format!("n_predict=1 prompt={text}"), "{answer}");
    }
    for line in [["-m", "-hf"], ["--model", "-sys"], ["-c", "-fa"], ["--top-k", "-ctk"], ["-m", "-n"]] {
        let answer = read_one("run", &line);
        assert!(answer["set"].is_null(), "{line:?}: {answer}");
    }
}

#[test]
fn letters_behind_one_dash_are_never_taken_apart() {
    for flag in ["-sx", "-temp", "-ij", "-mmodel.gguf", "-phello", "-hello", "-Vx", "-nx", "-cnvx", "-bad", "-tall"] {
        for name in ["run", "bench", "profile", "split"] {
            let answer = read_one(name, &[flag, "0.5"]);
            assert!(answer["refused"].as_str().is_some_and(|said| said.starts_with(flag)), "{name} {flag}: {answer}");
        }
    }
    assert!(read_one("run", &["-temp", "1"])["refused"].as_str().unwrap().contains("--temp"));
    // Numbers have always been taken behind their letter.
    assert_eq!(set(&read_one("run", &["-n4", "-t1", "-s-1"])), "n_predict=4 seed=-1 threads=1");
}

#[test]
fn what_is_refused_ends_with_code_2_before_anything_is_done() {
    usage_error("run", &["--lora", "x.gguf", "-p", "x"], "error: --lora: ");
    usage_error("run", &["-p", "x", "-lcs", "a", "--rpc", "b"], "error: -lcs: ");
    usage_error("run", &["-p", "x", "-lcs", "a", "--rpc", "b"], "--rpc");
    usage_error("run", &["-ctk", "q4_0", "-p", "x"], "f16, q8_0 and f32");
    usage_error("run", &["--mlock=yes", "-p", "x"], "--mlock");
    usage_error("run", &["-numa", "x"], "error: -numa: ");
    usage_error("run", &["--numa"], "--numa");
    usage_error("split", &["--allow-requantize", "a", "b", "q4_0"], "--allow-requantize");
    usage_error("profile", &["--in-file", "a"], "--merge");
    usage_error("run", &["-p", "a\\xffb"], "error: -p: ");
    usage_error("run", &["-ngl", "many", "-p", "x"], "auto");
    for (typed, shown) in [("-\u{1b}[2J", "-"), ("-x\u{7}", "-x")] {
        let outcome = Outcome::from(tool("run").arg(typed).output().unwrap());
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(shown) && !outcome.stderr.contains('\u{7}'), "{}", outcome.stderr);
    }
}

#[test]
fn flags_without_effect_are_named_once_and_the_text_is_the_same() {
    let run = |args: &[&str]| {
        let line = ["-p", "Once", "-n", "4", "--temp", "0", "-t", "1"];
        Outcome::from(tool("run").args(line).args(args).output().unwrap()).ok()
    };
    let plain = run(&[]);
    let habitual = run(&["-tb", "1", "-fa", "on", "--numa", "distribute", "--numa", "isolate", "--mlock", "-np", "1"]);
    assert_eq!(plain.stdout, habitual.stdout);
    for flag in ["-tb", "--numa"] {
        assert_eq!(habitual.stderr.matches(&format!("note: {flag}: ")).count(), 1, "{}", habitual.stderr);
    }
    assert!(!plain.stderr.contains("LLAMA_ARG"), "{}", plain.stderr);
}

#[cfg(unix)]
#[test]
fn a_model_that_is_kept_in_memory_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let run = |args: &[&str]| {
        let mut command = tool("run");
        command.arg("-m").arg(&model).args(["-p", "x", "-n", "2", "--temp", "0", "-t", "1"]);
        Outcome::from(command.args(args).output().unwrap()).ok()
    };
    assert_eq!(run(&["--mlock"]).stdout, run(&[]).stdout);
    let mut limited = Command::new("sh");
    let script = "ulimit -l 0; exec \"$0\" --mlock -p x -n 1 -t 1 --device cpu -m \"$1\"";
    let outcome = Outcome::from(limited.args(["-c", script, file("run")]).arg(&model).output().unwrap()).ok();
    // Who may do all is not limited.
    let told = outcome.stderr.contains("warning: --mlock: ") && outcome.stderr.contains("ulimit -l");
    assert!(told || !outcome.stderr.contains("mlock"), "{}", outcome.stderr);
}

#[test]
fn variables_of_llama_cpp_are_not_read_which_is_told_once() {
    let mut command = tool("run");
    command.env("LLAMA_ARG_CTX_SIZE", "7").env("LLAMA_ARG_THREADS", "x").env("LLAMA_ARGUS", "1");
    let outcome = Outcome::from(command.args(["-p", "Once", "-n", "2", "-t", "1"]).output().unwrap()).ok();
    let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("LLAMA_ARG")).collect();
    let wanted = "note: LLAMA_ARG_CTX_SIZE and 1 more: variables of llama.cpp are not read; give flags";
    assert_eq!(lines, [wanted]);
}

#[test]
fn prompts_are_unescaped_unless_they_are_not_to_be() {
    let run = |args: &[&str]| {
        let mut command = tool("run");
        Outcome::from(command.args(["-n", "1", "-t", "1"]).args(args).output().unwrap()).ok().stdout
    };
    assert!(run(&["-p", r#"a\n\tb\\n\"c\"\'\x41\xc3\xa9\q\x4"#]).starts_with("a\n\tb\\n\"c\"'Aé\\q\\x4"));
    assert!(run(&["-p", r"a\nb", "--no-escape"]).starts_with(r"a\nb"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prompt.txt");
    std::fs::write(&path, r"a\nb").unwrap();
    assert!(run(&["-f", path.to_str().unwrap()]).starts_with(r"a\nb"));
}

#[test]
fn devices_are_listed_or_said_to_be_missing() {
    for name in ["run", "bench"] {
        let outcome = Outcome::from(Command::new(file(name)).arg("--list-devices").output().unwrap()).ok();
        let known = outcome.stdout.starts_with("no card: ") || outcome.stdout.starts_with("cuda:0  ");
        assert!(known && outcome.stdout.ends_with('\n'), "{}", outcome.stdout);
    }
}

#[test]
fn some_layers_are_a_share_of_the_card() {
    let card = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware/rtx-4090-ddr5.toml");
    let told = |n: &str| {
        let args = ["--dry-run", "--hardware", card, "-c", "256", "-ub", "16", "-ngl", n];
        let outcome = Outcome::from(tool("run").args(args).output().unwrap()).ok();
        outcome.stderr.lines().find(|line| line.contains("--vram-budget")).map(str::to_owned)
    };
    let (one, three) = (told("1").unwrap(), told("3").unwrap());
    assert!(one.starts_with("note: -ngl 1: of ") && one != three, "{one}, {three}");
    assert_eq!([told("99"), told("all"), told("auto")], [None, None, None]);
}

#[test]
fn the_words_of_llama_quantize_alone_miss_one_flag() {
    let output = Command::new(file("split")).args(["in.gguf", "out.gguf", "q4_k_m", "8"]).output().unwrap();
    let outcome = Outcome::from(output);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    let missing = outcome.stderr.split("Usage:").next().unwrap_or_default();
    assert!(missing.contains("--quantize-only") && !missing.contains("--profile"), "{}", outcome.stderr);
}
