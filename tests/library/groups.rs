//! Layers whose neurons are divided into groups compute what they do undivided.

use crate::support::compare::{max_difference, same_bits};
use crate::support::groups::in_two;
use crate::support::predictors::{ROOM, oracle, with_predictor};
use crate::support::real::{decode, open, placed, prefill, repository, source, split, story};
use anyhow::Result;
use powerinfer::executor::{FfnStats, Mode};
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::variant::Options;

const N_TOKENS: usize = 48;
/// Logits of prefill, whose sums are divided differently. Measured: 1.1e-5 (F16), 0.08 (Q8_0, where a sum now and then
/// rounds an activation to another byte).
const F16_TOLERANCE: f32 = 5e-5;
const Q8_0_TOLERANCE: f32 = 0.2;

/// Densities and bytes of weights; each group's predictor has an input of its own to read.
fn counted(stats: &FfnStats, model: &Model) -> [Option<f64>; 4] {
    let predictors = stats.predictor_bytes_per_token();
    let without = |bytes: Option<f64>| bytes.map(|bytes| bytes - predictors);
    let bytes = [stats.ffn_bytes_per_token(model), stats.bytes_per_token(model)].map(without);
    [stats.density(), stats.masked(), bytes[0], bytes[1]]
}

fn same_as_one_group(model: &Model, modes: &[Mode], tolerance: f32) -> Result<()> {
    let two = in_two(model, open)?;
    assert_eq!(two.weights.groups().count(), 2 * model.config.n_layer);
    let tokens = story(N_TOKENS)?;
    let hot =
        Placement::new(&two, two.weights.group_sizes().iter().enumerate().map(|(i, n)| n * (i % 3) / 3).collect())?;
    for mode in modes {
        let mut one = placed(model, *mode, 2, Placement::all_cold(model))?;
        let expected = decode(&mut one, &tokens)?;
        let mut divided = placed(&two, *mode, 2, Placement::all_cold(&two))?;
        same_bits(&expected, &decode(&mut divided, &tokens)?)?;
        for (ours, theirs) in counted(divided.stats(), &two).iter().zip(counted(one.stats(), model)) {
            let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
            assert!((ours / theirs - 1.0).abs() < 1e-12, "{}: {ours} instead of {theirs}", mode.name());
        }
        // Hot neurons are masked by their true gate, which in mode predicted may change which are computed.
        if *mode != Mode::Predicted {
            same_bits(&expected, &decode(&mut placed(&two, *mode, 3, hot.clone())?, &tokens)?)?;
        }
        let at_once = prefill(&mut one, &tokens, 16)?.concat();
        let difference = max_difference(&at_once, &prefill(&mut divided, &tokens, 16)?.concat());
        println!("{}: prefill differs by {difference:e}", mode.name());
        assert!(difference <= tolerance, "{}: {difference}", mode.name());
    }
    Ok(())
}

#[test]
fn two_groups_are_one_bit_for_bit_in_decode_and_up_to_rounding_in_prefill() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let f16 = split(source(), Options::default(), &folder.path().join("f16.gguf"))?;
    same_as_one_group(&f16, &[Mode::Dense, Mode::Exact], F16_TOLERANCE)?;
    let q8_0 = open(&repository("models/tiny-stories-q8_0-variant.gguf"))?;
    same_as_one_group(&q8_0, &[Mode::Dense, Mode::Exact], Q8_0_TOLERANCE)
}

#[test]
fn two_groups_with_a_predictor_each_are_one() -> Result<()> {
    let (_folder, model) = with_predictor(&|_, _| ROOM, oracle)?;
    same_as_one_group(&model, &[Mode::Predicted], F16_TOLERANCE)
}
