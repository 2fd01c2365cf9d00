//! Perplexity by llama.cpp's protocol.

use super::density::Density;
use super::{mean_and_error, negative_log_likelihood};
use crate::executor::{Executor, FfnAt, Mode, Observer};
use crate::progress::{self, Progress};
use anyhow::{Result, ensure};
use std::ops::Range;

/// Perplexity of a text.
#[derive(Debug, Clone, Copy)]
pub struct Perplexity {
    /// `exp` of the mean negative log-likelihood.
    pub value: f64,
    /// Standard error of `value`, from the spread of the tokens' likelihoods.
    pub stderr: f64,
    /// Tokens that were scored.
    pub n_scored: usize,
    /// Windows that the text was cut into.
    pub n_windows: usize,
    /// Share of neurons that fired.
    pub ffn_density: Option<f64>,
    /// Share of neurons whose gate was above zero.
    pub ffn_opened: Option<f64>,
}

struct Scorer<'a> {
    window: &'a [u32],
    nats: Vec<f64>,
    density: &'a mut Density,
}

impl Scorer<'_> {
    /// Takes the logits after the token at `position` of the window.
    fn score(&mut self, position: usize, logits: &[f32]) {
        if scored(self.window.len()).contains(&position) {
            self.nats.push(negative_log_likelihood(logits, self.window[position + 1]));
        }
    }
}

impl Observer for Scorer<'_> {
    fn ffn(&mut self, at: FfnAt, act: &[f32], h: &[f32]) {
        self.density.ffn(at, act, h);
    }

    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, position: usize, logits: &[f32]) {
        self.score(position, logits);
    }
}

/// Whether a text of `n_tokens` can be scored in windows of `n_ctx`.
///
/// # Errors
/// When windows are too short to have a second half, or the text is shorter than one.
pub fn check_windows(n_tokens: usize, n_ctx: usize) -> Result<()> {
    ensure!(n_ctx >= 4, "-c {n_ctx}: windows need at least 4 tokens");
    ensure!(n_tokens >= n_ctx, "the text has {n_tokens} tokens, less than one window of {n_ctx}; lower -c");
    Ok(())
}

/// Positions of a window of `n_ctx` tokens whose predictions count.
pub(super) fn scored(n_ctx: usize) -> Range<usize> {
    n_ctx / 2..n_ctx - 1
}

/// Consecutive windows of `n_ctx` tokens, a remainder dropped, each with `bos` in place of its first token.
pub(super) fn windows(
    tokens: &[u32],
    n_ctx: usize,
    bos: Option<u32>,
    max_windows: Option<usize>,
) -> Result<impl ExactSizeIterator<Item = Vec<u32>>> {
    check_windows(tokens.len(), n_ctx)?;
    ensure!(max_windows != Some(0), "--chunks 0: nothing to score");
    let windows = tokens.chunks_exact(n_ctx).take(max_windows.unwrap_or(usize::MAX));
    Ok(windows.map(move |window| {
        let mut window = window.to_vec();
        window[0] = bos.unwrap_or(window[0]);
        window
    }))
}

/// How the tokens of a window are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Many at once.
    Prefill,
    /// One by one.
    Decode,
}

impl From<Mode> for Pass {
    /// Dense needs no more than prefill; what is skipped in other modes is skipped in decode.
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Dense => Self::Prefill,
            Mode::Exact | Mode::Predicted | Mode::Thresholded => Self::Decode,
        }
    }
}

/// Cuts `tokens` into windows of `n_ctx` (a remainder is dropped), puts `bos` in place of each window's first token,
/// and scores the predictions of the second half: llama.cpp's `perplexity` tool.
///
/// # Errors
/// When the text is shorter than a window, or the user stops it.
pub fn perplexity(
    executor: &mut Executor,
    tokens: &[u32],
    n_ctx: usize,
    bos: Option<u32>,
    pass: Pass,
    max_windows: Option<usize>,
    progress: &dyn Progress,
) -> Result<Perplexity> {
    let windows = windows(tokens, n_ctx, bos, max_windows)?;
    let n_windows = windows.len();
    progress.begin("perplexity", (n_windows * n_ctx) as u64);
    let (mut nats, mut density) = (Vec::new(), Density::new(executor.model()));
    executor.reset_stats();
    for (done, window) in windows.enumerate() {
        let mut scorer = Scorer { window: &window, nats: Vec::new(), density: &mut density };
        executor.clear();
        match pass {
            Pass::Prefill => {
                for chunk in window.chunks(executor.params().n_ubatch) {
                    progress::check(progress)?;
                    executor.prefill_observed(chunk, &mut scorer)?;
                    progress.advance(chunk.len() as u64);
                }
            }
            Pass::Decode => {
                for (position, token) in window.iter().enumerate() {
                    progress::check(progress)?;
                    scorer.score(position, executor.decode(*token)?);
                    progress.advance(1);
                }
            }
        }
        nats.extend(scorer.nats);
        let (mean, _) = mean_and_error(nats.iter().copied());
        progress.tell(&format!("window {} of {n_windows}: perplexity {:.4} so far", done + 1, mean.exp()));
    }
    let (mean, error) = mean_and_error(nats.iter().copied());
    ensure!(mean.is_finite(), "the model's predictions are not finite numbers; are its weights whole?");
    let value = mean.exp();
    let ffn_density = density.share().or_else(|| executor.stats().density());
    let ffn_opened = density.opened().or_else(|| executor.stats().opened());
    Ok(Perplexity { value, stderr: value * error, n_scored: nats.len(), n_windows, ffn_density, ffn_opened })
}
