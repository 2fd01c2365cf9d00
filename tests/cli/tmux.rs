//! Conversations in tmux: what is on the screen of a terminal while people type, paste, interrupt and change its size.
#![cfg(unix)]

use crate::support::tmux::Tmux;
use crate::support::{ModelFile, Value, file};
use std::path::PathBuf;
use std::process::Command;

const TEMPLATE: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";
/// An answer of one word, and one that does not end.
const YES: &str = "root ::= \"yes\"";
const ON: &str = "root ::= (\"on \")+";
const WIDE: (u16, u16) = (100, 24);

struct Place {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = ModelFile::tiny();
        file.set("llama.context_length", Value::U32(32768));
        file.set("tokenizer.chat_template", Value::Str(TEMPLATE.to_owned()));
        let model = file.written(folder.path(), "tiny.gguf");
        Self { folder, model }
    }

    /// A conversation whose answers follow a grammar, at its first prompt.
    fn talk(&self, size: (u16, u16), variables: &[(&str, &str)], grammar: &str) -> Option<Tmux> {
        let mut command = Command::new(file("run"));
        command.arg("-m").arg(&self.model).args(["-q", "-t", "1", "--device", "cpu", "--temp", "0", "--ignore-eos"]);
        command.args(["-n", "-1", "-c", "32768", "--grammar", grammar]);
        command.env("XDG_STATE_HOME", self.folder.path()).envs(variables.iter().copied());
        let tmux = Tmux::start(size, &command)?;
        tmux.shows(&[">"]);
        Some(tmux)
    }

    /// What the user has said in the conversation.
    #[track_caller]
    fn said(&self, tmux: &Tmux) -> Vec<String> {
        let path = self.folder.path().join("said");
        tmux.says(&format!("/save {}", path.display()));
        tmux.has_shown(" messages in ");
        let said: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let users = said.iter().filter(|message| message["role"] == "user");
        users.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
    }
}

/// Ctrl-D at an empty prompt.
#[track_caller]
fn leaves(tmux: &Tmux) {
    tmux.waits(|screen| screen.last().is_some_and(|last| last == ">"));
    tmux.presses(&["C-d"]);
    assert_eq!(tmux.ends(), 0, "{}", tmux.everything());
}

#[test]
fn what_is_typed_is_edited_on_the_screen_and_answered_below() {
    let place = Place::new();
    let Some(tmux) = place.talk(WIDE, &[], YES) else { return };
    tmux.types("hellp");
    tmux.presses(&["BSpace"]);
    tmux.types("o");
    tmux.presses(&["C-a"]);
    tmux.types("Oh, ");
    tmux.shows(&["> Oh, hello"]);
    tmux.presses(&["Enter"]);
    tmux.shows(&["> Oh, hello", "yes", ">"]);
    tmux.presses(&["Up"]);
    tmux.shows(&["yes", "> Oh, hello"]);
    tmux.presses(&["Left", "Left", "Left", "C-k"]);
    tmux.shows(&["yes", "> Oh, he"]);
    tmux.presses(&["C-u"]);
    tmux.says("/what");
    tmux.shows(&["> /what", "/what: unknown command; /help lists them, and //what says it to the model", ">"]);
    tmux.says("/help");
    let screen = tmux.waits(|screen| screen.last().is_some_and(|last| last == ">") && screen.len() > 20);
    assert!(screen.iter().all(|line| line.chars().count() < 80), "{screen:#?}");
    assert_eq!(place.said(&tmux), ["Oh, hello"]);
    leaves(&tmux);
}

#[test]
fn what_is_pasted_and_blocks_are_one_message() {
    let place = Place::new();
    let Some(tmux) = place.talk(WIDE, &[], YES) else { return };
    tmux.pastes("first\n/exit\n  third");
    tmux.shows(&["> first", "/exit", "  third"]);
    tmux.presses(&["Enter"]);
    tmux.shows(&["  third", "yes", ">"]);
    for line in ["\"\"\"", "one", "", "two"] {
        tmux.says(line);
    }
    tmux.shows(&["> \"\"\"", "... one", "...", "... two", "..."]);
    tmux.says("\"\"\"");
    tmux.shows(&["... \"\"\"", "yes", ">"]);
    assert_eq!(place.said(&tmux), ["first\n/exit\n  third", "one\n\ntwo"]);
    leaves(&tmux);
}

#[test]
fn ctrl_c_stops_an_answer_and_drops_what_is_typed() {
    let place = Place::new();
    let Some(tmux) = place.talk(WIDE, &[], ON) else { return };
    tmux.says("go");
    tmux.has_shown("on on on");
    tmux.presses(&["C-c"]);
    tmux.shows(&["(stopped)", ">"]);
    tmux.types("half a line");
    tmux.shows(&["> half a line"]);
    tmux.presses(&["C-c"]);
    tmux.shows(&["> half a line", "Ctrl-D or /exit leaves", ">"]);
    tmux.says("\"\"\"");
    tmux.shows(&["> \"\"\"", "..."]);
    tmux.types("half a block");
    tmux.presses(&["C-c"]);
    tmux.shows(&["... half a block", "(the block was dropped)", ">"]);
    assert_eq!(place.said(&tmux), ["go"]);
    leaves(&tmux);
}

#[test]
fn the_next_conversation_has_the_history_of_the_last() {
    let place = Place::new();
    let Some(first) = place.talk(WIDE, &[], YES) else { return };
    first.says("hello there");
    first.shows(&["yes", ">"]);
    first.pastes("one\ntwo");
    first.presses(&["Enter"]);
    first.shows(&["two", "yes", ">"]);
    leaves(&first);
    let Some(second) = place.talk(WIDE, &[], YES) else { return };
    second.presses(&["Up"]);
    second.shows(&["> one", "two"]);
    second.presses(&["C-p", "C-p"]);
    second.shows(&["> hello there"]);
    second.presses(&["Enter"]);
    second.shows(&["> hello there", "yes", ">"]);
    assert_eq!(place.said(&second), ["hello there"]);
    leaves(&second);
}

#[test]
fn a_window_changes_its_size_while_an_answer_comes_and_while_a_line_is_typed() {
    let place = Place::new();
    let Some(tmux) = place.talk(WIDE, &[], ON) else { return };
    tmux.says("go");
    tmux.has_shown("on on on");
    tmux.resizes(30, 10);
    tmux.has_shown("on on on on on on on on on on on on on on on on on on on on on on on on on on on on on on");
    tmux.presses(&["C-c"]);
    tmux.shows(&["(stopped)", ">"]);
    tmux.types("0123456789 0123456789 0123456789");
    tmux.shows(&["> 0123456789 0123456789 012345", "6789"]);
    tmux.resizes(80, 20);
    tmux.shows(&["(stopped)", "> 0123456789 0123456789 0123456789"]);
    tmux.types(" and more");
    tmux.shows(&["(stopped)", "> 0123456789 0123456789 0123456789 and more"]);
    tmux.presses(&["C-u"]);
    leaves(&tmux);
}

#[test]
fn a_narrow_terminal_shows_all_of_a_line() {
    let place = Place::new();
    let Some(tmux) = place.talk((20, 10), &[], YES) else { return };
    tmux.types("this line is longer than twenty");
    tmux.shows(&["> this line is longe", "r than twenty"]);
    tmux.presses(&["C-a"]);
    tmux.types("and ");
    tmux.shows(&["> and this line is l", "onger than twenty"]);
    tmux.presses(&["C-e", "BSpace"]);
    tmux.shows(&["> and this line is l", "onger than twent"]);
    tmux.presses(&["Enter"]);
    tmux.shows(&["onger than twent", "yes", ">"]);
    leaves(&tmux);
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_tells_of_dropped_lines() {
    let place = Place::new();
    let Some(tmux) = place.talk(WIDE, &[("TERM", "dumb")], YES) else { return };
    tmux.says("hi");
    tmux.shows(&["> hi", "yes", ">"]);
    tmux.types("half");
    tmux.shows(&["> half"]);
    tmux.presses(&["C-c"]);
    tmux.shows(&["> half^C", "(the line was dropped; Ctrl-D or /exit leaves)", ">"]);
    for line in ["\"\"\"", "one"] {
        tmux.says(line);
        tmux.waits(|screen| matches!(screen, [.., said, last] if said.ends_with(line) && last == "..."));
    }
    tmux.says("two\"\"\"");
    tmux.shows(&["... one", "... two\"\"\"", "yes", ">"]);
    assert_eq!(place.said(&tmux), ["hi", "one\ntwo"]);
    leaves(&tmux);
}

#[test]
fn an_answer_on_a_terminal_without_a_cursor_is_stopped_too() {
    let place = Place::new();
    let Some(tmux) = place.talk(WIDE, &[("TERM", "dumb")], ON) else { return };
    tmux.says("go");
    tmux.has_shown("on on on");
    tmux.presses(&["C-c"]);
    tmux.shows(&["(stopped)", ">"]);
    leaves(&tmux);
}

#[test]
fn without_colours_there_are_none() {
    let place = Place::new();
    let Some(tmux) = place.talk(WIDE, &[("NO_COLOR", "1")], YES) else { return };
    tmux.says("hi");
    tmux.shows(&["> hi", "yes", ">"]);
    let shown = tmux.coloured();
    assert!(shown.contains("yes") && !shown.contains("\x1b["), "{shown:?}");
    leaves(&tmux);
}
