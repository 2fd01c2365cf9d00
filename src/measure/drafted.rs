//! Decoding with drafts, next to decoding without, and to what their lengths and shares say.

mod passes;
mod row;

use super::compare::statistics::median;
use crate::executor::Executor;
use crate::progress::{self, Progress};
use crate::speculation::{Drafted, Drafter, Lengths, Scripted, Speculation, Target};
use anyhow::{Context, Result, ensure};
use passes::Passes;
pub use row::DraftedRow;
use std::time::Instant;

/// Seconds without drafts at the least, and rounds at the most that this may take: the speed of machines changes.
const LEAST: f64 = 1.0;
const MOST_ROUNDS: usize = 200;
/// How often passes are timed.
const TIMED: usize = 8;

/// What is decoded.
pub struct Work<'a> {
    /// Tokens that are there before.
    pub prompt: &'a [u32],
    /// Tokens to decode.
    pub n: usize,
    /// Rounds at the least.
    pub n_rounds: usize,
}

/// A source of drafts.
pub enum Source<'d> {
    /// One by its name, made anew for each round.
    Drafter(String, Box<dyn FnMut() -> Result<Box<dyn Drafter + 'd>> + 'd>),
    /// Drafts of which each token is right with this probability.
    Scripted(f64),
}

impl Source<'_> {
    fn name(&self) -> String {
        match self {
            Self::Drafter(name, _) => name.clone(),
            Self::Scripted(share) => format!("scripted {share}"),
        }
    }
}

/// Tokens that a model finds most likely behind a prompt, and how long that took without `halfway`, which is called between two
/// tokens in the middle; no token ends the text.
fn greedy(
    executor: &mut Executor,
    speculation: Option<&mut Speculation>,
    work: &Work,
    halfway: &mut dyn FnMut(&mut Executor) -> Result<()>,
    progress: &dyn Progress,
) -> Result<(Vec<u32>, f64)> {
    executor.clear();
    let best = |logits: &[f32]| {
        let best = (0u32..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map(|(token, _)| token).context("no logits")
    };
    let n_tokens = executor.model().config.n_tokens;
    let mut token = best(&executor.prefill(work.prompt)?[..n_tokens])?;
    let mut text = work.prompt.to_vec();
    let drafts = speculation.is_some();
    let mut target = Target::new(executor, speculation);
    target.read(work.prompt);
    let mut start = Instant::now();
    for i in 0..work.n {
        progress::check(progress)?;
        if !drafts && i == work.n / 2 {
            let paused = Instant::now();
            halfway(target.executor()?)?;
            start += paused.elapsed();
        }
        text.push(token);
        token = best(&target.decode(token, work.n - i - 1)?[..n_tokens])?;
        progress.advance(1);
    }
    target.settle()?;
    Ok((text, start.elapsed().as_secs_f64()))
}

/// Measures `work` with each of `sources`, in turns with decoding without.
///
/// # Errors
/// When it does not fit in the context, the text with drafts is another one, or the user stops it.
pub fn drafted(
    executor: &mut Executor,
    work: &Work,
    sources: Vec<Source>,
    progress: &dyn Progress,
) -> Result<Vec<DraftedRow>> {
    ensure!(executor.can_take_back(), "drafts are measured on the processor; --device cpu");
    ensure!(!work.prompt.is_empty() && work.n > 0 && work.n_rounds > 0, "no tokens to decode");
    progress.begin("drafts", (work.n * (1 + 2 * work.n_rounds * sources.len())) as u64);
    // Once for the memory that it takes, and for the text.
    let (text, _) = greedy(executor, None, work, &mut |_| Ok(()), progress)?;
    let mut passes = Passes::new(TIMED, TIMED.div_ceil(work.n_rounds * sources.len().max(1)));
    let (mut rows, mut shares) = (Vec::new(), Vec::new());
    for source in sources {
        let share = if let Source::Scripted(share) = source { Some(share) } else { None };
        shares.push(share);
        rows.push(measure(executor, work, source, &text, &mut passes, progress)?);
    }
    let multiples = passes.multiples();
    for (row, share) in rows.iter_mut().zip(shares) {
        row.formula = share.map(|share| formula(share, &multiples));
        row.passes.clone_from(&multiples);
    }
    progress.end();
    Ok(rows)
}

fn measure(
    executor: &mut Executor,
    work: &Work,
    mut source: Source,
    text: &[u32],
    passes: &mut Passes,
    progress: &dyn Progress,
) -> Result<DraftedRow> {
    let draft = source.name();
    let (mut gains, mut plain_seconds) = (Vec::new(), 0.0);
    let (mut all, mut n_passes, mut n_tokens) = (Drafted::default(), 0, 0);
    while gains.len() < work.n_rounds || plain_seconds < LEAST && gains.len() < MOST_ROUNDS {
        let round = gains.len();
        let mut halfway = |executor: &mut Executor| passes.measure(executor, text);
        let (plain, without) = greedy(executor, None, work, &mut halfway, progress)?;
        let drafter: Box<dyn Drafter + '_> = match &mut source {
            Source::Drafter(_, open) => open()?,
            Source::Scripted(share) => Box::new(Scripted::new(plain.clone(), *share, round as u64)),
        };
        let mut speculation = Speculation::new(Lengths::default(), vec![drafter]);
        let (drafted, with) = greedy(executor, Some(&mut speculation), work, &mut |_| Ok(()), progress)?;
        ensure!(drafted == plain && plain == text, "{draft}: the text with drafts is another one");
        let counts = speculation.counts();
        (all.n_drafted, all.n_taken) =
            (all.n_drafted + counts.drafted().n_drafted, all.n_taken + counts.drafted().n_taken);
        (n_passes, n_tokens) = (n_passes + counts.n_passes, n_tokens + counts.n_tokens);
        plain_seconds += without;
        gains.push(without / with);
    }
    Ok(DraftedRow {
        model: executor.model().gguf.source().name().to_owned(),
        draft,
        n_gen: work.n,
        n_rounds: gains.len(),
        plain_ts: (work.n * gains.len()) as f64 / plain_seconds,
        gain: median(&gains),
        n_drafted: all.n_drafted,
        n_taken: all.n_taken,
        tokens_per_pass: n_tokens as f64 / n_passes.max(1) as f64,
        formula: None,
        passes: Vec::new(),
    })
}

/// How many times as fast as single tokens drafts of the best length are, each token of which is right with probability `share`,
/// where a pass of `n` tokens takes `passes[n - 1]` times as long as one.
pub fn formula(share: f64, passes: &[f64]) -> f64 {
    let (mut best, mut tokens, mut reach) = (0.0f64, 0.0, 1.0);
    for time in passes {
        tokens += reach;
        reach *= share;
        best = best.max(tokens / time);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_length_is_where_tokens_per_second_are_most() {
        assert_eq!(formula(0.0, &[1.0, 1.2]), 1.0);
        assert_eq!(formula(1.0, &[1.0, 1.0, 2.0]), 2.0);
        assert!((formula(0.5, &[1.0, 1.2, 1.4]) - 1.25).abs() < 1e-9);
    }
}
