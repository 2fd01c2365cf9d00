//! Measures one test of one model: a row of the table.

use super::speed_args::Setting;
use super::texts::Scored;
use crate::Args;
use crate::common::card::{Placed, Where};
use crate::common::terminal::tell;
use anyhow::{Context, Result};
use powerinfer::executor::{ExecutorParams, FfnStats, Mode, Worker};
use powerinfer::gpu::Chosen;
use powerinfer::measure::batched::{Batched, BatchedRow};
use powerinfer::measure::perplexity::perplexity;
use powerinfer::measure::roofline::Limit;
use powerinfer::measure::row::{self, Parallel, Predicted, Row};
use powerinfer::measure::speed::{Repeated, Test, bytes_per_token, speed};
use powerinfer::measure::timing::Timing;
use powerinfer::model::Model;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{Planner, Room, Run};
use powerinfer::placement::union::{self, Tokens};
use powerinfer::placement::workload::Workload;
use powerinfer::progress::Progress;
use std::time::Instant;

/// A model, and how it is measured.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// The command's arguments.
    pub args: &'a Args,
    /// Where it is computed.
    pub chosen: &'a Chosen,
    /// The model.
    pub model: &'a Model,
    /// How it is run.
    pub setting: Setting,
    /// The threads.
    pub worker: &'a Worker,
    /// What the memory gives at best.
    pub limit: Option<Limit>,
}

impl Bench<'_> {
    /// An executor with a context of so many tokens.
    pub fn executor(&self, n_ctx: usize) -> Result<Placed<'_>> {
        self.executor_for(n_ctx, Room::default())
    }

    /// The same, where a card is to have this room.
    pub fn executor_for(&self, n_ctx: usize, room: Room) -> Result<Placed<'_>> {
        let args = self.args;
        let hardware = args.hardware.as_deref();
        let place = Where { compute: &args.compute, chosen: self.chosen, vram: &args.vram, hardware, room };
        let placement = args.ablation.placement(self.setting.mode, self.model)?;
        place.executor(self.model, placement, self.params(n_ctx), self.worker)
    }

    /// The row of `--batched` of one test, which feeds `tokens`.
    pub fn batched(&self, what: Batched, tokens: &[u32], progress: &dyn Progress) -> Result<BatchedRow> {
        let room = Room::of_sequences(what.n_parallel);
        let mut placed = self.executor_for(what.n_ctx().unwrap_or(0), room)?;
        let n_batch = self.setting.n_batch;
        let row = placed.measure(|executor| BatchedRow::measure(executor, what, tokens, n_batch, progress))?;
        self.args.synthetic.tell_density(placed.executor.stats(), self.model);
        Ok(row)
    }

    fn params(&self, n_ctx: usize) -> ExecutorParams {
        let Setting { n_threads, kv_type, mode, .. } = self.setting;
        let isa = self.args.compute.isa();
        ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch: self.setting.at_once(), isa }
    }

    /// Mean bytes of the FFN that a token touched, in modes that skip some.
    pub fn ffn_bytes(&self, stats: &FfnStats) -> Option<f64> {
        stats.ffn_bytes_per_token(self.model).filter(|_| self.setting.mode != Mode::Dense)
    }

    /// What the predictors did, while decoding so many tokens per second.
    pub fn predicted(&self, stats: &FfnStats, speed: f64) -> Option<Predicted> {
        (self.setting.mode == Mode::Predicted).then(|| Predicted::of(stats, speed))
    }

    /// `--predict`: compares a row of `test` with the time model.
    pub fn predict(&self, test: Test, hardware: &Hardware, row: &Row) {
        let predicted = match &row.card {
            Some(card) => card.planned_ts,
            None => {
                let work = &Workload::of(self.model).at_once(test.n_parallel);
                let run = self.params(test.n_ctx()).run(test.n_depth + test.n_gen / 2);
                let run = &Run { room: Room::of_sequences(test.n_parallel), ..run };
                Planner { hardware, work, run }.cpu_only(None).tokens_per_second()
            }
        };
        let (mode, threads, measured) = (self.setting.mode.name(), self.setting.n_threads, row.timing.avg_ts);
        let off = 100.0 * (predicted / measured - 1.0);
        tell!("predicted {mode} -t {threads} {}: {predicted:.2} t/s, measured {measured:.2}: {off:+.1} %", row.test);
    }

    /// A row of a test that begins now.
    pub fn row(&self, test: String, text: &str) -> Row {
        let Setting { n_batch, n_ubatch, mode, .. } = self.setting;
        let (params, hot) = (&self.params(0), self.args.ablation.hot(mode));
        Row::new(row::Setting { model: self.model, params, n_batch, n_ubatch, hot, text }, test)
    }

    /// The row of a speed test that feeds `tokens`.
    pub fn speed(&self, test: Test, tokens: &[u32], progress: &dyn Progress) -> Result<Row> {
        let row = self.row(test.name(), self.args.text());
        let mut placed = self.executor_for(test.n_ctx(), Room::of_sequences(test.n_parallel))?;
        let (repetitions, warmup) = (self.args.speed.repetitions(), !self.args.speed.no_warmup);
        let what = Repeated { test, tokens, repetitions, warmup };
        let speed = placed.measure(|executor| speed(self.model, executor, what, progress))?;
        let executor = &placed.executor;
        self.args.synthetic.tell_density(executor.stats(), self.model);
        let card = placed.used_card();
        // The limit is that of the CPU's memory.
        let limit = self.limit.filter(|_| test.n_prompt == 0 && card.is_none());
        let union_density = if test.n_parallel > 1 { speed.union_density } else { speed.ffn_density };
        // Other modes compute less than what fires, or all, whatever fires.
        let exact = self.setting.mode == Mode::Exact;
        let union_predicted = union::of_model(self.model, Tokens::Unrelated(test.n_parallel)).filter(|_| exact);
        let parallel = Parallel { n_parallel: test.n_parallel, union_density, union_predicted };
        let avg_ts = speed.timing.avg_ts;
        let row = Row {
            n_prompt: test.n_prompt,
            n_gen: test.n_gen,
            n_depth: test.n_depth,
            bytes_per_token: Some(speed.bytes_per_token),
            gb_per_s: limit.map(|_| speed.bytes_per_token * avg_ts / 1e9),
            limit_gb_per_s: limit.map(|limit| limit.best() / 1e9),
            ffn_bytes_per_token: self.ffn_bytes(executor.stats()),
            ffn_density: speed.ffn_density,
            ffn_up_density: speed.ffn_opened.filter(|_| self.model.has_two_masks()),
            predicted: self.predicted(executor.stats(), avg_ts),
            parallel: (test.n_parallel > 1 || self.args.speed.is_parallel()).then_some(parallel),
            timing: speed.timing,
            ..row
        };
        Ok(row.on(card))
    }

    /// The row of `--perplexity`.
    pub fn perplexity(&self, Scored { name, tokens, bos }: &Scored, progress: &dyn Progress) -> Result<Row> {
        let row = self.row("ppl".to_owned(), name);
        let (n_ctx, mode) = (self.args.ctx_size, self.setting.mode);
        let mut placed = self.executor(n_ctx)?;
        let scored = placed.measure(|executor| {
            let start = Instant::now();
            let result = perplexity(executor, tokens, n_ctx, *bos, mode.into(), self.args.chunks, progress)?;
            Ok((result, start.elapsed().as_nanos() as u64))
        });
        let (result, time) = scored.with_context(|| name.clone())?;
        let (executor, card) = (&placed.executor, placed.used_card());
        let n_tokens = result.n_windows * n_ctx;
        let timing = Timing::of(n_tokens, vec![time]);
        let n_ubatch = self.setting.at_once();
        let computed = match mode {
            Mode::Dense => Test { n_prompt: n_ctx, n_gen: 0, n_depth: 0, n_parallel: 1 },
            Mode::Exact | Mode::Predicted | Mode::Thresholded => {
                Test { n_prompt: 0, n_gen: n_ctx, n_depth: 0, n_parallel: 1 }
            }
        };
        let row = Row {
            n_prompt: n_tokens,
            n_ctx: Some(n_ctx),
            bytes_per_token: Some(bytes_per_token(self.model, executor.stats(), computed, mode, n_ubatch)),
            ffn_bytes_per_token: self.ffn_bytes(executor.stats()),
            ffn_density: result.ffn_density,
            ffn_up_density: result.ffn_opened.filter(|_| self.model.has_two_masks()),
            predicted: self.predicted(executor.stats(), timing.avg_ts),
            perplexity: Some(result.value),
            stderr: Some(result.stderr),
            timing,
            ..row
        };
        Ok(row.on(card))
    }
}
