//! Speed of several sequences at once: their prompts one after the other, then one token of each in every pass.

use super::{Repeated, Speed};
use crate::executor::{Batch, Entry, Executor, Mode, Sequence, dense_bytes, dense_bytes_per_token};
use crate::measure::timing::Timing;
use crate::model::Model;
use crate::progress::{self, Progress};
use anyhow::{Context, Result, ensure};
use std::time::Instant;

/// The tokens of sequence `number` of `n`: those of a text from another place on for each, and again from its beginning where it
/// ends.
pub fn feed(tokens: &[u32], number: usize, n: usize, len: usize) -> Vec<u32> {
    tokens.iter().copied().cycle().skip(tokens.len() * number / n).take(len).collect()
}

/// `n` new sequences.
///
/// # Errors
/// As [`Executor::new_sequence`]; says what helps.
pub fn sequences(executor: &Executor, n: usize) -> Result<Vec<Sequence>> {
    let all = (0..n).map(|_| executor.new_sequence()).collect::<Result<_>>();
    all.with_context(|| format!("-np {n}: sequences of {} tokens", executor.params().n_ctx))
}

/// Takes in `tokens` of one sequence.
///
/// # Errors
/// As [`Executor::prefill_sequence`], and when the user stops it.
pub fn prefill(executor: &mut Executor, to: &mut Sequence, tokens: &[u32], progress: &dyn Progress) -> Result<()> {
    for chunk in tokens.chunks(executor.params().n_ubatch) {
        progress::check(progress)?;
        executor.prefill_sequence(to, chunk, tokens.len())?;
    }
    Ok(())
}

/// Takes in one token of each sequence after the other, of each list that is not at its end, until all are.
///
/// # Errors
/// As [`Executor::decode_batch`], and when the user stops it.
pub fn decode(
    executor: &mut Executor,
    sequences: &mut [Sequence],
    tokens: &[&[u32]],
    progress: &dyn Progress,
) -> Result<()> {
    let mut batch = Batch::default();
    for i in 0..tokens.iter().map(|tokens| tokens.len()).max().unwrap_or(0) {
        progress::check(progress)?;
        batch.clear();
        for (sequence, tokens) in tokens.iter().enumerate() {
            let Some(token) = tokens.get(i) else { continue };
            batch.push(Entry { sequence, position: sequences[sequence].n_past(), token: *token, wants_logits: true });
        }
        executor.decode_batch(&batch, sequences)?;
    }
    Ok(())
}

/// [`super::speed`] of a test of several sequences.
pub(super) fn speed(model: &Model, executor: &mut Executor, what: Repeated, progress: &dyn Progress) -> Result<Speed> {
    let Repeated { test, tokens, repetitions, warmup } = what;
    ensure!(test.n_timed() > 0, "a test needs at least one token");
    ensure!(!tokens.is_empty(), "no tokens to feed");
    let n = test.n_parallel;
    let feeds: Vec<Vec<u32>> = (0..n).map(|i| feed(tokens, i, n, test.n_ctx())).collect();
    let decoded: Vec<&[u32]> = feeds.iter().map(|feed| &feed[test.n_depth + test.n_prompt..]).collect();
    let mut sequences = sequences(executor, n)?;
    let mut samples = Vec::new();
    let n_runs = repetitions + usize::from(warmup);
    progress.begin(&test.name(), ((test.n_depth * n + test.n_timed()) * n_runs) as u64);
    executor.reset_stats();
    for run in 0..n_runs {
        let is_warmup = warmup && run == 0;
        match is_warmup {
            true => progress.tell("warm-up"),
            false => progress.tell(&format!("run {} of {repetitions}", samples.len() + 1)),
        }
        for (sequence, feed) in sequences.iter_mut().zip(&feeds) {
            sequence.clear();
            prefill(executor, sequence, &feed[..test.n_depth], progress)?;
        }
        let start = Instant::now();
        for (sequence, feed) in sequences.iter_mut().zip(&feeds) {
            prefill(executor, sequence, &feed[test.n_depth..][..test.n_prompt], progress)?;
        }
        decode(executor, &mut sequences, &decoded, progress)?;
        if !is_warmup {
            samples.push(start.elapsed().as_nanos() as u64);
        }
        progress.advance((test.n_depth * n + test.n_timed()) as u64);
    }
    sequences.iter().for_each(|sequence| executor.add_stats(sequence));
    let (stats, params) = (executor.stats(), executor.params());
    let sparse = params.mode != Mode::Dense;
    let per_decoded = match sparse {
        // Nobody looks what tokens have in common on a card.
        true => stats.shared_bytes_per_token(model).or_else(|| stats.bytes_per_token(model)).unwrap_or(0.0),
        false => dense_bytes_per_token(model) / n as f64,
    };
    let prefill = dense_bytes(model) as f64 * (test.n_prompt.div_ceil(params.n_ubatch) * n) as f64;
    let bytes_per_token = (prefill + per_decoded * (test.n_gen * n) as f64) / test.n_timed() as f64;
    Ok(Speed {
        timing: Timing::of(test.n_timed(), samples),
        ffn_density: stats.density(),
        ffn_opened: stats.opened(),
        bytes_per_token,
        union_density: stats.union_density().filter(|_| sparse && test.n_gen > 0),
    })
}
