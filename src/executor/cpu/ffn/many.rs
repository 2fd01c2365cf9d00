//! The FFN of a layer for many tokens: dense products by tiles, but for `down` by rows, which takes what has fired. Each
//! matrix meets only the tokens that its group is computed for, and the groups of a layer are work of the same regions.

use super::super::compute::{Compute, How};
use super::super::product::{add_bias, load};
use super::super::tiles::{Each, Fed, PieceAt, Section, Tiled, Tiles};
use crate::cpu::Activations;
use crate::executor::observer::{FfnAt, Observer};
use crate::model::{Activation, Down, GroupAt, Matrix, Mode, NeuronGroup, rest};
use crate::trace::What;

/// Values of all groups together that are worked on at once, unless one group has more: 64 MiB.
const AT_ONCE: usize = 16 << 20;

/// What the groups of a layer have in common.
#[derive(Clone, Copy)]
pub(in crate::executor::cpu) struct ManyWork<'a> {
    /// The normalised inputs of all tokens.
    pub x: &'a Activations,
    /// Activation of the FFN.
    pub activation: Activation,
    /// What may be skipped.
    pub mode: Mode,
    /// Width of what neurons give.
    pub width: usize,
    /// Threads and instruction set.
    pub cx: Compute<'a>,
}

/// A group, and the tokens that it is computed for.
#[derive(Clone, Copy)]
pub(in crate::executor::cpu) struct Lot<'a> {
    /// Which group it is.
    pub at: GroupAt,
    /// The group.
    pub group: &'a NeuronGroup,
    /// Numbers of the tokens, rising.
    pub tokens: &'a [u32],
    /// What the group counts for each of them; `None` for 1.
    pub weights: Option<&'a [f32]>,
    /// What activations must be above to count.
    pub threshold: f32,
}

impl<'a> Lot<'a> {
    /// Values that it has of each neuron and token.
    fn len(&self) -> usize {
        self.tokens.len() * self.group.n_ff()
    }

    fn section(&self, matrix: &'a Matrix) -> Section<'a> {
        Section { matrix, vectors: Some(self.tokens) }
    }

    fn observed(&self) -> FfnAt<'a> {
        FfnAt { group: self.at, tokens: self.tokens }
    }
}

/// Memory that is kept from call to call. Of several groups everything is one group behind the other.
#[derive(Default)]
pub(in crate::executor::cpu) struct Many {
    /// `[tokens][n_ff]` activations of the mask matrix.
    act: Vec<f32>,
    /// `[tokens][n_ff]`: these times `up`, where there is a gate.
    h: Vec<f32>,
    h_forms: Activations,
    /// 0, 1, and so on.
    numbers: Vec<u32>,
    places: Places,
}

impl Many {
    /// Adds `n` groups to `out` (`[n_tokens][width]`), in order. `observer` is shown each of them.
    pub fn add<'a>(
        &mut self,
        work: &ManyWork,
        n: usize,
        lot: impl Fn(usize) -> Lot<'a> + Sync,
        tiles: &mut Tiles,
        observer: &mut dyn Observer,
        out: &mut [f32],
    ) {
        let mut start = 0;
        while start < n {
            let (mut end, mut len) = (start, 0);
            while end < n && (end == start || len + lot(end).len() <= AT_ONCE) {
                len += lot(end).len();
                end += 1;
            }
            let lots = Each { n: end - start, get: |i: usize| lot(start + i) };
            self.activate(work, &lots, tiles, observer);
            let _adding = work.cx.pool.span(What::Down, None);
            self.add_down(work, &lots, tiles, out);
            start = end;
        }
    }

    /// Activations, and what `down` is multiplied with.
    fn activate<'a, F: Fn(usize) -> Lot<'a> + Sync>(
        &mut self,
        work: &ManyWork,
        lots: &Each<F>,
        tiles: &mut Tiles,
        observer: &mut dyn Observer,
    ) {
        let Self { act, h, .. } = self;
        let (cx, x, activation) = (work.cx, work.x, work.activation);
        let lot = |i: usize| (lots.get)(i);
        let masking = cx.pool.span(What::Mask, None);
        let masks = Each { n: lots.n, get: |i| lot(i).section(lot(i).group.mask_matrix()) };
        tiles.products(cx, x, &masks, false, |at, act| add_bias(lot(at.section).group.mask(), act), act);
        let mut rest_of = &act[..];
        for lot in (0..lots.n).map(lot) {
            let (own, others) = rest_of.split_at(lot.len());
            observer.gates(lot.observed(), own);
            rest_of = others;
        }
        let size = |i: usize| (lot(i).tokens.len(), lot(i).group.n_ff());
        tiles.change(cx, (lots.n, size), act, |at, act| {
            act.iter_mut().for_each(|a| *a = activation.apply(*a));
            rest(lot(at.section).threshold, act);
        });
        drop(masking);
        let _opening = cx.pool.span(What::Up, None);
        if (0..lots.n).all(|i| lot(i).group.gate.is_none()) {
            h.clone_from(act);
        } else {
            let act = &act[..];
            let ups = Each { n: lots.n, get: |i| lot(i).section(lot(i).group.ffn_up()) };
            let times_up = |at: PieceAt, h: &mut [f32]| {
                let (group, act) = (lot(at.section).group, &act[at.start..][..h.len()]);
                if group.gate.is_none() {
                    return h.copy_from_slice(act);
                }
                add_bias(&group.up, h);
                h.iter_mut().zip(act).for_each(|(h, a)| *h = activation.gated(*a, *h));
            };
            tiles.products(cx, x, &ups, true, times_up, h);
        }
        let (mut act, mut h) = (&act[..], &h[..]);
        for lot in (0..lots.n).map(lot) {
            let ((own_act, acts), (own_h, hs)) = (act.split_at(lot.len()), h.split_at(lot.len()));
            observer.ffn(lot.observed(), own_act, own_h);
            (act, h) = (acts, hs);
        }
    }

    /// From there back to the width that neurons give, added to `out`.
    fn add_down<'a, F: Fn(usize) -> Lot<'a> + Sync>(
        &mut self,
        work: &ManyWork,
        lots: &Each<F>,
        tiles: &mut Tiles,
        out: &mut [f32],
    ) {
        let lot = |i: usize| (lots.get)(i);
        // Groups that are stored alike are added together.
        let form = |i: usize| columns(lot(i).group).map(|down| down.n_cols);
        let Self { h, h_forms, numbers, places, .. } = self;
        let (mut start, mut h_start) = (0, 0);
        while start < lots.n {
            let end = (start..lots.n).find(|i| form(*i) != form(start)).unwrap_or(lots.n);
            let lots = Each { n: end - start, get: |i: usize| lot(start + i) };
            let h_end = places.take(&lots, out.len() / work.width) + h_start;
            let (h, starts) = (&h[h_start..h_end], &places.starts);
            let tiled = match form(start) {
                Some(n_ff) => {
                    numbers.clear();
                    numbers.extend(0..(h.len() / n_ff) as u32);
                    let kinds = (0..lots.n).map(|i| work.cx.isa.kernels((lots.get)(i).group.ffn_down().dtype()).act);
                    load(work.cx, How::Tiles, h_forms, (h, n_ff), kinds);
                    let section = |i: usize| {
                        let lot = (lots.get)(i);
                        let Down::Columns(matrix) = lot.group.ffn_down() else { unreachable!("all are by columns") };
                        Section { matrix, vectors: Some(&numbers[starts[i].token..starts[i + 1].token]) }
                    };
                    tiles.tiled_products(work.cx, h_forms, &Each { n: lots.n, get: section })
                }
                None => {
                    let fed = |i: usize| Fed {
                        down: (lots.get)(i).group.ffn_down(),
                        h: &h[starts[i].value..starts[i + 1].value],
                    };
                    tiles.add_neurons(work.cx, &Each { n: lots.n, get: fed }, work.mode != Mode::Dense)
                }
            };
            places.add(work, &lots, tiled, out);
            (start, h_start) = (end, h_end);
        }
    }
}

/// `down` of a group, where it is by columns.
fn columns(group: &NeuronGroup) -> Option<&Matrix> {
    match group.ffn_down() {
        Down::Columns(down) => Some(down),
        Down::Rows(_) | Down::Lossless(_) => None,
    }
}

/// Which results belong to which token.
#[derive(Default)]
struct Places {
    /// Where each group begins, and the end.
    starts: Vec<Start>,
    /// By token, where its results begin among `places`, and the end.
    firsts: Vec<usize>,
    /// Of each token the groups that are computed for it, in order, and its number among their tokens.
    places: Vec<(usize, usize)>,
}

/// Where a group begins among those that are computed together.
#[derive(Clone, Copy, Default)]
struct Start {
    /// Number of tokens before it.
    token: usize,
    /// Number of values, of each neuron and token, before it.
    value: usize,
}

impl Places {
    /// Finds the places, and tells how many values of neurons and tokens there are.
    fn take<'a, F: Fn(usize) -> Lot<'a>>(&mut self, lots: &Each<F>, n_tokens: usize) -> usize {
        let Self { starts, firsts, places } = self;
        let lot = |i: usize| (lots.get)(i);
        let mut start = Start::default();
        starts.clear();
        starts.push(start);
        firsts.clear();
        firsts.resize(n_tokens + 1, 0);
        for lot in (0..lots.n).map(lot) {
            start = Start { token: start.token + lot.tokens.len(), value: start.value + lot.len() };
            starts.push(start);
            lot.tokens.iter().for_each(|token| firsts[*token as usize + 1] += 1);
        }
        for token in 0..n_tokens {
            firsts[token + 1] += firsts[token];
        }
        places.clear();
        places.resize(start.token, (0, 0));
        for i in 0..lots.n {
            for (at, token) in lot(i).tokens.iter().enumerate() {
                places[firsts[*token as usize]] = (i, at);
                firsts[*token as usize] += 1;
            }
        }
        // Each now has where it ends: the beginning of the next.
        firsts.rotate_right(1);
        firsts[0] = 0;
        start.value
    }

    /// Adds to each token of `out` what its groups give, in order, times what they count.
    fn add<'a, F: Fn(usize) -> Lot<'a> + Sync>(&self, work: &ManyWork, lots: &Each<F>, tiled: Tiled, out: &mut [f32]) {
        work.cx.pool.fill(out, work.width, |start, out| {
            for (i, out) in out.chunks_exact_mut(work.width).enumerate() {
                let token = start / work.width + i;
                for (section, at) in &self.places[self.firsts[token]..self.firsts[token + 1]] {
                    let lot = (lots.get)(*section);
                    let weight = lot.weights.map(|weights| weights[*at]);
                    let bias = lot.group.down.bias.as_deref();
                    for (i, y) in tiled.pieces(*section, *at).enumerate() {
                        let out = &mut out[i * tiled.width()..][..y.len()];
                        let bias = bias.map(|bias| &bias[i * tiled.width()..][..y.len()]);
                        add(out, y, bias, weight);
                    }
                }
            }
        });
    }
}

/// `out += weight * (y + bias)`.
fn add(out: &mut [f32], y: &[f32], bias: Option<&[f32]>, weight: Option<f32>) {
    match (weight, bias) {
        (None, None) => out.iter_mut().zip(y).for_each(|(out, y)| *out += y),
        (Some(weight), None) => out.iter_mut().zip(y).for_each(|(out, y)| *out += weight * y),
        (None, Some(bias)) => out.iter_mut().zip(y).zip(bias).for_each(|((out, y), b)| *out += y + b),
        (Some(weight), Some(bias)) => {
            out.iter_mut().zip(y).zip(bias).for_each(|((out, y), b)| *out += weight * (y + b));
        }
    }
}
