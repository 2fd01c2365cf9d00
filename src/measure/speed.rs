//! Speed tests with llama-bench's conventions: prompt processing (pp) and text generation (tg).

use super::density::Density;
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
}

impl Test {
    /// llama-bench's name: `pp512`, `tg128`, `pp512+tg128`.
    pub fn name(self) -> String {
        match (self.n_prompt, self.n_gen) {
            (p, 0) => format!("pp{p}"),
            (0, n) => format!("tg{n}"),
            (p, n) => format!("pp{p}+tg{n}"),
        }
    }
}

/// What a test gave.
#[derive(Debug, Clone)]
pub struct Speed {
    /// Tokens per second of each repetition.
    pub samples: Vec<f64>,
    /// Share of neurons that fired: while decoding, or where nothing is decoded, in the prefill.
    pub ffn_density: Option<f64>,
    /// Share of neurons whose gate was above zero, likewise.
    pub ffn_opened: Option<f64>,
    /// Mean bytes of weights touched per token.
    pub bytes_per_token: f64,
}

impl Speed {
    /// Mean tokens per second.
    pub fn mean(&self) -> f64 {
        self.samples.iter().sum::<f64>() / self.samples.len() as f64
    }

    /// Standard deviation of the repetitions (n - 1), 0 for a single one.
    pub fn stddev(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.samples.iter().map(|s| (s - mean).powi(2)).sum();
        (squares / (self.samples.len() as f64 - 1.0).max(1.0)).sqrt()
    }
}

/// Runs `test` once unmeasured and then `repetitions` times, feeding `tokens` (repeated as needed): the first part is
/// prefilled, the rest decoded one by one, whatever the model would have predicted.
///
/// # Errors
/// When the tokens do not fit in the context, or the user stops it.
pub fn speed(
    model: &Model,
    executor: &mut Executor,
    test: Test,
    tokens: &[u32],
    repetitions: usize,
    progress: &dyn Progress,
) -> Result<Speed> {
    let n = test.n_prompt + test.n_gen;
    ensure!(n > 0, "a test needs at least one token");
    ensure!(!tokens.is_empty(), "no tokens to feed");
    let feed: Vec<u32> = tokens.iter().copied().cycle().take(n).collect();
    let (mut samples, mut density) = (Vec::new(), Density::new(model));
    progress.begin(&test.name(), (n * (repetitions + 1)) as u64);
    for repetition in 0..=repetitions {
        executor.clear();
        executor.reset_stats();
        let start = Instant::now();
        for chunk in feed[..test.n_prompt].chunks(executor.params().n_ubatch) {
            progress::check(progress)?;
            match repetition {
                0 => executor.prefill_observed(chunk, &mut density)?,
                _ => executor.prefill(chunk)?,
            };
        }
        for token in &feed[test.n_prompt..] {
            progress::check(progress)?;
            executor.decode(*token)?;
        }
        if repetition > 0 {
            samples.push(n as f64 / start.elapsed().as_secs_f64());
        }
        progress.advance(n as u64);
    }
    let params = executor.params();
    let stats = executor.stats();
    let bytes_per_token = bytes_per_token(model, stats, test, params.mode, params.n_ubatch);
    let (ffn_density, ffn_opened) = (stats.density().or(density.share()), stats.opened().or(density.opened()));
    Ok(Speed { samples, ffn_density, ffn_opened, bytes_per_token })
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
        assert_eq!(Test { n_prompt: 512, n_gen: 0 }.name(), "pp512");
        assert_eq!(Test { n_prompt: 0, n_gen: 128 }.name(), "tg128");
        assert_eq!(Test { n_prompt: 8, n_gen: 4 }.name(), "pp8+tg4");
    }

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        let speed = |samples: &[f64]| Speed {
            samples: samples.to_vec(),
            ffn_density: None,
            ffn_opened: None,
            bytes_per_token: 0.0,
        };
        assert_eq!(speed(&[1.0, 3.0]).mean(), 2.0);
        assert!((speed(&[1.0, 3.0]).stddev() - 2f64.sqrt()).abs() < 1e-12);
        assert_eq!(speed(&[5.0]).stddev(), 0.0);
    }
}
