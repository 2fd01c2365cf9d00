//! Variants of PowerInfer's own files, and of plain ones without a profile.

use crate::support::pwri::{Scores, noise, oracle};
use crate::support::{ModelFile, Value, real};
use anyhow::{Context, Result};
use powerinfer::executor::Mode;
use powerinfer::gguf::Gguf;
use powerinfer::model::{Model, NeuronId, PredictorInput};
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{self, DownType, Draft, Options, Order, Recipe};
use std::path::Path;

const N_TOKENS: usize = 48;

fn pwri() -> Result<ModelFile> {
    Ok(ModelFile::opened(&real::repository("models/tiny-stories-f16.gguf"))?.by_neurons())
}

fn with_scores(scores: impl Fn(usize) -> Scores) -> Result<ModelFile> {
    Ok(pwri()?.with_scores(real::source().config.n_layer, scores))
}

fn some_noise(_layer: usize) -> Scores {
    noise(real::source().config.n_embd, 32, real::source().config.n_ff[0])
}

/// A variant in the order that the source has.
fn in_order(model: &Model, options: Options, folder: &Path) -> Result<Model> {
    let path = folder.join("variant.gguf");
    variant::write(model, &Draft::ordered(model, &Order::AsStored, options)?, None, &path, &Silent)?;
    real::open(&path)
}

fn logits(model: &Model, mode: Mode) -> Result<Vec<Vec<f32>>> {
    real::decode(&mut real::executor(model, mode, 2)?, &real::story(N_TOKENS)?)
}

fn worst(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_file_of_powerinfers_is_the_variant_of_the_plain_file_bit_for_bit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let theirs = real::open(&pwri()?.written_as_pwri(folder.path(), "pwri.gguf"))?;
    let ours = in_order(real::source(), Options::default(), folder.path())?;
    assert!(ours.is_variant() && !ours.has_predictor());
    for mode in [Mode::Dense, Mode::Exact] {
        assert_eq!(logits(&theirs, mode)?, logits(&ours, mode)?);
    }
    let again = tempfile::tempdir()?;
    let variant = in_order(&theirs, Options::default(), again.path())?;
    assert_eq!(std::fs::read(again.path().join("variant.gguf"))?, std::fs::read(folder.path().join("variant.gguf"))?);
    assert_eq!(logits(&variant, Mode::Exact)?, logits(&theirs, Mode::Exact)?);
    Ok(())
}

#[test]
fn predictors_go_into_the_variant_and_say_the_same_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (is_oracle, threshold) in [(true, -1e-3), (false, 0.0), (false, 0.25), (false, f32::NEG_INFINITY)] {
        let file = match is_oracle {
            true => with_scores(|layer| oracle(real::source(), layer).expect("floats"))?,
            false => with_scores(some_noise)?,
        };
        let source = real::open(&file.threshold(threshold).written_as_pwri(folder.path(), "pwri.gguf"))?;
        let expected = logits(&source, Mode::Predicted)?;
        let ordered = in_order(&source, Options::default(), folder.path())?;
        let reads = ordered.weights.groups().map(|(_, group)| group.predictor.as_ref().map(|p| p.reads));
        assert!(reads.eq([Some(PredictorInput::Residual); 6]));
        assert_eq!(logits(&ordered, Mode::Predicted)?, expected, "{threshold}");
        // By a profile: other slots, so another order of sums.
        let split = real::split(&source, Options::default(), &folder.path().join("split.gguf"))?;
        let difference = worst(&logits(&split, Mode::Predicted)?, &expected);
        assert!(difference < 1e-3, "{threshold}: {difference}");
        let index = split.weights.layers[0].groups[0].index.as_ref().context("no index")?;
        assert!(index.ids().iter().zip(0..).any(|(id, slot)| *id != NeuronId(slot)));
    }
    Ok(())
}

#[test]
fn quantized_neurons_are_copied_and_floats_are_converted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["Q8_0", "Q4_0", "Q5_0"] {
        let dtype = GgmlType::from_name(name).context("a type")?;
        let file = with_scores(some_noise)?.in_type(dtype)?;
        let source = real::open(&file.written_as_pwri(folder.path(), "pwri.gguf"))?;
        let draft = Draft::ordered(&source, &Order::AsStored, Options::default())?;
        assert!(!draft.lossy, "{name}");
        let variant = in_order(&source, Options::default(), folder.path())?;
        for mode in [Mode::Exact, Mode::Predicted] {
            assert_eq!(logits(&variant, mode)?, logits(&source, mode)?, "{name}");
        }
        let options = Options { recipe: None, down: Some(DownType::Same) };
        let refused = Draft::ordered(&source, &Order::AsStored, options).err().context("was not refused")?.to_string();
        assert!(refused.contains("--down") && refused.contains("by neurons"), "{refused}");
    }
    let options = Options { recipe: Some(Recipe::Uniform(GgmlType::Q8_0)), down: None };
    let theirs = real::open(&pwri()?.written_as_pwri(folder.path(), "theirs.gguf"))?;
    in_order(&theirs, options, folder.path())?;
    let converted = std::fs::read(folder.path().join("variant.gguf"))?;
    in_order(real::source(), options, folder.path())?;
    assert_eq!(converted, std::fs::read(folder.path().join("variant.gguf"))?);
    // Predictors keep their type, whatever the rows of the second matrix are.
    let odd = |_| noise(real::source().config.n_embd, 7, real::source().config.n_ff[0]);
    let source = real::open(&with_scores(odd)?.written_as_pwri(folder.path(), "odd.gguf"))?;
    let draft = Draft::ordered(&source, &Order::AsStored, options)?;
    assert!(!draft.notes.iter().any(|note| note.contains("whole blocks")), "{:?}", draft.notes);
    in_order(&source, options, folder.path())?;
    Ok(())
}

#[test]
fn what_a_variant_says_of_its_predictors_must_be_known() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = real::open(&with_scores(some_noise)?.written_as_pwri(folder.path(), "pwri.gguf"))?;
    in_order(&source, Options::default(), folder.path())?;
    let variant = ModelFile::opened(&folder.path().join("variant.gguf"))?;
    const INPUT: &str = "powerinfer.predictor.input";
    let version = variant.keys.iter().find(|(key, _)| key == "powerinfer.predictor.version");
    assert!(matches!(version, Some((_, Value::U32(2)))), "an older program would take it for another predictor");
    for (key, value, wanted) in [
        (INPUT, Value::Str("elsewhere".to_owned()), "elsewhere"),
        (INPUT, Value::U32(1), INPUT),
        ("powerinfer.predictor.version", Value::U32(3), "is not known"),
    ] {
        let mut file = variant.clone();
        file.set(key, value);
        let opened = Model::new(Gguf::open(&file.written(folder.path(), "changed.gguf"))?, None);
        let refused = format!("{:#}", opened.err().context("was not refused")?);
        assert!(refused.contains(key) && refused.contains(wanted), "{refused}");
    }
    Ok(())
}
