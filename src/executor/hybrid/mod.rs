//! Tokens that a card and the CPU compute together, as a plan divides them.
//!
//! The card has the residual stream. A token is one graph, launched once; in its middle the card hands pieces to the
//! CPU through the mailbox, goes on with its own part, and waits for the answer only where it is to be added.

mod batch;
mod record;
mod resident;
mod scratch;
mod tasks;

use super::attention::Rotation;
use super::engine::{Engine, Phase};
use super::ffn::Mode;
use super::forward::{ExecutorParams, Observer, Unobserved};
use super::pass::{self, NormOf};
use super::stats::Computed;
use crate::gpu::mailbox::{Job, Layout, Mailbox, Sizes, Wait};
use crate::gpu::matrix::DeviceMatrix;
use crate::gpu::tiles::Tiles;
use crate::gpu::{Device, Graph, Kernels, Mapped, Ptr, Stream};
use crate::model::{Down, Matrix, Model, Scores};
use crate::placement::budget::tile_bytes;
use crate::placement::plan::{LayerChoice, Method, Plan, PlannedLayer, Run};
use crate::placement::workload::Workload;
use crate::units::Bytes;
use anyhow::{Context, Result, bail, ensure};
use batch::Batch;
use record::{Card, Recorder};
use resident::Resident;
use scratch::Scratch;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};
use tasks::Task;

/// How long the CPU waits for the card.
const CARD_LIMIT: Duration = Duration::from_secs(60);
/// How long the pool's threads keep awake for the next piece of a token.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long a card that has failed is waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// A batch of fewer tokens is decoded one by one: weights that are not on the card would take longer to get there.
const FEW: usize = 4;

/// Whether kernels for the card exist for all that `model` is made of.
///
/// # Errors
/// Names the first thing that they do not exist for.
pub fn check_card(model: &Model, params: &ExecutorParams) -> Result<()> {
    let config = &model.config;
    let check =
        |m: &Matrix| DeviceMatrix::at(Ptr::NULL, m.dtype(), m.n_rows, m.n_cols).with_context(|| m.name().to_owned());
    check(model.weights.head())?;
    for layer in &model.weights.layers {
        for linear in [&layer.attn_q, &layer.attn_k, &layer.attn_v, &layer.attn_output] {
            check(&linear.weight)?;
        }
        let group = &layer.ffn[0];
        check(group.mask_matrix())?;
        check(&group.ffn_up)?;
        if let Down::Rows(down) = &group.ffn_down {
            check(down)?;
        }
        if let Some(Scores::Factors { input, output, .. }) = group.predictor.as_ref().map(|p| &p.scores) {
            check(input)?;
            check(output)?;
        }
    }
    let cache = crate::gpu::ops::rope::KvLayer {
        ptr: Ptr::NULL,
        dtype: params.kv_type.dtype(),
        n_ctx: params.n_ctx,
        n_head_kv: config.n_head_kv,
        head_dim: config.head_dim,
    };
    cache.n_bytes()?;
    ensure!(config.n_embd <= crate::gpu::ops::norm::MAX_NORM, "rows of {} are too long for the card", config.n_embd);
    Ok(())
}

/// Layers one behind the other that are alike in who computes them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stretch {
    /// Wholly the CPU.
    Cpu(Range<usize>),
    /// The card has a part of each.
    Card(Range<usize>),
}

/// `layers` in stretches.
fn stretches(layers: &[PlannedLayer]) -> Vec<Stretch> {
    let on_card = |l: &PlannedLayer| l.choice.attention || l.choice.has_ffn();
    let mut begin = 0;
    let runs = layers.chunk_by(|a, b| on_card(a) == on_card(b));
    runs.map(|run| {
        let range = begin..begin + run.len();
        begin = range.end;
        if on_card(&run[0]) { Stretch::Card(range) } else { Stretch::Cpu(range) }
    })
    .collect()
}

/// Time that tokens took so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct CardTimes {
    /// Tokens decoded.
    pub n_tokens: u64,
    /// From the launch to the logits.
    pub total: Duration,
    /// Of that, the CPU's part: tasks, and layers before and behind the card's.
    pub cpu: Duration,
    /// Of that, what the card waited for the CPU.
    pub waited: Duration,
    /// Pieces that the card has handed to the CPU.
    pub n_tasks: u64,
}

/// A model divided between a card and the CPU.
pub(super) struct Hybrid {
    /// Layers before the card's first one.
    before: Range<usize>,
    /// Layers behind its last one, where the head is on the CPU.
    behind: Option<Range<usize>>,
    tasks: Vec<Task>,
    plan: Plan,
    times: CardTimes,
    /// Why it cannot go on.
    failed: Option<String>,
    route: Vec<Stretch>,
    // What others work on comes behind them, so that it is dropped later.
    graph: Graph,
    tiles: Tiles,
    mailbox: Mailbox,
    scratch: Scratch,
    resident: Resident,
    kernels: Kernels,
    stream: Stream,
}

impl Hybrid {
    /// Takes to the card what `plan` has there, and writes the token down.
    pub fn new(model: &Model, device: &Device, plan: Plan, params: &ExecutorParams) -> Result<Self> {
        check_card(model, params).with_context(|| model.gguf.source().name().to_owned())?;
        let method = match params.mode {
            Mode::Dense => Method::Dense,
            Mode::Exact => Method::Exact,
            Mode::Predicted => Method::Predicted,
        };
        let kv_type = params.kv_type.dtype();
        let run = Run { n_ctx: params.n_ctx, n_past: params.n_ctx, kv_type, n_ubatch: params.n_ubatch, method };
        let work = Workload::of(model);
        ensure!(plan.layers.len() == work.layers.len(), "a plan of {} layers", plan.layers.len());
        let config = &model.config;
        let stream = Stream::new(device)?;
        let kernels = Kernels::load(device)?;
        let rotation = Rotation::new(&config.rope, model.weights.rope_freqs.as_deref());
        let short = || format!("the plan takes {}; a lower --vram-budget leaves more to others", plan.account.taken());
        let resident = Resident::load(model, &work, &run, &plan, &kernels, &stream).with_context(short)?;
        let scratch = Scratch::new(model, &work, &run, &rotation, &stream).with_context(short)?;
        let n_ff = config.n_ff.iter().copied().max().unwrap_or(0);
        let sizes = Sizes { n_embd: config.n_embd, n_ff, n_vocab: config.n_vocab, n_layer: config.n_layer };
        let layout = Layout::new(sizes);
        let mailbox = Mailbox::new(Mapped::new(device, layout.bytes, "the mailbox")?, layout)?;

        let tiles = Tiles::new(device, Bytes(tile_bytes(&work))).with_context(short)?;
        let mut route = stretches(&plan.layers);
        let mut before = 0..0;
        if let Some(Stretch::Cpu(first)) = route.first() {
            before = first.clone();
            route.remove(0);
        }
        let mut behind = resident.head.is_none().then_some(config.n_layer..config.n_layer);
        if let (Some(behind), Some(Stretch::Cpu(last))) = (&mut behind, route.last()) {
            *behind = last.clone();
            route.pop();
        }
        let addresses = mailbox.addresses();
        let card = Card {
            model,
            kernels: &kernels,
            stream: &stream,
            resident: &resident,
            scratch: &scratch,
            mailbox: addresses,
            mode: params.mode,
        };
        let mut tasks = Vec::new();
        let graph = stream.capture(|| {
            let mut recorder = Recorder::begin(card)?;
            for stretch in &route {
                match stretch {
                    Stretch::Cpu(layers) => recorder.on_cpu(layers.clone())?,
                    Stretch::Card(layers) => pass::layers(model, layers.clone(), &mut recorder)?,
                }
            }
            tasks = recorder.finish(behind.is_some())?;
            Ok(())
        })?;
        graph.upload(&stream)?;
        stream.synchronize()?;
        let (times, failed) = (CardTimes::default(), None);
        Ok(Self {
            before,
            behind,
            tasks,
            mailbox,
            plan,
            times,
            failed,
            route,
            graph,
            tiles,
            scratch,
            resident,
            kernels,
            stream,
        })
    }

    /// Counts what the card did for the token that is finished. In dense mode it does not look who fires.
    fn count(&self, engine: &mut Engine) {
        for (i, (layer, counts)) in self.resident.layers.iter().zip(self.mailbox.counts().chunks_exact(2)).enumerate() {
            let LayerChoice { mask, n_hot, .. } = layer.choice;
            if layer.choice.has_ffn() {
                let group = &engine.model.weights.layers[i].ffn[0];
                let masked = if mask { group.n_ff() } else { n_hot };
                let fired = if n_hot > 0 { counts[0] as usize } else { 0 };
                let predictor = group.predictor.as_ref().filter(|_| layer.predictor.is_some());
                let predictor_bytes = predictor.map_or(0, |p| p.bytes_for(n_hot..group.n_ff()));
                engine.stats.add(i, Computed { fired, masked, predictor_bytes, ..Computed::default() });
            }
        }
        engine.stats.end_token();
    }

    /// Bytes that were allocated on the card.
    pub fn n_bytes(&self) -> Bytes {
        Bytes(self.resident.n_bytes() + self.scratch.n_bytes() + self.tiles.n_bytes())
    }

    /// How the model is divided.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Times so far.
    pub fn times(&self) -> CardTimes {
        self.times
    }

    /// Begins to count times anew.
    pub fn reset_times(&mut self) {
        self.times = CardTimes::default();
    }

    /// Takes in `tokens`, at most as many as a batch has; logits are those of `engine` afterwards.
    pub fn prefill(&mut self, engine: &mut Engine, tokens: &[u32], observer: &mut dyn Observer) -> Result<()> {
        // What a predictor misses is missing from decode only.
        if tokens.len() >= FEW || engine.params.mode == Mode::Predicted {
            return self.working(|hybrid| hybrid.batch(engine, tokens, observer));
        }
        let (stats, times) = (engine.stats.clone(), self.times);
        for token in tokens {
            let position = engine.kv.n_past();
            self.decode(engine, *token)?;
            if observer.wants_logits() {
                observer.logits(position, &engine.state.logits);
            }
        }
        // Only what is decoded counts.
        (engine.stats, self.times) = (stats, times);
        Ok(())
    }

    fn batch(&mut self, engine: &mut Engine, tokens: &[u32], observer: &mut dyn Observer) -> Result<()> {
        let (first, n) = (engine.kv.n_past(), tokens.len());
        engine.embed(tokens);
        engine.layers(self.before.clone(), Phase::Prefill, &mut Unobserved)?;
        let (model, mode) = (engine.model, engine.params.mode);
        let mailbox = self.mailbox.addresses();
        let Self { kernels, stream, resident, scratch, tiles, .. } = self;
        let card = Card { model, kernels, stream, resident, scratch, mailbox, mode };
        let mut batch = Batch { card, engine, tiles, first, n };
        batch.upload()?;
        for stretch in &self.route {
            match stretch {
                Stretch::Card(layers) => pass::layers(model, layers.clone(), &mut batch)?,
                Stretch::Cpu(layers) => {
                    batch.download()?;
                    batch.engine.layers(layers.clone(), Phase::Prefill, &mut Unobserved)?;
                    batch.upload()?;
                }
            }
        }
        match &self.behind {
            Some(behind) => {
                batch.download()?;
                batch.engine.layers(behind.clone(), Phase::Prefill, &mut Unobserved)?;
                batch.engine.normalize(NormOf::Output);
                batch.engine.output(n, first, Phase::Prefill, observer);
            }
            None => batch.output(observer)?,
        }
        engine.kv.advance(n);
        Ok(())
    }

    /// Does `work`, unless the card has failed; notes it when it fails.
    fn working(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if let Some(why) = &self.failed {
            bail!("the card has failed before: {why}");
        }
        let done = work(self);
        if let Err(error) = &done {
            self.failed = Some(format!("{error:#}"));
            self.mailbox.stop();
            // It ends soon; whether well does not matter any more.
            let since = Instant::now();
            while matches!(self.stream.query(), Ok(false)) && since.elapsed() < LAST_WORDS {
                thread::sleep(Duration::from_millis(1));
            }
        }
        done
    }

    /// Takes in one token; logits are those of `engine` afterwards.
    pub fn decode(&mut self, engine: &mut Engine, token: u32) -> Result<()> {
        engine.set_patience(PATIENCE);
        self.working(|hybrid| hybrid.token(engine, token))
    }

    fn token(&mut self, engine: &mut Engine, token: u32) -> Result<()> {
        let begin = Instant::now();
        let mut cpu = Duration::ZERO;
        let mut on_cpu = |begin: Instant| cpu += begin.elapsed();
        engine.embed(&[token]);
        if !self.before.is_empty() {
            engine.layers(self.before.clone(), Phase::Decode, &mut Unobserved)?;
            on_cpu(begin);
        }
        let first = engine.kv.n_past();
        self.mailbox.begin_token(self.tasks.len() as u32, first, &engine.state.x)?;
        self.graph.launch(&self.stream)?;
        if cfg!(windows) {
            // There a launch may lie in a queue until somebody asks.
            self.stream.query()?;
        }
        let stream = &self.stream;
        let alive = || stream.query().map(|_| ());
        let wait = Wait { limit: CARD_LIMIT, alive: &alive };
        for (job, task) in self.tasks.iter().enumerate() {
            let job = job as u32;
            match self.mailbox.wait_job(job, wait)? {
                Job::Posted => {
                    let begin = Instant::now();
                    tasks::answer(engine, &mut self.mailbox, job, task)?;
                    on_cpu(begin);
                    self.times.n_tasks += 1;
                }
                Job::Skipped => {}
                Job::Done => break,
            }
        }
        self.mailbox.wait_done(wait)?;
        match &self.behind {
            Some(behind) => {
                let begin = Instant::now();
                engine.layers(behind.clone(), Phase::Decode, &mut Unobserved)?;
                engine.normalize(NormOf::Output);
                engine.output(1, first, Phase::Decode, &mut Unobserved);
                on_cpu(begin);
            }
            None => {
                engine.state.logits.clear();
                engine.state.logits.extend_from_slice(self.mailbox.logits());
            }
        }
        engine.kv.advance(1);
        if engine.params.mode != Mode::Dense {
            self.count(engine);
        }
        self.times.n_tokens += 1;
        self.times.waited += self.mailbox.waited();
        self.times.total += begin.elapsed();
        self.times.cpu += cpu;
        Ok(())
    }
}

impl Drop for Hybrid {
    /// Where a token was given up in its middle, the card need not wait for the CPU.
    fn drop(&mut self) {
        self.mailbox.stop();
    }
}
