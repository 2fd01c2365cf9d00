//! Recurrent layers: what a sequence remembers of them, and how one goes back in it.

use crate::architecture_forms::path;
use crate::support::compare::{max_difference, same_bits};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Batch, Entry, Executor, ExecutorParams, KvType, Mode, Sequence};
use powerinfer::gguf::Gguf;
use powerinfer::model::{Mixer, Model};
use powerinfer::placement::Placement;

const MODELS: [&str; 3] = ["nemotron_h", "nemotron_h-biases", "nemotron_h_moe-latent"];
const TOKENS: [u32; 12] = [3, 17, 5, 5, 0, 39, 21, 8, 13, 2, 30, 11];

fn open(name: &str) -> Result<Model> {
    Model::new(Gguf::open(&path(name))?, None)
}

fn executor_of(model: &Model, n_ctx: usize, n_ubatch: usize) -> Result<Executor<'_>> {
    let (kv_type, isa) = (KvType::F32, Isa::detect());
    let params = ExecutorParams { n_threads: 2, n_ctx, kv_type, mode: Mode::Exact, n_ubatch, isa };
    Executor::new(model, Placement::all_cold(model), params)
}

/// Logits after each token, decoded alone.
fn decoded(executor: &mut Executor, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
    tokens.iter().map(|token| Ok(executor.decode(*token)?.to_vec())).collect()
}

#[test]
fn states_take_as_much_memory_whatever_the_context() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let config = &model.config;
        let ssm = config.ssm.context("sizes of states")?;
        let count = |mixer: Mixer| config.mixers.iter().filter(|m| **m == mixer).count();
        let state = (ssm.n_conv - 1) * ssm.n_channels() + ssm.n_inner * ssm.n_state;
        for n_ctx in [8, 300] {
            let row = config.n_head_kv * 2 * config.head_dim;
            let floats = count(Mixer::Attention) * n_ctx * row + count(Mixer::Recurrent) * state;
            assert_eq!(executor_of(&model, n_ctx, 4)?.sequence().memory().n_bytes(), 4 * floats, "{name}, -c {n_ctx}");
        }
    }
    // What it was trained for says nothing of what is taken.
    assert_eq!(open("nemotron_h")?.config.n_ctx_train, 1 << 20);
    Ok(())
}

#[test]
fn one_goes_back_to_what_was_remembered_and_nowhere_else() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let whole = decoded(&mut executor_of(&model, 16, 4)?, &TOKENS)?;
        let mut executor = executor_of(&model, 16, 4)?;
        for (i, token) in TOKENS[..8].iter().enumerate() {
            if [2, 5].contains(&i) {
                executor.remember();
            }
            executor.decode(*token)?;
        }
        for kept in [1, 3, 4, 6, 7] {
            let line = executor.truncate(kept).unwrap_err().to_string();
            let wanted = format!("after 8 tokens the state of recurrent layers cannot go back to the first {kept}");
            assert!(
                line.contains(&wanted) && line.contains("computed again") && !line.contains('\n'),
                "{name}: {line}"
            );
            assert_eq!(executor.n_past(), 8);
        }
        // Nothing was lost by that.
        same_bits(&whole[8..9], &decoded(&mut executor, &TOKENS[8..9])?)?;
        for kept in [5, 5, 2, 0] {
            executor.truncate(kept)?;
            assert_eq!(executor.n_past(), kept);
            // What was behind it must not show, nor after a second time.
            decoded(&mut executor, &[31, 7])?;
            executor.truncate(kept)?;
            same_bits(&whole[kept..], &decoded(&mut executor, &TOKENS[kept..])?).context(name)?;
        }
        // Places behind the one that was gone back to are forgotten with it.
        assert!(executor.truncate(2).is_err() && executor.truncate(5).is_err(), "{name}");
        assert!(executor.truncate(TOKENS.len()).is_ok());
    }
    Ok(())
}

#[test]
fn as_much_is_kept_as_can_be() -> Result<()> {
    let model = open("nemotron_h")?;
    let whole = decoded(&mut executor_of(&model, 16, 4)?, &TOKENS)?;
    for (wanted, left) in [(12, 10), (10, 10), (9, 6), (6, 6), (5, 3), (3, 3), (2, 0), (0, 0)] {
        let mut executor = executor_of(&model, 16, 4)?;
        for (i, token) in TOKENS[..10].iter().enumerate() {
            if [3, 6].contains(&i) {
                executor.remember();
            }
            executor.decode(*token)?;
        }
        assert_eq!(executor.keep(wanted), left, "{wanted}");
        same_bits(&whole[left..], &decoded(&mut executor, &TOKENS[left..])?)?;
    }
    Ok(())
}

#[test]
fn only_the_latest_places_are_remembered() -> Result<()> {
    let model = open("nemotron_h")?;
    let mut executor = executor_of(&model, 64, 4)?;
    let mut most = 0;
    for i in 0..40 {
        executor.decode(TOKENS[i % TOKENS.len()])?;
        executor.remember();
        most = most.max(executor.sequence().memory().n_bytes());
    }
    let earliest = (1..40).find(|n| executor.truncate(*n).is_ok());
    assert_eq!(earliest, Some(37));
    let alone = executor_of(&model, 64, 4)?.sequence().memory().n_bytes();
    assert!(most < 6 * alone, "{most} bytes, where one state and the cache take {alone}");
    Ok(())
}

#[test]
fn a_prompt_remembers_a_place_on_its_way() -> Result<()> {
    let model = open("nemotron_h")?;
    let whole = decoded(&mut executor_of(&model, 16, 4)?, &TOKENS)?;
    let largest = whole.iter().flatten().fold(0.0f32, |a, b| a.max(b.abs()));
    for (n_ubatch, place) in [(512, 7), (4, 7), (4, 8), (1, 5), (3, 11)] {
        let mut executor = executor_of(&model, 16, n_ubatch)?;
        executor.remember_at(place);
        executor.prefill(&TOKENS)?;
        // Another ending.
        assert_eq!(executor.keep(11), place, "-ub {n_ubatch}");
        let logits = executor.prefill(&TOKENS[place..])?.to_vec();
        let apart = max_difference(&whole[11], &logits);
        assert!(apart <= 1e-5 * largest, "-ub {n_ubatch}, {place}: {apart:e} apart of {largest}");
        // A place that is not on the way is none.
        executor.remember_at(3);
        executor.decode(1)?;
        assert_eq!(executor.keep(12), place);
    }
    Ok(())
}

#[test]
fn what_was_forgotten_leaves_nothing() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let whole = decoded(&mut executor_of(&model, 16, 4)?, &TOKENS)?;
        let mut executor = executor_of(&model, 16, 4)?;
        executor.prefill(&[7, 7, 31, 4])?;
        for shared in [false, true] {
            if shared {
                executor.remember();
            }
            executor.clear();
            same_bits(&whole, &decoded(&mut executor, &TOKENS)?).context(name)?;
        }
    }
    Ok(())
}

#[test]
fn sequences_side_by_side_get_the_bits_that_they_get_alone() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let texts = [TOKENS.to_vec(), TOKENS.iter().rev().copied().collect(), vec![5; 12]];
        let alone = texts.iter().map(|text| decoded(&mut executor_of(&model, 16, 4)?, text));
        let alone: Vec<_> = alone.collect::<Result<_>>()?;
        let mut executor = executor_of(&model, 16, 4)?;
        let mut sequences: Vec<Sequence> = texts.iter().map(|_| executor.new_sequence()).collect::<Result<_>>()?;
        let mut got = vec![Vec::new(); texts.len()];
        // One token of the first, two of the second, three of the third, interleaved.
        let mut batch = Batch::default();
        while got.iter().any(|got: &Vec<Vec<f32>>| got.len() < TOKENS.len()) {
            batch.clear();
            let mut owners = Vec::new();
            for more in 0..3 {
                for sequence in (more..3).rev() {
                    let position = got[sequence].len() + owners.iter().filter(|s| **s == sequence).count();
                    if position < TOKENS.len() {
                        batch.push(Entry { sequence, position, token: texts[sequence][position], wants_logits: true });
                        owners.push(sequence);
                    }
                }
            }
            let logits = executor.decode_batch(&batch, &mut sequences)?;
            for (sequence, logits) in owners.iter().zip(logits.chunks_exact(model.config.n_vocab)) {
                got[*sequence].push(logits.to_vec());
            }
        }
        for (alone, got) in alone.iter().zip(&got) {
            same_bits(alone, got).context(name)?;
        }
    }
    Ok(())
}

#[test]
fn every_instruction_set_gives_the_same_but_for_rounding() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let whole = decoded(&mut executor_of(&model, 16, 4)?, &TOKENS)?.concat();
        let largest = whole.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let params = ExecutorParams { isa, ..executor_of(&model, 16, 4)?.params().clone() };
            let mut executor = Executor::new(&model, Placement::all_cold(&model), params)?;
            let apart = max_difference(&whole, &decoded(&mut executor, &TOKENS)?.concat());
            assert!(apart <= 1e-5 * largest, "{name}, {isa}: {apart:e} apart of {largest}");
        }
    }
    Ok(())
}
