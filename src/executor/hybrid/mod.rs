//! Tokens that a card and the CPU compute together, as a plan divides them.
//!
//! The card has the residual stream. A token is one graph, launched once; in its middle the card hands pieces to the
//! CPU through the mailbox, goes on with its own part, and waits for the answer only where it is to be added.

mod batch;
mod cache;
mod check;
mod heads;
mod record;
mod recurrent;
mod resident;
mod scratch;

use super::batch::Batch;
use super::cpu::{Choice, Cpu, Found, Given, How, Request};
use super::device::{Backend, CardReport, CardTimes, Handed, Phase, Tokens};
use super::mask::MaskSource;
use super::memory::Memory;
use super::observer::Unobserved;
use super::program::{Instruction, for_many, fuse_merges, of_layer, output_norm};
use super::stats::Computed;
use crate::gpu::mailbox::{Arrival, Layout, Mailbox, Sizes, Wait};
use crate::gpu::memory::SHORT_OF_MEMORY;
use crate::gpu::ops::route::NOT_CHOSEN;
use crate::gpu::tiles::Tiles;
use crate::gpu::waiting;
use crate::gpu::{Device, Graph, Kernels, Mapped, Stream};
use crate::model::{Layer, Mode, Model, NeuronGroup};
use crate::placement::budget::tile_bytes;
use crate::placement::plan::{Plan, PlannedLayer};
use crate::placement::workload::Workload;
use crate::progress::Interrupted;
use crate::trace::{Span, What};
use crate::units::Bytes;
use anyhow::{Context, Error, Result, bail, ensure};
use batch::Many;
pub use check::check_card;
use record::{Card, Recorder};
use resident::Resident;
use scratch::Scratch;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

/// How long the pool's threads keep awake for the next piece of a token.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long a card that has failed is waited for.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// A batch of fewer tokens is decoded one by one: weights that are not on the card would take longer to get there.
const FEW: usize = 4;

/// Consecutive layers that are alike in which side computes them.
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

/// The layers of `route` as one program.
fn program(cpu: &Cpu, route: &[Stretch]) -> Vec<Instruction> {
    let mut out = Vec::new();
    for stretch in route {
        match stretch {
            Stretch::Cpu(layers) => out.push(Instruction::Elsewhere(layers.clone())),
            Stretch::Card(layers) => {
                out.extend(layers.clone().flat_map(|i| of_layer(i, &cpu.model().weights.layers[i])));
            }
        }
    }
    out
}

/// A model divided between a card and the CPU.
pub(super) struct Hybrid<'m> {
    cpu: Cpu<'m>,
    /// Layers before the card's first one.
    before: Range<usize>,
    /// Layers behind its last one, where the head is on the CPU.
    behind: Option<Range<usize>>,
    /// What a token asks of the CPU, in order.
    requests: Vec<Request>,
    /// What many tokens go through.
    many: Vec<Instruction>,
    /// The residual streams of tokens that the CPU has.
    x: Vec<f32>,
    /// What the CPU answers last.
    reply: Vec<f32>,
    plan: Plan,
    work: Workload,
    times: CardTimes,
    /// Why it cannot go on.
    failed: Option<String>,
    // What others work on comes behind them, so that it is dropped later.
    graph: Graph,
    tiles: Tiles,
    mailbox: Mailbox,
    scratch: Scratch,
    resident: Resident,
    kernels: Kernels,
    stream: Stream,
}

impl<'m> Hybrid<'m> {
    /// Takes to the card what `plan` has there, and writes the token down.
    pub fn new(cpu: Cpu<'m>, device: &Device, plan: Plan) -> Result<Self> {
        let (model, params) = (cpu.model(), cpu.params());
        check_card(model, params).with_context(|| model.gguf.source().name().to_owned())?;
        let run = params.run(params.n_ctx);
        let work = Workload::of(model);
        ensure!(plan.layers.len() == work.layers.len(), "a plan of {} layers", plan.layers.len());
        let config = &model.config;
        let stream = Stream::new(device)?;
        let kernels = Kernels::load(device)?;
        let taken = plan.account().taken();
        let short = |why: Error| match format!("{why:#}").contains(SHORT_OF_MEMORY) {
            true => why.context(format!("the plan takes {taken}; a lower --vram-budget leaves more to others")),
            false => why,
        };
        let resident = Resident::load(model, &work, &run, &plan, &kernels, &stream).map_err(short)?;
        let scratch = Scratch::new(model, &work, &run, &stream).map_err(short)?;
        let groups = model.weights.group_sizes();
        let n_used = |layer: &Layer| layer.router.map_or(0, |router| router.n_used);
        let chosen = model.weights.layers.iter().map(n_used);
        // A list of neurons, or of groups.
        let n_ff = groups.iter().copied().chain(chosen).max().unwrap_or(0);
        let sizes = Sizes { n_embd: config.n_embd, n_ff, n_vocab: config.n_vocab, n_groups: groups.len() };
        let layout = Layout::new(sizes);
        let mailbox = Mailbox::new(Mapped::new(device, layout.bytes, "the mailbox")?, layout)?;

        let tiles = Tiles::new(device, Bytes(tile_bytes(&work))).map_err(short)?;
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
            n_ubatch: params.n_ubatch,
        };
        let plain = program(&cpu, &route);
        let many = for_many(plain.clone());
        let fused = fuse_merges(plain.into_iter().chain(behind.is_none().then(output_norm)).collect());
        let mut requests = Vec::new();
        let graph = stream.capture(|| {
            requests = Recorder::begin(card, &fused)?.record(behind.is_some())?;
            Ok(())
        })?;
        graph.upload(&stream)?;
        stream.synchronize()?;
        let (times, failed, x) = (CardTimes::default(), None, Vec::new());
        Ok(Self {
            cpu,
            before,
            behind,
            requests,
            many,
            x,
            reply: Vec::new(),
            mailbox,
            plan,
            work,
            times,
            failed,
            graph,
            tiles,
            scratch,
            resident,
            kernels,
            stream,
        })
    }

    /// Counts what the card did for the token that is finished. In dense mode it does not look which neurons fire.
    fn count(&self, tokens: &mut Tokens) {
        let Some(sequence) = tokens.sequences.first_mut() else { return };
        let two_masks = self.cpu.model().config.activation.activation.has_two_masks();
        let on_card =
            self.resident.layers.iter().flat_map(|layer| layer.groups.iter().map(move |group| (layer, group)));
        let groups = self.cpu.model().weights.groups().zip(on_card).zip(self.mailbox.counts().chunks_exact(2));
        for (number, (((_, group), (layer, on_card)), counts)) in groups.enumerate() {
            let n_hot = on_card.choice.n_hot;
            let is_left_out = group.is_routed() && counts[0] == NOT_CHOSEN;
            // Groups of which the card has nothing are the CPU's to count, but for those that it does not compute with others.
            let apart = layer.latent.is_some() && !group.is_routed();
            let counted_here = match layer.routed {
                Some(_) => apart || n_hot > 0 && !is_left_out,
                None => layer.has_ffn(),
            };
            if counted_here {
                sequence.stats.choose(number);
            }
            if on_card.choice.is_any() && !is_left_out {
                let masked = if on_card.choice.mask { group.n_ff() } else { n_hot };
                let [fired, opened] =
                    [counts[0], counts[usize::from(two_masks)]].map(|n| if n_hot > 0 { n as usize } else { 0 });
                let predictor = group.predictor.as_ref().filter(|_| on_card.predictor.is_some());
                let predictor_bytes = predictor.map_or(0, |p| p.bytes_for(n_hot..group.n_ff()));
                sequence.stats.add(number, Computed { fired, opened, masked, predictor_bytes, ..Computed::default() });
            }
        }
        sequence.stats.end_token();
    }

    /// Bytes that were allocated on the card.
    fn n_bytes(&self) -> Bytes {
        Bytes(self.resident.n_bytes() + self.scratch.n_bytes() + self.tiles.n_bytes())
    }

    /// Takes in many tokens.
    fn prefill(&mut self, tokens: &mut Tokens, logits: &mut Vec<f32>) -> Result<()> {
        let _span = Span::pass(self.cpu.worker().trace(), What::Prompt, tokens.batch.len());
        let mailbox = self.mailbox.addresses();
        let Self { cpu, kernels, stream, resident, scratch, tiles, work, plan, .. } = self;
        let mut x = std::mem::take(&mut self.x);
        cpu.embed(tokens.batch, &mut x)?;
        let (model, mode, n_ubatch) = (cpu.model(), cpu.params().mode, cpu.params().n_ubatch);
        let card = Card { model, kernels, stream, resident, scratch, mailbox, mode, n_ubatch };
        let (first, n) = (tokens.batch.first(), tokens.batch.len());
        let (costs, chosen, choice) = (plan.batch.as_ref(), Vec::new(), Choice::default());
        let mut many = Many { card, cpu, tokens, tiles, work, costs, chosen, choice, x, first, n };
        if !self.before.is_empty() {
            many.on_cpu(&Request::Layers(self.before.clone()))?;
        }
        many.upload()?;
        many.run(&self.many)?;
        match &self.behind {
            Some(behind) => {
                many.download()?;
                many.on_cpu(&Request::Layers(behind.clone()))?;
                cpu.head(How::Tiles, &many.x, many.tokens, logits);
            }
            None => many.output(logits)?,
        }
        self.x = many.x;
        Ok(())
    }

    /// Does `work`, unless the card has failed; notes it when it fails. What the user has stopped is no failure, if the card
    /// ends soon after it.
    fn working(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if let Some(why) = &self.failed {
            bail!("the card has failed before: {why}");
        }
        let done = work(self);
        if let Err(error) = &done {
            self.mailbox.stop();
            // It ends soon; whether well does not matter any more.
            let since = Instant::now();
            let mut ended = self.stream.query();
            while matches!(ended, Ok(false)) && since.elapsed() < LAST_WORDS.min(waiting::limit()) {
                thread::sleep(Duration::from_millis(1));
                ended = self.stream.query();
            }
            match ended {
                Ok(true) if error.is::<Interrupted>() => self.mailbox.restart(),
                Ok(false) => {
                    waiting::give_up();
                    self.failed = Some("it hangs".to_owned());
                }
                _ => self.failed = Some(format!("{error:#}")),
            }
        }
        done
    }

    /// Takes in one token.
    fn token(&mut self, tokens: &mut Tokens, logits: &mut Vec<f32>) -> Result<()> {
        let trace = self.cpu.worker().trace().cloned();
        let _span = Span::pass(trace.as_ref(), What::Token, 1);
        let begin = Instant::now();
        let mut cpu_time = Duration::ZERO;
        let mut on_cpu = |begin: Instant| cpu_time += begin.elapsed();
        self.cpu.worker().set_patience(PATIENCE);
        let mut x = std::mem::take(&mut self.x);
        self.cpu.embed(tokens.batch, &mut x)?;
        if !self.before.is_empty() {
            layers_on_cpu(&self.cpu, &self.before, &mut x, &mut self.reply, tokens)?;
            on_cpu(begin);
        }
        self.mailbox.begin_token(self.requests.len() as u32, tokens.batch.first(), &x)?;
        self.graph.launch(&self.stream)?;
        // On Windows, and in Linux under it, a launch may lie in a queue until somebody asks.
        self.stream.query()?;
        let stream = &self.stream;
        let launched = Instant::now();
        let alive = || {
            waiting::check_stop(launched)?;
            stream.query().map(|_| ())
        };
        let wait = Wait { limit: waiting::limit(), alive: &alive };
        for (job, request) in self.requests.iter().enumerate() {
            let job = job as u32;
            let waiting = Span::begin(trace.as_ref(), What::Card, layer_of(request));
            let arrival = self.mailbox.wait_job(job, wait)?;
            drop(waiting);
            match arrival {
                Arrival::Posted => {
                    let begin = Instant::now();
                    if *request == Request::Tail {
                        x.copy_from_slice(self.mailbox.post_x());
                    }
                    answer(&self.cpu, &mut self.mailbox, &mut self.reply, job, request, tokens)?;
                    on_cpu(begin);
                    self.times.n_tasks += 1;
                }
                Arrival::Skipped => {}
                Arrival::Done => break,
            }
        }
        let waiting = Span::begin(trace.as_ref(), What::Card, None);
        self.mailbox.wait_done(wait)?;
        drop(waiting);
        match &self.behind {
            Some(behind) => {
                let begin = Instant::now();
                layers_on_cpu(&self.cpu, behind, &mut x, &mut self.reply, tokens)?;
                self.cpu.head(How::Rows, &x, tokens, logits);
                on_cpu(begin);
            }
            None => {
                logits.clear();
                logits.extend_from_slice(self.mailbox.logits());
            }
        }
        self.x = x;
        if self.cpu.params().mode != Mode::Dense {
            self.count(tokens);
        }
        self.times.n_tokens += 1;
        self.times.waited += self.mailbox.waited();
        self.times.total += begin.elapsed();
        self.times.cpu += cpu_time;
        Ok(())
    }
}

/// Takes the residual stream `x` of one token through layers that are the CPU's; `spare` is kept for its memory only.
fn layers_on_cpu(
    cpu: &Cpu,
    layers: &Range<usize>,
    x: &mut Vec<f32>,
    spare: &mut Vec<f32>,
    tokens: &mut Tokens,
) -> Result<()> {
    cpu.ask(&Request::Layers(layers.clone()), Given::Nothing, How::Rows, x, tokens, |answer| {
        spare.clear();
        spare.extend_from_slice(answer);
        Ok(())
    })?;
    std::mem::swap(x, spare);
    Ok(())
}

/// The layer of what is waited for, where it is in one.
fn layer_of(request: &Request) -> Option<usize> {
    match request {
        Request::Attention { layer, .. }
        | Request::Ffn { layer, .. }
        | Request::Router { layer }
        | Request::Named { layer, .. }
        | Request::Routed { layer, .. }
        | Request::Cold { layer, .. } => Some(*layer),
        Request::Layers(layers) => Some(layers.start),
        Request::Tail => None,
    }
}

/// Elements of what `request` reads and of its answer.
fn width(model: &Model, request: &Request) -> usize {
    let chosen = match request {
        Request::Routed { layer, .. } => model.weights.layers[*layer].groups.iter().find(|group| group.is_routed()),
        _ => None,
    };
    chosen.map_or(model.config.n_embd, NeuronGroup::width)
}

/// Does what is posted as job `job`, and answers it.
fn answer(
    cpu: &Cpu,
    mailbox: &mut Mailbox,
    reply: &mut Vec<f32>,
    job: u32,
    request: &Request,
    tokens: &mut Tokens,
) -> Result<()> {
    let given = match request {
        Request::Cold { found: Found::Fired, .. } => Given::Fired(mailbox.post_list()?, mailbox.post_act()?),
        Request::Cold { found: Found::Named, .. } => Given::Named(mailbox.post_list()?),
        Request::Routed { .. } => Given::Chosen(mailbox.post_list()?, mailbox.post_act()?),
        Request::Cold { found: Found::Nothing, .. }
        | Request::Router { .. }
        | Request::Named { .. }
        | Request::Attention { .. }
        | Request::Ffn { .. }
        | Request::Layers(_)
        | Request::Tail => Given::Nothing,
    };
    let x = &mailbox.post_x()[..width(cpu.model(), request)];
    cpu.ask(request, given, How::Rows, x, tokens, |answer| {
        reply.clear();
        reply.extend_from_slice(answer);
        Ok(())
    })?;
    mailbox.reply(job, reply)
}

impl Backend for Hybrid<'_> {
    fn run(&mut self, phase: Phase, tokens: &mut Tokens, logits: &mut Vec<f32>) -> Result<()> {
        // Nobody sees what fires on the card: nor may they see just the CPU's part of it.
        let Tokens { batch, sequences, .. } = tokens;
        let tokens = &mut Tokens { batch, sequences, observer: &mut Unobserved };
        // What a predictor misses is missing from decode only.
        let prompt = phase != Phase::Decode;
        let many = prompt && (tokens.batch.len() >= FEW || self.cpu.params().mode == Mode::Predicted);
        if many {
            return self.working(|hybrid| hybrid.prefill(tokens, logits));
        }
        let kept = prompt.then(|| (tokens.sequences[0].stats.clone(), self.times));
        // One by one, as a token is written down.
        let (whole, mut all) = (tokens.batch, Vec::new());
        let mut one = Batch::default();
        for entry in whole.entries() {
            one.clear();
            one.push(*entry);
            let mut tokens = Tokens { batch: &one, sequences: tokens.sequences, observer: tokens.observer };
            self.working(|hybrid| hybrid.token(&mut tokens, logits))?;
            if whole.len() > 1 && entry.wants_logits {
                all.extend_from_slice(logits);
            }
        }
        if whole.len() > 1 {
            *logits = all;
        }
        // Only what is decoded counts.
        if let Some((stats, times)) = kept {
            (tokens.sequences[0].stats, self.times) = (stats, times);
        }
        Ok(())
    }

    fn save(&mut self, memory: &mut Memory) -> Result<()> {
        self.working(|hybrid| hybrid.save_states(memory))
    }

    fn restore(&mut self, memory: &Memory) -> Result<()> {
        self.working(|hybrid| hybrid.restore_states(memory))
    }

    fn save_cache(&mut self, memory: &mut Memory) -> Result<()> {
        self.working(|hybrid| hybrid.save_rows(memory.kv_mut()))
    }

    fn restore_cache(&mut self, memory: &Memory) -> Result<()> {
        self.working(|hybrid| hybrid.restore_rows(memory.kv()))
    }

    fn further_sequences(&self) -> Result<()> {
        bail!("a graphics card has the keys and values of one sequence only; compute several with --device cpu")
    }

    fn set_mask(&mut self, mask: Box<dyn MaskSource>) {
        self.cpu.set_mask(mask);
    }

    fn set_audit(&mut self, every: u64) {
        self.cpu.set_audit(every);
    }

    fn hand_over(&mut self) -> Handed {
        self.cpu.hand_over()
    }

    fn card(&self) -> Option<CardReport<'_>> {
        Some(CardReport { plan: &self.plan, allocated: self.n_bytes(), times: self.times })
    }

    fn reset_times(&mut self) {
        self.times = CardTimes::default();
    }
}

impl Drop for Hybrid<'_> {
    /// Where a token was given up in its middle, the card need not wait for the CPU.
    fn drop(&mut self) {
        self.mailbox.stop();
    }
}
