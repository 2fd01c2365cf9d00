//! What users see and type at a terminal.
#![cfg(unix)]

use crate::support::terminal::{Terminal, in_the_end};
use crate::support::{ModelFile, Outcome, Value, file, refused, tool};
use std::process::Command;
use std::time::Duration;

/// Within which a signal ends the program.
const SOON: Duration = Duration::from_secs(5);

fn conversation() -> Terminal {
    let terminal = Terminal::run(&["-i", "-n", "4", "--temp", "0"]);
    terminal.shows("> ", 1);
    terminal
}

#[test]
fn signals_end_a_conversation_at_its_prompt_and_leave_the_terminal_as_it_was() {
    for (signal, status) in [("-TERM", 143), ("-HUP", 129)] {
        let mut terminal = conversation();
        assert!(!terminal.is_as_before(), "line editing has the terminal");
        terminal.signal(signal);
        assert_eq!(terminal.ends(SOON).code(), Some(status));
        assert!(terminal.is_as_before());
    }
}

#[test]
fn signals_end_the_program_in_the_middle_of_an_answer() {
    let mut terminal = Terminal::run(&["-i", "--ignore-eos", "-c", "512", "--isa", "plain"]);
    terminal.shows("> ", 1);
    terminal.types(b"Once upon a time\r");
    terminal.shows("Once upon a time", 1);
    terminal.signal("-TERM");
    // Asked to stop while it computes it is interrupted; where it waits for a line already, the signal ends it.
    assert!(matches!(terminal.ends(SOON).code(), Some(130 | 143)));
}

#[test]
fn a_program_that_was_told_to_ignore_hang_ups_does() {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" -i -n 4 -t 1 --device cpu", file("run")]);
    let mut terminal = Terminal::of(command);
    terminal.shows("> ", 1);
    terminal.signal("-HUP");
    std::thread::sleep(Duration::from_millis(300));
    terminal.types(b"/exit\r");
    assert_eq!(terminal.ends(SOON).code(), Some(0));
}

#[test]
fn a_line_that_is_not_utf_8_is_refused_and_the_conversation_goes_on() {
    let mut terminal = conversation();
    terminal.types(b"caf\xe9 x\r");
    terminal.shows("is not UTF-8 and was not sent", 1);
    std::thread::sleep(Duration::from_millis(100));
    terminal.types(b"\r/stats\r");
    terminal.shows("tokens in the context", 1);
    terminal.types(b"/exit\r");
    assert_eq!(terminal.ends(SOON).code(), Some(0));
}

#[test]
fn lines_that_arrive_in_one_burst_are_all_answered() {
    let mut terminal = conversation();
    terminal.types(b"/stats\r/reset\r/stats\r/reset\r/exit\r");
    assert_eq!(terminal.ends(SOON).code(), Some(0));
    terminal.shows("tokens in the context", 2);
    terminal.shows("(forgotten)", 2);
}

#[test]
fn a_line_that_begins_with_a_slash_can_be_said() {
    let mut terminal = conversation();
    terminal.types(b"/usr/bin is a folder\r");
    terminal.shows("unknown command; /help lists them, and //usr/bin is a folder says it to the model", 1);
    terminal.types(b"//usr/bin is a folder\r/stats\r/exit\r");
    assert_eq!(terminal.ends(SOON).code(), Some(0));
    terminal.shows("tokens in the context", 1);
    let shown = terminal.shown();
    assert_eq!(shown.matches("unknown command").count(), 1, "{shown}");
    assert!(!shown.contains("\n0 of 512 tokens"), "{shown}");
}

#[test]
fn control_characters_of_text_reach_pipes_and_no_terminal() {
    let (text, dropped) = ("a\x1b]0;title\x07b\u{9b}c", "a]0;titlebc");
    let mut terminal = Terminal::run(&["-p", text, "-n", "1"]);
    assert_eq!(terminal.ends(SOON).code(), Some(0));
    terminal.shows("tokens/s", 1);
    let shown = terminal.shown();
    assert!(shown.contains(dropped), "{shown:?}");
    assert!(!shown.contains(['\x07', '\u{9b}']) && !shown.contains("\x1b]"), "{shown:?}");
    let outcome = Outcome::from(tool("run").args(["-p", text, "-n", "1", "-t", "1"]).output().unwrap()).ok();
    assert!(outcome.stdout.starts_with(text), "{:?}", outcome.stdout);
}

#[test]
fn names_in_a_file_reach_no_terminal_unescaped() {
    let evil = "\x1b[31mEVIL\x1b]0;t\x07\r\u{9b}2J\n\u{202e}|";
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, change: &dyn Fn(&mut ModelFile)| {
        let mut model = ModelFile::tiny();
        change(&mut model);
        model.written(folder.path(), name)
    };
    let harmless = |text: &str| !text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}');
    let text = Value::Str(evil.to_owned());
    let named = written("name.gguf", &|model| {
        model.set("general.name", text.clone());
    });
    for format in ["md", "csv", "json", "jsonl", "sql"] {
        let mut command = tool("bench");
        command.args(["-p", "4", "-n", "0", "-r", "1", "--text", "random", "-o", format, "-t", "1", "-m"]).arg(&named);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        assert!(harmless(&outcome.stdout) && harmless(&outcome.stderr), "{format}: {outcome:?}");
        assert!(outcome.stdout.contains("EVIL"), "{format}: {outcome:?}");
        if format == "md" {
            assert!(outcome.stdout.lines().all(|line| line.starts_with('|')), "{outcome:?}");
        }
    }
    let mut command = tool("run");
    let outcome = Outcome::from(command.args(["--dry-run", "-t", "1", "-m"]).arg(&named).output().unwrap());
    assert!(harmless(&outcome.stdout) && harmless(&outcome.stderr), "{outcome:?}");
    for key in ["general.architecture", "tokenizer.ggml.model", "llama.rope.scaling.type"] {
        let bad = written("key.gguf", &|model| {
            model.set(key, text.clone());
        });
        let line = refused(tool("run").args(["-p", "a", "-m"]).arg(&bad), &["EVIL"]);
        assert!(harmless(&line), "{key}: {line:?}");
    }
    let bad = written("tensor.gguf", &|model| {
        model.push(crate::support::Tensor::zeros(evil, powerinfer::quant::GgmlType::F32, &[32]));
    });
    assert!(harmless(&refused(tool("run").args(["-p", "a", "-m"]).arg(&bad), &["EVIL"])));
    let path = folder.path().join("\x1b[31m.gguf");
    assert!(harmless(&refused(tool("run").args(["-p", "a", "-m"]).arg(&path), &["31m.gguf"])));
}

#[test]
fn wrong_usage_repeats_no_escape_sequences() {
    for args in [&["\x1b]0;t\x07x.gguf"][..], &["--mode", "\x1b[31m"], &["--temp", "\u{9b}2J"]] {
        let mut terminal = Terminal::run(args);
        assert_eq!(terminal.ends(SOON).code(), Some(2));
        terminal.shows("--help", 1);
        let shown = terminal.shown();
        assert!(!shown.contains(['\x1b', '\x07', '\u{9b}']), "{shown:?}");
    }
}

#[test]
fn bars_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (text, profile) = (folder.path().join("story.txt"), folder.path().join("x.profile"));
    std::fs::write(&text, "Once upon a time there was a dog. ".repeat(40)).unwrap();
    let profiles = |command: &mut Command| {
        command.args(["-t", "1", "-c", "64", "-f"]).arg(&text).arg("-o").arg(&profile);
    };
    let checks = |command: &mut Command| {
        command.args(["--check-tensors", "-p", "Once", "-n", "2", "-t", "1", "--device", "cpu"]);
    };
    let measures = |command: &mut Command| {
        command.args(["-p", "8,16", "-n", "8", "-r", "2", "-t", "1", "--device", "cpu"]);
    };
    let cases = [
        ("profile", "  all ", &profiles as &dyn Fn(&mut Command)),
        ("run", "stopped by", &checks),
        ("bench", " tg8 |", &measures),
    ];
    for (name, last, arguments) in cases {
        let mut command = Command::new(file(name));
        arguments(&mut command);
        let mut terminal = Terminal::of(command);
        assert_eq!(terminal.ends(Duration::from_secs(60)).code(), Some(0), "{}", terminal.shown());
        terminal.shows(last, 1);
        let shown = terminal.shown();
        assert!(shown.contains("[="), "{name}: no bar was shown: {shown}");
        let left = in_the_end(&shown);
        assert!(
            !left.iter().any(|line| line.contains(" [=") || line.contains("% ") && line.ends_with("left")),
            "{name}: {left:#?}"
        );
    }
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_before_it_is_shown() {
    let mut command = tool("run");
    let outcome = Outcome::from(command.args(["-p", &"word ".repeat(1000), "-t", "1"]).output().unwrap());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.contains("but the context of 512 has room for 512"), "{}", outcome.stderr);
}
