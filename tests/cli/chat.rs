//! Conversations without a terminal: one turn, system messages, stop strings, objects of JSON.

use crate::support::{ModelFile, Outcome, Value, refused, tool, usage_error};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One that a system message and marks reach.
const TEMPLATE: &str =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}";
/// One for users and assistants alone.
const NO_SYSTEM: &str = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
                         [{{ m.role }}]{{ m.content }}{% endfor %}";

fn run(model: &Path, args: &[&str]) -> Command {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-t", "1", "--temp", "0", "--ignore-eos"]).args(args);
    command
}

fn feed(command: &mut Command, input: &str) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it has read all of it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

fn said(model: &Path, args: &[&str]) -> Outcome {
    Outcome::from(run(model, args).output().unwrap()).ok()
}

fn objects(outcome: &Outcome) -> Vec<serde_json::Value> {
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A model with this template; none if it is empty.
fn model(template: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = ModelFile::tiny();
    file.set("llama.context_length", Value::U32(512));
    if !template.is_empty() {
        file.set("tokenizer.chat_template", Value::Str(template.to_owned()));
    }
    let path = file.written(folder.path(), "tiny.gguf");
    (folder, path)
}

#[test]
fn text_stops_before_a_stop_string() {
    // A token of this model is a letter: every stop string comes in several.
    let (_folder, model) = model("");
    let args = ["-p", "hello", "-n", "40", "--no-display-prompt"];
    let text = said(&model, &args).stdout.trim_end_matches('\n').to_owned();
    let chars: Vec<char> = text.chars().collect();
    let stop: String = chars[20..24].iter().collect();
    let before = &text[..text.find(&stop).unwrap()];
    let with = |more: &[&str]| said(&model, &[&args[..], more].concat()).stdout;
    assert_eq!(with(&["-r", &stop]), format!("{before}\n"));
    assert_eq!(with(&["-r", "no such text", "--reverse-prompt", &stop, "-r", "nor this"]), format!("{before}\n"));
    assert_eq!(with(&["-r", "no such text"]), format!("{text}\n"), "what was held back comes in the end");
    let json = |more: &[&str]| objects(&said(&model, &[&args[..4], &["--json"], more].concat())).remove(0);
    let stopped = json(&["-r", "x y z", "-r", &stop]);
    assert_eq!((&stopped["stop"], &stopped["stop_string"]), (&"stop_string".into(), &stop.as_str().into()));
    assert_eq!(stopped["text"], before);
    let whole = json(&["-r", "x y z"]);
    assert_eq!((&whole["stop"], &whole["stop_string"]), (&"length".into(), &serde_json::Value::Null));
    usage_error("run", &["-p", "x", "-r", ""], "--reverse-prompt");
}

#[test]
fn lines_of_plain_text_go_on_behind_a_stop_string() {
    let (_folder, model) = model("");
    let text = said(&model, &["-p", "hello", "-n", "30", "--no-display-prompt"]).stdout;
    let stop: String = text.chars().skip(10).take(3).collect();
    let before = &text[..text.find(&stop).unwrap()];
    let outcome = feed(&mut run(&model, &["-i", "-n", "30", "-r", &stop, "--verbose-prompt"]), "hello\nmore\n").ok();
    assert!(outcome.stdout.starts_with(&format!("{before}\n")), "{outcome:?}");
    assert!(outcome.stderr.contains("prompt: ' more\\n'"), "{}", outcome.stderr);
}

#[test]
fn one_turn_needs_neither_a_terminal_nor_an_end() {
    let (folder, model) = model(TEMPLATE);
    let chat = feed(&mut run(&model, &["-cnv", "-n", "8"]), "hello\n").ok().stdout;
    let once = said(&model, &["-st", "-n", "8", "-p", "hello"]);
    assert_eq!(once.stdout, chat);
    assert!(!once.stderr.contains("/help"), "{}", once.stderr);
    assert_eq!(feed(&mut run(&model, &["-st", "-n", "8"]), "hello\n").ok().stdout, chat);
    // What follows is part of the message.
    let two = feed(&mut run(&model, &["-st", "-n", "8", "--verbose-prompt"]), "hello\nmore\n").ok();
    assert!(two.stderr.contains("[user]hello\\nmore[bot]"), "{}", two.stderr);
    let file = folder.path().join("message.txt");
    std::fs::write(&file, "hello\n").unwrap();
    assert_eq!(said(&model, &["-st", "-n", "8", "-f", file.to_str().unwrap()]).stdout, chat);
    refused(run(&model, &["-st", "-c", "16", "-p"]).arg("word ".repeat(100)), &["prompt: "]);
}

#[test]
fn without_a_template_one_turn_is_plain_text() {
    let (_folder, model) = model("");
    let plain = said(&model, &["-n", "8", "-p", "hello"]).stdout;
    assert_eq!(said(&model, &["-st", "-n", "8", "-p", "hello"]).stdout, plain);
    refused(&mut run(&model, &["-sys", "Be brief.", "-p", "hello"]), &["tiny.gguf", "no chat template", "-sys"]);
}

#[test]
fn prompts_and_pipes_are_plain_text_unless_a_chat_is_asked_for() {
    let (_folder, model) = model(TEMPLATE);
    let plain = said(&model, &["-n", "4", "-p", "hello"]);
    assert!(plain.stdout.starts_with("hello"), "{plain:?}");
    assert_eq!(plain.stderr.matches("note: plain text, as there is a prompt (-cnv").count(), 1, "{}", plain.stderr);
    assert_eq!(feed(&mut run(&model, &["-n", "4"]), "hello\n").ok().stdout, plain.stdout);
    for flag in ["-no-cnv", "--no-conversation"] {
        let outcome = said(&model, &["-n", "4", "-p", "hello", "-cnv", flag]);
        assert_eq!(outcome.stdout, plain.stdout, "{flag}");
        assert!(!outcome.stderr.contains("note: plain text"), "{}", outcome.stderr);
    }
    refused(&mut run(&model, &["-no-cnv", "-sys", "a", "-p", "hello"]), &["-sys", "-no-cnv"]);
    let last_wins = said(&model, &["-no-cnv", "-cnv", "-n", "4", "-p", "hello"]);
    assert!(!last_wins.stdout.starts_with("hello"), "{last_wins:?}");
}

#[test]
fn a_system_message_stands_before_all_others() {
    let (folder, model) = model(TEMPLATE);
    let file = folder.path().join("system.txt");
    std::fs::write(&file, "Be brief.\n").unwrap();
    let prompts = |args: &[&str]| {
        let outcome =
            feed(&mut run(&model, &[&["-n", "1", "--verbose-prompt"], args].concat()), "hi\n/clear\nyou\n").ok();
        let lines = outcome.stderr.lines().filter_map(|l| l.strip_prefix("prompt: ")).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let wanted = ["'[system]Be brief.[user]hi[bot]'", "'[system]Be brief.[user]you[bot]'"];
    assert_eq!(prompts(&["-sys", "Be brief."]), wanted);
    assert_eq!(prompts(&["--system-prompt", "Be brief.", "-cnv"]), wanted);
    assert_eq!(prompts(&["-sysf", file.to_str().unwrap()]), wanted);
    assert_eq!(prompts(&["-sys", "", "-cnv"]), ["'[user]hi[bot]'", "'[user]you[bot]'"]);
    // A value may look like a flag.
    assert_eq!(prompts(&["-sys", "-cnv"])[0], "'[system]-cnv[user]hi[bot]'");
    refused(run(&model, &["-sysf"]).arg(folder.path().join("none.txt")), &["none.txt"]);
    let ids = |args: &[&str]| said(&model, &[&["--tokenize", "-p", "hi"], args].concat()).stdout;
    assert!(ids(&["-sys", "Be brief."]).len() > ids(&["-cnv"]).len());
}

#[test]
fn a_template_that_refuses_system_messages_gets_them_with_the_first_message() {
    let (_folder, model) = model(NO_SYSTEM);
    let args = ["-sys", "Be brief.", "-n", "1", "--verbose-prompt"];
    let outcome = feed(&mut run(&model, &args), "hi\nyou\n").ok();
    assert_eq!(outcome.stderr.matches("takes no system message").count(), 1, "{}", outcome.stderr);
    let prompts: Vec<_> = outcome.stderr.lines().filter(|l| l.starts_with("prompt: ")).collect();
    assert_eq!(prompts[0], "prompt: '[user]Be brief.\\n\\nhi'");
    assert!(prompts[1].starts_with("prompt: '[user]Be brief.\\n\\nhi[assistant]"), "{prompts:?}");
}

#[test]
fn a_chat_prints_one_object_for_each_turn() {
    let (_folder, model) = model(TEMPLATE);
    let args = ["-cnv", "-n", "6"];
    let long = "word ".repeat(200);
    let input = format!("hello\n{long}\nsay \"hi\"\n");
    let text = feed(&mut run(&model, &args), &input).ok().stdout;
    let outcome = feed(&mut run(&model, &[&args[..], &["--json"]].concat()), &input).ok();
    let turns = objects(&outcome);
    assert_eq!(turns.len(), 3, "{outcome:?}");
    let texts: Vec<_> = [&turns[0], &turns[2]].iter().map(|turn| turn["text"].as_str().unwrap()).collect();
    assert_eq!(format!("{}\n{}\n", texts[0], texts[1]), text);
    for (i, turn) in turns.iter().enumerate() {
        assert_eq!(turn["turn"], i + 1);
    }
    assert_eq!((&turns[0]["prompt"], &turns[2]["prompt"]), (&"hello".into(), &"say \"hi\"".into()));
    assert!(turns[1]["error"].as_str().unwrap().starts_with("prompt: "), "{}", turns[1]);
    for key in ["tokens", "n_prompt", "n_gen", "stop", "decode_ts", "seed"] {
        assert!(!turns[2][key].is_null(), "{key} is missing in {}", turns[2]);
    }
    let once = objects(&said(&model, &["-st", "-n", "6", "--json", "-p", "hello"]));
    assert_eq!((once.len(), &once[0]["text"]), (1, &turns[0]["text"]));
}

#[test]
fn what_was_said_is_taken_back_and_answered_again() {
    for template in [TEMPLATE, ""] {
        let (_folder, model) = model(template);
        let form = if template.is_empty() { "-i" } else { "-cnv" };
        let answers = |input: &str| {
            let outcome = feed(&mut run(&model, &[form, "-n", "6", "--json"]), input).ok();
            let texts: Vec<_> =
                objects(&outcome).iter().map(|turn| turn["text"].as_str().unwrap().to_owned()).collect();
            (texts, outcome.stderr)
        };
        let (told, said) = answers("one\ntwo\n/regen\n/undo\ntwo\n/undo\n/undo\none\n/undo\n/undo\n/regen\n");
        assert_eq!(told[2], told[1], "greedy text is the same again");
        assert_eq!(told[3], told[1]);
        assert_eq!(told[4], told[0]);
        assert_ne!(told[0], told[1]);
        assert!(
            said.contains("/undo: nothing has been said") && said.contains("/regen: nothing has been said"),
            "{said}"
        );
    }
}
