//! The trained model with experts: its stories read as English, its neurons rest, and its experts are chosen unequally.

use crate::support::{Outcome, tool};
use serde_json::Value;
use std::path::PathBuf;

fn model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/tiny-stories-experts-f16.gguf")
}

/// A story that the model has not seen.
const STORY: &str = include_str!("../../src/measure/story.txt");

/// What `bench --perplexity` says of the first tokens of the story.
fn scored(mode: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let story = folder.path().join("story.txt");
    std::fs::write(&story, STORY).unwrap();
    let mut bench = tool("bench");
    bench.arg("-m").arg(model()).arg("--perplexity").arg(story).args(["-c", "128", "--chunks", "2", "-t", "2"]);
    let out = Outcome::from(bench.args(["--cache-type", "f32", "--mode", mode, "-o", "json"]).output().unwrap()).ok();
    serde_json::from_str::<Value>(&out.stdout).unwrap()[0].clone()
}

#[test]
fn stories_are_english_and_neurons_rest() {
    let (dense, exact) = (scored("dense"), scored("exact"));
    let perplexity = |row: &Value| row["perplexity"].as_f64().unwrap();
    assert_eq!(perplexity(&dense), perplexity(&exact));
    assert!(perplexity(&dense) < 25.0, "{dense}");
    println!("{exact}");
}
