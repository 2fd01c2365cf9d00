//! Conversations at a terminal: typing, pasting, Ctrl-C, Ctrl-D, history, blocks, sizes and kinds of terminals.
#![cfg(unix)]

use crate::support::terminal::Terminal;
use crate::support::{ModelFile, Value, file};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Within which a conversation ends.
const SOON: Duration = Duration::from_secs(20);
const TEMPLATE: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
const CTRL_C: &[u8] = b"\x03";
const CTRL_D: &[u8] = b"\x04";
const UP: &[u8] = b"\x1b[A";

struct Place {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = ModelFile::tiny();
        file.set("llama.context_length", Value::U32(2048));
        file.set("tokenizer.chat_template", Value::Str(TEMPLATE.to_owned()));
        let model = file.written(folder.path(), "tiny.gguf");
        Self { folder, model }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(file("run"));
        command.arg("-m").arg(&self.model).args(["-t", "1", "--device", "cpu", "--temp", "0", "--ignore-eos"]);
        command.args(if args.contains(&"-n") { &[][..] } else { &["-n", "3"] }).arg("--verbose-prompt").args(args);
        command.env("XDG_STATE_HOME", self.folder.path());
        command
    }

    fn talk(&self, args: &[&str]) -> Terminal {
        let terminal = Terminal::of(self.command(args));
        terminal.shows("> ", 1);
        terminal
    }

    fn history(&self) -> PathBuf {
        self.folder.path().join("powerinfer/history.jsonl")
    }
}

fn entries(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until a line can be edited: Ctrl-D that comes earlier is nothing.
fn waits(terminal: &Terminal) {
    let is_waiting = |shown: String| shown.matches("\x1b[?2004h").count() > shown.matches("\x1b[?2004l").count();
    let start = std::time::Instant::now();
    while !is_waiting(terminal.shown()) {
        assert!(start.elapsed() < SOON, "{}", terminal.shown());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn leaves(terminal: &mut Terminal) {
    waits(terminal);
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(SOON).code(), Some(0), "{}", terminal.shown());
    assert!(terminal.is_as_before());
}

#[test]
fn a_file_with_a_template_chats_at_a_terminal() {
    let place = Place::new();
    let mut chat = place.talk(&[]);
    chat.shows("note: chat, as there is a chat template (-no-cnv: plain text)", 1);
    chat.types(b"hi\r");
    chat.shows("prompt: '[user]hi'", 1);
    leaves(&mut chat);
    let mut text = place.talk(&["-no-cnv"]);
    text.types(b"hi\r");
    text.shows("prompt: 'hi'", 1);
    leaves(&mut text);
    assert!(!text.shown().contains("note: chat"), "{}", text.shown());
    let mut once = Terminal::of(place.command(&["-p", "hi"]));
    assert_eq!(once.ends(SOON).code(), Some(0));
    once.shows("note: plain text, as there is a prompt", 1);
}

#[test]
fn one_turn_at_a_terminal_leaves_after_one_answer() {
    let place = Place::new();
    let mut terminal = place.talk(&["-st"]);
    terminal.types(b"hi\r");
    assert_eq!(terminal.ends(SOON).code(), Some(0));
    terminal.shows("prompt: '[user]hi'", 1);
    assert!(terminal.is_as_before());
    let mut given = Terminal::of(place.command(&["-st", "-p", "hi"]));
    assert_eq!(given.ends(SOON).code(), Some(0));
    assert!(!given.shown().contains("\x1b[?2004h"), "no line is asked for: {}", given.shown());
}

#[test]
fn lines_are_edited_and_pasted() {
    let place = Place::new();
    let mut terminal = place.talk(&[]);
    // Backspace, to the beginning, a word more.
    terminal.types(b"worx\x7fd\x01a \r");
    terminal.shows("prompt: '[user]a word'", 1);
    terminal.types(b"/clear\r\x1b[200~one\n/exit\ntwo\x1b[201~\r");
    terminal.shows("prompt: '[user]one\\n/exit\\ntwo'", 1);
    // What does not say that it is pasted is as if it were typed.
    terminal.types(b"/clear\r\"\"\"\rthree\rfour\r\"\"\"\r");
    terminal.shows("prompt: '[user]three\\nfour'", 1);
    leaves(&mut terminal);
}

#[test]
fn ctrl_c_stops_an_answer_and_drops_a_line_and_a_block() {
    let place = Place::new();
    let mut terminal = place.talk(&["-n", "-1", "-c", "2000"]);
    terminal.types(b"hi\r");
    terminal.shows("prompt: '[user]hi'", 1);
    // The last token of the prompt; the answer comes next.
    terminal.shows("-> 'i'", 1);
    std::thread::sleep(Duration::from_millis(50));
    terminal.signal("-INT");
    terminal.shows("(stopped)", 1);
    waits(&terminal);
    terminal.types(b"half a line");
    terminal.shows("half a line", 1);
    terminal.types(CTRL_C);
    terminal.shows("Ctrl-D or /exit leaves", 1);
    terminal.types(b"\"\"\"\rhalf a block\r");
    terminal.shows("half a block", 1);
    waits(&terminal);
    terminal.types(CTRL_C);
    terminal.shows("(the block was dropped)", 1);
    terminal.types(b"/stats\r");
    terminal.shows("tokens in the context", 1);
    leaves(&mut terminal);
    assert!(!terminal.shown().contains("error"), "{}", terminal.shown());
}

#[test]
fn what_was_typed_comes_back_in_the_next_conversation() {
    let place = Place::new();
    let mut first = place.talk(&[]);
    first.types(b"hello there\r");
    first.shows("prompt: '[user]hello there'", 1);
    first.types(b"/clear\r\"\"\"\rone\rtwo\r\"\"\"\r");
    first.shows("prompt: '[user]one\\ntwo'", 1);
    leaves(&mut first);
    assert_eq!(entries(&place.history()), ["hello there", "/clear", "\"\"\"\none\ntwo\n\"\"\""]);
    assert_eq!(place.history().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut second = place.talk(&[]);
    second.types(UP);
    second.types(b"\r");
    second.shows("prompt: '[user]one\\ntwo'", 1);
    leaves(&mut second);
    assert_eq!(entries(&place.history()).len(), 3, "the same again is no entry");
    let mut off = place.talk(&["--no-history"]);
    off.types(b"secret\r");
    off.shows("prompt: '[user]secret'", 1);
    leaves(&mut off);
    assert_eq!(entries(&place.history()).len(), 3);
}

#[test]
fn a_history_that_cannot_be_used_is_no_reason_to_fail() {
    let place = Place::new();
    let write = |bytes: &[u8]| {
        std::fs::create_dir_all(place.history().parent().unwrap()).unwrap();
        std::fs::write(place.history(), bytes).unwrap();
    };
    let says = |args: &[&str]| {
        let mut terminal = place.talk(args);
        terminal.types(UP);
        terminal.types(b"\x01\x0bhi\r");
        terminal.shows("prompt: '[user]hi'", 1);
        leaves(&mut terminal);
        terminal.shown()
    };
    // No JSON, no text, and an entry that would command the terminal.
    write(b"garbage\n{\"a\": 1}\n\"an old \\u001b]0;title\\u0007 one\"\n");
    std::fs::set_permissions(place.history(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let shown = says(&[]);
    assert!(!shown.contains("\x1b]0;"), "{shown:?}");
    assert_eq!(place.history().metadata().unwrap().permissions().mode() & 0o777, 0o600, "it becomes private");
    write(b"\xff\xfe\x00");
    says(&[]);
    std::fs::remove_file(place.history()).unwrap();
    std::fs::create_dir(place.history()).unwrap();
    says(&[]);
    let mut nowhere = place.command(&[]);
    nowhere.env("XDG_STATE_HOME", "/dev/null/state");
    let mut terminal = Terminal::of(nowhere);
    terminal.shows("> ", 1);
    leaves(&mut terminal);
}

#[test]
fn a_long_history_is_cut() {
    let place = Place::new();
    std::fs::create_dir_all(place.history().parent().unwrap()).unwrap();
    let lines: String = (0..3000).map(|i| format!("\"{i} {}\"\n", "x".repeat(500))).collect();
    std::fs::write(place.history(), lines).unwrap();
    leaves(&mut place.talk(&[]));
    let left = entries(&place.history());
    assert!(left.len() == 1000 && left[999].starts_with("2999 "), "{}", left.len());
    assert_eq!(place.history().metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn terminals_may_be_narrow_and_change_their_size() {
    let place = Place::new();
    let mut terminal = place.talk(&[]);
    waits(&terminal);
    terminal.resize(7, 4);
    terminal.types(b"a line that is longer than the terminal is wide, several times");
    std::thread::sleep(Duration::from_millis(100));
    terminal.resize(120, 40);
    terminal.types(b" over");
    std::thread::sleep(Duration::from_millis(100));
    terminal.resize(1, 1);
    terminal.types(b"\r");
    terminal.shows("[user]a line that is longer than the terminal is wide, several times over'", 1);
    terminal.types(b"\"\"\"\rb\r\"\"\"\r");
    terminal.shows("[user]b'", 1);
    leaves(&mut terminal);
}

#[test]
fn a_terminal_that_can_do_nothing_is_asked_for_nothing() {
    let place = Place::new();
    let mut command = place.command(&[]);
    command.env("TERM", "dumb");
    let mut terminal = Terminal::of(command);
    terminal.shows("> ", 1);
    terminal.types(b"hi\n");
    terminal.shows("prompt: '[user]hi'", 1);
    terminal.types(b"/clear\n\"\"\"\na\nb\n\"\"\"\n");
    terminal.shows("prompt: '[user]a\\nb'", 1);
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(SOON).code(), Some(0));
    assert!(!terminal.shown().contains('\x1b'), "{:?}", terminal.shown());
    assert_eq!(entries(&place.history())[0], "hi");
}

#[test]
fn without_colour_there_is_none() {
    let place = Place::new();
    let mut command = place.command(&["--check-tensors"]);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::of(command);
    terminal.shows("> ", 1);
    terminal.types(b"hi\r");
    terminal.shows("prompt: '[user]hi'", 1);
    leaves(&mut terminal);
    // Sequences that set colours end with m.
    for sequence in terminal.shown().split("\x1b[").skip(1) {
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        assert!(!sequence[end..].starts_with('m') || sequence[..end].chars().all(|c| c == '0'), "{sequence:?}");
    }
}
