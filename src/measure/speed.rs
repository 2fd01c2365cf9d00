//! Speed tests with llama-bench's conventions: prompt processing (pp) and text generation (tg).

pub mod parallel;

use super::density::Density;
use super::timing::Timing;
use crate::executor::{Executor, FfnStats, Mode, dense_bytes, dense_bytes_per_token};
use crate::model::Model;
use crate::progress::{self, Progress};
use anyhow::{Result, ensure};
use std::time::Instant;

/// One test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// Tokens prefilled.
    pub n_prompt: usize,
    /// Tokens decoded.
    pub n_gen: usize,
    /// Tokens that are in the context before the clock starts.
    pub n_depth: usize,
    /// Sequences at once, each of so many tokens.
    pub n_parallel: usize,
}

impl Test {
    /// llama-bench's name: `pp512`, `tg128`, `pp512+tg128`, `tg128 @ d4096`; of several sequences `tg128 x4`.
    pub fn name(self) -> String {
        let name = match (self.n_prompt, self.n_gen) {
            (p, 0) => format!("pp{p}"),
            (0, n) => format!("tg{n}"),
            (p, n) => format!("pp{p}+tg{n}"),
        };
        let name = if self.n_parallel == 1 { name } else { format!("{name} x{}", self.n_parallel) };
        if self.n_depth == 0 { name } else { format!("{name} @ d{}", self.n_depth) }
    }

    /// Tokens that are timed, of all sequences.
    pub fn n_timed(self) -> usize {
        (self.n_prompt + self.n_gen) * self.n_parallel
    }

    /// Tokens that the context must hold.
    pub fn n_ctx(self) -> usize {
        self.n_depth + self.n_prompt + self.n_gen
    }
}

/// What a test gave.
#[derive(Debug, Clone)]
pub struct Speed {
    /// How long the repetitions took.
    pub timing: Timing,
    /// Share of neurons that fired: while decoding, or where nothing is decoded, in the prefill.
    pub ffn_density: Option<f64>,
    /// Share of neurons whose gate was above zero, likewise.
    pub ffn_opened: Option<f64>,
    /// Mean bytes of weights touched per token; what several sequences touch at once is counted once.
    pub bytes_per_token: f64,
    /// Share of neurons that fired for any sequence of a pass, where there are several and somebody looked.
    pub union_density: Option<f64>,
}

/// What is measured, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Repeated<'a> {
    /// The test.
    pub test: Test,
    /// Fed one after the other, and again from the first when they are used up, whatever the model would have predicted.
    pub tokens: &'a [u32],
    /// How often it is timed.
    pub repetitions: usize,
    /// Whether it is done once before that.
    pub warmup: bool,
}

/// Measures a test: after `n_depth` tokens, which are not timed, the next are prefilled and the rest decoded one by one.
///
/// # Errors
/// When the tokens do not fit in the context, or the user stops it.
pub fn speed(model: &Model, executor: &mut Executor, what: Repeated, progress: &dyn Progress) -> Result<Speed> {
    let Repeated { test, tokens, repetitions, warmup } = what;
    if test.n_parallel > 1 {
        return parallel::speed(model, executor, what, progress);
    }
    ensure!(test.n_timed() > 0, "a test needs at least one token");
    ensure!(!tokens.is_empty(), "no tokens to feed");
    let feed: Vec<u32> = tokens.iter().copied().cycle().take(test.n_ctx()).collect();
    let (before, timed) = feed.split_at(test.n_depth);
    let (prompt, decoded) = timed.split_at(test.n_prompt);
    let (mut samples, mut density) = (Vec::new(), Density::new(model));
    let n_runs = repetitions + usize::from(warmup);
    progress.begin(&test.name(), (test.n_depth + timed.len() * n_runs) as u64);
    // What an earlier test left there may be other tokens.
    executor.clear();
    for run in 0..n_runs {
        go_to(executor, before, progress)?;
        executor.reset_stats();
        let is_warmup = warmup && run == 0;
        match is_warmup {
            true => progress.tell("warm-up"),
            false => progress.tell(&format!("run {} of {repetitions}", samples.len() + 1)),
        }
        let start = Instant::now();
        for chunk in prompt.chunks(executor.params().n_ubatch) {
            progress::check(progress)?;
            // Watching takes time.
            match is_warmup {
                true => executor.prefill_observed(chunk, &mut density)?,
                false => executor.prefill_part(chunk, prompt.len())?,
            };
        }
        for token in decoded {
            progress::check(progress)?;
            executor.decode(*token)?;
        }
        if !is_warmup {
            samples.push(start.elapsed().as_nanos() as u64);
        }
        progress.advance(timed.len() as u64);
    }
    let params = executor.params();
    let stats = executor.stats();
    let bytes_per_token = bytes_per_token(model, stats, test, params.mode, params.n_ubatch);
    let (ffn_density, ffn_opened) = (stats.density().or(density.share()), stats.opened().or(density.opened()));
    let timing = Timing::of(timed.len(), samples);
    Ok(Speed { timing, ffn_density, ffn_opened, bytes_per_token, union_density: None })
}

/// Has exactly `before` in the context: what is there of it from the repetition before stays, where the memory can go back.
fn go_to(executor: &mut Executor, before: &[u32], progress: &dyn Progress) -> Result<()> {
    if before.is_empty() {
        executor.clear();
        return Ok(());
    }
    let kept = executor.keep(before.len());
    if kept < before.len() {
        progress.tell(&format!("context of {} tokens", before.len()));
    }
    for chunk in before[kept..].chunks(executor.params().n_ubatch) {
        progress::check(progress)?;
        executor.prefill(chunk)?;
        progress.advance(chunk.len() as u64);
    }
    // Layers that recur can only go back to a place that they were told to remember.
    if kept < before.len() && executor.sequence().memory().recurs() {
        executor.remember();
    }
    Ok(())
}

/// Mean bytes of weights touched per token: prefill reads all weights once per batch, decode once per token or what
/// the mode needs of them.
pub fn bytes_per_token(model: &Model, stats: &FfnStats, test: Test, mode: Mode, n_ubatch: usize) -> f64 {
    let dense = dense_bytes(model) as f64;
    let prefill = dense * test.n_prompt.div_ceil(n_ubatch) as f64;
    let per_decoded = match mode {
        Mode::Dense => dense_bytes_per_token(model),
        Mode::Exact | Mode::Predicted | Mode::Thresholded => stats.bytes_per_token(model).unwrap_or(0.0),
    };
    (prefill + per_decoded * test.n_gen as f64) / (test.n_prompt + test.n_gen) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_as_llama_bench_names_them() {
        let of = |n_prompt, n_gen, n_depth, n_parallel| Test { n_prompt, n_gen, n_depth, n_parallel }.name();
        let name = |n_prompt, n_gen, n_depth| of(n_prompt, n_gen, n_depth, 1);
        assert_eq!([of(0, 128, 0, 4), of(8, 4, 64, 2)], ["tg128 x4", "pp8+tg4 x2 @ d64"]);
        assert_eq!([name(512, 0, 0), name(0, 128, 0), name(8, 4, 0)], ["pp512", "tg128", "pp8+tg4"]);
        assert_eq!([name(512, 0, 64), name(0, 1, 4096)], ["pp512 @ d64", "tg1 @ d4096"]);
    }
}
