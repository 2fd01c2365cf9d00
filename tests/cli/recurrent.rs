//! Conversations with models whose layers recur: their states do not forget single tokens, and nobody notices.

use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, tool};
use crate::windows::said;
use std::path::{Path, PathBuf};

fn golden() -> ModelFile {
    ModelFile::opened(&repository("tests/golden/arch/nemotron_h.gguf")).unwrap()
}

/// The golden model, in which a `z` makes everything NaN.
fn poisoned(folder: &Path) -> PathBuf {
    let mut file = golden();
    let embedding = file.tensor("token_embd.weight");
    let n = 4 * embedding.dims[0];
    // Printable bytes are tokens in their order, from '!' on.
    let row = usize::from(b'z');
    embedding.bytes[row * n..][..n].chunks_exact_mut(4).for_each(|v| v.copy_from_slice(&f32::NAN.to_le_bytes()));
    file.written(folder, "poisoned.gguf")
}

#[test]
fn a_conversation_goes_the_same_way_after_it_was_forgotten() {
    let model = repository("tests/golden/arch/nemotron_h.gguf");
    let lines = "hello there my friend, how do you do today\nand on\nwhat else\n";
    for n_ubatch in ["1", "7", "512"] {
        let outcome = said(&model, n_ubatch, &format!("{lines}/reset\n{lines}")).ok();
        let answers: Vec<&str> = outcome.stdout.split_inclusive('\n').collect();
        assert!(!outcome.stderr.contains("error"), "{}", outcome.stderr);
        let (first, second) = outcome.stdout.split_at(outcome.stdout.len() / 2);
        assert!(answers.len() >= 6 && first == second, "-ub {n_ubatch}: {first:?}, then {second:?}");
    }
}

#[test]
fn a_turn_that_fails_forgets_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let model = poisoned(folder.path());
    for n_ubatch in ["1", "512"] {
        let (with, without) = (
            said(&model, n_ubatch, "hello there my friend\nlazy dogs, z\nand on\n"),
            said(&model, n_ubatch, "hello there my friend\nand on\n"),
        );
        assert!(with.stderr.contains("no token can be sampled"), "{}", with.stderr);
        let answers = |outcome: &Outcome| outcome.stdout.lines().map(str::to_owned).collect::<Vec<_>>();
        let (with, without) = (answers(&with), answers(&without));
        assert_eq!(with.last(), without.last(), "-ub {n_ubatch}: {with:?}, {without:?}");
    }
}

#[test]
fn windows_of_a_text_begin_with_an_empty_state() {
    let folder = tempfile::tempdir().unwrap();
    let story = folder.path().join("story.txt");
    let perplexity = |text: &str, mode: &str| {
        std::fs::write(&story, text).unwrap();
        let mut command = tool("bench");
        command.arg("-m").arg(repository("tests/golden/arch/nemotron_h.gguf")).arg("--perplexity").arg(&story);
        command.args(["-c", "16", "-t", "1", "--cache-type", "f32", "--mode", mode, "-o", "json"]);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        rows[0]["perplexity"].as_f64().unwrap()
    };
    let (one, other) = ("a dog ran along ", "up and downhill.");
    for mode in ["dense", "exact"] {
        let apart = (perplexity(one, mode).ln() + perplexity(other, mode).ln()) / 2.0;
        let together = perplexity(&format!("{one}{other}"), mode).ln();
        assert!((apart - together).abs() < 1e-6, "{mode}: {apart} and {together}");
    }
}

#[test]
fn bytes_of_a_token_count_states() {
    let bytes = |file: &ModelFile| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = tool("bench");
        command.arg("-m").arg(file.written(folder.path(), "model.gguf"));
        command.args(["-p", "0", "-n", "4", "-r", "1", "-t", "1", "--mode", "dense", "-o", "json"]);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        rows[0]["bytes_per_token"].as_f64().unwrap()
    };
    let file = golden();
    let weights: usize = file.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    // One row of the embedding of 262, and three layers whose state of 3 x 36 + 12 x 6 floats is read and written.
    let embedding = 4 * 16 * (262 - 1);
    assert_eq!(bytes(&file) as usize, weights - embedding + 2 * 3 * 4 * (3 * 36 + 12 * 6));
}
