//! profile, split, bench and run with a model of every architecture: what is written is read again, and computes the same.

use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Value, tool};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::model::arch::KNOWN;
use std::path::Path;

/// `<unk> <s> </s>`, the space, the letters.
fn letters() -> (Value, Value, Value) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "\u{2581}"].map(Into::into).to_vec();
    tokens.extend(('a'..='z').map(String::from));
    let kind = |id: usize| [2, 3, 3].get(id).copied().unwrap_or(1);
    let types: Vec<i32> = (0..tokens.len()).map(kind).collect();
    let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32)).collect();
    (Value::Strings(tokens), Value::f32s(&scores), Value::i32s(&types))
}

/// The golden model of that name, with a vocabulary where it has none.
pub fn golden(name: &str) -> ModelFile {
    let mut file = ModelFile::opened(&repository(&format!("tests/golden/arch/{name}.gguf"))).unwrap();
    if !file.keys.iter().any(|(key, _)| key == "tokenizer.ggml.tokens") {
        let (tokens, scores, types) = letters();
        file.set("tokenizer.ggml.model", Value::Str("llama".to_owned()));
        file.set("tokenizer.ggml.tokens", tokens);
        file.set("tokenizer.ggml.scores", scores);
        file.set("tokenizer.ggml.token_type", types);
    }
    file
}

/// The same with zeros where its own activation has none, as a file.
fn model(name: &str, folder: &Path) -> std::path::PathBuf {
    let mut file = golden(name);
    const SPARSE: [&str; 8] =
        ["arcee", "bamboo", "jais2", "nemotron", "nemotron_h", "nemotron_h_moe", "opt", "smallthinker"];
    if !SPARSE.contains(&name) {
        file.set("powerinfer.activation", Value::Str("relu".to_owned()));
    }
    file.written(folder, "model.gguf")
}

fn perplexity(model: &Path, story: &Path, mode: &str) -> f64 {
    let mut command = tool("bench");
    command.arg("-m").arg(model).arg("--perplexity").arg(story).args(["-c", "64", "-t", "2", "--cache-type", "f32"]);
    let outcome = Outcome::from(command.args(["--mode", mode, "-o", "json"]).output().unwrap()).ok();
    let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    rows[0]["perplexity"].as_f64().unwrap()
}

fn greedy(model: &Path, mode: &str) -> String {
    let mut command = tool("run");
    let args = ["-p", "once upon", "-n", "16", "--temp", "0", "--ignore-eos", "--cache-type", "f32", "--mode", mode];
    Outcome::from(command.arg("-m").arg(model).args(args).output().unwrap()).ok().stdout
}

#[test]
fn models_of_every_architecture_are_profiled_split_and_run() {
    for arch in KNOWN {
        let name = arch.name();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (model, story) = (model(name, folder.path()), at("story.txt"));
        std::fs::write(&story, "once upon a time there was a little dog who liked to run ".repeat(8)).unwrap();
        let mut profile = tool("profile");
        profile.arg("-m").arg(&model).arg("-f").arg(&story).arg("-o").arg(at("a.profile")).args(["--samples", "4096"]);
        Outcome::from(profile.output().unwrap()).ok();
        for (variant, flags) in [("variant.gguf", &[] as &[&str]), ("f16.gguf", &["--type", "f16"])] {
            let mut split = tool("split");
            split.arg("-m").arg(&model).arg("--profile").arg(at("a.profile")).arg("-o").arg(at(variant)).args(flags);
            Outcome::from(split.output().unwrap()).ok();
        }
        // Predictors are for layers of one group of neurons each.
        let opened = Model::new(Gguf::open(&model).unwrap(), None).unwrap();
        let fits = opened.weights.layers.iter().all(|layer| layer.groups.len() == 1);
        if fits {
            let mut fit = tool("profile");
            fit.arg("-m").arg(&model).arg("--samples-from").arg(at("a.profile")).arg("-o").arg(at("a.predictor"));
            Outcome::from(fit.args(["--predictor", "lowrank"]).output().unwrap()).ok();
            let mut pack = tool("split");
            pack.arg("-m")
                .arg(at("variant.gguf"))
                .arg("--predictor")
                .arg(at("a.predictor"))
                .arg("-o")
                .arg(at("predicted.gguf"));
            Outcome::from(pack.output().unwrap()).ok();
        }
        let plain = perplexity(&model, &story, "dense");
        let variant = at("variant.gguf");
        for mode in ["dense", "exact"] {
            let perplexity = perplexity(&variant, &story, mode);
            assert!((perplexity / plain - 1.0).abs() < 1e-4, "{name}, {mode}: {perplexity} instead of {plain}");
        }
        // Predictors of random weights say little, but nothing may break.
        let predicted = if fits { perplexity(&at("predicted.gguf"), &story, "predicted") } else { plain };
        assert!(predicted.is_finite() && predicted > 1.0, "{name}, predicted: {predicted}");
        let narrow = perplexity(&at("f16.gguf"), &story, "exact");
        assert!((narrow / plain - 1.0).abs() < 0.05, "{name}, f16: {narrow} instead of {plain}");
        let text = greedy(&model, "dense");
        assert!(text.len() > "once upon".len(), "{name}: {text:?}");
        for mode in ["dense", "exact"] {
            assert_eq!(greedy(&variant, mode), text, "{name}, {mode}");
        }
    }
}
