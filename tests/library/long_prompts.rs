//! Prompts of several blocks of keys: the same bits however they are cut and whoever computes them, and what decode gives.

use crate::architecture_forms::path;
use crate::support::compare::{max_difference, same_bits};
use anyhow::{Result, ensure};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;

/// Two blocks of keys and a part of a third.
const N: usize = 150;
/// Heads of their own and shared ones, windows, caps, sinks, and keys and values that differ in width.
const MODELS: [&str; 6] = ["llama", "falcon", "qwen3-window", "gemma2", "gpt-oss", "plm"];

fn open(name: &str) -> Result<Model> {
    Model::new(Gguf::open(&path(name))?, None)
}

fn tokens(model: &Model) -> Vec<u32> {
    (0..N).map(|i| (i * i * 7 % model.config.n_tokens.min(40)) as u32).collect()
}

fn executor<'m>(
    model: &'m Model,
    kv_type: KvType,
    isa: Isa,
    n_threads: usize,
    n_ubatch: usize,
) -> Result<Executor<'m>> {
    let params = ExecutorParams { n_threads, n_ctx: N, kv_type, mode: Mode::Dense, n_ubatch, isa };
    Executor::new(model, Placement::all_cold(model), params)
}

/// Whether heads are whole blocks of the type.
fn fits(model: &Model, kv_type: KvType) -> bool {
    let block = kv_type.k.block_len().max(kv_type.v.block_len());
    model.config.head_dim.is_multiple_of(block) && model.config.value_dim.is_multiple_of(block)
}

#[test]
fn the_same_bits_in_batches_of_any_size_with_any_number_of_threads() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let tokens = tokens(&model);
        for kv_type in [KvType::F32, KvType::F16, KvType::Q8_0].into_iter().filter(|kv_type| fits(&model, *kv_type)) {
            let isa = Isa::detect();
            let whole = executor(&model, kv_type, isa, 1, N)?.prefill(&tokens)?.to_vec();
            for (n_threads, n_ubatch) in [(2, N), (1, 1), (2, 7), (3, 64), (2, 65), (16, 149)] {
                let got = executor(&model, kv_type, isa, n_threads, n_ubatch)?.prefill(&tokens)?.to_vec();
                let same = same_bits(std::slice::from_ref(&whole), &[got]);
                ensure!(same.is_ok(), "{name}, {kv_type:?}, -t {n_threads}, -ub {n_ubatch}: {same:?}");
            }
            // A prompt that goes on behind another one.
            let mut executor = executor(&model, kv_type, isa, 2, 40)?;
            executor.prefill(&tokens[..71])?;
            let got = executor.prefill(&tokens[71..])?.to_vec();
            let same = same_bits(std::slice::from_ref(&whole), &[got]);
            ensure!(same.is_ok(), "{name}, {kv_type:?}, in two prompts: {same:?}");
        }
    }
    Ok(())
}

#[test]
fn a_prompt_gives_what_its_tokens_give_one_by_one() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let tokens = tokens(&model);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let whole = executor(&model, KvType::F32, isa, 2, N)?.prefill(&tokens)?.to_vec();
            let mut alone = executor(&model, KvType::F32, isa, 2, N)?;
            for token in &tokens[..N - 1] {
                alone.decode(*token)?;
            }
            let alone = alone.decode(tokens[N - 1])?.to_vec();
            let largest = alone.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            let apart = max_difference(&whole, &alone);
            ensure!(apart <= 2e-5 * largest, "{name}, {isa}: {apart:e} apart of {largest}");
        }
    }
    Ok(())
}
