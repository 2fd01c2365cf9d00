//! PowerInfer's own files: the same model as the plain file, with their predictors where these are asked.

use crate::support::pwri::{Scores, noise, oracle};
use crate::support::{ModelFile, Value, real};
use anyhow::{Context, Result};
use powerinfer::executor::{Mode, check_card};
use powerinfer::model::{Down, Model, PredictorInput};
use powerinfer::profile::{Fingerprint, Kinship};
use powerinfer::quant::GgmlType;
use std::path::Path;

const N_TOKENS: usize = 64;

/// The real model, as PowerInfer has it, with these predictors.
fn with(scores: impl Fn(usize) -> Scores, threshold: f32, folder: &Path) -> Result<Model> {
    let plain = ModelFile::opened(&real::repository("models/tiny-stories-f16.gguf"))?;
    let n_layer = real::source().config.n_layer;
    real::open(
        &plain.by_neurons().with_scores(n_layer, scores).threshold(threshold).written_as_pwri(folder, "pwri.gguf"),
    )
}

fn some_noise(_layer: usize) -> Scores {
    noise(real::source().config.n_embd, 32, real::source().config.n_ff[0])
}

fn logits(model: &Model, mode: Mode, n_threads: usize) -> Result<Vec<Vec<f32>>> {
    real::decode(&mut real::executor(model, mode, n_threads)?, &real::story(N_TOKENS)?)
}

fn worst(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn exact_mode_computes_the_plain_model_and_asks_no_predictor() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = with(some_noise, 0.0, folder.path())?;
    assert!(model.gguf.is_pwri() && !model.is_variant() && model.has_predictor());
    assert!(model.weights.groups().all(|(_, group)| matches!(group.ffn_down(), Down::Rows(_))));
    assert_eq!(Fingerprint::of(&model)?.kinship(&Fingerprint::of(real::source())?), Kinship::Same);
    let expected = logits(real::source(), Mode::Dense, 2)?;
    let dense = logits(&model, Mode::Dense, 2)?;
    assert_eq!(logits(&model, Mode::Exact, 1)?, dense);
    assert_eq!(logits(&model, Mode::Exact, 2)?, dense);
    // Down by neurons adds up in another order.
    let difference = worst(&dense, &expected);
    assert!(difference < 1e-3, "{difference}");
    let story = real::story(N_TOKENS)?;
    let prefilled = real::prefill(&mut real::executor(&model, Mode::Exact, 2)?, &story, 16)?;
    assert!(worst(&prefilled, &expected) < 1e-3);
    Ok(())
}

#[test]
fn a_threshold_below_every_score_changes_no_bit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for threshold in [f32::NEG_INFINITY, -1e20] {
        let model = with(some_noise, threshold, folder.path())?;
        assert_eq!(logits(&model, Mode::Predicted, 2)?, logits(&model, Mode::Exact, 2)?, "{threshold}");
    }
    Ok(())
}

#[test]
fn a_threshold_above_every_score_leaves_no_neuron() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for threshold in [f32::INFINITY, 1e20] {
        let model = with(some_noise, threshold, folder.path())?;
        let mut executor = real::executor(&model, Mode::Predicted, 2)?;
        let predicted = real::decode(&mut executor, &real::story(8)?)?;
        assert_eq!(executor.stats().masked(), Some(0.0), "{threshold}");
        assert_ne!(predicted, logits(&model, Mode::Exact, 2)?[..8]);
    }
    Ok(())
}

#[test]
fn predictors_look_at_the_residual_stream_before_its_norm() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // The residual stream is some times longer than what the norm makes of it, so a little room is little.
    let model = with(|layer| oracle(real::source(), layer).expect("floats"), -1e-3, folder.path())?;
    let predictors = || model.weights.groups().map(|(_, group)| group.predictor.as_ref());
    assert!(predictors().all(|p| p.is_some_and(|p| p.reads == PredictorInput::Residual)));
    let expected = logits(&model, Mode::Exact, 2)?;
    for n_threads in [1, 2] {
        let mut executor = real::executor(&model, Mode::Predicted, n_threads)?;
        executor.set_audit(1);
        assert_eq!(real::decode(&mut executor, &real::story(N_TOKENS)?)?, expected);
        let recall = executor.stats().recall().context("no audit")?;
        assert_eq!((recall.by_count(), recall.by_mass()), (1.0, 1.0));
        let (fired, masked) = executor.stats().density().zip(executor.stats().masked()).context("no tokens")?;
        assert!(masked >= fired && masked < fired + 0.02, "{masked} of the mask rows were read for {fired}");
        assert!(executor.stats().predictor_bytes_per_token() > 0.0);
    }
    // Several tokens at once: each gets the bits that it gets alone.
    let mut executor = real::executor(&model, Mode::Predicted, 2)?;
    let together = executor.decode_several(&real::story(4)?)?.to_vec();
    assert_eq!(together, expected[..4].concat());
    Ok(())
}

#[test]
fn a_card_refuses_only_what_asks_such_predictors() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = with(some_noise, 0.0, folder.path())?;
    for mode in [Mode::Dense, Mode::Exact] {
        check_card(&model, &real::params(mode, 1))?;
    }
    let refused = check_card(&model, &real::params(Mode::Predicted, 1)).err().context("was not refused")?;
    let refused = format!("{refused:#}");
    assert!(refused.contains("layer 0: predictors that look at the residual stream"), "{refused}");
    Ok(())
}

#[test]
fn what_a_predictor_misses_is_missing_and_counted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = with(some_noise, 0.0, folder.path())?;
    let mut executor = real::executor(&model, Mode::Predicted, 2)?;
    executor.set_audit(1);
    let predicted = real::decode(&mut executor, &real::story(N_TOKENS)?)?;
    assert_ne!(predicted, logits(&model, Mode::Exact, 2)?);
    let (recall, masked) = executor.stats().recall().zip(executor.stats().masked()).context("no audit")?;
    // About half of the neurons, whoever fires.
    assert!((0.2..0.8).contains(&recall.by_count()) && (0.2..0.8).contains(&masked), "{recall:?} {masked}");
    Ok(())
}

#[test]
fn quantized_files_are_computed_in_their_own_type() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plain = ModelFile::opened(&real::repository("models/tiny-stories-f16.gguf"))?;
    let n_layer = real::source().config.n_layer;
    let expected = logits(real::source(), Mode::Exact, 2)?;
    for (name, most) in [("F16", 0.05), ("Q8_0", 0.6), ("Q4_0", 6.0)] {
        let dtype = GgmlType::from_name(name).context("a type")?;
        let file = plain.clone().by_neurons().with_scores(n_layer, some_noise).threshold(-1e20).in_type(dtype)?;
        let model = real::open(&file.written_as_pwri(folder.path(), "pwri.gguf"))?;
        assert!(model.weights.groups().all(|(_, group)| group.ffn_down().dtype() == dtype));
        let exact = logits(&model, Mode::Exact, 2)?;
        assert_eq!(logits(&model, Mode::Dense, 1)?, exact, "{name}");
        assert_eq!(logits(&model, Mode::Predicted, 2)?, exact, "{name}");
        let difference = worst(&exact, &expected);
        assert!(difference < most, "{name}: {difference}");
    }
    Ok(())
}

#[test]
fn their_activation_is_relu_where_nothing_names_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut tiny = ModelFile::tiny().by_neurons();
    let found = |file: &ModelFile| -> Result<(String, String)> {
        let model = real::open(&file.written_as_pwri(folder.path(), "pwri.gguf"))?;
        Ok((model.config.activation.activation.to_string(), model.config.activation.from))
    };
    assert_eq!(found(&tiny)?.1, "powerinfer.activation");
    tiny.remove("powerinfer.activation");
    assert_eq!(found(&tiny)?, ("relu".to_owned(), "PowerInfer, whose file it is".to_owned()));
    tiny.set("llama.hidden_activation", Value::Str("silu".to_owned()));
    assert_eq!(found(&tiny)?, ("silu".to_owned(), "llama.hidden_activation".to_owned()));
    tiny.remove("llama.hidden_activation").set("general.name", Value::Str("ReluLLaMA 7B".to_owned()));
    assert!(found(&tiny)?.1.starts_with("models.toml"));
    Ok(())
}
