//! One pass over layers: the steps, done at once.

use super::attention::Query;
use super::audit::AuditWork;
use super::buffers::Buffers;
use super::compute::{Compute, How};
use super::ffn::many::{ManyWork, activate, sum};
use super::ffn::shard::{Given, ShardWork};
use super::latent;
use super::norm::{normalize, normalize_pieces};
use super::product::add_bias;
use super::recurrent::{RecurrentLayer, recur};
use super::request::{Input, Request};
use super::setup::Setup;
use super::worker::Hands;
use crate::cpu::Which;
use crate::executor::device::Tokens;
use crate::executor::observer::FfnAt;
use crate::model::{Chosen, GroupAt, Groups, Matrix, Mode, NeuronGroup, Part, PredictorInput, Role, Step, Vector};
use std::ops::Range;

/// A pass of some tokens.
pub(super) struct Pass<'a, 'm, 't> {
    cpu: &'a Setup<'m>,
    hands: &'a mut Hands,
    how: How,
    tokens: &'a mut Tokens<'t>,
}

/// Of a group, what is computed where it is divided between devices.
#[derive(Clone, Copy)]
struct Divided<'a> {
    /// Slots before this one are computed elsewhere.
    cold_from: usize,
    given: Given<'a>,
}

impl<'a, 'm, 't> Pass<'a, 'm, 't> {
    pub fn new(cpu: &'a Setup<'m>, hands: &'a mut Hands, how: How, tokens: &'a mut Tokens<'t>) -> Self {
        Self { cpu, hands, how, tokens }
    }

    fn split(&mut self) -> (Compute<'_>, &mut Buffers) {
        let Hands { pool, isa, buffers } = &mut *self.hands;
        (Compute { pool, isa: *isa }, buffers)
    }

    fn n_tokens(&self) -> usize {
        self.tokens.batch.len()
    }

    /// Takes the residual streams through `layers`.
    pub fn layers(&mut self, layers: Range<usize>) {
        for i in layers {
            for step in &self.cpu.model.weights.layers[i].steps {
                self.step(i, *step);
            }
        }
    }

    fn step(&mut self, layer: usize, step: Step) {
        match step {
            Step::Norm { of, from, to } => self.norm(layer, of, from, to),
            Step::Attention { from, to } => self.attention(layer, from, to),
            Step::Router { from } => self.router(layer, from),
            Step::Recurrent { from, to } => self.recurrent(layer, from, to),
            Step::Project { of, from, to } => self.project(layer, of, from, to),
            Step::Ffn { from, to, groups } => self.ffn(layer, from, to, groups),
            Step::Add { from, scale } => self.add(from, scale),
        }
    }

    /// Does what `request` asks for, with `x` for its input.
    pub fn answer(&mut self, request: &Request, given: Given, x: &[f32]) -> &[f32] {
        let input = match request {
            Request::Attention { input: Input::Ready, .. }
            | Request::Ffn { input: Input::Ready, .. }
            | Request::Cold { .. } => Vector::Normed,
            Request::Attention { input: Input::Residual(_), .. }
            | Request::Ffn { input: Input::Residual(_), .. }
            | Request::Layers(_)
            | Request::Tail => Vector::Residual,
        };
        replace(&mut self.hands.buffers.streams[input.index()], x);
        let output = match request {
            Request::Attention { layer, input } => {
                self.ready(*layer, *input);
                self.attention(*layer, Vector::Normed, Vector::Mixed);
                Vector::Mixed
            }
            Request::Ffn { layer, input } => {
                self.ready(*layer, *input);
                self.ffn(*layer, Vector::Normed, Vector::Fed, Groups::All);
                Vector::Fed
            }
            Request::Cold { layer, group, n_hot, .. } => {
                self.begin_ffn(Vector::Normed, Vector::Fed);
                let part = Divided { cold_from: *n_hot, given };
                self.group_by_rows(self.at(*layer, *group), Vector::Normed, Vector::Fed, Some(part));
                Vector::Fed
            }
            Request::Layers(layers) => {
                self.layers(layers.clone());
                Vector::Residual
            }
            Request::Tail => Vector::Residual,
        };
        &self.hands.buffers.streams[output.index()]
    }

    fn ready(&mut self, layer: usize, input: Input) {
        if let Input::Residual(of) = input {
            self.norm(layer, of, Vector::Residual, Vector::Normed);
        }
    }

    fn norm(&mut self, layer: usize, of: Role, from: Vector, to: Vector) {
        let part = self.cpu.model.weights.layers[layer].part(of);
        self.normalize(part, from, to);
    }

    fn normalize(&mut self, part: &Part, from: Vector, to: Vector) {
        let config = &self.cpu.model.config;
        let Buffers { streams, spare, .. } = &mut self.hands.buffers;
        spare.resize(streams[from.index()].len(), 0.0);
        normalize(config.norm, config.norm_eps, part, &streams[from.index()], spare);
        std::mem::swap(spare, &mut streams[to.index()]);
    }

    /// Adds to the residual streams.
    fn add(&mut self, from: Vector, scale: f32) {
        let [x, streams @ ..] = &mut self.hands.buffers.streams;
        let y = &streams[from.index() - 1];
        if scale == 1.0 {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        } else {
            x.iter_mut().zip(y).for_each(|(x, y)| *x += scale * y);
        }
    }

    fn attention(&mut self, i: usize, from: Vector, to: Vector) {
        let (config, how) = (&self.cpu.model.config, self.how);
        let layer = &self.cpu.model.weights.layers[i];
        let output = layer.part(Role::AttnOutput);
        let Hands { pool, isa, buffers: b } = &mut *self.hands;
        let cx = Compute { pool, isa: *isa };
        let (n_q, n_kv, n_values) = (config.n_q(), config.n_kv(), config.n_values());
        if layer.find(Role::AttnKvA).is_some() {
            latent::project(cx, how, config, layer, from, b);
        } else {
            let [q, k, v] = [Role::AttnQ, Role::AttnK, Role::AttnV].map(|role| layer.part(role));
            let kinds = [q, k, v].map(|part| cx.isa.kernels(part.matrix().dtype()).act);
            b.forms.load(&b.streams[from.index()], config.n_embd, kinds);
            b.products.of(cx, how, [q, k, v], &b.forms, [&mut b.q, &mut b.k, &mut b.v]);
        }
        for (role, heads) in [(Role::AttnQNorm, &mut b.q), (Role::AttnKNorm, &mut b.k)] {
            if let Some(norm) = layer.find(role) {
                b.spare.resize(heads.len(), 0.0);
                let n = if config.own_head_norms { config.head_dim } else { norm.vector().len() };
                normalize_pieces(config.norm, config.norm_eps, norm, n, heads, &mut b.spare);
                std::mem::swap(&mut b.spare, heads);
            }
        }
        let Tokens { batch, sequences, .. } = &mut *self.tokens;
        let (rotation, sinks) = (self.cpu.rotation_of(i), layer.find(Role::AttnSinks).map(Part::vector));
        // As many as a window has room for; they are of one layout, whichever sequence they are of.
        let n_at_once = sequences.first().map_or(1, |sequence| sequence.memory.kv().n_at_once(i));
        b.attn.clear();
        let streams = b.q.chunks_mut(n_at_once * n_q).zip(b.k.chunks_mut(n_at_once * n_kv));
        let streams = streams.zip(b.v.chunks(n_at_once * n_values));
        for (entries, ((q, k), v)) in batch.entries().chunks(n_at_once).zip(streams) {
            let heads = q.chunks_exact_mut(n_q).zip(k.chunks_exact_mut(n_kv)).zip(v.chunks_exact(n_values));
            for (entry, ((q, k), v)) in entries.iter().zip(heads) {
                if let Some(temperature) = config.temperature {
                    let scale = temperature.at(entry.position);
                    q.iter_mut().for_each(|q| *q *= scale);
                }
                if config.rotated[i] {
                    rotation.apply(q, config.head_dim, entry.position);
                    rotation.apply(k, config.head_dim, entry.position);
                }
                sequences[entry.sequence].memory.store(i, entry.position, k, v);
            }
            let sequences = &**sequences;
            let query = |token: usize| {
                let entry = &entries[token];
                Query { kv: sequences[entry.sequence].memory.kv(), position: entry.position }
            };
            b.attention.of(cx, config, i, sinks, q, query, &mut b.attn);
        }
        b.forms.load(&b.attn, config.n_attended(), [cx.isa.kernels(output.matrix().dtype()).act]);
        b.products.of(cx, how, [output], &b.forms, [&mut b.streams[to.index()]]);
    }

    fn recurrent(&mut self, i: usize, from: Vector, to: Vector) {
        let model = self.cpu.model;
        let of = RecurrentLayer { number: i, layer: &model.weights.layers[i], taps: &self.cpu.taps[i] };
        let Hands { pool, isa, buffers } = &mut *self.hands;
        let cx = Compute { pool, isa: *isa };
        recur(cx, self.how, &model.config, of, (from, to), self.tokens, buffers);
    }

    fn router(&mut self, i: usize, from: Vector) {
        let (layer, how) = (&self.cpu.model.weights.layers[i], self.how);
        let Some(router) = layer.router else { return };
        let part = layer.part(Role::Router);
        let (cx, b) = self.split();
        let n_embd = part.matrix().n_cols;
        b.forms.load(&b.streams[from.index()], n_embd, [cx.isa.kernels(part.matrix().dtype()).act]);
        b.products.of(cx, how, [part], &b.forms, [&mut b.chosen]);
        let bias = layer.find(Role::RouterBias).map(Part::vector);
        for scores in b.chosen.chunks_exact_mut(part.matrix().n_rows) {
            router.choose(scores, bias, &mut b.order);
        }
    }

    fn project(&mut self, i: usize, of: Role, from: Vector, to: Vector) {
        let (part, how) = (self.cpu.model.weights.layers[i].part(of), self.how);
        let (cx, b) = self.split();
        let kind = cx.isa.kernels(part.matrix().dtype()).act;
        b.forms.load(&b.streams[from.index()], part.matrix().n_cols, [kind]);
        b.products.of(cx, how, [part], &b.forms, [&mut b.streams[to.index()]]);
    }

    fn ffn(&mut self, i: usize, from: Vector, to: Vector, groups: Groups) {
        self.begin_ffn(from, to);
        let streams = &self.hands.buffers.streams;
        if self.how == How::Tiles && !from.is_latent() {
            self.tokens.observer.ffn_input(i, &streams[from.index()]);
        }
        let mut first = true;
        for (group, spec) in self.cpu.model.weights.layers[i].groups.iter().enumerate() {
            if !groups.has(spec.is_routed()) {
                continue;
            }
            let at = self.at(i, group);
            match self.how {
                How::Rows => self.group_by_rows(at, from, to, None),
                How::Tiles => self.group_by_tiles(at, from, to, first),
            }
            first = false;
        }
    }

    fn at(&self, layer: usize, group: usize) -> GroupAt {
        GroupAt { layer, group, number: self.cpu.model.weights.layers[layer].first_group + group }
    }

    fn begin_ffn(&mut self, from: Vector, to: Vector) {
        let streams = &mut self.hands.buffers.streams;
        let len = streams[from.index()].len();
        streams[to.index()].clear();
        streams[to.index()].resize(len, 0.0);
    }

    /// Finds the tokens that a group is computed for and what it counts for each. Where it is computed for all of them
    /// and counts 1, `weights` stays empty.
    fn choose(&mut self, group: &NeuronGroup, n_chosen: usize) {
        let n = self.n_tokens();
        let Buffers { tokens, weights, chosen, .. } = &mut self.hands.buffers;
        tokens.clear();
        weights.clear();
        match group.chosen {
            Chosen::Always => tokens.extend(0..n as u32),
            Chosen::ByRouter(row) => {
                for (token, chosen) in chosen.chunks_exact(n_chosen).enumerate() {
                    if chosen[row] != 0.0 {
                        tokens.push(token as u32);
                        weights.push(chosen[row]);
                    }
                }
            }
        }
    }

    /// Loads the forms in which `group` reads the tokens that it is computed for.
    fn load(&mut self, at: GroupAt, from: Vector, with_predictor: bool) {
        let config = &self.cpu.model.config;
        let layer = &self.cpu.model.weights.layers[at.layer];
        let group = &layer.groups[at.group];
        let n_chosen = layer.find(Role::Router).map_or(1, |part| part.matrix().n_rows);
        self.choose(group, n_chosen);
        let (cx, b) = self.split();
        let kind = |m: &Matrix| cx.isa.kernels(m.dtype()).act;
        let predictor = group.predictor.as_ref().filter(|_| with_predictor);
        let (own, other) = match predictor.map(|p| (p.reads, p.input())) {
            None => (None, None),
            Some((PredictorInput::Normed, input)) => (input, None),
            Some((PredictorInput::Residual, input)) => (None, Some(input)),
        };
        let Buffers { streams, gathered, tokens, .. } = b;
        if let Some(input) = other {
            let x = of_tokens(&streams[Vector::Residual.index()], group, config.n_embd, tokens, gathered);
            b.predictor_forms.load(x, config.n_embd, input.map(kind));
        }
        let x = of_tokens(&streams[from.index()], group, group.width(), tokens, gathered);
        b.forms.load(x, group.width(), [group.mask_matrix(), group.ffn_up()].into_iter().chain(own).map(kind));
    }

    /// A group for many tokens, added to `to`, where nothing has been added if it is the `first`.
    fn group_by_tiles(&mut self, at: GroupAt, from: Vector, to: Vector, first: bool) {
        let (model, mode) = (self.cpu.model, self.cpu.params.mode);
        let group = &model.weights.layers[at.layer].groups[at.group];
        self.load(at, from, false);
        let Hands { pool, isa, buffers: b } = &mut *self.hands;
        let cx = Compute { pool, isa: *isa };
        if b.tokens.is_empty() {
            return;
        }
        let activation = model.config.activation.activation;
        let threshold = model.threshold(mode, at.number);
        let work = ManyWork { group, x: &b.forms, activation, threshold, mode };
        let observed = FfnAt { group: at, tokens: &b.tokens };
        let observer = &mut *self.tokens.observer;
        activate(cx, &work, &mut b.many, &mut b.products.tiles, &mut |gates| observer.gates(observed, gates));
        observer.ffn(observed, &b.many.act, &b.many.h);
        for (h, weight) in b.many.h.chunks_exact_mut(group.n_ff()).zip(&b.weights) {
            h.iter_mut().for_each(|h| *h *= weight);
        }
        sum(cx, &work, &mut b.many, &mut b.products.tiles);
        let out = &mut b.streams[to.index()];
        let width = group.width();
        add_down_bias(group, &b.weights, &mut b.many.y);
        if first && b.weights.is_empty() {
            std::mem::swap(out, &mut b.many.y);
        } else {
            for (token, y) in b.tokens.iter().zip(b.many.y.chunks_exact(width)) {
                let out = &mut out[*token as usize * width..][..width];
                out.iter_mut().zip(y).for_each(|(o, y)| *o += y);
            }
        }
    }

    /// A group for one token or a few, added to `to`: both shards, or where `part` says so just the neurons from there
    /// on.
    fn group_by_rows(&mut self, at: GroupAt, from: Vector, to: Vector, part: Option<Divided>) {
        let (cpu, mode) = (self.cpu, self.cpu.params.mode);
        let group = &cpu.model.weights.layers[at.layer].groups[at.group];
        let predictor = group.predictor.as_ref().filter(|_| mode == Mode::Predicted);
        self.load(at, from, predictor.is_some());
        self.count_skipped(at);
        let Hands { pool, isa, buffers: b } = &mut *self.hands;
        let cx = Compute { pool, isa: *isa };
        if b.tokens.is_empty() {
            return;
        }
        let (n_embd, width) = (cpu.model.config.n_embd, group.width());
        let routed = !b.weights.is_empty();
        let activation = cpu.model.config.activation.activation;
        let (hot, cold) = match (part, cpu.placement.scattered(at.number)) {
            (Some(part), _) => (Which::NONE, Which::from(part.cold_from..group.n_ff())),
            (None, Some((hot, cold))) => (Which::List(hot), Which::List(cold)),
            (None, None) => {
                let n_hot = cpu.placement.n_hot(at.number);
                (Which::from(0..n_hot), Which::from(n_hot..group.n_ff()))
            }
        };
        let given = part.map_or(Given::Nothing, |part| part.given);
        let reads = predictor.map_or(PredictorInput::Normed, |predictor| predictor.reads);
        // Hot neurons are computed by their true mask.
        let shares = [(hot, None, Given::Nothing), (cold, predictor, given)];
        let work = shares.map(|(slots, predictor, given)| ShardWork {
            at,
            group,
            slots,
            x: &b.forms,
            predictor_x: if reads == PredictorInput::Residual { &b.predictor_forms } else { &b.forms },
            weights: routed.then_some(&b.weights),
            activation,
            threshold: cpu.model.threshold(mode, at.number),
            mode,
            mask: &*cpu.mask,
            predictor,
            given,
            cx,
        });
        for (shard, work) in b.shards.iter_mut().zip(&work) {
            shard.begin(work);
        }
        let out = &mut b.streams[to.index()];
        if routed {
            gather(out, width, &b.tokens, &mut b.gathered);
        }
        let y = if routed { &mut b.gathered } else { &mut *out };
        let Tokens { batch, sequences, .. } = &mut *self.tokens;
        let entries = batch.entries();
        for (shard, work) in b.shards.iter_mut().zip(&work) {
            let computed = shard.add_into(work, y);
            for (token, computed) in b.tokens.iter().zip(computed) {
                sequences[entries[*token as usize].sequence].stats.add(at.number, *computed);
            }
        }
        // Of a group that is divided, the other device adds it, which may have nothing to ask for.
        if part.is_none() {
            add_down_bias(group, &b.weights, y);
        }
        if routed {
            for (token, y) in b.tokens.iter().zip(b.gathered.chunks_exact(width)) {
                out[*token as usize * width..][..width].copy_from_slice(y);
            }
        }
        // Where somebody else knows which neurons fire, none is missed.
        let every = cpu.audit_every;
        let Some(predictor) = predictor.filter(|_| every > 0 && !matches!(given, Given::Fired(..))) else { return };
        for token in &b.tokens {
            let (before, rest) = entries.split_at(*token as usize);
            let sequence = rest[0].sequence;
            let stats = &mut sequences[sequence].stats;
            let n_before = before.iter().filter(|entry| entry.sequence == sequence).count() as u64;
            if (stats.n_tokens() + n_before).is_multiple_of(every) {
                let of = |stream: Vector, n: usize| &b.streams[stream.index()][*token as usize * n..][..n];
                let x = of(from, width);
                let other = reads == PredictorInput::Residual;
                let predictor_x = if other { of(Vector::Residual, n_embd) } else { x };
                let work = AuditWork { group, predictor, slots: cold, x, predictor_x, activation, cx };
                stats.add_recall(at.number, b.audit.recall(&work));
            }
        }
    }

    /// Counts the tokens that a group, loaded just now, is not computed for.
    fn count_skipped(&mut self, at: GroupAt) {
        let chosen = &self.hands.buffers.tokens;
        let Tokens { batch, sequences, .. } = &mut *self.tokens;
        if chosen.len() == batch.len() {
            return;
        }
        for (token, entry) in batch.entries().iter().enumerate() {
            if chosen.binary_search(&(token as u32)).is_err() {
                sequences[entry.sequence].stats.skip(at.number);
            }
        }
    }

    /// Logits from the residual streams `x`.
    pub fn head(&mut self, x: &[f32], logits: &mut Vec<f32>) {
        replace(&mut self.hands.buffers.streams[Vector::Residual.index()], x);
        self.head_of_stream(logits);
    }

    /// Logits of the tokens that want them: `logits` becomes `[wanted][n_vocab]`.
    pub fn head_of_stream(&mut self, logits: &mut Vec<f32>) {
        let weights = &self.cpu.model.weights;
        self.normalize(weights.part(Role::OutputNorm), Vector::Residual, Vector::Normed);
        let how = self.how;
        let (head, n_embd) = (weights.head_part(), self.cpu.model.config.n_embd);
        let Hands { pool, isa, buffers: b } = &mut *self.hands;
        let cx = Compute { pool, isa: *isa };
        b.tokens.clear();
        let wanting = self.tokens.batch.entries().iter().enumerate().filter(|(_, entry)| entry.wants_logits);
        b.tokens.extend(wanting.map(|(token, _)| token as u32));
        logits.clear();
        if b.tokens.is_empty() {
            return;
        }
        gather(&b.streams[Vector::Normed.index()], n_embd, &b.tokens, &mut b.gathered);
        b.forms.load(&b.gathered, n_embd, [cx.isa.kernels(head.matrix().dtype()).act]);
        b.products.of(cx, how, [head], &b.forms, [logits]);
    }
}

/// Adds the bias of `down`, where there is one, times what the group counts for each token.
fn add_down_bias(group: &NeuronGroup, weights: &[f32], y: &mut [f32]) {
    let Some(bias) = &group.down.bias else { return };
    if weights.is_empty() {
        return add_bias(&group.down, y);
    }
    for (y, weight) in y.chunks_exact_mut(bias.len()).zip(weights) {
        y.iter_mut().zip(&**bias).for_each(|(y, b)| *y += weight * b);
    }
}

/// The vectors of `tokens`, for which `group` is computed: all there are, or `gathered`.
fn of_tokens<'a>(
    from: &'a [f32],
    group: &NeuronGroup,
    n: usize,
    tokens: &[u32],
    gathered: &'a mut Vec<f32>,
) -> &'a [f32] {
    match group.chosen {
        Chosen::Always => from,
        Chosen::ByRouter(_) => {
            gather(from, n, tokens, gathered);
            gathered
        }
    }
}

/// The vectors of `tokens` one behind the other.
fn gather(from: &[f32], n: usize, tokens: &[u32], to: &mut Vec<f32>) {
    to.clear();
    tokens.iter().for_each(|token| to.extend_from_slice(&from[*token as usize * n..][..n]));
}

fn replace(to: &mut Vec<f32>, from: &[f32]) {
    to.clear();
    to.extend_from_slice(from);
}
