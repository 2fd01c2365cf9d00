//! Answers that follow a grammar or a JSON schema.

use crate::support::{ModelFile, Outcome, refused_by, tool};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn tiny() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    (folder, model)
}

/// The answer of the tiny model, as JSON.
fn answer(model: &Path, flags: &[&str]) -> Value {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-p", "a", "-n", "20", "-t", "1", "--json"]).args(flags);
    serde_json::from_str(&Outcome::from(command.output().unwrap()).ok().stdout).unwrap()
}

#[test]
fn a_grammar_is_followed_to_its_end() {
    let (_folder, model) = tiny();
    for temp in ["0", "3"] {
        let done = answer(&model, &["--temp", temp, "--grammar", r#"root ::= "ab" [c-e]{3} "f""#]);
        let text = done["text"].as_str().or(done["generated"].as_str()).unwrap_or_else(|| panic!("{done}")).to_owned();
        assert_eq!(text.len(), 6, "{done}");
        assert!(
            text.starts_with("ab") && text.ends_with('f') && text[2..5].chars().all(|c| "cde".contains(c)),
            "{done}"
        );
    }
    let cut = answer(&model, &["--grammar", r#"root ::= "a"{100}"#]);
    assert!(cut.to_string().contains("\"length\""), "{cut}");
    let forever = answer(&model, &["--ignore-eos", "--grammar", r#"root ::= "ab"#.replace("ab", "ab\"").as_str()]);
    assert!(forever.to_string().contains("\"eos\""), "{forever}");
}

#[test]
fn grammars_come_from_files_too_and_the_last_flag_counts() {
    let (folder, model) = tiny();
    let file = folder.path().join("g.gbnf");
    std::fs::write(&file, "root ::= \"ccc\" # three\n").unwrap();
    let file = file.to_str().unwrap();
    assert!(answer(&model, &["--grammar", "root ::= \"d\"", "--grammar-file", file]).to_string().contains("\"ccc\""));
    assert!(answer(&model, &["--grammar-file", file, "--grammar", "root ::= \"ddd\""]).to_string().contains("\"ddd\""));
}

#[test]
fn what_cannot_be_followed_is_one_line() {
    let (folder, model) = tiny();
    let refused = |flags: [&str; 2], wanted: &[&str]| {
        refused_by("run", &[&"-m", &model, &"-p", &"a", &"-n", &"5", &flags[0], &flags[1]], wanted);
    };
    refused(["--grammar", "root ::= (\"a\""], &["--grammar: line 1: expected )"]);
    refused(["--grammar", "root ::= root"], &["--grammar: rule root can begin with itself"]);
    refused(["--grammar", "root ::= <nosuch>"], &["--grammar: <nosuch> is not one token"]);
    refused(["--grammar", "root ::= []"], &["--grammar: no text fits"]);
    refused(["--json-schema", "{\"type\": 7}"], &["--json-schema: the schema: type must be"]);
    refused(["-j", "{"], &["--json-schema: EOF"]);
    refused(["--grammar", "root ::= \"a\" []"], &["--grammar: no token of the model can go on here"]);
    let file = folder.path().join("bad.json");
    std::fs::write(&file, "{\"multipleOf\": 1.5}").unwrap();
    refused(["-jf", file.to_str().unwrap()], &["bad.json: the schema: multipleOf"]);
    refused(["--grammar-file", "/nowhere/g.gbnf"], &["/nowhere/g.gbnf"]);
}

#[test]
fn each_answer_of_a_conversation_begins_the_grammar_anew() {
    let (_folder, model) = tiny();
    let mut command = tool("run");
    command.arg("-m").arg(&model).args(["-i", "-n", "9", "-t", "1", "--grammar", "root ::= \"e\" [fg] \"h\""]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a\nb\nc\n").unwrap();
    let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
    let answers: Vec<&str> = outcome.stdout.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(answers.len(), 3, "{}", outcome.stdout);
    assert!(answers.iter().all(|answer| ["efh", "egh"].iter().any(|end| answer.trim().ends_with(end))), "{answers:?}");
}

#[test]
fn what_the_embedded_model_writes_to_a_schema_is_json_of_it() {
    let schema = r#"{"type": "object", "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 10},
        "age": {"type": "integer", "minimum": 1, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["big", "small"]}, "maxItems": 3}
    }, "required": ["name", "age"]}"#;
    for seed in ["1", "2"] {
        let mut command = tool("run");
        command.args(["-p", "A cat:", "--no-display-prompt", "--temp", "1", "-s", seed, "-j", schema, "-n", "400"]);
        let text = Outcome::from(command.output().unwrap()).ok().stdout;
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!((1..=10).contains(&value["name"].as_str().unwrap().chars().count()), "{text}");
        assert!((1..=120).contains(&value["age"].as_u64().unwrap()), "{text}");
        let tags = value["tags"].as_array().cloned().unwrap_or_default();
        assert!(tags.len() <= 3 && tags.iter().all(|tag| tag == "big" || tag == "small"), "{text}");
    }
}
