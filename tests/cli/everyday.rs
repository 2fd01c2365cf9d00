//! Flags for every day in careless hands: files that are not what they say, outputs that meet, and what would be passed over.
#![cfg(unix)]

use crate::support::{ModelFile, Outcome, file, make_fifo, names_in, refused, sh, tool, usage_error};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn run(args: &[&str]) -> Command {
    let mut command = tool("run");
    command.args(["-t", "1", "-n", "4", "--temp", "0", "-p", "Once upon a time there was a little dog"]).args(args);
    command
}

fn script(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_session_file_gets_no_memory_on_its_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("story.session");
    let session = path.to_str().unwrap();
    Outcome::from(run(&["--prompt-cache", session]).output().unwrap()).ok();
    let bytes = fs::read(&path).unwrap();
    // Behind the settings, each of which has its length before it.
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let n_texts = 2 * number(76);
    let at = (0..n_texts).fold(80, |at, _| at + 4 + number(at));
    let mut file = File::options().write(true).truncate(true).open(&path).unwrap();
    file.write_all(&bytes[..at]).unwrap();
    file.write_all(&(1u64 << 36).to_le_bytes()).unwrap();
    // So many would fit into the file, which takes no room on the disk.
    if file.set_len(1 << 40).is_ok() {
        refused(&mut run(&["--prompt-cache", session, "--prompt-cache-ro"]), &["story.session", "68719476736 tokens"]);
    }
}

#[test]
fn a_trace_waits_for_its_reader_until_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let mut child = run(&["--trace", fifo.to_str().unwrap()]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none());
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("it still waits");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcome = Outcome::from(child.wait_with_output().unwrap());
    assert_eq!((outcome.code, outcome.stderr.lines().last()), (Some(130), Some("interrupted")), "{}", outcome.stderr);
}

#[test]
fn no_two_outputs_are_one_file_and_none_is_an_input() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let same = at("same");
    let wanted = ["--trace and --prompt-cache: name the same file"];
    refused(&mut run(&["--trace", &same, "--prompt-cache", &same]), &wanted);
    for (flag, name, text) in
        [("--grammar-file", "a.gbnf", "root ::= \"a\""), ("--json-schema-file", "a.json", "{\"type\": \"integer\"}")]
    {
        fs::write(at(name), text).unwrap();
        refused(&mut run(&[flag, &at(name), "--trace", &at(name)]), &[name, "is an input"]);
        assert_eq!(fs::read_to_string(at(name)).unwrap(), text);
    }
    let template = at("t.jinja");
    fs::write(&template, "{{ messages[0].content }}").unwrap();
    let args = ["-st", "--chat-template", &template, "--trace", &template];
    assert_eq!(Outcome::from(run(&args).output().unwrap()).code, Some(1));
    assert_eq!(fs::read_to_string(&template).unwrap(), "{{ messages[0].content }}");

    fs::write(at("text"), "Once upon a time there was a dog.\n".repeat(9)).unwrap();
    let profile = |args: &[&str]| {
        let mut command = tool("profile");
        command.args(args);
        command
    };
    Outcome::from(profile(&["-f", &at("text"), "-o", &at("p")]).output().unwrap()).ok();
    let page = at("page.svg");
    let wanted = ["--plot and --report: name the same file"];
    refused(&mut profile(&["--show", &at("p"), "--plot", &page, "--report", &page]), &wanted);
    let made = ["-f", &at("text"), "-o", &page, "--report", &page];
    refused(&mut profile(&made), &["-o and --report: name the same file"]);
    assert!(!Path::new(&page).exists());
    usage_error("profile", &["--compare", &at("p"), &at("p"), "--json"], "cannot be used with");
}

#[test]
fn a_grammar_can_be_set_and_taken_away_in_a_conversation() {
    let mut command = tool("run");
    command.args(["-i", "-t", "1", "-n", "6", "-s", "1", "-q"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let input = "/set top-k = 3\n/set grammar root ::= \"xyz\"\nOnce\n/set temp 0\n/regen\n/set json-schema {\"const\": 12}\n/regen\n\
                 /set grammar root ::= (\n/regen\n/set grammar none\n/regen\n/set grammar\n";
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[..4], ["xyz", "xyz", "12", "12"], "{}", outcome.stdout);
    assert!(lines.len() > 4 && lines[4] != "12" && lines[4] != "xyz", "{}", outcome.stdout);
    for wanted in ["/set: --grammar: line 1: expected", "grammar (none)"] {
        assert!(outcome.stderr.contains(wanted), "{wanted}: {}", outcome.stderr);
    }
}

#[test]
fn a_full_disk_is_told_of_whatever_is_printed() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    for line in ["--help", "-h", "--version", "completions bash", "--list-devices", "--llama-cpp-page"] {
        let mut command = Command::new(file("run"));
        command.args(line.split(' ')).stdout(File::options().write(true).open("/dev/full").unwrap());
        let outcome = Outcome::from(command.stderr(Stdio::piped()).output().unwrap());
        let told = outcome.stderr.contains("error: standard output: No space left");
        assert!(outcome.code == Some(1) && told && outcome.stderr.lines().count() == 1, "{line}: {outcome:?}");
        // Who reads only the beginning has it.
        let cut = sh(&format!("'{}' {line} | head -c 1", file("run")), &[]).output().unwrap();
        assert!(cut.status.success() && cut.stderr.is_empty(), "{line}: {cut:?}");
    }
    let outcome = Outcome::from(Command::new(file("run")).args(["completions", "bash", "zsh"]).output().unwrap());
    assert!(outcome.code == Some(2) && outcome.stdout.is_empty(), "{outcome:?}");
}

#[test]
fn what_is_compared_with_is_the_file_that_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let bench = |other: &str| {
        let mut command = tool("bench");
        command.current_dir(folder.path()).args(["-t", "1", "-p", "4", "-n", "0", "-r", "1", "--turns", "6"]);
        command.args(["--against", other]);
        command
    };
    // Without a folder before its name it is the file here, whatever PATH has of that name.
    script(folder.path(), "ls", "echo this one >&2; exit 7");
    refused(&mut bench("ls"), &["ls: ended with exit status: 7", "this one"]);
    script(folder.path(), "noise", "printf 'a\\377\\376b'");
    refused(&mut bench("noise"), &["noise: what it measured", "is not UTF-8"]);
    script(folder.path(), "flood", "exec yes 0123456789012345678901234567890123456789012345678901234567890123456789");
    refused(&mut bench("flood"), &["flood: writes more than"]);
    make_fifo(&folder.path().join("fifo"));
    refused(&mut bench("fifo"), &["fifo: is no program", "is a FIFO"]);
    assert_eq!(names_in(folder.path()), ["fifo", "flood", "ls", "noise"]);
    // An importance matrix is a file, too.
    ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let split = |given: &str| {
        let mut command = tool("split");
        command.current_dir(folder.path()).args([
            "--quantize-only",
            "tiny.gguf",
            "out.gguf",
            "q4_0",
            "--imatrix",
            given,
        ]);
        command
    };
    refused(&mut split("fifo"), &["fifo: is a FIFO"]);
    refused(&mut split("."), &[".: is a folder"]);
}

#[test]
fn a_name_of_two_lines_is_told_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let name = "a\nerror: b\u{1b}[31m.gguf";
    let model = ModelFile::tiny().written(folder.path(), name);
    let outcome = Outcome::from(run(&[]).arg("-m").arg(&model).output().unwrap()).ok();
    assert!(outcome.stderr.contains("a\\nerror: b\\u{1b}[31m.gguf: activation"), "{}", outcome.stderr);
    assert!(outcome.stderr.lines().all(|line| !line.starts_with("error")), "{}", outcome.stderr);
}
