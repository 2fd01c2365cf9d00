//! Predicted mode: what a predictor names is computed, what it misses is missing, and both are counted.

use crate::support::predictors::{ROOM, network, oracle, signs, with_predictor};
use crate::support::real;
use anyhow::{Context, Result};
use powerinfer::executor::Mode;
use powerinfer::gguf::Gguf;
use powerinfer::gguf::write::{MetadataBuilder, Value, Writer};
use powerinfer::model::{ALWAYS, Model, NeuronId};
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::variant::{self, Options};

const N_TOKENS: usize = 96;

fn logits(model: &Model, mode: Mode, n_threads: usize) -> Result<Vec<Vec<f32>>> {
    real::decode(&mut real::executor(model, mode, n_threads)?, &real::story(N_TOKENS)?)
}

#[test]
fn a_predictor_that_names_everybody_changes_no_bit() -> Result<()> {
    let (_folder, model) = with_predictor(&|_, _| ALWAYS, signs)?;
    let group = &model.weights.layers[0].groups[0];
    assert_eq!(group.predictor.as_ref().context("no predictor")?.n_always, group.n_ff());
    for n_threads in [1, 2] {
        assert_eq!(logits(&model, Mode::Predicted, n_threads)?, logits(&model, Mode::Exact, n_threads)?);
    }
    Ok(())
}

#[test]
fn predictors_that_know_who_fires_change_no_bit_and_skip_the_mask_matrix() -> Result<()> {
    for parts in [oracle, network] {
        let (_folder, model) = with_predictor(&|_, _| ROOM, parts)?;
        let expected = logits(&model, Mode::Exact, 2)?;
        for n_hot in [0, 100] {
            let placement = Placement::new(&model, vec![n_hot; model.config.n_layer])?;
            let mut executor = real::placed(&model, Mode::Predicted, 2, placement)?;
            executor.set_audit(1);
            assert_eq!(real::decode(&mut executor, &real::story(N_TOKENS)?)?, expected);
            let recall = executor.stats().recall().context("no audit")?;
            assert_eq!((recall.by_count(), recall.by_mass()), (1.0, 1.0));
            let (fired, masked) = (executor.stats().density(), executor.stats().masked());
            let (fired, masked) = fired.zip(masked).context("no tokens")?;
            let hot = n_hot as f64 / model.config.n_ff[0] as f64;
            assert!(masked < fired + hot + 0.02 && masked >= fired, "{masked} of the mask rows were read for {fired}");
        }
    }
    Ok(())
}

#[test]
fn hot_neurons_chosen_by_chance_change_the_order_of_sums_only() -> Result<()> {
    let (_folder, model) = with_predictor(&|_, _| ROOM, oracle)?;
    for mode in [Mode::Dense, Mode::Exact, Mode::Predicted] {
        let mut planned = real::placed(&model, mode, 2, Placement::planned(&model)?)?;
        let mut random = real::placed(&model, mode, 2, Placement::random(&model, 7)?)?;
        let story = real::story(N_TOKENS)?;
        let (a, b) = (real::decode(&mut planned, &story)?, real::decode(&mut random, &story)?);
        let worst = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 0.0 && worst < 1e-3, "{mode:?}: {worst}");
        let (hot, cold) =
            Placement::random(&model, 7)?.scattered(0).map(|(h, c)| (h.len(), c.len())).context("none")?;
        assert_eq!((hot, hot + cold), (Placement::planned(&model)?.n_hot(0), model.config.n_ff[0]));
    }
    Ok(())
}

#[test]
fn what_a_predictor_never_names_is_missing_and_counted() -> Result<()> {
    // Every third neuron of the first layer.
    let bias = |layer: usize, id: NeuronId| if layer == 0 && id.0.is_multiple_of(3) { -ALWAYS } else { ALWAYS };
    let (_folder, model) = with_predictor(&bias, signs)?;
    let mut executor = real::executor(&model, Mode::Predicted, 2)?;
    executor.set_audit(2);
    let predicted = real::decode(&mut executor, &real::story(N_TOKENS)?)?;
    assert_ne!(predicted, logits(&model, Mode::Exact, 2)?);
    let first = executor.stats().group_recall(0).context("no audit")?;
    assert!((0.5..0.85).contains(&first.by_count()) && first.by_mass() < 1.0, "{first:?}");
    assert_eq!(executor.stats().group_recall(1).context("no audit")?.by_mass(), 1.0);
    let third = (model.config.n_ff[0] as f64 / 3.0).ceil() / model.config.n_ff[0] as f64;
    assert_eq!(executor.stats().group_masked(0), Some(1.0 - third));
    Ok(())
}

#[test]
fn signs_that_agree_more_are_named_more() -> Result<()> {
    let named = |bias: f32| -> Result<f64> {
        let (_folder, model) = with_predictor(&|_, _| bias, signs)?;
        let mut executor = real::executor(&model, Mode::Predicted, 1)?;
        real::decode(&mut executor, &real::story(16)?)?;
        executor.stats().masked().context("no tokens")
    };
    let shares = [named(-64.0)?, named(0.0)?, named(64.0)?];
    assert!(shares.is_sorted() && shares[0] < 0.2 && shares[2] > 0.8, "{shares:?}");
    Ok(())
}

#[test]
fn a_predictor_that_predicts_no_layer_leaves_the_mode_exact() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let plain = real::split(real::source(), Options::default(), &at("variant.gguf"))?;
    let mut metadata = MetadataBuilder::default();
    metadata.add("powerinfer.predictor.kinds", &Value::ArrayStr(vec![b"none".to_vec(); plain.config.n_layer]));
    Writer::create(&at("predictor.gguf"), &metadata, &[], 32, &Silent)?.finish()?;
    variant::pack(&plain, &Gguf::open(&at("predictor.gguf"))?, &at("packed.gguf"), &Silent)?;
    let model = real::open(&at("packed.gguf"))?;
    assert_eq!(logits(&model, Mode::Predicted, 2)?, logits(&model, Mode::Exact, 2)?);
    Ok(())
}

#[test]
fn without_a_predictor_the_mode_is_refused() -> Result<()> {
    let refused = real::executor(real::source(), Mode::Predicted, 1).err().context("was not refused")?.to_string();
    assert!(refused.contains("no predictor") && refused.contains("powerinfer-profile --predictor"), "{refused}");
    Ok(())
}
