//! `powerinfer-bench`: a row per test, mode and thread count, in every format.

use crate::support::{ModelFile, Outcome, refused, refused_by, tool, usage_error};
use powerinfer::measure::STORY;
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
fn a_description_of_a_machine_is_read_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("machine.toml");
    std::fs::write(&path, "by hand").unwrap();
    for flag in ["--measure-hardware", "--hardware"] {
        refused_by("bench", &[&flag, &path, &"-p", &"4", &"-n", &"0"], &["machine.toml"]);
    }
    refused_by("bench", &[&"--measure-hardware", &path], &["already exists", "name another file"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "by hand");
}

#[test]
fn every_format_has_a_line_per_row() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
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
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
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
    let mut tiny = ModelFile::tiny();
    let model = tiny.written(folder.path(), "tiny.gguf");
    let empty = folder.path().join("empty.txt");
    std::fs::write(&empty, "").unwrap();
    let args: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"-p", &"4", &"-n", &"0"];
    let with = |model: &Path, text: &Path| {
        let mut command = tool("bench");
        command.args(args.map(|a| a.as_ref())).arg("-m").arg(model).arg("--text").arg(text);
        command
    };
    refused(&mut with(&model, Path::new("/no/such/text")), &["/no/such/text", crate::support::NO_SUCH_FILE]);
    refused(&mut with(&model, &empty), &["empty.txt", "empty"]);
    tiny.remove("tokenizer.");
    let model = tiny.written(folder.path(), "none.gguf");
    refused(&mut with(&model, Path::new("real")), &["none.gguf", "--text random"]);
    Outcome::from(with(&model, Path::new("random")).output().unwrap()).ok();
}

/// Rows of `--kl` over the built-in story.
fn kl_rows(args: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("story.txt");
    std::fs::write(&text, STORY).unwrap();
    let fixed = ["--kl", text.to_str().unwrap(), "-c", "64", "--chunks", "2", "-t", "1", "-o", "json"];
    serde_json::from_str(&bench(None, &[&fixed[..], args].concat())).unwrap()
}

#[test]
fn dense_and_exact_do_not_diverge_from_dense_at_all() {
    let rows = kl_rows(&["--mode", "dense,exact"]);
    assert_eq!(rows.len(), 2, "{rows:?}");
    for (row, mode) in rows.iter().zip(["dense", "exact"]) {
        assert_eq!((row["test"].as_str(), row["mode"].as_str()), (Some("kl"), Some(mode)));
        for name in ["kl_mean", "kl_stderr", "kl_median", "kl_90", "kl_99_9", "kl_max", "dp_mean", "dp_rms"] {
            assert_eq!(row[name].as_f64(), Some(0.0), "{name}: {row}");
        }
        for name in ["same_top", "perplexity_ratio"] {
            assert_eq!(row[name].as_f64(), Some(1.0), "{name}: {row}");
        }
        assert_eq!([&row["kl_tokens"], &row["n_gen"]].map(Value::as_u64), [Some(2 * 31), Some(2 * 64)], "{row}");
        assert!(row["perplexity"].as_f64().unwrap() > 1.0 && row["perplexity"] == row["base_perplexity"], "{row}");
        assert_eq!(row["kl_base"], row["model_filename"]);
    }
}

#[test]
fn the_file_that_was_quantized_can_be_the_reference() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-stories-f16.gguf");
    let rows = kl_rows(&["--mode", "dense,exact", "--kl-base", source.to_str().unwrap()]);
    let (row, other) = (&rows[0], &rows[1]);
    let number = |name: &str| row[name].as_f64().unwrap();
    // Q8_0 of F16: little, and not nothing.
    assert!(number("kl_mean") > 1e-6 && number("kl_mean") < 0.01, "{row}");
    assert!(number("kl_stderr") > 0.0 && number("kl_max") > number("kl_99"), "{row}");
    assert!(number("same_top") > 0.8 && number("perplexity_ratio") != 1.0 && number("dp_rms") > 0.0, "{row}");
    assert!((number("perplexity") / number("base_perplexity") - number("perplexity_ratio")).abs() < 1e-9, "{row}");
    assert!(row["kl_base"].as_str().unwrap().contains("tiny-stories-f16.gguf"), "{row}");
    // The modes have one text, one reference and the same logits.
    for name in ["kl_mean", "kl_99_9", "perplexity", "dp_mean"] {
        assert_eq!(row[name], other[name], "{name}");
    }
}

#[test]
fn divergence_is_shown_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "once upon a time there was a dog\n".repeat(8)).unwrap();
    let out = |format: &str| {
        bench(
            Some(&model),
            &["--kl", text.to_str().unwrap(), "-c", "32", "-t", "1", "-n", "4", "-r", "1", "-o", format],
        )
    };
    let md = out("md");
    assert_eq!(md.lines().count(), 4, "{md}");
    assert!(md.contains(" KL from dense of |") && md.contains(" 0 ± 0 |"), "{md}");
    assert!(md.contains("| 1.000000 ± 0.000000 |") && md.contains("| 100.000 ± 0.000 % |"), "{md}");
    let csv = out("csv");
    assert!(csv.lines().next().unwrap().contains(",kl_mean,kl_stderr,"), "{csv}");
    assert_eq!(out("jsonl").lines().filter(|l| l.contains("\"kl_mean\":0.0")).count(), 1);
    assert!(out("sql").contains("kl_mean REAL"));
}

#[test]
fn what_cannot_be_compared_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = ModelFile::tiny();
    let model = tiny.written(folder.path(), "tiny.gguf");
    let text = folder.path().join("text.txt");
    let refused = |wanted: &[&str]| refused_by("bench", &[&"-m", &model, &"--kl", &text, &"-c", &"32"], wanted);
    refused(&["text.txt", crate::support::NO_SUCH_FILE]);
    std::fs::write(&text, "").unwrap();
    refused(&["text.txt", "-c"]);
    std::fs::write(&text, "too short").unwrap();
    refused(&["text.txt", "tokens", "one window of 32", "-c"]);
    std::fs::write(&text, [&b"once upon a time"[..], b"\xff", &[b'a'; 40]].concat()).unwrap();
    refused(&["text.txt", "not UTF-8 (byte 16)"]);
    std::fs::write(&text, "once upon a time there was a dog").unwrap();
    refused_by("bench", &[&"-m", &model, &"--kl", &text, &"-c", &"16", &"--chunks", &"0"], &["text.txt", "--chunks 0"]);
    usage_error("bench", &["--kl-base", "a.gguf"], "--kl");

    let against = |tiny: &ModelFile, name: &str, wanted: &[&str]| {
        let base = tiny.written(folder.path(), name);
        refused_by("bench", &[&"-m", &model, &"--kl", &text, &"-c", &"16", &"--kl-base", &base], wanted);
    };
    refused_by("bench", &[&"--kl", &text, &"-c", &"8", &"--kl-base", &model], &["tiny.gguf", "embedded", "vocabulary"]);
    let mut other = tiny.clone();
    other.rename_token(270, "!");
    against(&other, "other.gguf", &["other.gguf", "tiny.gguf", "token 270", "\"!\"", "vocabulary"]);
    against(tiny.clone().remove("tokenizer."), "none.gguf", &["none.gguf", "tokenizer"]);
    tiny.poke("output_norm.weight", 0, f32::NAN);
    against(&tiny, "nan.gguf", &["text.txt", "the reference's predictions are not finite"]);
}

#[test]
fn parts_can_be_taken_away_to_see_what_they_are_worth() {
    let common = ["-p", "0", "-n", "4", "-r", "1", "-t", "1", "-o", "json"];
    let row = |args: &[&str]| -> Value {
        let rows: Vec<Value> = serde_json::from_str(&bench(None, &[&common, args].concat())).unwrap();
        rows[0].clone()
    };
    let exact = row(&[]);
    for hot in ["none", "random", "profile"] {
        let other = row(&["--hot", hot]);
        assert_eq!((other["hot"].as_str(), other["mode"].as_str()), (Some(hot), Some("exact")));
        // Rounding of random's sums may move a neuron across zero.
        let density = |row: &Value| row["ffn_density"].as_f64().unwrap();
        assert!((density(&other) / density(&exact) - 1.0).abs() < 0.01, "{other}");
    }
    assert_eq!(row(&["--hot", "profile", "--mode", "dense"])["hot"], "none");
    assert_eq!(row(&["--mode", "predicted", "--predictor", "none"])["mode"], "exact");
}
