//! Conversations with models whose layers look back on a window: what they gave up is computed again where it is wanted.

use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Value, tool};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// LLaMA's golden model with a window of three tokens in every other layer, in which a `z` makes everything NaN.
fn poisoned(folder: &Path) -> PathBuf {
    let mut file = ModelFile::opened(&repository("tests/golden/arch/llama.gguf")).unwrap();
    let found = file.keys.iter().find(|(key, _)| key == "tokenizer.ggml.tokens");
    let Some((_, Value::Strings(tokens))) = found else { panic!("a vocabulary") };
    let rows: Vec<usize> = (0..tokens.len()).filter(|i| tokens[*i].contains('z') || tokens[*i] == "<0x7A>").collect();
    assert!(!rows.is_empty());
    let mut head = file.tensor("token_embd.weight").clone();
    head.name = "output.weight".to_owned();
    let embedding = file.tensor("token_embd.weight");
    let n = 4 * embedding.dims[0];
    for row in rows {
        embedding.bytes[row * n..][..n].chunks_exact_mut(4).for_each(|v| v.copy_from_slice(&f32::NAN.to_le_bytes()));
    }
    file.push(head);
    file.set("llama.attention.sliding_window", Value::U32(3));
    file.set("llama.attention.sliding_window_pattern", Value::U32(2));
    file.written(folder, "model.gguf")
}

/// What `run -i` says when it is given these lines.
pub fn said(model: &Path, n_ubatch: &str, lines: &str) -> Outcome {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-i", "--temp", "0", "-n", "6", "--ignore-eos", "-t", "1", "-ub", n_ubatch]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    Outcome::from(child.wait_with_output().unwrap())
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
