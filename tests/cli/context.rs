//! What `powerinfer-run` does where the context is full.

use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Value, refused, tool};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}bot:{% endif %}";

fn run(model: &Path, args: &[&str]) -> Command {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-t", "1", "--seed", "5"]).args(args);
    command
}

fn feed(command: &mut Command, input: &str) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Outcome::from(child.wait_with_output().unwrap())
}

/// A model with a context of 64 tokens and a chat template.
fn tiny(folder: &Path) -> std::path::PathBuf {
    let mut file = ModelFile::tiny();
    file.set("tokenizer.chat_template", Value::Str(TEMPLATE.to_owned()));
    file.written(folder, "tiny.gguf")
}

#[test]
fn a_text_ends_with_its_context_unless_it_is_shifted() {
    let story = |flags: &[&str]| {
        let mut command = tool("run");
        command.args(["-p", "Once upon a time", "-c", "32", "-n", "80", "--ignore-eos", "--temp", "0", "-t", "1"]);
        let outcome = Outcome::from(command.arg("--json").args(flags).output().unwrap()).ok();
        let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        (json, outcome.stderr)
    };
    for flags in [&[][..], &["--no-context-shift"], &["--context-shift", "--no-context-shift"]] {
        let (json, stderr) = story(flags);
        assert!(json["stop"] == "context" && !stderr.contains("were dropped"), "{flags:?}: {json} {stderr}");
    }
    for flags in [&["--context-shift"][..], &["--no-context-shift", "--context-shift", "--keep", "-1"]] {
        let (json, stderr) = story(flags);
        assert!(
            json["stop"] == "length" && stderr.contains("tokens were dropped to go on"),
            "{flags:?}: {json} {stderr}"
        );
        let text = json["text"].as_str().unwrap();
        assert!(text.split_whitespace().count() > 40, "{text}");
    }
}

#[test]
fn a_conversation_outlives_its_context() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let lines = "hello there\n".repeat(8);
    for flags in [&["-i"][..], &["-cnv"], &["-i", "--keep", "5"], &["-cnv", "--keep", "5"], &["-i", "--keep", "-1"]] {
        let outcome = feed(&mut run(&model, &[flags, &["-n", "12", "--ignore-eos"]].concat()), &lines).ok();
        let told = outcome.stderr;
        assert!(!told.contains("error: ") && !told.contains("the context is full"), "{flags:?}: {told}");
        assert!(told.matches("(the context was full: the oldest ").count() >= 2, "{flags:?}: {told}");
        let outcome =
            feed(&mut run(&model, &[flags, &["-n", "12", "--ignore-eos", "--no-context-shift"]].concat()), &lines);
        let told = outcome.stderr;
        assert!(told.contains("error: prompt: ") && !told.contains("are forgotten"), "{flags:?}: {told}");
    }
    // What is longer than the context by itself is still refused, and the conversation goes on.
    let long = format!("hi\n{}\nhi\n", "far too long ".repeat(30));
    let told = feed(&mut run(&model, &["-i", "-n", "4", "--ignore-eos"]), &long).ok().stderr;
    assert_eq!(told.matches("error: prompt: ").count(), 1, "{told}");
}

#[test]
fn an_answer_that_nobody_stops_ends_when_it_is_as_long_as_the_context() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let outcome = feed(&mut run(&model, &["-i", "--ignore-eos", "--stats"]), "hello\nhello\n").ok();
    assert_eq!(outcome.stderr.matches("stopped by length").count(), 2, "{}", outcome.stderr);
}

#[test]
fn a_reset_forgets_what_was_dropped_with_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    let flags = ["-cnv", "-n", "12", "--ignore-eos", "--temp", "0"];
    let (long, short) = ("hello there\n".repeat(6) + "/reset\nhello\n", "hello\n");
    let (after, alone) = (feed(&mut run(&model, &flags), &long).ok(), feed(&mut run(&model, &flags), short).ok());
    assert!(after.stdout.ends_with(&alone.stdout), "{} does not end with {}", after.stdout, alone.stdout);
}

#[test]
fn what_cannot_be_shifted_says_why_and_ends_as_without() {
    for (name, why) in [("opt", "learned embeddings of positions"), ("nemotron_h", "recurrent layers")] {
        let model = repository(&format!("tests/golden/arch/{name}.gguf"));
        let flags = ["-c", "24", "-n", "90", "--ignore-eos", "--temp", "0", "-p", "a b"];
        let outcome = |more: &[&str]| Outcome::from(run(&model, &[&flags[..], more].concat()).output().unwrap()).ok();
        let (with, without) = (outcome(&["--context-shift"]), outcome(&[]));
        assert!(with.stderr.contains("note: no context shift") && with.stderr.contains(why), "{}", with.stderr);
        assert!(with.stderr.contains("stopped by context"), "{}", with.stderr);
        assert_eq!(with.stdout, without.stdout);
        let told = feed(&mut run(&model, &["-i", "-c", "24", "-n", "90", "--ignore-eos"]), "a b\n").ok().stderr;
        let note = format!("note: no context shift: {name} has {why}");
        assert!(told.contains(&note) && told.contains("the context is full; /reset starts over"), "{told}");
    }
}

#[test]
fn a_number_of_tokens_to_keep_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path());
    refused(&mut run(&model, &["-p", "a", "--keep", "-2"]), &["--keep -2", "-1 for the whole prompt"]);
}
