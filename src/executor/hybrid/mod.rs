//! Tokens that a card and the CPU compute together, as a plan divides them.
//!
//! The card has the residual stream. A token is one graph, launched once; in its middle the card hands pieces to the
//! CPU through the mailbox, goes on with its own part, and waits for the answer only where it is to be added. Several tokens, of one
//! sequence or of several, are another graph, with as many answers.

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
use super::observer::Unobserved;
use super::program::{Instruction, for_many, fuse_merges, of_layer, output_norm};
use super::seat::{Seat, Seats};
use super::sequence::Sequence;
use super::stats::Computed;
use crate::gpu::mailbox::{Arrival, Layout, MAX_TOKENS, Mailbox, Sizes, TokenAt, Wait};
use crate::gpu::memory::SHORT_OF_MEMORY;
use crate::gpu::ops::route::NOT_CHOSEN;
use crate::gpu::tiles::Tiles;
use crate::gpu::waiting;
use crate::gpu::{Device, Graph, Kernels, Mapped, Stream};
use crate::model::{Layer, Mode, Model, NeuronGroup};
use crate::placement::budget::{tile_bytes, tokens_at_once};
use crate::placement::plan::{Plan, PlannedLayer, Run};
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
    /// What a token goes through, and several in decode.
    few: Vec<Instruction>,
    /// What many tokens go through.
    many: Vec<Instruction>,
    /// Where it has what it remembers of sequences.
    seats: Seats,
    /// Tokens that are decoded at once.
    n_at_once: usize,
    /// The residual streams of tokens that the CPU has.
    x: Vec<f32>,
    /// What the CPU answers last, and the logits that it computes.
    reply: Vec<f32>,
    logits: Vec<f32>,
    plan: Plan,
    work: Workload,
    times: CardTimes,
    /// Why it cannot go on.
    failed: Option<String>,
    // What others work on comes behind them, so that it is dropped later.
    /// By number of tokens, from one on: written down when they are first wanted.
    graphs: Vec<Option<Graph>>,
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
        let run = Run { room: plan.room, ..params.run(params.n_ctx) };
        let work = Workload::of(model);
        let n_at_once = tokens_at_once(&work, &run);
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
        let (n_embd, n_vocab, n_groups, n_tokens) = (config.n_embd, config.n_vocab, groups.len(), n_at_once);
        let sizes = Sizes { n_embd, n_ff, n_vocab, n_groups, n_tokens };
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
        let plain = program(&cpu, &route);
        let many = for_many(plain.clone());
        let few = fuse_merges(plain.into_iter().chain(behind.is_none().then(output_norm)).collect());
        let (times, failed, x) = (CardTimes::default(), None, Vec::new());
        let (seats, graphs) = (Seats::new(run.room.n_sequences), (0..n_at_once).map(|_| None).collect());
        let mut hybrid = Self {
            cpu,
            before,
            behind,
            requests: Vec::new(),
            few,
            many,
            seats,
            n_at_once,
            x,
            reply: Vec::new(),
            logits: Vec::new(),
            mailbox,
            plan,
            work,
            times,
            failed,
            graphs,
            tiles,
            scratch,
            resident,
            kernels,
            stream,
        };
        hybrid.write_down(1)?;
        Ok(hybrid)
    }

    /// Writes `n` tokens down that are computed together, if that has not been done.
    fn write_down(&mut self, n: usize) -> Result<()> {
        if self.graphs[n - 1].is_some() {
            return Ok(());
        }
        let (model, params) = (self.cpu.model(), self.cpu.params());
        let (mode, n_ubatch, tail) = (params.mode, params.n_ubatch, self.behind.is_some());
        let Self { kernels, stream, resident, scratch, few, .. } = &*self;
        let mailbox = self.mailbox.addresses();
        let card = Card { model, kernels, stream, resident, scratch, mailbox, mode, n_ubatch };
        let mut requests = Vec::new();
        let graph = stream.capture(|| {
            requests = Recorder::begin(card, few, n)?.record(tail)?;
            Ok(())
        })?;
        graph.upload(stream)?;
        stream.synchronize()?;
        ensure!(n == 1 || requests == self.requests, "{n} tokens ask for something else than one");
        self.requests = requests;
        self.graphs[n - 1] = Some(graph);
        Ok(())
    }

    /// Counts what the card did for the tokens that are finished. In dense mode it does not look which neurons fire.
    fn count(&self, tokens: &mut Tokens) {
        let n_counts = self.mailbox.counts().len() / tokens.batch.len();
        let of_tokens = self.mailbox.counts().chunks_exact(n_counts.max(1));
        for (i, (entry, counts)) in tokens.batch.entries().iter().zip(of_tokens).enumerate() {
            let sequence = &mut tokens.sequences[entry.sequence];
            sequence.stats.turn_to(i as u32);
            self.count_token(sequence, counts);
        }
    }

    fn count_token(&self, sequence: &mut Sequence, counts: &[u32]) {
        let two_masks = self.cpu.model().config.activation.activation.has_two_masks();
        let on_card =
            self.resident.layers.iter().flat_map(|layer| layer.groups.iter().map(move |group| (layer, group)));
        let groups = self.cpu.model().weights.groups().zip(on_card).zip(counts.chunks_exact(2));
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
        // They are of one sequence.
        let sequence =
            tokens.batch.entries().first().map_or(Ok(0), |entry| seat_of(&tokens.sequences[entry.sequence]))?;
        let (costs, chosen, choice) = (plan.batch.as_ref(), Vec::new(), Choice::default());
        let mut many = Many { card, cpu, tokens, tiles, work, costs, chosen, choice, x, first, sequence, n };
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

    /// Takes in a token, or several at once; the logits of those that want them are added to `logits`.
    fn decode(&mut self, tokens: &mut Tokens, logits: &mut Vec<f32>) -> Result<()> {
        let n = tokens.batch.len();
        self.write_down(n)?;
        let mut places = [TokenAt { position: 0, sequence: 0 }; MAX_TOKENS];
        for (place, entry) in places.iter_mut().zip(tokens.batch.entries()) {
            *place = TokenAt { position: entry.position, sequence: seat_of(&tokens.sequences[entry.sequence])? };
        }
        let trace = self.cpu.worker().trace().cloned();
        let _span = Span::pass(trace.as_ref(), What::Token, n);
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
        self.mailbox.begin_tokens(self.requests.len() as u32, &places[..n], &x)?;
        self.graphs[n - 1].as_ref().context("a graph that was not written down")?.launch(&self.stream)?;
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
                let mut own = std::mem::take(&mut self.logits);
                self.cpu.head(How::Rows, &x, tokens, &mut own);
                logits.extend_from_slice(&own);
                self.logits = own;
                on_cpu(begin);
            }
            None => {
                let rows = self.mailbox.logits().chunks_exact(self.cpu.model().config.n_vocab);
                let wanted = tokens.batch.entries().iter().zip(rows).filter(|(entry, _)| entry.wants_logits);
                wanted.for_each(|(_, row)| logits.extend_from_slice(row));
            }
        }
        self.x = x;
        if self.cpu.params().mode != Mode::Dense {
            self.count(tokens);
        }
        self.times.n_tokens += n as u64;
        self.times.waited += self.mailbox.waited();
        self.times.total += begin.elapsed();
        self.times.cpu += cpu_time;
        Ok(())
    }
}

/// Takes the residual streams `x` of tokens that are decoded through layers that are the CPU's; `spare` is kept for its memory only.
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

/// Where the card has what it remembers of `sequence`.
fn seat_of(sequence: &Sequence) -> Result<usize> {
    let seat = sequence.seat.as_ref().context("a sequence that has no place on the card")?;
    Ok(seat.number())
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

/// Elements of what `request` reads and of its answer, of one token.
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
    let n = tokens.batch.len();
    let mut fired: [(&[u32], &[f32]); MAX_TOKENS] = [(&[], &[]); MAX_TOKENS];
    let given = match request {
        Request::Cold { found: Found::Fired, .. } => {
            for (token, fired) in fired[..n].iter_mut().enumerate() {
                *fired = (mailbox.post_list(token)?, mailbox.post_act(token)?);
            }
            Given::Fired(&fired[..n])
        }
        Request::Cold { found: Found::Named, .. } => Given::Named(mailbox.post_list(0)?),
        Request::Routed { .. } => Given::Chosen(mailbox.post_list(0)?, mailbox.post_act(0)?),
        Request::Cold { found: Found::Nothing, .. }
        | Request::Router { .. }
        | Request::Named { .. }
        | Request::Attention { .. }
        | Request::Ffn { .. }
        | Request::Layers(_)
        | Request::Tail => Given::Nothing,
    };
    let x = &mailbox.post_x()[..n * width(cpu.model(), request)];
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
        logits.clear();
        let (whole, mut few) = (tokens.batch, Batch::default());
        for entries in whole.entries().chunks(self.n_at_once) {
            few.clear();
            entries.iter().for_each(|entry| few.push(*entry));
            let mut tokens = Tokens { batch: &few, sequences: tokens.sequences, observer: tokens.observer };
            self.working(|hybrid| hybrid.decode(&mut tokens, logits))?;
        }
        // Only what is decoded counts.
        if let Some((stats, times)) = kept {
            (tokens.sequences[0].stats, self.times) = (stats, times);
        }
        Ok(())
    }

    fn save(&mut self, sequence: &mut Sequence) -> Result<()> {
        self.working(|hybrid| hybrid.save_states(sequence))
    }

    fn restore(&mut self, sequence: &Sequence) -> Result<()> {
        self.working(|hybrid| hybrid.restore_states(sequence))
    }

    fn save_cache(&mut self, sequence: &mut Sequence) -> Result<()> {
        self.working(|hybrid| hybrid.save_rows(sequence))
    }

    fn restore_cache(&mut self, sequence: &Sequence) -> Result<()> {
        self.working(|hybrid| hybrid.restore_rows(sequence))
    }

    fn copy_cache(&mut self, from: &Sequence, to: &Sequence) -> Result<()> {
        self.working(|hybrid| hybrid.copy_rows(from, to))
    }

    fn has_cache(&self, layer: usize) -> bool {
        self.resident.layers[layer].attention.is_some()
    }

    fn seat(&self) -> Result<Option<Seat>> {
        let n = self.seats.n();
        self.seats.take().map(Some).with_context(|| format!("the card was planned with room for {n} sequences"))
    }

    fn at_once(&self) -> usize {
        self.n_at_once
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
