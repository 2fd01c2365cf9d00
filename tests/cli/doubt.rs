//! A wrong activation function is noticed, and a right one is not.

use crate::support::{ModelFile, Outcome, Value, model_and_text, patch_key, real, tool};
use std::path::Path;

const STORY: &str =
    "Once upon a time there was a little girl named Mia. She had a red ball and she loved to play with it in the park.";

/// What `run` says of a prompt besides its text.
fn run(model: &Path, prompt: &str, flags: &[&str]) -> String {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(["-p", prompt, "-n", "1", "--temp", "0", "-t", "1"]).args(flags);
    Outcome::from(command.output().unwrap()).ok().stderr
}

fn doubts(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains("does not fit")).collect()
}

/// Exactly one line, which names the file, what is wrong and what helps.
#[track_caller]
fn assert_doubts(stderr: &str, with: &str, better: &str) {
    let found = doubts(stderr);
    assert_eq!(found.len(), 1, "{stderr}");
    for part in ["warning: ", &format!("activation {with} "), &format!("--activation {better} ")] {
        assert!(found[0].contains(part), "\"{part}\" is missing in: {}", found[0]);
    }
}

/// After each letter comes the next. Only gates below zero say so: with ReLU nothing is known.
fn alphabet() -> ModelFile {
    const N: usize = 288;
    let (first, last) = (260, 285);
    let mut model = ModelFile::layered(1, N, N);
    let n_vocab = last + 1;
    let mut fill = |name: &str, value: &dyn Fn(usize, usize) -> f32| {
        let tensor = model.tensor(name);
        let (n_cols, n_rows) = (tensor.dims[0], tensor.dims.get(1).copied().unwrap_or(1));
        let rows = (0..n_rows).flat_map(|row| (0..n_cols).map(move |col| (row, col)));
        tensor.bytes = rows.flat_map(|(row, col)| value(row, col).to_le_bytes()).collect();
    };
    // A token is one element of the stream, which the norm makes the square root of N.
    let scale = (N as f32).sqrt().recip();
    let one = |yes: bool, value: f32| if yes { value } else { 0.0 };
    let next = |id: usize| if id == last { first } else { id + 1 };
    fill("token_embd.weight", &|id, i| one(id == i, 1.0));
    fill("blk.0.attn_v.weight", &|_, _| 0.0);
    for norm in ["blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"] {
        fill(norm, &|_, _| 1.0);
    }
    fill("blk.0.ffn_gate.weight", &|neuron, i| scale * if neuron == i { -1.28 } else { 1.0 });
    fill("blk.0.ffn_up.weight", &|neuron, i| one(neuron == i, scale));
    // SiLU of -1.28 is -0.278.
    fill("blk.0.ffn_down.weight", &|i, neuron| one(neuron < n_vocab && i == next(neuron), -2.0 / 0.278));
    model
}

#[test]
fn a_relu_model_that_is_taken_for_another_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(real::repository("models/tiny-stories-f16.gguf")).unwrap();
    let right = real::repository("models/tiny-stories-f16.gguf");
    assert_eq!(doubts(&run(&right, STORY, &[])), [""; 0]);
    let mut silu = 4u64.to_le_bytes().to_vec();
    silu.extend(b"silu");
    patch_key(&mut bytes, "llama.hidden_activation", 8, &silu);
    let wrong = folder.path().join("relabelled.gguf");
    std::fs::write(&wrong, bytes).unwrap();
    assert_doubts(&run(&wrong, STORY, &[]), "silu", "relu");
    assert_doubts(&run(&wrong, STORY, &["--activation", "gelu"]), "gelu", "relu");
    assert_eq!(doubts(&run(&wrong, STORY, &["--activation", "relu"])), [""; 0]);
    assert_eq!(doubts(&run(&wrong, "Once upon a time", &[])), [""; 0], "a few words say nothing");
}

#[test]
fn a_model_that_never_rests_and_is_taken_for_one_that_does_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = alphabet();
    let letters = "abcdefghijklmnopqrstuvwxyz";
    let wrong = model.written(folder.path(), "relu.gguf");
    assert_doubts(&run(&wrong, letters, &[]), "relu", "silu");
    assert_doubts(&run(&wrong, letters, &["--activation", "relu2", "--mode", "dense"]), "relu2", "silu");
    model.set("powerinfer.activation", Value::Str("silu".to_owned()));
    let right = model.written(folder.path(), "silu.gguf");
    assert_eq!(doubts(&run(&right, letters, &[])), [""; 0]);
    assert_eq!(doubts(&run(&wrong, "abcdef", &[])), [""; 0], "a few words say nothing");
}

#[test]
fn random_weights_fit_no_function_better_than_another() {
    let (_folder, model, _) = model_and_text("");
    for activation in ["silu", "gelu", "relu", "relu2"] {
        let said = run(&model, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq", &["--activation", activation]);
        assert_eq!(doubts(&said), [""; 0], "{activation}");
    }
}

#[test]
fn a_conversation_is_told_once_as_soon_as_enough_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let model = alphabet().written(folder.path(), "relu.gguf");
    let lines = folder.path().join("lines.txt");
    std::fs::write(&lines, "abc\nabcdefghijklmnopqrstuvwxyz\nabcdefghijklmnopqrstuvwxyz\n").unwrap();
    let mut command = tool("run");
    command.arg("-m").arg(&model).args(["-i", "-n", "1", "--temp", "0", "-t", "1", "-c", "64"]);
    command.stdin(std::fs::File::open(&lines).unwrap());
    assert_doubts(&Outcome::from(command.output().unwrap()).ok().stderr, "relu", "silu");
}

#[test]
fn a_profile_notices_it_and_is_written_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let model = alphabet().written(folder.path(), "relu.gguf");
    let text = folder.path().join("letters.txt");
    std::fs::write(&text, "abcdefghijklmnopqrstuvwxyz".repeat(4)).unwrap();
    let profile = |activation: &str, text: &[&str]| {
        let mut command = tool("profile");
        command.arg("-m").arg(&model).args(["-t", "1", "--activation", activation]).args(text);
        let output = folder.path().join(format!("{activation}.profile"));
        let stderr = Outcome::from(command.arg("-o").arg(&output).output().unwrap()).ok().stderr;
        assert!(output.is_file());
        stderr
    };
    let text = ["-f", text.to_str().unwrap()];
    assert_doubts(&profile("relu", &text), "relu", "silu");
    assert_eq!(doubts(&profile("silu", &text)), [""; 0]);
    assert_eq!(doubts(&profile("relu2", &["--random-tokens", "100"])), [""; 0], "random tokens are no text");
}
