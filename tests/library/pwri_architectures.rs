//! PowerInfer's format around every architecture that is known: the golden models, as PowerInfer would have them.

use crate::support::pwri::{noise, oracle};
use crate::support::{ModelFile, Value, real};
use anyhow::{Context, Result};
use powerinfer::executor::{Executor, ExecutorParams, Mode};
use powerinfer::model::Model;
use powerinfer::model::arch::KNOWN;
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::variant::{self, Draft, Options, Order};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

const N_TOKENS: u32 = 8;

/// The golden models each layer of which has one FFN: PowerInfer has no others.
fn models() -> Result<Vec<PathBuf>> {
    let folder = real::repository("tests/golden/arch");
    let files = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let all: Vec<_> = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "gguf")).collect();
    assert!(all.len() >= KNOWN.len(), "{}", all.len());
    let (mut models, mut seen) = (Vec::new(), HashSet::new());
    for path in all {
        let model = real::open(&path)?;
        if model.weights.layers.iter().all(|layer| layer.groups.len() == 1) {
            seen.insert(model.config.arch.clone());
            models.push(path);
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
    Ok(models)
}

#[test]
fn experts_in_powerinfers_format_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = ModelFile::opened(&real::repository("tests/golden/arch/llama-experts.gguf"))?;
    let path = file.written_as_pwri(folder.path(), "pwri.gguf");
    let Err(error) = real::open(&path) else { panic!("read") };
    let error = format!("{error:#}");
    assert!(error.contains("llama.expert_count: 6: a mixture of experts in PowerInfer's own format"), "{error}");
    Ok(())
}

/// A golden model with this activation, without the vocabulary that most have not got.
fn golden(path: &Path, activation: &str) -> Result<ModelFile> {
    let mut file = ModelFile::opened(path)?;
    file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
    file.set("powerinfer.activation", Value::Str(activation.to_owned()));
    Ok(file)
}

fn logits(model: &Model, mode: Mode) -> Result<(Vec<Vec<f32>>, f64)> {
    let tokens: Vec<u32> = (0..N_TOKENS).map(|i| i % model.config.n_vocab as u32).collect();
    let params = ExecutorParams { n_ctx: tokens.len(), ..real::params(mode, 2) };
    let mut executor = Executor::new(model, Placement::all_cold(model), params)?;
    let logits = real::decode(&mut executor, &tokens)?;
    Ok((logits, executor.stats().masked().context("no tokens")?))
}

#[test]
fn every_architecture_computes_the_same_in_powerinfers_format() -> Result<()> {
    for path in models()? {
        let (name, folder) = (path.display(), tempfile::tempdir()?);
        let plain = real::open(&path)?;
        let file = golden(&path, plain.config.activation.activation.name())?.by_neurons();
        let config = &plain.config;
        let file = file.with_scores(config.n_layer, |layer| noise(config.n_embd, 5, config.n_ff[layer]));
        let theirs = real::open(&file.threshold(-1e20).written_as_pwri(folder.path(), "pwri.gguf"))?;
        let expected = logits(&plain, Mode::Dense)?.0;
        let exact = logits(&theirs, Mode::Exact)?.0;
        let pairs = || expected.iter().flatten().zip(exact.iter().flatten());
        let largest = pairs().fold(0.0f32, |largest, (logit, _)| largest.max(logit.abs()));
        let worst = pairs().fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < 1e-5 * largest, "{name}: {worst} of {largest}");
        assert_eq!(logits(&theirs, Mode::Dense)?.0, exact, "{name}");
        assert_eq!(logits(&theirs, Mode::Predicted)?.0, exact, "{name}");
        let draft = Draft::ordered(&theirs, &Order::AsStored, Options::default())?;
        let path = folder.path().join("variant.gguf");
        variant::write(&theirs, &draft, None, &path, &Silent)?;
        let variant = real::open(&path)?;
        assert_eq!(logits(&variant, Mode::Exact)?.0, exact, "{name}");
        assert_eq!(logits(&variant, Mode::Predicted)?.0, exact, "{name}");
    }
    Ok(())
}

/// In serial layers they look at what attention has been added to, in parallel ones at the layer's input: another vector would
/// name others.
#[test]
fn predictors_that_know_who_fires_change_no_bit_in_any_architecture() -> Result<()> {
    for path in models()? {
        let (name, folder) = (path.display(), tempfile::tempdir()?);
        let own = real::open(&path)?.config.activation.activation;
        let mut file = golden(&path, if own.is_sparse() { own.name() } else { "relu" })?;
        // Those of norms before the FFN, and of neurons: scores know none.
        let biases = [".ffn_norm.bias", ".attn_norm.bias", ".ffn_gate.bias", ".ffn_up.bias"];
        for tensor in file.tensors.iter_mut().filter(|tensor| biases.iter().any(|end| tensor.name.ends_with(end))) {
            tensor.bytes.fill(0);
        }
        let plain = real::open(&file.written(folder.path(), "plain.gguf"))?;
        let file = file.by_neurons().with_scores(plain.config.n_layer, |i| oracle(&plain, i).expect("floats"));
        let theirs = real::open(&file.threshold(-1e-4).written_as_pwri(folder.path(), "pwri.gguf"))?;
        let (exact, _) = logits(&theirs, Mode::Exact)?;
        let (predicted, masked) = logits(&theirs, Mode::Predicted)?;
        assert_eq!(predicted, exact, "{name}");
        assert!((0.05..0.95).contains(&masked), "{name}: {masked} of the neurons are named");
    }
    Ok(())
}

#[test]
fn an_epsilon_that_is_not_stated_is_none_in_layer_norms_and_missing_in_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    const LAYER: &str = "attention.layer_norm_epsilon";
    for arch in ["opt", "falcon", "nemotron"] {
        let path = real::repository(&format!("tests/golden/arch/{arch}.gguf"));
        let mut file = golden(&path, "relu")?.by_neurons();
        file.set(&format!("{arch}.{LAYER}"), Value::F32(0.0));
        let stated = logits(&real::open(&file.written_as_pwri(folder.path(), "pwri.gguf"))?, Mode::Exact)?.0;
        file.remove(&format!("{arch}.{LAYER}"));
        let unstated = logits(&real::open(&file.written_as_pwri(folder.path(), "pwri.gguf"))?, Mode::Exact)?.0;
        assert_eq!(unstated, stated, "{arch}");
        // Nobody leaves it out of plain files.
        let mut plain = golden(&path, "relu")?;
        plain.remove(&format!("{arch}.{LAYER}"));
        let refused = real::open(&plain.written(folder.path(), "plain.gguf")).err().context("was not refused")?;
        assert!(format!("{refused:#}").contains(LAYER), "{refused:#}");
    }
    let mut file = golden(&real::repository("tests/golden/arch/llama.gguf"), "relu")?.by_neurons();
    file.remove("llama.attention.layer_norm_rms_epsilon");
    let refused = real::open(&file.written_as_pwri(folder.path(), "pwri.gguf")).err().context("was not refused")?;
    assert!(format!("{refused:#}").contains("layer_norm_rms_epsilon: the key is missing"), "{refused:#}");
    Ok(())
}
