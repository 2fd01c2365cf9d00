//! `powerinfer-bench`: a row per test, mode and thread count, in every format.

mod common;

use common::{Outcome, Tiny, refused_by, tool};
use serde_json::Value;
use std::path::Path;

const KEYS: [&str; 11] = [
    "test",
    "n_prompt",
    "n_gen",
    "mode",
    "n_threads",
    "avg_ts",
    "stddev_ts",
    "bytes_per_token",
    "ffn_density",
    "perplexity",
    "stderr",
];

fn bench(model: Option<&Path>, args: &[&str]) -> String {
    let mut command = tool("bench");
    if let Some(model) = model {
        command.arg("-m").arg(model);
    }
    Outcome::from(command.args(args).output().unwrap()).ok().stdout
}

#[test]
fn the_embedded_model_gives_a_row_per_test_and_mode() {
    let out = bench(None, &["-p", "8,16", "-n", "4", "-r", "2", "-t", "1", "-o", "json", "--mode", "dense,exact"]);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(rows.len(), 6, "{out}");
    for row in &rows {
        for key in KEYS {
            assert!(row.get(key).is_some(), "{key} is missing in {row}");
        }
        assert!(row["avg_ts"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["samples_ts"].as_array().unwrap().len(), 2, "{row}");
    }
    let names: Vec<_> = rows.iter().map(|r| (r["test"].as_str().unwrap(), r["mode"].as_str().unwrap())).collect();
    let expected = [("pp8", "dense"), ("pp16", "dense"), ("tg4", "dense"), ("pp8", "exact"), ("pp16", "exact")];
    assert_eq!(names[..5], expected);
    let read = |i: usize| rows[i]["bytes_per_token"].as_f64().unwrap();
    assert!(read(5) < read(2), "exact decode of a variant reads less than dense: {} and {}", read(5), read(2));
}

#[test]
fn every_format_has_a_line_per_row() {
    let folder = tempfile::tempdir().unwrap();
    let model = Tiny::new().written(folder.path(), "tiny.gguf");
    let args = ["-p", "8,16", "-n", "4", "-r", "2", "-t", "1,2", "--mode", "dense,exact"];
    let out = |format: &str| bench(Some(&model), &[&args[..], &["-o", format]].concat());
    let rows: Vec<Value> = serde_json::from_str(&out("json")).unwrap();
    assert_eq!(rows.len(), 12);
    let jsonl = out("jsonl");
    assert_eq!(jsonl.lines().count(), 12);
    jsonl.lines().for_each(|l| assert!(serde_json::from_str::<Value>(l).unwrap().is_object()));
    let csv = out("csv");
    assert_eq!(csv.lines().count(), 13);
    assert!(KEYS.iter().all(|k| csv.lines().next().unwrap().split(',').any(|c| c == *k)), "{csv}");
    let sql = out("sql");
    assert_eq!(sql.matches("INSERT INTO").count(), 12);
    assert_eq!(sql.matches("CREATE TABLE").count(), 1);
    let md = out("md");
    assert_eq!(md.lines().count(), 14);
    assert!(md.lines().all(|l| l.starts_with('|') && l.ends_with('|')), "{md}");
}

#[test]
fn perplexity_is_a_row_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let model = Tiny::new().written(folder.path(), "tiny.gguf");
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "once upon a time there was a dog\n".repeat(8)).unwrap();
    let out = bench(Some(&model), &["--perplexity", text.to_str().unwrap(), "-c", "32", "-t", "1", "-o", "json"]);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(rows.len(), 1, "{out}");
    assert_eq!(rows[0]["test"], "ppl");
    assert!(rows[0]["perplexity"].as_f64().unwrap() > 1.0 && rows[0]["stderr"].is_number(), "{out}");
    std::fs::write(&text, "").unwrap();
    refused_by("bench", &[&"-m", &model, &"--perplexity", &text, &"-c", &"32"], &["text.txt"]);
    std::fs::write(&text, "too short").unwrap();
    refused_by("bench", &[&"-m", &model, &"--perplexity", &text, &"-c", &"32"], &["tokens"]);
    for n_ctx in ["0", "1"] {
        std::fs::write(&text, "once upon a time there was a dog").unwrap();
        refused_by("bench", &[&"-m", &model, &"--perplexity", &text, &"-c", &n_ctx], &[n_ctx]);
    }
}

#[test]
fn texts_to_feed_that_are_missing_or_empty_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new();
    let model = tiny.written(folder.path(), "tiny.gguf");
    let empty = folder.path().join("empty.txt");
    std::fs::write(&empty, "").unwrap();
    let args: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"-p", &"4", &"-n", &"0"];
    let with = |model: &Path, text: &Path| {
        let mut command = tool("bench");
        command.args(args.map(|a| a.as_ref())).arg("-m").arg(model).arg("--text").arg(text);
        command
    };
    common::refused(&mut with(&model, Path::new("/no/such/text")), &["/no/such/text", "No such file"]);
    common::refused(&mut with(&model, &empty), &["empty.txt", "empty"]);
    tiny.remove("tokenizer.");
    let model = tiny.written(folder.path(), "none.gguf");
    common::refused(&mut with(&model, Path::new("real")), &["none.gguf", "--text random"]);
    Outcome::from(with(&model, Path::new("random")).output().unwrap()).ok();
}
