//! Short prompts: computed as decode computes tokens, whatever the parts in which they come.

use crate::support::compare::same_bits;
use crate::support::predictors::{network, with_predictor};
use crate::support::real::{decode, params, story, variant};
use anyhow::{Context, Result, ensure};
use powerinfer::executor::{Executor, ExecutorParams, Mode};
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::quant::GgmlType;

const SHORT: usize = Executor::SHORT_PROMPT;

/// Logits behind a prompt that comes in parts of so many tokens, and behind a further token; and what was counted.
fn prompted(model: &Model, params: &ExecutorParams, prompt: &[u32], parts: usize) -> Result<(Vec<Vec<f32>>, bool)> {
    let mut executor = Executor::new(model, Placement::all_cold(model), params.clone())?;
    let mut all = Vec::new();
    for part in prompt.chunks(parts) {
        all = vec![executor.prefill_part(part, prompt.len())?.to_vec()];
    }
    let is_counted = executor.stats().density().is_some_and(|density| density > 0.0);
    all.push(executor.decode(7)?.to_vec());
    Ok((all, is_counted))
}

#[test]
fn a_short_prompt_has_the_bits_of_decode_and_no_prompt_depends_on_its_parts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = variant(GgmlType::Q4_0, &folder)?;
    let text = story(SHORT + 4)?;
    for mode in [Mode::Dense, Mode::Exact] {
        for n in [1, 2, 4, SHORT, SHORT + 1, SHORT + 4] {
            let prompt = &text[..n];
            let (whole, is_counted) = prompted(&model, &params(mode, 2), prompt, n)?;
            ensure!(!is_counted, "{n} tokens: a prompt is counted");
            for n_ubatch in [1, 3] {
                let params = ExecutorParams { n_ubatch, ..params(mode, 3) };
                for parts in [n_ubatch, n] {
                    let (got, _) = prompted(&model, &params, prompt, parts)?;
                    same_bits(&whole, &got).with_context(|| format!("{n} tokens, -ub {n_ubatch}, {mode:?}"))?;
                }
            }
            let mut executor = Executor::new(&model, Placement::all_cold(&model), params(mode, 1))?;
            let decoded = decode(&mut executor, prompt)?.pop().context("no tokens")?;
            let is_decoded = same_bits(&[decoded], &whole[..1]).is_ok();
            ensure!(is_decoded == (n <= SHORT), "{n} tokens as decoded: {is_decoded}");
        }
    }
    Ok(())
}

#[test]
fn the_end_of_a_long_prompt_is_not_a_short_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = variant(GgmlType::Q8_0, &folder)?;
    let (text, params) = (story(20)?, params(Mode::Exact, 2));
    let (whole, _) = prompted(&model, &params, &text, 20)?;
    let mut executor = Executor::new(&model, Placement::all_cold(&model), params)?;
    executor.prefill(&text[..17])?;
    executor.expect_prompt(20);
    let end = executor.prefill_part(&text[17..], 3)?.to_vec();
    same_bits(&whole[..1], &[end])?;
    // What follows a decoded token is another prompt.
    executor.decode(7)?;
    let mut other = Executor::new(&model, Placement::all_cold(&model), params_of(&executor))?;
    other.prefill(&text)?;
    other.decode(7)?;
    let n_vocab = model.config.n_vocab;
    let decoded = other.decode_several(&text[..3])?[2 * n_vocab..].to_vec();
    same_bits(&[decoded], &[executor.prefill_part(&text[..3], 3)?.to_vec()])
}

fn params_of(executor: &Executor) -> ExecutorParams {
    executor.params().clone()
}

#[test]
fn predictors_are_not_asked_about_a_prompt() -> Result<()> {
    // They name nothing.
    let (_folder, model) = with_predictor(&|_, _| -1e9, network)?;
    let text = story(SHORT)?;
    let exact = prompted(&model, &params(Mode::Exact, 1), &text, SHORT)?.0;
    let predicted = prompted(&model, &params(Mode::Predicted, 2), &text, SHORT)?.0;
    same_bits(&exact[..1], &predicted[..1])?;
    ensure!(same_bits(&exact[1..], &predicted[1..]).is_err(), "the predictor names nothing, and nothing is missing");
    Ok(())
}
