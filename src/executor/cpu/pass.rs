//! One pass over layers: the steps, done at once.

use super::attention::{Layer as AttentionLayer, Query};
use super::audit::AuditWork;
use super::buffers::Buffers;
use super::choice::ChosenGroup;
use super::compute::{Compute, How};
use super::ffn::many::{Lot, ManyWork};
use super::ffn::shard::{FewWork, Given, Share};
use super::latent;
use super::norm::{normalize, normalize_pieces};
use super::product::load;
use super::recurrent::{RecurrentLayer, recur};
use super::request::{Input, Request};
use super::setup::Setup;
use super::worker::Hands;
use crate::cpu::Which;
use crate::executor::device::Tokens;
use crate::model::{Chosen, GroupAt, Groups, Matrix, Mode, NeuronGroup, Part, PredictorInput, Role, Step, Vector};
use crate::trace::What;
use std::ops::Range;

/// A pass of some tokens.
pub(super) struct Pass<'a, 'm, 't> {
    cpu: &'a Setup<'m>,
    hands: &'a mut Hands,
    how: How,
    mode: Mode,
    tokens: &'a mut Tokens<'t>,
}

/// Which slots of divided groups are computed here: those from there on.
#[derive(Clone, Copy)]
enum ColdFrom<'a> {
    /// Of the one group that is computed.
    One(usize),
    /// Of each group of the layer.
    Each(&'a [usize]),
}

/// Of a group, what is computed where it is divided between devices.
#[derive(Clone, Copy)]
struct Divided<'a> {
    /// Slots before this one are computed elsewhere.
    cold_from: ColdFrom<'a>,
    given: Given<'a>,
}

impl Divided<'_> {
    /// Whether nothing of a group of a layer that is divided group by group is computed elsewhere.
    fn has_all_of(&self, group: usize) -> bool {
        matches!(self.cold_from, ColdFrom::Each(from) if from.get(group) == Some(&0))
    }
}

impl<'a, 'm, 't> Pass<'a, 'm, 't> {
    pub fn new(cpu: &'a Setup<'m>, hands: &'a mut Hands, how: How, tokens: &'a mut Tokens<'t>) -> Self {
        Self { cpu, hands, how, mode: cpu.params.mode, tokens }
    }

    /// From now on predictors are not asked: what they miss is missing from decode only.
    pub fn predict_nothing(&mut self) {
        if self.mode == Mode::Predicted {
            self.mode = Mode::Exact;
        }
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
        if self.cpu.routed {
            self.hands.buffers.ahead.begin();
        }
        for i in layers {
            for step in &self.cpu.model.weights.layers[i].steps {
                self.step(i, *step);
            }
        }
    }

    fn step(&mut self, layer: usize, step: Step) {
        let _span = step_name(step).map(|what| self.hands.pool.span(what, Some(layer)));
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
            | Request::Router { .. }
            | Request::Named { .. }
            | Request::Routed { .. }
            | Request::Cold { .. } => Vector::Normed,
            Request::Attention { input: Input::Residual(_), .. }
            | Request::Ffn { input: Input::Residual(_), .. }
            | Request::Layers(_)
            | Request::Tail => Vector::Residual,
        };
        replace(&mut self.hands.buffers.streams[input.index()], x);
        let _span = request_name(request).map(|(what, layer)| self.hands.pool.span(what, Some(layer)));
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
            Request::Router { layer } => {
                self.router(*layer, Vector::Normed);
                return &self.hands.buffers.chosen;
            }
            Request::Named { layer, groups } => {
                self.ffn_of(*layer, Vector::Normed, Vector::Fed, |at, _| groups.get(at) == Some(&true));
                Vector::Fed
            }
            Request::Routed { layer, groups, n_hot } => {
                self.take_choice(*layer, given);
                self.begin_ffn(Vector::Normed, Vector::Fed);
                self.choose(*layer, |_, when| groups.has(when != Chosen::Always));
                self.load(*layer, Vector::Normed);
                let part = Divided { cold_from: ColdFrom::Each(n_hot), given: Given::Nothing };
                self.groups_by_rows(*layer, Vector::Normed, Vector::Fed, Some(part));
                Vector::Fed
            }
            Request::Cold { layer, group, n_hot, .. } => {
                self.begin_ffn(Vector::Normed, Vector::Fed);
                self.choose(*layer, |at, _| at == *group);
                self.load(*layer, Vector::Normed);
                let part = Divided { cold_from: ColdFrom::One(*n_hot), given };
                self.groups_by_rows(*layer, Vector::Normed, Vector::Fed, Some(part));
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
            load(cx, how, &mut b.forms, (&b.streams[from.index()], config.n_embd), kinds);
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
            b.attention.of(cx, how, &AttentionLayer { config, number: i, sinks }, q, query, &mut b.attn);
        }
        load(cx, how, &mut b.forms, (&b.attn, config.n_attended()), [cx.isa.kernels(output.matrix().dtype()).act]);
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
        let kind = cx.isa.kernels(part.matrix().dtype()).act;
        load(cx, how, &mut b.forms, (&b.streams[from.index()], n_embd), [kind]);
        b.products.of(cx, how, [part], &b.forms, [&mut b.chosen]);
        let bias = layer.find(Role::RouterBias).map(Part::vector);
        for scores in b.chosen.chunks_exact_mut(part.matrix().n_rows) {
            router.choose(scores, bias, &mut b.order);
        }
        if self.hands.buffers.ahead.asks() {
            self.choose(i, |_, when| when != Chosen::Always);
            let groups = &layer.groups;
            self.hands.buffers.choice.iter().for_each(|chosen| groups[chosen.group].will_need());
        }
    }

    /// Takes what a router elsewhere has chosen for one token.
    fn take_choice(&mut self, layer: usize, given: Given) {
        let Given::Chosen(rows, weights) = given else { return };
        let n = self.cpu.model.weights.layers[layer].find(Role::Router).map_or(0, |part| part.matrix().n_rows);
        let chosen = &mut self.hands.buffers.chosen;
        chosen.clear();
        chosen.resize(n, 0.0);
        for (row, weight) in rows.iter().zip(weights) {
            if let Some(chosen) = chosen.get_mut(*row as usize) {
                *chosen = *weight;
            }
        }
    }

    fn project(&mut self, i: usize, of: Role, from: Vector, to: Vector) {
        let (part, how) = (self.cpu.model.weights.layers[i].part(of), self.how);
        let (cx, b) = self.split();
        let kind = cx.isa.kernels(part.matrix().dtype()).act;
        load(cx, how, &mut b.forms, (&b.streams[from.index()], part.matrix().n_cols), [kind]);
        b.products.of(cx, how, [part], &b.forms, [&mut b.streams[to.index()]]);
    }

    fn ffn(&mut self, layer: usize, from: Vector, to: Vector, groups: Groups) {
        self.ffn_of(layer, from, to, |_, when| groups.has(when != Chosen::Always));
    }

    fn ffn_of(&mut self, layer: usize, from: Vector, to: Vector, wanted: impl Fn(usize, Chosen) -> bool) {
        self.begin_ffn(from, to);
        self.choose(layer, wanted);
        self.load(layer, from);
        match self.how {
            How::Rows => self.groups_by_rows(layer, from, to, None),
            How::Tiles => {
                if !from.is_latent() {
                    self.tokens.observer.ffn_input(layer, &self.hands.buffers.streams[from.index()]);
                }
                self.groups_by_tiles(layer, to);
            }
        }
    }

    fn begin_ffn(&mut self, from: Vector, to: Vector) {
        let streams = &mut self.hands.buffers.streams;
        let len = streams[from.index()].len();
        streams[to.index()].clear();
        streams[to.index()].resize(len, 0.0);
    }

    /// Finds those of a layer's groups that are `wanted` and computed for any token.
    fn choose(&mut self, layer: usize, wanted: impl Fn(usize, Chosen) -> bool) {
        let n_chosen = self.cpu.model.weights.layers[layer].find(Role::Router).map_or(0, |part| part.matrix().n_rows);
        let n = self.n_tokens();
        let Buffers { choice, chosen, .. } = &mut self.hands.buffers;
        let groups = self.cpu.chosen[layer].iter().copied().enumerate().filter(|(group, when)| wanted(*group, *when));
        choice.take(groups, n, if n_chosen > 0 { chosen } else { &[] }, n_chosen);
    }

    /// Loads the forms in which the groups that are computed read all tokens.
    fn load(&mut self, layer: usize, from: Vector) {
        let (model, how) = (self.cpu.model, self.how);
        let groups = &model.weights.layers[layer].groups;
        let predicted = how == How::Rows && self.mode == Mode::Predicted;
        let (cx, b) = self.split();
        let kind = |m: &Matrix| cx.isa.kernels(m.dtype()).act;
        let chosen = || b.choice.iter().map(|chosen| &groups[chosen.group]);
        let asked = |reads: PredictorInput| {
            let predictors = chosen().filter_map(|group| group.predictor.as_ref()).filter(move |_| predicted);
            predictors.filter(move |predictor| predictor.reads == reads)
        };
        let inputs = |reads| asked(reads).filter_map(|predictor| predictor.input()).map(kind);
        if asked(PredictorInput::Residual).next().is_some() {
            let x = &b.streams[Vector::Residual.index()];
            b.predictor_forms.load(x, model.config.n_embd, inputs(PredictorInput::Residual));
        }
        let Some(width) = chosen().next().map(NeuronGroup::width) else { return };
        let own = chosen().flat_map(|group| [group.mask_matrix(), group.ffn_up()]).map(kind);
        let kinds = own.chain(inputs(PredictorInput::Normed));
        load(cx, how, &mut b.forms, (&b.streams[from.index()], width), kinds);
    }

    /// The groups that are computed, for many tokens, added to `to`.
    fn groups_by_tiles(&mut self, layer: usize, to: Vector) {
        let (model, mode) = (self.cpu.model, self.mode);
        let weights = &model.weights.layers[layer];
        let Hands { pool, isa, buffers: b } = &mut *self.hands;
        let Buffers { choice, many, products, streams, forms, .. } = b;
        let Some(width) = choice.iter().next().map(|chosen| weights.groups[chosen.group].width()) else { return };
        let cx = Compute { pool, isa: *isa };
        let activation = model.config.activation.activation;
        let work = ManyWork { x: forms, activation, mode, width, cx };
        let lot = |i: usize| {
            let ChosenGroup { group, tokens, weights: counts } = choice.get(i);
            let at = GroupAt { layer, group, number: weights.first_group + group };
            let threshold = model.threshold(mode, at.number);
            Lot { at, group: &weights.groups[group], tokens, weights: counts, threshold }
        };
        let (tiles, observer) = (&mut products.tiles, &mut *self.tokens.observer);
        many.add(&work, choice.len(), lot, tiles, observer, &mut streams[to.index()]);
    }

    /// The groups that are computed, for one token or a few, added to `to`: both shards, or where `part` says so just
    /// the neurons from there on.
    fn groups_by_rows(&mut self, layer: usize, from: Vector, to: Vector, part: Option<Divided>) {
        let (cpu, mode) = (self.cpu, self.mode);
        let weights = &cpu.model.weights.layers[layer];
        let Hands { pool, isa, buffers: b } = &mut *self.hands;
        let Buffers { choice, few, streams, forms, predictor_forms, .. } = b;
        let Some(width) = choice.iter().next().map(|chosen| weights.groups[chosen.group].width()) else { return };
        let cx = Compute { pool, isa: *isa };
        let activation = cpu.model.config.activation.activation;
        let work = FewWork { x: forms, activation, mode, mask: &*cpu.mask, cx };
        // The hot neurons of each group, which are computed by their true mask, then the cold ones.
        let share = |i: usize| {
            let ChosenGroup { group, tokens, weights: counts } = choice.get(i / 2);
            let at = GroupAt { layer, group, number: weights.first_group + group };
            let (group, is_cold) = (&weights.groups[group], i % 2 == 1);
            let predictor = group.predictor.as_ref().filter(|_| mode == Mode::Predicted);
            let [hot, cold] = slots(cpu, at, group, part, predictor.is_some());
            let predictor = predictor.filter(|_| is_cold);
            let other = predictor.is_some_and(|predictor| predictor.reads == PredictorInput::Residual);
            Share {
                at,
                group,
                slots: if is_cold { cold } else { hot },
                tokens,
                weights: counts,
                threshold: cpu.model.threshold(mode, at.number),
                predictor,
                predictor_x: if other { predictor_forms } else { forms },
                given: part.filter(|_| is_cold).map_or(Given::Nothing, |part| part.given),
            }
        };
        let y = &mut streams[to.index()];
        few.add(&work, 2 * choice.len(), share, width, y);
        let Tokens { batch, sequences, .. } = &mut *self.tokens;
        let entries = batch.entries();
        for i in 0..2 * choice.len() {
            let Share { at, group, tokens, weights, .. } = share(i);
            let first = i % 2 == 0;
            if let Some(one) = tokens.first() {
                let stats = &mut sequences[entries[*one as usize].sequence].stats;
                stats.unite(at.number, few.united(i), first);
            }
            for (token, computed) in tokens.iter().zip(few.computed(i)) {
                let stats = &mut sequences[entries[*token as usize].sequence].stats;
                stats.turn_to(*token);
                stats.add(at.number, *computed);
                // What another device has a part of, it counts.
                if first && part.is_none_or(|part| part.has_all_of(at.group)) {
                    stats.choose(at.number);
                }
            }
            // Of a group that is divided, the other device adds it, which may have nothing to ask for.
            if first && part.is_none() {
                add_down_bias(group, tokens, weights, y);
            }
        }
        self.audit(layer, from, part);
    }

    /// Looks at what predictors miss of some tokens.
    fn audit(&mut self, layer: usize, from: Vector, part: Option<Divided>) {
        let (cpu, every) = (self.cpu, self.cpu.audit_every);
        // Where somebody else knows which neurons fire, none is missed.
        let fired = part.is_some_and(|part| matches!(part.given, Given::Fired(..)));
        if every == 0 || fired || self.mode != Mode::Predicted {
            return;
        }
        let weights = &cpu.model.weights.layers[layer];
        let Hands { pool, isa, buffers: b } = &mut *self.hands;
        let (cx, activation) = (Compute { pool, isa: *isa }, cpu.model.config.activation.activation);
        let Tokens { batch, sequences, .. } = &mut *self.tokens;
        for ChosenGroup { group, tokens, .. } in b.choice.iter() {
            let at = GroupAt { layer, group, number: weights.first_group + group };
            let group = &weights.groups[group];
            let Some(predictor) = &group.predictor else { continue };
            let [_, cold] = slots(cpu, at, group, part, true);
            for token in tokens {
                let (before, rest) = batch.entries().split_at(*token as usize);
                let sequence = rest[0].sequence;
                let stats = &mut sequences[sequence].stats;
                let n_before = before.iter().filter(|entry| entry.sequence == sequence).count() as u64;
                if (stats.n_tokens() + n_before).is_multiple_of(every) {
                    let of = |stream: Vector, n: usize| &b.streams[stream.index()][*token as usize * n..][..n];
                    let x = of(from, group.width());
                    let other = predictor.reads == PredictorInput::Residual;
                    let predictor_x = if other { of(Vector::Residual, cpu.model.config.n_embd) } else { x };
                    let work = AuditWork { group, predictor, slots: cold, x, predictor_x, activation, cx };
                    stats.turn_to(*token);
                    stats.add_recall(at.number, b.audit.recall(&work));
                }
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
        let _span = self.hands.pool.span(What::Head, None);
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
        load(cx, how, &mut b.forms, (&b.gathered, n_embd), [cx.isa.kernels(head.matrix().dtype()).act]);
        b.products.of(cx, how, [head], &b.forms, [logits]);
    }
}

/// What a step is called in traces; norms and sums are too short to be seen.
fn step_name(step: Step) -> Option<What> {
    match step {
        Step::Attention { .. } => Some(What::Attention),
        Step::Router { .. } => Some(What::Router),
        Step::Recurrent { .. } => Some(What::Recurrent),
        Step::Project { .. } => Some(What::Project),
        Step::Ffn { .. } => Some(What::Ffn),
        Step::Norm { .. } | Step::Add { .. } => None,
    }
}

/// The same of what a card asks for, and in which layer; whole layers have names of their own.
fn request_name(request: &Request) -> Option<(What, usize)> {
    match request {
        Request::Attention { layer, .. } => Some((What::Attention, *layer)),
        Request::Router { layer } => Some((What::Router, *layer)),
        Request::Ffn { layer, .. } => Some((What::Ffn, *layer)),
        Request::Cold { layer, .. } | Request::Named { layer, .. } | Request::Routed { layer, .. } => {
            Some((What::Cold, *layer))
        }
        Request::Layers(_) | Request::Tail => None,
    }
}

/// The slots of a group that are hot, and those that are cold. Where nothing is predicted, both are computed in the same
/// way, and are one shard.
fn slots<'a>(
    cpu: &'a Setup,
    at: GroupAt,
    group: &NeuronGroup,
    part: Option<Divided>,
    predicted: bool,
) -> [Which<'a>; 2] {
    match (part, cpu.placement.scattered(at.number)) {
        (Some(Divided { cold_from, .. }), _) => {
            let from = match cold_from {
                ColdFrom::One(from) => from,
                ColdFrom::Each(from) => from.get(at.group).copied().unwrap_or(group.n_ff()),
            };
            [Which::NONE, Which::from(from..group.n_ff())]
        }
        (None, Some((hot, cold))) => [Which::List(hot), Which::List(cold)],
        (None, None) => {
            let n_hot = if predicted { cpu.placement.n_hot(at.number) } else { group.n_ff() };
            [Which::from(0..n_hot), Which::from(n_hot..group.n_ff())]
        }
    }
}

/// Adds the bias of `down`, where there is one, times what the group counts for each of `tokens`.
fn add_down_bias(group: &NeuronGroup, tokens: &[u32], weights: Option<&[f32]>, y: &mut [f32]) {
    let Some(bias) = &group.down.bias else { return };
    for (i, token) in tokens.iter().enumerate() {
        let y = &mut y[*token as usize * bias.len()..][..bias.len()];
        match weights.map(|weights| weights[i]) {
            None => y.iter_mut().zip(&**bias).for_each(|(y, b)| *y += b),
            Some(weight) => y.iter_mut().zip(&**bias).for_each(|(y, b)| *y += weight * b),
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
