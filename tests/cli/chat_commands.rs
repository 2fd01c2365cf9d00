//! Commands of a conversation, through a pipe.

use crate::support::{ModelFile, Outcome, Value, names_in, tool};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const TEMPLATE: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}";

struct Talk {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Talk {
    fn new(template: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = ModelFile::tiny();
        file.set("llama.context_length", Value::U32(512));
        file.set("tokenizer.chat_template", Value::Str(template.to_owned()));
        let model = file.written(folder.path(), "tiny.gguf");
        Self { folder, model }
    }

    /// `input` with `@` for the folder; in the form that `form` asks for.
    fn hears(&self, form: &str, input: &str) -> Outcome {
        let mut command = tool("run");
        command.arg("-m").arg(&self.model).args([form, "-n", "3", "-t", "1", "--temp", "0", "-s", "1", "--ignore-eos"]);
        command.arg("--verbose-prompt").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = input.replace('@', &self.folder.path().display().to_string());
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Outcome::from(child.wait_with_output().unwrap()).ok()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn prompts(outcome: &Outcome) -> Vec<&str> {
    outcome.stderr.lines().filter_map(|line| line.strip_prefix("prompt: ")).collect()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_conversation_is_saved_and_gone_on_with() {
    let talk = Talk::new(TEMPLATE);
    let first = talk.hears("-cnv", "one\n/system Be brief.\n/save @/talk.json\n");
    assert!(first.stderr.contains("(3 messages in "), "{}", first.stderr);
    let saved = json(&talk.at("talk.json"));
    let answer = first.stdout.trim_end_matches('\n');
    assert_eq!(
        saved,
        serde_json::json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "one" },
            { "role": "assistant", "content": answer },
        ])
    );
    let later = talk.hears("-cnv", "other\n/load @/talk.json\n/system\ntwo\n/regen\n/undo\n/save @/talk.json\n");
    let wanted = format!("'[system]Be brief.[user]one[assistant]{answer}[user]two'");
    assert_eq!(prompts(&later)[1..], [&wanted[..], &wanted], "{}", later.stderr);
    assert!(later.stderr.contains("system: Be brief."), "{}", later.stderr);
    assert_eq!(json(&talk.at("talk.json")), saved);
}

#[test]
fn nothing_is_written_over_what_is_no_conversation() {
    let talk = Talk::new(TEMPLATE);
    std::fs::write(talk.at("notes.txt"), "precious").unwrap();
    let before = std::fs::read(&talk.model).unwrap();
    let outcome =
        talk.hears("-cnv", "one\n/save @/notes.txt\n/save @/tiny.gguf\n/save @\n/save @/none/x.json\n/save\n");
    assert_eq!(outcome.stderr.matches("is no conversation").count(), 2, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("/save: names no file"), "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(talk.at("notes.txt")).unwrap(), "precious");
    assert!(std::fs::read(&talk.model).unwrap() == before);
    assert_eq!(names_in(talk.folder.path()), ["notes.txt", "tiny.gguf"]);
}

#[test]
fn a_bad_conversation_leaves_the_old_one() {
    let talk = Talk::new(
        "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('never') }}{% endif %}[{{ m.content }}]{% endfor %}",
    );
    let files = [
        ("none.json", None, crate::support::NO_SUCH_FILE),
        ("words.json", Some("words"), "is no JSON"),
        ("role.json", Some(r#"[{"role": "tool", "content": "x"}]"#), "message 1: role \"tool\""),
        ("bad.json", Some(r#"[{"role": "user", "content": "bad"}]"#), "never"),
    ];
    let mut input = "one\n".to_owned();
    for (name, text, _) in files {
        if let Some(text) = text {
            std::fs::write(talk.at(name), text).unwrap();
        }
        input += &format!("/load @/{name}\n");
    }
    let outcome = talk.hears("-cnv", &(input + "/load @\ntwo\n"));
    for (name, _, wanted) in files {
        let line = outcome.stderr.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.starts_with("/load: ") && line.contains(wanted), "{line}");
    }
    let last = prompts(&outcome)[1];
    assert!(last.starts_with("'[one][") && last.ends_with("][two]'"), "{last}");
}

#[test]
fn what_a_file_ends_with_is_answered() {
    let talk = Talk::new(TEMPLATE);
    std::fs::write(talk.at("ask.json"), r#"{"messages": [{"role": "user", "content": "hi"}]}"#).unwrap();
    let outcome = talk.hears("-cnv", "/load @/ask.json\n/regen\n");
    assert_eq!(prompts(&outcome), ["'[user]hi'"], "{}", outcome.stderr);
    assert_eq!(outcome.stdout.lines().count(), 1, "{}", outcome.stdout);
}

#[test]
fn a_file_is_read_before_what_is_said_next() {
    let talk = Talk::new(TEMPLATE);
    std::fs::write(talk.at("a.txt"), "first\nsecond\n\n").unwrap();
    std::fs::write(talk.at("b.txt"), "third").unwrap();
    std::fs::write(talk.at("empty.txt"), "\n").unwrap();
    std::fs::write(talk.at("latin.txt"), b"\xff").unwrap();
    let input =
        "/read @/a.txt\n/read @/b.txt\n/read @/none.txt\n/read @/empty.txt\n/read @/latin.txt\n/read @\nwhat?\nmore\n";
    let outcome = talk.hears("-cnv", input);
    let prompts = prompts(&outcome);
    assert_eq!(prompts[0], "'[user]first\\nsecond\\n\\nthird\\n\\nwhat?'", "{}", outcome.stderr);
    assert!(prompts[1].ends_with("[user]more'"), "{prompts:?}");
    for wanted in ["none.txt: ", crate::support::NO_SUCH_FILE, "empty.txt: is empty", "latin.txt: is not UTF-8"] {
        assert!(outcome.stderr.contains(wanted), "{wanted}: {}", outcome.stderr);
    }
    let dropped = talk.hears("-i", "/read @/b.txt\n/clear\nwhat?\n");
    assert!(dropped.stderr.contains("prompt: 'what?'"), "{}", dropped.stderr);
}

#[test]
fn the_system_message_can_be_changed_and_taken_away() {
    let talk = Talk::new(TEMPLATE);
    let input = "/system\n/system Be brief.\none\n/clear\n/system \"\"\"\nBe\nlong.\n\"\"\"\ntwo\n/clear\n/system none\nthree\n";
    let outcome = talk.hears("-cnv", input);
    assert_eq!(
        prompts(&outcome),
        ["'[system]Be brief.[user]one'", "'[system]Be\\nlong.[user]two'", "'[user]three'"],
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("system: none"), "{}", outcome.stderr);
    for command in ["/system x", "/save @/x.json", "/load @/x.json"] {
        let outcome = talk.hears("-i", &format!("{command}\n"));
        assert!(outcome.stderr.contains("plain text has no"), "{command}: {}", outcome.stderr);
    }
}

#[test]
fn blocks_are_messages_of_several_lines() {
    let talk = Talk::new(TEMPLATE);
    let outcome = talk.hears("-cnv", "\"\"\"one\n/two\n\n\"\"\"\n/clear\n\"\"\"/exit\"\"\"\n\"\"\"\nnever sent\n");
    let prompts = prompts(&outcome);
    assert_eq!(prompts, ["'[user]one\\n/two\\n'", "'[user]/exit'"], "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the block has no end and was not sent"), "{}", outcome.stderr);
}

#[test]
fn commands_with_more_than_they_take_are_unknown() {
    let talk = Talk::new(TEMPLATE);
    let outcome = talk.hears("-cnv", "/undo it\n/exit now\n/help me\n/what\n/stats\n");
    assert_eq!(outcome.stderr.matches("unknown command").count(), 4, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("0 of 512 tokens"), "{}", outcome.stderr);
}

#[test]
fn quiet_leaves_only_the_text() {
    let talk = Talk::new(TEMPLATE);
    let mut command = tool("run");
    command.arg("-m").arg(&talk.model).args(["-q", "-p", "hi", "-n", "3", "-t", "1", "--temp", "0", "--ignore-eos"]);
    let quiet = Outcome::from(command.output().unwrap()).ok();
    assert_eq!(quiet.stderr, "");
    assert!(quiet.stdout.starts_with("hi"), "{quiet:?}");
    let loud = Outcome::from(command.arg("-c").arg("9999").output().unwrap()).ok();
    assert!(loud.stderr.starts_with("warning: -c 9999"), "{}", loud.stderr);
    assert_eq!(loud.stderr.lines().count(), 1, "{}", loud.stderr);
}

#[test]
fn parameters_of_sampling_are_set_by_the_names_of_their_flags() {
    let talk = Talk::new(TEMPLATE);
    let input = "/set\none\n/set temp 5\n/set --top_k=0\n/set top-p 1\n/set min-p 0\n/set temp\n/undo\none\n/set temp 0\n/undo\none\n";
    let outcome = talk.hears("-cnv", input);
    let answers: Vec<_> = outcome.stdout.split_inclusive('\n').collect();
    let (first, last) = (answers[0], answers[answers.len() - 1]);
    assert_eq!(first, last, "greedy again: {outcome:?}");
    assert_ne!(outcome.stdout, format!("{first}{first}{first}"), "hot text differs");
    for wanted in ["temp                   0\n", "top-k                  40\n", "temp 5\n", "top-k 0\n", "top-p 1\n"] {
        assert!(outcome.stderr.contains(wanted), "{wanted:?}: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("/set: "), "{}", outcome.stderr);
    let bad =
        talk.hears("-cnv", "/set heat 1\n/set temp hot\n/set temp -1\n/set top-p 2\n/set model x\n/set n-predict 5\n");
    let lines: Vec<_> = bad.stderr.lines().filter(|line| line.starts_with("/set: ")).collect();
    assert_eq!(lines.len(), 6, "{}", bad.stderr);
    assert!(lines[0].contains("heat: is no parameter of sampling") && lines[1].contains("hot"), "{lines:?}");
    assert!(lines[2].contains("--temp -1") && lines[3].contains("--top-p 2"), "{lines:?}");
}

#[test]
fn layers_that_recur_go_back_as_others_do() {
    let model = crate::support::real::repository("tests/golden/arch/nemotron_h.gguf");
    for n_ubatch in ["1", "512"] {
        let mut command = tool("run");
        command.arg("-m").arg(&model).args(["-i", "--json", "--temp", "0", "-n", "6", "--ignore-eos", "-t", "1"]);
        command.args(["-ub", n_ubatch]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = b"hello there\nand on\n/regen\n/undo\nand on\n/undo\n/undo\nhello there\n";
        child.stdin.take().unwrap().write_all(input).unwrap();
        let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
        let told = outcome.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let texts: Vec<_> = told.map(|turn| turn["text"].clone()).collect();
        assert_eq!(texts.len(), 5, "{outcome:?}");
        assert_eq!([&texts[2], &texts[3], &texts[4]], [&texts[1], &texts[1], &texts[0]], "-ub {n_ubatch}");
    }
}
