//! Several sequences at once in the manner of llama-batched-bench: their prompts, then one token of each in every pass, with a
//! time of its own for either.

use super::speed::parallel::{decode, feed, prefill, sequences};
use super::table::{Column, Group, Tabled};
use crate::executor::{Executor, ExecutorParams, KvPages, Mode, Sequence, dense_bytes_per_token};
use crate::model::Model;
use crate::progress::Progress;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Instant;

/// Tokens that the memory is warmed up with, as there.
const WARMUP: usize = 16;

/// What is measured at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batched {
    /// Tokens of each prompt.
    pub n_prompt: usize,
    /// Tokens that are decoded of each sequence.
    pub n_gen: usize,
    /// Sequences.
    pub n_parallel: usize,
    /// Whether they have one prompt, which is computed once.
    pub is_shared: bool,
}

impl Batched {
    /// Tokens that one sequence must hold; `None` where they cannot be counted.
    pub fn n_ctx(self) -> Option<usize> {
        self.n_prompt.checked_add(self.n_gen)
    }

    /// Tokens of prompts that are computed.
    fn n_prompts(self) -> usize {
        if self.is_shared { self.n_prompt } else { self.n_parallel * self.n_prompt }
    }

    /// Tokens that all of them hold, those of a shared prompt once; `None` where they cannot be counted.
    pub fn n_kv(self) -> Option<usize> {
        let own = if self.is_shared { self.n_gen } else { self.n_ctx()? };
        let once = if self.is_shared { self.n_prompt } else { 0 };
        own.checked_mul(self.n_parallel)?.checked_add(once)
    }
}

/// What it gave.
#[derive(Debug, Clone)]
pub struct BatchedRow {
    /// File, or the name of the embedded model.
    pub model: String,
    /// Whether other rows are of other models.
    pub is_one_of_several: bool,
    /// How it was computed.
    pub params: ExecutorParams,
    /// The upper limit of `n_ubatch` that was given.
    pub n_batch: usize,
    /// Real or random tokens, or a file.
    pub text: String,
    /// What was measured.
    pub what: Batched,
    /// Seconds of all prompts.
    pub prompt_s: f64,
    /// Seconds of all passes behind them.
    pub gen_s: f64,
    /// Share of neurons that fired for a token, where somebody looked.
    pub density: Option<f64>,
    /// The same for any token of a pass.
    pub union_density: Option<f64>,
    /// Mean bytes of weights read per decoded token; what tokens of a pass have in common counts once.
    pub bytes_per_token: Option<f64>,
    /// Keys and values at the end.
    pub pages: KvPages,
}

impl BatchedRow {
    /// Measures `what` with `tokens`, of which each sequence gets others.
    ///
    /// # Errors
    /// When there is no memory for so many sequences, or the user stops it.
    pub fn measure(
        executor: &mut Executor,
        what: Batched,
        tokens: &[u32],
        n_batch: usize,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let n = what.n_parallel;
        let (n_ctx, n_kv) = what.n_ctx().zip(what.n_kv()).context("more tokens than any context has")?;
        ensure!(n_kv > 0 && !tokens.is_empty(), "no tokens to compute");
        let feeds: Vec<Vec<u32>> = (0..n).map(|i| feed(tokens, i, n, n_ctx)).collect();
        let decoded: Vec<&[u32]> = feeds.iter().map(|feed| &feed[what.n_prompt..]).collect();
        progress.begin("sequences", (what.n_prompts() + n * what.n_gen) as u64);
        warm_up(executor, &feeds, what.n_gen > 0, progress)?;
        let mut sequences = sequences(executor, n)?;
        executor.reset_stats();
        let start = Instant::now();
        let n_computed = if what.is_shared { 1 } else { n };
        for (sequence, feed) in sequences.iter_mut().zip(&feeds).take(n_computed) {
            prefill(executor, sequence, &feed[..what.n_prompt], progress)?;
            progress.advance(what.n_prompt as u64);
        }
        if let (true, Some((first, others))) = (what.is_shared, sequences.split_first_mut()) {
            let shared = others.iter_mut().all(|sequence| executor.copy_sequence(first, sequence, what.n_prompt));
            ensure!(shared, "a prompt of {} tokens cannot be shared", what.n_prompt);
        }
        let prompt_s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        decode(executor, &mut sequences, &decoded, progress)?;
        let gen_s = start.elapsed().as_secs_f64();
        progress.advance((n * what.n_gen) as u64);
        progress.end();
        let pages = Sequence::kv_pages(&sequences);
        sequences.iter().for_each(|sequence| executor.add_stats(sequence));
        Ok(Self::of(executor, what, n_batch, (prompt_s, gen_s), pages))
    }

    fn of(executor: &Executor, what: Batched, n_batch: usize, (prompt_s, gen_s): (f64, f64), pages: KvPages) -> Self {
        let (model, stats, params): (&Model, _, _) = (executor.model(), executor.stats(), executor.params().clone());
        let sparse = params.mode != Mode::Dense;
        let bytes_per_token = match sparse {
            true => stats.shared_bytes_per_token(model),
            false => Some(dense_bytes_per_token(model) / what.n_parallel as f64),
        };
        Self {
            model: model.gguf.source().name().to_owned(),
            is_one_of_several: false,
            params,
            n_batch,
            text: String::new(),
            what,
            prompt_s,
            gen_s,
            density: stats.density().filter(|_| what.n_gen > 0),
            union_density: stats.union_density().filter(|_| sparse && what.n_gen > 0),
            bytes_per_token: bytes_per_token.filter(|_| what.n_gen > 0),
            pages,
        }
    }

    fn n_kv(&self) -> usize {
        self.what.n_kv().unwrap_or(0)
    }

    fn prompt_ts(&self) -> Option<f64> {
        per_second(self.what.n_prompts(), self.prompt_s)
    }

    fn gen_ts(&self) -> Option<f64> {
        per_second(self.what.n_parallel * self.what.n_gen, self.gen_s)
    }

    fn seconds(&self) -> f64 {
        self.prompt_s + self.gen_s
    }

    fn all_ts(&self) -> Option<f64> {
        per_second(self.n_kv(), self.seconds())
    }
}

/// Takes in the beginning of a prompt, and where tokens will be decoded one pass of as many; nothing of it stays.
fn warm_up(executor: &mut Executor, feeds: &[Vec<u32>], decodes: bool, progress: &dyn Progress) -> Result<()> {
    let mut sequences = sequences(executor, feeds.len())?;
    prefill(executor, &mut sequences[0], &feeds[0][..feeds[0].len().min(WARMUP)], progress)?;
    sequences[0].clear();
    if decodes {
        let one: Vec<&[u32]> = feeds.iter().map(|feed| &feed[..1]).collect();
        decode(executor, &mut sequences, &one, progress)?;
    }
    Ok(())
}

/// Tokens per second, where there are any.
fn per_second(n: usize, seconds: f64) -> Option<f64> {
    (n > 0 && seconds > 0.0).then(|| n as f64 / seconds)
}

impl Tabled for BatchedRow {
    const TABLE: &'static str = "powerinfer_batched";

    fn groups() -> &'static [Group<Self>] {
        &GROUPS
    }
}

const fn text(name: &'static str, value: fn(&BatchedRow) -> Value) -> Column<BatchedRow> {
    Column::text(name, value)
}

const fn count(name: &'static str, value: fn(&BatchedRow) -> Value) -> Column<BatchedRow> {
    Column::integer(name, value)
}

const fn number(name: &'static str, value: fn(&BatchedRow) -> Value) -> Column<BatchedRow> {
    Column::real(name, value)
}

const fn again(title: &'static str, cell: fn(&BatchedRow) -> Option<String>) -> Column<BatchedRow> {
    Column::again_wide(title, 0, cell)
}

/// A time or a speed, as wide as there.
const fn wide(title: &'static str, cell: fn(&BatchedRow) -> Option<String>) -> Column<BatchedRow> {
    Column::again_wide(title, 8, cell)
}

fn seconds(value: f64) -> Option<String> {
    Some(format!("{value:.3}"))
}

fn speed(value: Option<f64>) -> Option<String> {
    value.map(|ts| format!("{ts:.2}"))
}

fn share(value: Option<f64>) -> Option<String> {
    value.map(|share| format!("{:.2} %", 100.0 * share))
}

fn mib(bytes: f64) -> String {
    format!("{:.2}", bytes / (1 << 20) as f64)
}

/// Group of the columns of rows of several models.
pub const MODELS: &str = "models";

/// All columns, in order: first those of llama-batched-bench by its names, then those that it does not have. What there is no
/// choice of here has the value that it has there.
static GROUPS: [Group<BatchedRow>; 4] = [
    Group {
        name: "llama-batched-bench: run",
        needed: None,
        columns: &[
            count("n_kv_max", |r| r.n_kv().into()),
            count("n_batch", |r| r.n_batch.into()),
            count("n_ubatch", |r| r.params.n_ubatch.into()),
            count("flash_attn", |_| (-1).into()),
            count("is_pp_shared", |r| u8::from(r.what.is_shared).into()),
            count("n_gpu_layers", |_| 0.into()),
            count("n_threads", |r| r.params.n_threads.into()),
            count("n_threads_batch", |r| r.params.n_threads.into()),
        ],
    },
    Group {
        name: MODELS,
        needed: Some(|row| row.is_one_of_several),
        columns: &[again("model", |r| Some(r.model.clone()))],
    },
    Group {
        name: "llama-batched-bench: result",
        needed: None,
        columns: &[
            Column::again_wide("mode", 9, |r| Some(r.params.mode.name().to_owned())),
            count("pp", |r| r.what.n_prompt.into()).shown_wide("PP", 6, |r| Some(r.what.n_prompt.to_string())),
            count("tg", |r| r.what.n_gen.into()).shown_wide("TG", 6, |r| Some(r.what.n_gen.to_string())),
            count("pl", |r| r.what.n_parallel.into()).shown_wide("B", 4, |r| Some(r.what.n_parallel.to_string())),
            count("n_kv", |r| r.n_kv().into()).shown_wide("N_KV", 6, |r| Some(r.n_kv().to_string())),
            number("t_pp", |r| r.prompt_s.into()),
            wide("T_PP s", |r| seconds(r.prompt_s)),
            number("speed_pp", |r| r.prompt_ts().into()),
            wide("S_PP t/s", |r| speed(r.prompt_ts())),
            number("t_tg", |r| r.gen_s.into()),
            wide("T_TG s", |r| seconds(r.gen_s)),
            number("speed_tg", |r| r.gen_ts().into()),
            wide("S_TG t/s", |r| speed(r.gen_ts())),
            number("t", |r| r.seconds().into()),
            wide("T s", |r| seconds(r.seconds())),
            number("speed", |r| r.all_ts().into()),
            wide("S t/s", |r| speed(r.all_ts())),
        ],
    },
    Group {
        name: "ours",
        needed: None,
        columns: &[
            text("model_filename", |r| r.model.as_str().into()),
            text("mode", |r| r.params.mode.name().into()),
            text("text", |r| r.text.as_str().into()),
            text("isa", |r| r.params.isa.name().into()),
            number("ffn_density", |r| r.density.into()).shown("density", |r| share(r.density)),
            number("union_density", |r| r.union_density.into()).shown("density of union", |r| share(r.union_density)),
            number("bytes_per_token", |r| r.bytes_per_token.into())
                .shown_wide("MiB/token", 8, |r| r.bytes_per_token.map(mib)),
            count("kv_bytes", |r| r.pages.taken.0.into()).shown("KV MiB", |r| Some(mib(r.pages.taken.0 as f64))),
            count("kv_shared_bytes", |r| r.pages.shared.0.into()),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_prompt_counts_once() {
        let of = |is_shared| Batched { n_prompt: 100, n_gen: 10, n_parallel: 4, is_shared };
        assert_eq!((of(false).n_kv(), of(false).n_prompts()), (Some(440), 400));
        assert_eq!((of(true).n_kv(), of(true).n_prompts()), (Some(140), 100));
        let many = Batched { n_gen: usize::MAX, ..of(true) };
        assert_eq!((many.n_kv(), many.n_ctx()), (None, None));
    }
}
