//! Several tokens in one batch: each gets the bits that it gets alone.

use crate::support::compare::same_bits;
use crate::support::predictors::{ROOM, network, signs, with_predictor};
use crate::support::real::{decode, neuron_types, params, repository, source, story, variant};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Batch, Entry, Executor, ExecutorParams, KvType, Mode, Sequence, Worker};
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::quant::GgmlType;

/// Tokens of each sequence, of which the first are taken in one by one.
const N_TOKENS: usize = 7;
const N_ALONE: usize = 3;
/// Tokens in a batch.
const SIZES: [usize; 3] = [2, 3, 8];

/// Different beginnings, one per sequence.
fn texts(n: usize) -> Result<Vec<Vec<u32>>> {
    let story = story(N_TOKENS + 5 * n.max(8))?;
    Ok((0..n).map(|i| [&story[..1], &story[1 + 5 * i..][..N_TOKENS - 1]].concat()).collect())
}

fn executor<'m>(model: &'m Model, params: &ExecutorParams) -> Result<Executor<'m>> {
    Executor::new(model, Placement::all_cold(model), params.clone())
}

/// Logits after each token of each text, decoded alone.
fn alone(model: &Model, params: &ExecutorParams, texts: &[Vec<u32>]) -> Result<Vec<Vec<Vec<f32>>>> {
    let mut executor = executor(model, params)?;
    texts.iter().map(|text| decode(&mut executor, text)).collect()
}

/// The same with the texts side by side: token by token of each a few, then one of each in every batch.
fn together(model: &Model, params: &ExecutorParams, texts: &[Vec<u32>]) -> Result<Vec<Vec<Vec<f32>>>> {
    let mut executor = executor(model, params)?;
    let n_vocab = model.config.n_vocab;
    let mut sequences: Vec<Sequence> = texts.iter().map(|_| executor.new_sequence()).collect::<Result<_>>()?;
    let mut out = vec![Vec::new(); texts.len()];
    let entry = |sequence: usize, position: usize| Entry {
        sequence,
        position,
        token: texts[sequence][position],
        wants_logits: true,
    };
    let mut batch = Batch::default();
    // Sequences are of different lengths when they meet.
    for (sequence, out) in out.iter_mut().enumerate() {
        for position in 0..(N_ALONE + sequence % 3).min(N_TOKENS - 1) {
            batch.clear();
            batch.push(entry(sequence, position));
            out.push(executor.decode_batch(&batch, &mut sequences)?.to_vec());
        }
    }
    loop {
        batch.clear();
        let open: Vec<usize> = (0..texts.len()).filter(|i| out[*i].len() < N_TOKENS).collect();
        if open.is_empty() {
            return Ok(out);
        }
        open.iter().for_each(|sequence| batch.push(entry(*sequence, out[*sequence].len())));
        let logits = executor.decode_batch(&batch, &mut sequences)?;
        open.iter().zip(logits.chunks_exact(n_vocab)).for_each(|(i, logits)| out[*i].push(logits.to_vec()));
    }
}

/// Batches of so many tokens of different sequences, and of one, all of whose logits are kept.
fn agree(model: &Model, params: &ExecutorParams, sizes: &[usize]) -> Result<()> {
    let texts = texts(sizes.iter().copied().max().context("no sizes")?)?;
    let expected = alone(model, params, &texts)?;
    for n in sizes.iter().copied() {
        for (expected, got) in expected.iter().zip(together(model, params, &texts[..n])?) {
            same_bits(expected, &got).with_context(|| format!("{n} sequences"))?;
        }
        let mut executor = executor(model, params)?;
        let text = &texts[1];
        let mut got = Vec::new();
        for piece in text.chunks(n) {
            let logits = executor.decode_several(piece)?;
            got.extend(logits.chunks_exact(model.config.n_vocab).map(<[f32]>::to_vec));
        }
        same_bits(&expected[1], &got).with_context(|| format!("{n} tokens of one sequence"))?;
    }
    Ok(())
}

#[test]
fn a_batch_gives_the_bits_of_single_tokens_in_every_type_on_every_instruction_set_with_1_to_4_threads() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for dtype in neuron_types() {
        let model = variant(dtype, &folder)?;
        // Each other number of tokens once, in turns.
        let mut others = (2..=16).filter(|n| !SIZES.contains(n)).cycle();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for n_threads in 1..=4 {
                let params = ExecutorParams { isa, ..params(Mode::Exact, n_threads) };
                let sizes: Vec<usize> = SIZES.into_iter().chain(others.by_ref().take(2)).collect();
                agree(&model, &params, &sizes).with_context(|| format!("{dtype}, {isa}, -t {n_threads}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn each_number_of_tokens_up_to_16_gives_the_bits_of_single_ones() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let model = variant(GgmlType::Q4_0, &folder)?;
    let sizes: Vec<usize> = (2..=16).filter(|n| !SIZES.contains(n)).collect();
    agree(&model, &params(Mode::Exact, 2), &sizes)
}

#[test]
fn a_batch_gives_the_bits_of_single_tokens_in_every_mode_and_cache() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let q4_0 = variant(GgmlType::Q4_0, &folder)?;
    for model in [source(), &q4_0] {
        for mode in [Mode::Dense, Mode::Exact] {
            for kv_type in [KvType::F16, KvType::Q8_0] {
                agree(model, &ExecutorParams { kv_type, ..params(mode, 2) }, &SIZES)?;
            }
        }
    }
    for (bias, parts) in [(ROOM, network as fn(&_) -> _), (-4.0, signs)] {
        let (_folder, model) = with_predictor(&|_, _| bias, parts)?;
        agree(&model, &params(Mode::Predicted, 2), &SIZES)?;
    }
    let hot = Placement::planned(&q4_0)?;
    let mut placed = Executor::new(&q4_0, hot, params(Mode::Exact, 3))?;
    let text = &texts(1)?[0];
    let got = placed.decode_several(text)?.chunks_exact(q4_0.config.n_vocab).map(<[f32]>::to_vec).collect::<Vec<_>>();
    same_bits(&alone(&q4_0, &params(Mode::Exact, 1), std::slice::from_ref(text))?[0], &got)
}

#[test]
fn each_sequence_counts_its_own_and_forgets_its_own() -> Result<()> {
    let model = &crate::support::real::open(&repository("models/tiny-stories-q8_0-variant.gguf"))?;
    let params = params(Mode::Exact, 2);
    let texts = texts(2)?;
    let mut one = executor(model, &params)?;
    decode(&mut one, &texts[0])?;
    let mut executor = executor(model, &params)?;
    let mut sequences = vec![executor.new_sequence()?, executor.new_sequence()?];
    let mut batch = Batch::default();
    for position in 0..N_TOKENS {
        batch.clear();
        for (sequence, text) in texts.iter().enumerate() {
            batch.push(Entry { sequence, position, token: text[position], wants_logits: false });
        }
        assert!(executor.decode_batch(&batch, &mut sequences)?.is_empty());
    }
    assert_eq!(sequences[0].stats().density(), one.stats().density());
    assert_eq!(sequences[0].stats().bytes_per_token(model), one.stats().bytes_per_token(model));
    assert_ne!(sequences[1].stats().density(), one.stats().density());
    executor.truncate_sequence(&mut sequences[0], 2)?;
    assert_eq!((sequences[0].n_past(), sequences[1].n_past(), executor.n_past()), (2, N_TOKENS, 0));
    batch.clear();
    batch.push(Entry { sequence: 0, position: N_TOKENS, token: 1, wants_logits: true });
    let error = executor.decode_batch(&batch, &mut sequences).unwrap_err().to_string();
    assert!(error.contains("goes on at position 2"), "{error}");
    Ok(())
}

#[test]
fn executors_that_share_a_worker_give_what_they_give_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let other = variant(GgmlType::Q4_K, &folder)?;
    let params = params(Mode::Exact, 2);
    let text = &texts(1)?[0];
    let worker = Worker::new(2, params.isa)?;
    let shared = |model| Executor::with_worker(model, Placement::all_cold(model), params.clone(), &worker);
    let (mut a, mut b) = (shared(source())?, shared(&other)?);
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for token in text {
        of_a.push(a.decode(*token)?.to_vec());
        of_b.push(b.decode(*token)?.to_vec());
    }
    same_bits(&alone(source(), &params, std::slice::from_ref(text))?[0], &of_a)?;
    same_bits(&alone(&other, &params, std::slice::from_ref(text))?[0], &of_b)
}
