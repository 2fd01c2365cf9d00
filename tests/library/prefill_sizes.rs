//! Prefill in batches of any size: the same bits where a model has experts, and the same but for rounding where layers recur.

use crate::architecture_forms::path;
use crate::support::compare::{max_difference, same_bits};
use anyhow::{Result, ensure};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;

const N: usize = 70;
const SIZES: [usize; 8] = [1, 2, 5, 8, 9, 31, 32, 33];
/// Tokens that recurrent layers take in as one piece.
const PIECE: usize = 32;

/// Logits after the last token of a prompt.
fn prefilled(model: &Model, mode: Mode, n_threads: usize, n_ubatch: usize) -> Result<Vec<f32>> {
    let params = ExecutorParams { n_threads, n_ctx: N, kv_type: KvType::F32, mode, n_ubatch, isa: Isa::detect() };
    let tokens: Vec<u32> = (0..N).map(|i| (i * i * 7 % model.config.n_tokens.min(40)) as u32).collect();
    Ok(Executor::new(model, Placement::all_cold(model), params)?.prefill(&tokens)?.to_vec())
}

fn open(name: &str) -> Result<Model> {
    Model::new(Gguf::open(&path(name))?, None)
}

#[test]
fn experts_get_the_same_bits_in_batches_of_any_size() -> Result<()> {
    for name in ["smallthinker-window", "llama-experts-drelu", "qwen3moe-q8", "gpt-oss-mxfp4"] {
        let model = open(name)?;
        let whole = prefilled(&model, Mode::Dense, 1, N)?;
        for n_ubatch in SIZES {
            let mode = if n_ubatch.is_multiple_of(2) { Mode::Exact } else { Mode::Dense };
            let got = prefilled(&model, mode, 2, n_ubatch)?;
            let same = same_bits(std::slice::from_ref(&whole), &[got]);
            ensure!(same.is_ok(), "{name}, -ub {n_ubatch}, {mode:?}: {same:?}");
        }
    }
    Ok(())
}

#[test]
fn recurrent_layers_round_where_batches_begin() -> Result<()> {
    for name in ["nemotron_h", "nemotron_h_moe-latent"] {
        let model = open(name)?;
        let whole = prefilled(&model, Mode::Dense, 1, N)?;
        let largest = whole.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for n_ubatch in SIZES.into_iter().chain([2 * PIECE]) {
            let got = prefilled(&model, Mode::Exact, 2, n_ubatch)?;
            let apart = max_difference(&whole, &got);
            ensure!(apart <= 1e-5 * largest, "{name}, -ub {n_ubatch}: {apart:e} apart of {largest}");
            let whole_pieces = n_ubatch.is_multiple_of(PIECE) || n_ubatch >= N;
            ensure!(!whole_pieces || apart == 0.0, "{name}, -ub {n_ubatch}: {apart:e} apart");
        }
    }
    Ok(())
}
