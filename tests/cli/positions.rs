//! Models with learned positions: contexts end with the table, in every command, and prompts begin with BOS where the file
//! wants it.

use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Value, refused_by, tool};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

/// Positions of the golden model.
const N: &str = "position_embd.weight has 96 positions";

fn opt() -> PathBuf {
    repository("tests/golden/arch/opt.gguf")
}

#[test]
fn contexts_that_are_longer_than_the_table_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let story = folder.path().join("story.txt");
    std::fs::write(&story, "once upon a time ".repeat(40)).unwrap();
    let out = folder.path().join("out.profile");
    let model = opt();
    let long = &[N, "a context of 97 tokens"];
    refused_by("run", &[&"-m", &model, &"-p", &"th", &"-n", &"1", &"-c", &"97"], long);
    refused_by("run", &[&"-m", &model, &"-i", &"-c", &"97"], long);
    refused_by("bench", &[&"-m", &model, &"-p", &"97", &"-n", &"0"], long);
    refused_by("bench", &[&"-m", &model, &"-p", &"0", &"-n", &"97"], long);
    refused_by("bench", &[&"-m", &model, &"--perplexity", &story, &"-c", &"97"], long);
    refused_by("profile", &[&"-m", &model, &"-f", &story, &"-o", &out, &"-c", &"97"], long);
    assert!(!out.exists());
    // As long as it is, the table is a context.
    for args in [&["-p", "96", "-n", "0"][..], &["-p", "64", "-n", "16"]] {
        Outcome::from(tool("bench").arg("-m").arg(&model).args(args).args(["-r", "1"]).output().unwrap()).ok();
    }
    let mut command = tool("bench");
    command.arg("-m").arg(&model).arg("--perplexity").arg(&story).args(["-c", "96"]);
    Outcome::from(command.output().unwrap()).ok();
}

#[test]
fn a_text_ends_with_the_table() {
    for args in [&["-n", "-1"][..], &["-n", "500"], &["-n", "-1", "-c", "0"], &["-n", "-1", "-c", "96"]] {
        let mut command = tool("run");
        command.arg("-m").arg(opt()).args(["-p", "the dog", "--ignore-eos", "--temp", "0"]).args(args);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        assert!(outcome.stdout.starts_with("the dog"), "{args:?}: {}", outcome.stdout);
        assert!(!outcome.stderr.contains("warning"), "{args:?}: {}", outcome.stderr);
    }
    let long = "x".repeat(200);
    refused_by(
        "run",
        &[&"-m", &opt(), &"-p", &long, &"-n", &"1"],
        &["prompt: 201 tokens", "96", "no further positions"],
    );
}

#[test]
fn a_conversation_goes_on_until_the_table_ends() {
    let mut command = tool("run");
    command.arg("-m").arg(opt()).args(["-i", "-n", "200", "--ignore-eos", "--temp", "0"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let turns = "a dog\nand a cat\nonce more\n/reset\nhi\n";
    // It may end before it has read all of it.
    let _ = child.stdin.take().unwrap().write_all(turns.as_bytes());
    let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
    // In the first turn, and again behind /reset; what stands between has no room.
    let times = |what: &str| outcome.stderr.matches(what).count();
    assert_eq!(times("the context is full; /reset starts over\n"), 2, "{}", outcome.stderr);
    assert_eq!(times("shorten it: the model has no further positions\n"), 2, "{}", outcome.stderr);
}

#[test]
fn prompts_begin_with_bos_unless_the_file_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let ids = |change: &dyn Fn(&mut ModelFile)| {
        let mut model = ModelFile::opened(&opt()).unwrap();
        change(&mut model);
        let mut command = tool("run");
        command.arg("-m").arg(model.written(folder.path(), "model.gguf")).args(["--tokenize", "-p", "th"]);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        outcome.stdout.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    const KEY: &str = "tokenizer.ggml.add_bos_token";
    assert_eq!(ids(&|_| ()), ["258", "256"]);
    assert_eq!(
        ids(&|file| {
            file.remove(KEY);
        }),
        ["258", "256"]
    );
    assert_eq!(
        ids(&|file| {
            file.set(KEY, Value::Bool(false));
        }),
        ["256"]
    );
    // Other architectures with the same tokenizer have none.
    let arcee = ModelFile::opened(&repository("tests/golden/arch/arcee.gguf")).unwrap();
    let without = |file: &mut ModelFile| {
        *file = arcee.clone();
        file.set("tokenizer.ggml.pre", Value::Str("gpt-2".to_owned()));
    };
    assert_eq!(ids(&without), ["256"]);
}
