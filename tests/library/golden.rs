//! The dense pass computes what PyTorch computes with the same weights, and so does the exact one.

use crate::support::compare::{best, max_difference};
use crate::support::real::{self, encode, executor, golden, source};
use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::measure::perplexity::perplexity;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{Options, Recipe};

/// Largest difference of a logit to PyTorch's that is accepted. Measured: 9.6e-6; both sides sum in 32 bits, in
/// different orders.
const LOGITS_TOLERANCE: f32 = 4e-5;
/// Relative difference of perplexity to PyTorch's.
const PERPLEXITY_TOLERANCE: f64 = 0.005;
/// Difference of a layer's sparsity to PyTorch's: a gate of about 0 may fall on either side.
const SPARSITY_TOLERANCE: f64 = 1e-5;

#[test]
fn prompts_get_the_token_ids_of_the_hugging_face_tokenizer() -> Result<()> {
    for prompt in &golden().prompts {
        assert_eq!(encode(&prompt.text)?, prompt.tokens, "{:?}", prompt.text);
    }
    assert_eq!(encode(&golden().greedy.prompt)?, golden().greedy.prompt_tokens);
    assert_eq!(encode(&golden().loss.text)?.len(), golden().loss.n_tokens);
    Ok(())
}

#[test]
fn logits_of_the_dense_pass_are_those_of_pytorch() -> Result<()> {
    let data = std::fs::read(real::repository("tests/golden/golden.bin"))?;
    let mut executor = executor(source(), Mode::Dense, 1)?;
    for prompt in &golden().prompts {
        let bytes = data[prompt.logits..][..4 * source().config.n_vocab].as_chunks().0;
        let expected: Vec<f32> = bytes.iter().map(|b| f32::from_le_bytes(*b)).collect();
        executor.clear();
        let difference = max_difference(&expected, executor.prefill(&prompt.tokens)?);
        println!("{} tokens: logits differ by at most {difference:e}", prompt.tokens.len());
        assert!(difference <= LOGITS_TOLERANCE, "{difference} after {:?}", prompt.text);
    }
    Ok(())
}

/// Fed with PyTorch's choices, so that one step within the tolerance does not decide all later ones.
#[test]
fn two_hundred_greedy_tokens_are_those_of_pytorch_where_the_margin_allows_to_tell() -> Result<()> {
    let greedy = &golden().greedy;
    for mode in [Mode::Dense, Mode::Exact] {
        let mut executor = executor(source(), mode, 1)?;
        let mut chosen = best(executor.prefill(&greedy.prompt_tokens)?);
        let mut agreeing = 0;
        for (step, (token, margin)) in greedy.tokens.iter().zip(&greedy.margins).enumerate() {
            agreeing += usize::from(chosen.0 == *token);
            assert!(
                chosen.0 == *token || *margin <= 2.0 * LOGITS_TOLERANCE,
                "step {step}: {} leads by {}",
                chosen.0,
                chosen.1
            );
            chosen = best(executor.decode(*token)?);
        }
        println!("{}: {agreeing} of {} greedy tokens agree", mode.name(), greedy.tokens.len());
        assert_eq!(greedy.tokens.len(), 200);
    }
    Ok(())
}

#[test]
fn perplexity_and_sparsity_are_those_of_pytorch_on_source_and_f16_variant() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = Options { recipe: Some(Recipe::Uniform(GgmlType::F16)), down: None };
    let variant = real::split(source(), options, &folder.path().join("variant.gguf"))?;
    for (name, model) in [("source", source()), ("variant", &variant)] {
        agrees_with_pytorch(name, model)?;
    }
    Ok(())
}

fn agrees_with_pytorch(name: &str, model: &Model) -> Result<()> {
    let loss = &golden().loss;
    let tokens = encode(&loss.text)?;
    for mode in [Mode::Dense, Mode::Exact] {
        let params = ExecutorParams {
            n_threads: 2,
            n_ctx: loss.n_ctx,
            kv_type: KvType::F32,
            mode,
            n_ubatch: 64,
            isa: Isa::detect(),
        };
        let mut executor = Executor::new(model, Placement::all_cold(model), params)?;
        let ours = perplexity(&mut executor, &tokens, loss.n_ctx, Some(tokens[0]), mode.into(), None, &Silent)?;
        let off = ours.value / loss.perplexity - 1.0;
        println!("{name}, {}: perplexity {:.6}, off by {off:e}", mode.name(), ours.value);
        assert_eq!(ours.n_scored, loss.count);
        assert!(off.abs() <= PERPLEXITY_TOLERANCE, "{name}, {}: {}", mode.name(), ours.value);
        if mode == Mode::Exact {
            for (layer, expected) in loss.sparsity_per_layer.iter().enumerate() {
                let ours = 1.0 - executor.stats().group_density(layer).unwrap();
                println!("layer {layer}: sparsity {ours:.6}, PyTorch {expected:.6}");
                assert!((ours - expected).abs() <= SPARSITY_TOLERANCE, "layer {layer}: {ours} instead of {expected}");
            }
        }
    }
    Ok(())
}
