//! Decoding with drafts, next to decoding without, and to what their lengths and shares say.

use super::table::{Column, Group, Tabled};
use crate::executor::Executor;
use crate::progress::{self, Progress};
use crate::speculation::{Drafter, LONGEST_DRAFT, Lengths, Scripted, Speculation, Target};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Instant;

/// Passes of each size that are timed for the formula.
const PASSES: usize = 3;
/// Tokens of a prompt.
const PROMPT: usize = 32;

/// A measurement.
#[derive(Debug, Clone)]
pub struct DraftedRow {
    /// File, or the name of the embedded model.
    pub model: String,
    /// Who drafts.
    pub draft: String,
    /// Tokens decoded.
    pub n_gen: usize,
    /// Tokens per second without drafts.
    pub plain_ts: f64,
    /// The same with them.
    pub drafted_ts: f64,
    /// Tokens that were drafted, and those that stayed.
    pub n_drafted: usize,
    /// Those that stayed.
    pub n_taken: usize,
    /// Tokens per pass.
    pub tokens_per_pass: f64,
    /// Tokens per second that drafts of the best length have, where it is known how often they are right.
    pub formula_ts: Option<f64>,
}

/// Tokens that a model finds most likely behind a prompt, and how fast it was; no token ends the text.
fn greedy(
    executor: &mut Executor,
    speculation: Option<&mut Speculation>,
    prompt: &[u32],
    n: usize,
    progress: &dyn Progress,
) -> Result<(Vec<u32>, f64)> {
    executor.clear();
    let best = |logits: &[f32]| {
        let best = (0u32..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.map(|(token, _)| token).context("no logits")
    };
    let n_tokens = executor.model().config.n_tokens;
    let mut token = best(&executor.prefill(prompt)?[..n_tokens])?;
    let mut text = prompt.to_vec();
    let mut target = Target::new(executor, speculation);
    target.read(prompt);
    let start = Instant::now();
    for i in 0..n {
        progress::check(progress)?;
        text.push(token);
        token = best(&target.decode(token, n - i - 1)?[..n_tokens])?;
        progress.advance(1);
    }
    target.settle()?;
    Ok((text, n as f64 / start.elapsed().as_secs_f64()))
}

/// Seconds of passes of 1, 2, ... tokens of `text` behind the prompt.
fn seconds(executor: &mut Executor, text: &[u32], progress: &dyn Progress) -> Result<Vec<f64>> {
    let most = (LONGEST_DRAFT + 1).min(executor.params().n_ubatch).min(text.len().saturating_sub(PROMPT));
    (1..=most)
        .map(|n| {
            executor.clear();
            executor.prefill(&text[..PROMPT.min(text.len() - n)])?;
            let mut times = Vec::new();
            for _ in 0..=PASSES {
                progress::check(progress)?;
                let from = executor.n_past();
                if from + n > executor.params().n_ctx {
                    break;
                }
                let start = Instant::now();
                executor.decode_tentatively(&text[from..from + n])?;
                times.push(start.elapsed().as_secs_f64());
                executor.settle(0)?;
            }
            // The first takes memory.
            times.remove(0);
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().context("no room for a draft")
        })
        .collect()
}

/// A source of drafts.
pub enum Source<'d> {
    /// One by its name.
    Drafter(String, Box<dyn Drafter + 'd>),
    /// Drafts of which each token is right with this probability.
    Scripted(f64),
}

/// Measures `n` greedy tokens behind the first ones of `tokens` with each of `sources`.
///
/// # Errors
/// When they do not fit in the context, the text with drafts is another one, or the user stops it.
pub fn drafted(
    executor: &mut Executor,
    tokens: &[u32],
    n: usize,
    sources: Vec<Source>,
    progress: &dyn Progress,
) -> Result<Vec<DraftedRow>> {
    ensure!(executor.can_take_back(), "drafts are measured on the processor; --device cpu");
    let prompt = &tokens[..PROMPT.min(tokens.len())];
    ensure!(!prompt.is_empty() && n > 0, "no tokens to decode");
    progress.begin("drafts", (n * (1 + 2 * sources.len())) as u64);
    // Once for the memory that it takes.
    greedy(executor, None, prompt, n.min(8), progress)?;
    let scripted = sources.iter().any(|source| matches!(source, Source::Scripted(_)));
    let mut rows = Vec::new();
    let mut times = Vec::new();
    for source in sources {
        // Side by side, as the machine is now.
        let (plain, plain_ts) = greedy(executor, None, prompt, n, progress)?;
        if scripted && times.is_empty() {
            times = seconds(executor, &plain, progress)?;
        }
        let (draft, drafter, share): (String, Box<dyn Drafter + '_>, _) = match source {
            Source::Drafter(name, drafter) => (name, drafter, None),
            Source::Scripted(share) => {
                (format!("scripted {share}"), Box::new(Scripted::new(plain.clone(), share, 1)), Some(share))
            }
        };
        let mut speculation = Speculation::new(Lengths::default(), vec![drafter]);
        let (text, drafted_ts) = greedy(executor, Some(&mut speculation), prompt, n, progress)?;
        ensure!(text == plain, "{draft}: the text with drafts is another one");
        let counts = speculation.counts();
        let all = counts.drafted();
        rows.push(DraftedRow {
            model: executor.model().gguf.source().name().to_owned(),
            draft,
            n_gen: n,
            plain_ts,
            drafted_ts,
            n_drafted: all.n_drafted,
            n_taken: all.n_taken,
            tokens_per_pass: counts.tokens_per_pass(),
            formula_ts: share.map(|share| formula(share, &times)),
        });
    }
    progress.end();
    Ok(rows)
}

/// Tokens per second with drafts of the best length, each token of which is right with probability `share`, where a pass of `n`
/// tokens takes `seconds[n - 1]`.
pub fn formula(share: f64, seconds: &[f64]) -> f64 {
    let (mut best, mut tokens, mut reach) = (0.0f64, 0.0, 1.0);
    for seconds in seconds {
        tokens += reach;
        reach *= share;
        best = best.max(tokens / seconds);
    }
    best
}

impl Tabled for DraftedRow {
    const TABLE: &'static str = "powerinfer_drafts";

    fn groups() -> &'static [Group<Self>] {
        &GROUPS
    }
}

const fn text(name: &'static str, value: fn(&DraftedRow) -> Value) -> Column<DraftedRow> {
    Column::text(name, value)
}

const fn count(name: &'static str, value: fn(&DraftedRow) -> Value) -> Column<DraftedRow> {
    Column::integer(name, value)
}

const fn number(name: &'static str, value: fn(&DraftedRow) -> Value) -> Column<DraftedRow> {
    Column::real(name, value)
}

/// All columns, in order.
static GROUPS: [Group<DraftedRow>; 1] = [Group {
    name: "drafts",
    needed: None,
    columns: &[
        text("model_filename", |row| Value::from(row.model.clone())).shown("model", |row| Some(row.model.clone())),
        text("draft", |row| Value::from(row.draft.clone())).shown("draft", |row| Some(row.draft.clone())),
        count("n_gen", |row| Value::from(row.n_gen)).shown("tokens", |row| Some(row.n_gen.to_string())),
        number("plain_ts", |row| Value::from(row.plain_ts))
            .shown("t/s without", |row| Some(format!("{:.2}", row.plain_ts))),
        number("drafted_ts", |row| Value::from(row.drafted_ts))
            .shown("t/s", |row| Some(format!("{:.2}", row.drafted_ts))),
        number("gain", |row| Value::from(row.gain())).shown("gain", |row| Some(format!("{:.2}", row.gain()))),
        count("n_drafted", |row| Value::from(row.n_drafted)).shown("drafted", |row| Some(row.n_drafted.to_string())),
        count("n_accepted", |row| Value::from(row.n_taken)).shown("accepted", |row| row.share()),
        number("tokens_per_pass", |row| Value::from(row.tokens_per_pass))
            .shown("tokens/pass", |row| Some(format!("{:.2}", row.tokens_per_pass))),
        number("formula_ts", |row| Value::from(row.formula_ts))
            .shown("t/s by formula", |row| row.formula_ts.map(|ts| format!("{ts:.2}"))),
    ],
}];

impl DraftedRow {
    /// How many times as fast it is as without.
    pub fn gain(&self) -> f64 {
        self.drafted_ts / self.plain_ts
    }

    fn share(&self) -> Option<String> {
        (self.n_drafted > 0).then(|| format!("{:.1} %", 100.0 * self.n_taken as f64 / self.n_drafted as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_length_is_where_tokens_per_second_are_most() {
        assert_eq!(formula(0.0, &[0.5, 0.6]), 2.0);
        assert_eq!(formula(1.0, &[1.0, 1.0, 2.0]), 2.0);
        assert!((formula(0.5, &[1.0, 1.2, 1.4]) - 1.25).abs() < 1e-9);
    }
}
