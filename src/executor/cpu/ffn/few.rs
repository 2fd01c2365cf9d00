//! The FFN of a layer for a few tokens: the shards of all groups that are computed, step by step together.

use super::super::column_sum::{AddedColumns, ColumnSum};
use super::super::matvec::{MatVec, Piece};
use super::super::predict::Predictions;
use super::super::sum::{Added, NeuronSum};
use super::shard::{FewWork, Shard, Share};
use crate::cpu::Activations;
use crate::executor::stats::{Computed, United};
use crate::model::{Activation, Down, Matrix, Mode};
use crate::trace::What;
use std::ops::Range;

/// Shards, with the memory that they keep from call to call.
#[derive(Default)]
pub(in crate::executor::cpu) struct Few {
    shards: Vec<Shard>,
    predictions: Predictions,
    products: MatVec,
    sum: NeuronSum,
    column_sum: ColumnSum,
    all_h: Vec<f32>,
    /// By the first shard of each group that has `down` by columns.
    all_h_forms: Vec<Activations>,
}

/// Rows of a matrix that a shard needs.
type Needed = for<'s> fn(&'s Shard, &FewWork, &Share<'s>) -> Option<Piece<'s>>;
/// What it does with their products.
type Take = fn(&mut Shard, &FewWork, &Share, &[f32]);

impl Few {
    /// Computes `n` shards, those of a group side by side, and adds them in order to `y` (`[n_tokens][width]`). All
    /// masks are one piece of work for the threads, then all that is multiplied with them, then all additions, however
    /// many groups there are.
    pub fn add<'a>(
        &mut self,
        work: &FewWork,
        n: usize,
        share: impl Fn(usize) -> Share<'a>,
        width: usize,
        y: &mut [f32],
    ) {
        if self.shards.len() < n {
            self.shards.resize_with(n, Shard::default);
            self.all_h_forms.resize_with(n, Activations::default);
        }
        let shards = &mut self.shards[..n];
        let span = |what: What| work.cx.pool.span(what, None);
        let asking = (work.mode == Mode::Predicted).then(|| span(What::Predictor));
        for (i, shard) in shards.iter_mut().enumerate() {
            shard.begin(work, &share(i), &mut self.predictions);
        }
        drop(asking);
        let masking = span(What::Mask);
        multiply(&mut self.products, work, shards, &share, Some(work.activation), Shard::masked, Shard::take_masked);
        drop(masking);
        let opening = span(What::Up);
        multiply(&mut self.products, work, shards, &share, None, Shard::opened, Shard::take_opened);
        drop(opening);
        let _adding = span(What::Down);
        for (i, shard) in shards.iter_mut().enumerate() {
            shard.end(work, &share(i));
        }
        let mut start = 0;
        while start < n {
            let by_columns = |i: usize| columns(&share(i)).is_some();
            let end = (start..n).find(|i| by_columns(*i) != by_columns(start)).unwrap_or(n);
            if by_columns(start) {
                self.add_columns(work, start..end, &share, width, y);
            } else {
                self.add_rows(work, start..end, &share, width, y);
            }
            start = end;
        }
    }

    /// What each token of shard `i` took.
    pub fn computed(&self, i: usize) -> &[Computed] {
        self.shards[i].computed()
    }

    /// What the tokens of shard `i` have in common.
    pub fn united(&self, i: usize) -> United {
        self.shards[i].united()
    }

    fn add_rows<'a>(
        &mut self,
        work: &FewWork,
        range: Range<usize>,
        share: &impl Fn(usize) -> Share<'a>,
        width: usize,
        y: &mut [f32],
    ) {
        let shards = &self.shards;
        let all = range.filter_map(|i| {
            let (share, shard) = (share(i), &shards[i]);
            let added = Added {
                down: share.group.ffn_down(),
                neurons: shard.added(work, &share),
                h: shard.h(),
                tokens: share.tokens,
            };
            (!share.slots.is_empty()).then_some(added)
        });
        if all.clone().next().is_some() {
            self.sum.add(work.cx, all, width, y);
        }
    }

    fn add_columns<'a>(
        &mut self,
        work: &FewWork,
        range: Range<usize>,
        share: &impl Fn(usize) -> Share<'a>,
        width: usize,
        y: &mut [f32],
    ) {
        // The first shard of each group that has something to add.
        let number = |i: usize| share(i).at.number;
        let shards_of = |first: usize| (first..range.end).take_while(move |i| number(*i) == number(first));
        let firsts = range.clone().filter(|i| {
            let is_first = *i == range.start || number(*i - 1) != number(*i);
            is_first && shards_of(*i).any(|i| !share(i).slots.is_empty())
        });
        for first in firsts.clone() {
            let Some(down) = columns(&share(first)) else { continue };
            self.all_h.clear();
            self.all_h.resize(share(first).tokens.len() * down.n_cols, 0.0);
            for i in shards_of(first) {
                self.shards[i].spread(work, &share(i), &mut self.all_h);
            }
            self.all_h_forms[first].load(&self.all_h, down.n_cols, [work.cx.isa.kernels(down.dtype()).act]);
        }
        let all_h = &self.all_h_forms;
        let all = firsts.filter_map(|first| {
            let share = share(first);
            columns(&share).map(|down| AddedColumns { down, h: &all_h[first], tokens: share.tokens })
        });
        if all.clone().next().is_some() {
            self.column_sum.add(work.cx, all, width, y);
        }
    }
}

/// `down` of the share's group, where it is by columns.
fn columns<'a>(share: &Share<'a>) -> Option<&'a Matrix> {
    match share.group.ffn_down() {
        Down::Columns(down) => Some(down),
        Down::Rows(_) | Down::Lossless(_) => None,
    }
}

/// Multiplies what all shards need, and gives each its products.
fn multiply<'a>(
    products: &mut MatVec,
    work: &FewWork,
    shards: &mut [Shard],
    share: &impl Fn(usize) -> Share<'a>,
    activation: Option<Activation>,
    needed: Needed,
    take: Take,
) {
    let pieces = shards.iter().enumerate().filter_map(|(i, shard)| needed(shard, work, &share(i)));
    if pieces.clone().next().is_none() {
        return;
    }
    let n = work.x.n_tokens();
    let mut rest = products.of(work.cx, work.x, pieces, activation);
    for (i, shard) in shards.iter_mut().enumerate() {
        let share = share(i);
        let Some(n_products) = needed(shard, work, &share).map(|piece| piece.n_products(n)) else { continue };
        let (own, others) = rest.split_at(n_products);
        take(shard, work, &share, own);
        rest = others;
    }
}
