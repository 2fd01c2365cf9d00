//! Keys and values of the tokens seen so far.

mod copy;
mod head;
mod page;
mod pages;
mod rows;
mod shift;
mod store;
mod tentative;
#[cfg(test)]
pub(super) mod testing;

use crate::model::{KvType, Model};
use crate::quant::GgmlType;
use crate::quant::convert::{Quantize, quantizer};
use anyhow::{Context, Result, bail, ensure};
use page::{Layout, PAGE};
use std::ops::Range;
use store::Store;

pub(super) use head::HeadCache;
pub use pages::KvPages;
pub(super) use rows::Plane;
pub(super) use shift::Turn;
pub(super) use store::Loan;
use tentative::Overwritten;

/// Where a layer's keys and values are: in pages from number `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    first: usize,
    /// Positions that are kept. Where they are fewer than the context, each takes the row of the one so far before it.
    n_rows: usize,
    /// Tokens that a token looks back on, itself among them; the context where that is not limited.
    window: usize,
}

/// Keys of `head_dim` elements, and values of `value_dim`, of each head in each layer with attention.
pub(super) struct KvCache {
    n_ctx: usize,
    n_head_kv: usize,
    head_dim: usize,
    value_dim: usize,
    n_past: usize,
    /// Positions that were stored since it was empty: those that rows have been given up for.
    n_stored: usize,
    kind: KvType,
    write_key: Quantize,
    write_value: Quantize,
    /// Bytes of one head's keys of one token, and of its values.
    key_bytes: usize,
    value_bytes: usize,
    /// By layer; those without attention have no rows.
    places: Vec<Place>,
    /// By layer: positions below it are not there, beside those that rows have been given up for.
    lost: Vec<usize>,
    store: Store,
    overwritten: Overwritten,
}

impl KvCache {
    /// An empty cache for `n_ctx` tokens of `model`. A layer with a window keeps no more than that needs while `n_batch`
    /// tokens are computed at once.
    ///
    /// # Errors
    /// When `n_ctx` is 0, the size overflows, or heads are not whole blocks of the type.
    pub fn new(model: &Model, n_ctx: usize, n_batch: usize, kind: KvType) -> Result<Self> {
        ensure!(n_ctx > 0, "a context of 0 tokens");
        let (config, layers) = (&model.config, &model.weights.layers);
        let (head_dim, value_dim) = (config.head_dim, config.value_dim);
        let row_bytes = |dtype: GgmlType, n: usize| {
            let whole = dtype.row_bytes(n);
            let block = dtype.block_len();
            whole.with_context(|| {
                format!("--cache-type {dtype}: heads of {n} are not whole blocks of {block}; take f16")
            })
        };
        let (key_bytes, value_bytes) = (row_bytes(kind.k, head_dim)?, row_bytes(kind.v, value_dim)?);
        let n_head_kv = config.n_head_kv;
        let (mut n_pages, mut n_rows, mut places) = (0, Some(0usize), Vec::with_capacity(layers.len()));
        for (layer, window) in layers.iter().zip(&config.windows) {
            let window = window.unwrap_or(n_ctx).min(n_ctx);
            let of_layer =
                if layer.has_attention() { n_ctx.min((window - 1).saturating_add(n_batch.max(1))) } else { 0 };
            places.push(Place { first: n_pages, n_rows: of_layer, window });
            n_pages += of_layer.div_ceil(PAGE);
            n_rows = n_rows.and_then(|n| n.checked_add(of_layer.checked_mul(n_head_kv)?));
        }
        let n_bytes = n_rows.and_then(|n| n.checked_mul(key_bytes + value_bytes));
        // Pages are taken as they are needed; what the system could never give is known now.
        if n_bytes.and_then(|n| Vec::<u8>::new().try_reserve_exact(n).ok()).is_none() {
            bail!("-c {n_ctx}: the KV cache does not fit in memory; lower it")
        }
        let store = Store::new(n_pages, layers.len());
        let (write_key, write_value) = (quantizer(kind.k)?, quantizer(kind.v)?);
        let (n_past, n_stored, lost) = (0, 0, vec![0; places.len()]);
        Ok(Self {
            n_ctx,
            n_head_kv,
            head_dim,
            value_dim,
            n_past,
            n_stored,
            kind,
            write_key,
            write_value,
            key_bytes,
            value_bytes,
            places,
            lost,
            store,
            overwritten: Overwritten::default(),
        })
    }

    /// Whether it is laid out as `other`.
    pub fn is_like(&self, other: &Self) -> bool {
        let layout = |c: &Self| (c.n_ctx, c.n_head_kv, c.head_dim, c.value_dim, c.kind);
        layout(self) == layout(other) && self.places == other.places
    }

    /// Types of the cached numbers.
    pub fn kind(&self) -> KvType {
        self.kind
    }

    /// Bytes of all of its rows, once it is full.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes_for(self.n_ctx, |_| false)
    }

    /// Bytes of the rows that `n_tokens` write in layers that are not `elsewhere`.
    pub fn n_bytes_for(&self, n_tokens: usize, elsewhere: impl Fn(usize) -> bool) -> usize {
        let here = self.places.iter().enumerate().filter(|(layer, _)| !elsewhere(*layer));
        let rows: usize = here.map(|(_, place)| place.n_rows.min(n_tokens)).sum();
        rows * self.n_head_kv * (self.key_bytes + self.value_bytes)
    }

    /// Tokens that fit.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Tokens that are in.
    pub fn n_past(&self) -> usize {
        self.n_past
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.n_past, self.n_stored) = (0, 0);
        self.lost.fill(0);
        self.store.give_up_shared();
    }

    /// Has the pages that rows of `positions` are in, and each of them alone: where another cache holds one, a copy of it. Layers
    /// that are `elsewhere` need none.
    ///
    /// # Errors
    /// When the system has not that much memory.
    pub fn reserve(&mut self, positions: Range<usize>, elsewhere: impl Fn(usize) -> bool) -> Result<()> {
        for layer in (0..self.places.len()).filter(|layer| self.places[*layer].n_rows > 0 && !elsewhere(*layer)) {
            let layout = self.layout(layer);
            let first = positions.end.saturating_sub(layout.n_rows).max(positions.start);
            for stretch in layout.stretches(first..positions.end) {
                let (page, _) = layout.at(stretch.start);
                let made = self.store.make_own(&layout, page, self.n_used(layer, page));
                ensure!(made, "no memory for keys and values of {} tokens; lower -c or -np", positions.end);
            }
        }
        Ok(())
    }

    /// Gives up the pages that hold nothing which is still needed.
    pub fn give_up_unused(&mut self) {
        for layer in (0..self.places.len()).filter(|layer| self.places[*layer].n_rows > 0) {
            for page in self.layout(layer).pages() {
                if self.n_used(layer, page) == 0 {
                    self.store.give_up(page);
                }
            }
        }
    }

    /// First rows of a page that hold what is still needed.
    fn n_used(&self, layer: usize, page: usize) -> usize {
        let rows = self.layout(layer).rows_of(page);
        let is_ring = self.places[layer].n_rows < self.n_ctx;
        let n = if is_ring { self.n_stored } else { self.n_past };
        n.clamp(rows.start, rows.end) - rows.start
    }

    /// The first position of a layer that it still has.
    fn first_kept(&self, layer: usize) -> usize {
        self.lost[layer].max(self.n_stored.saturating_sub(self.places[layer].n_rows))
    }

    /// Forgets everything after the first `n_past` tokens.
    ///
    /// # Errors
    /// When a layer with a window has given up what the next token would look back on.
    pub fn truncate(&mut self, n_past: usize) -> Result<()> {
        if n_past >= self.n_past {
            return Ok(());
        }
        for (layer, place) in self.places.iter().enumerate().filter(|(_, place)| place.n_rows > 0) {
            let (wanted, kept) = ((n_past + 1).saturating_sub(place.window), self.first_kept(layer));
            ensure!(
                n_past == 0 || wanted >= kept,
                "after {} tokens a window of {} has moved on, so that the first {n_past} must be computed again",
                self.n_past,
                place.window
            );
        }
        self.n_past = n_past;
        if n_past == 0 {
            self.clear();
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, n_tokens: usize) {
        self.n_past += n_tokens;
    }

    /// Tokens of a layer that may be stored before the first of them is computed: one more could take the place of what
    /// that one looks back on.
    pub(super) fn n_at_once(&self, layer: usize) -> usize {
        let Place { n_rows, window, .. } = self.places[layer];
        if n_rows == self.n_ctx { self.n_ctx } else { n_rows + 1 - window }
    }

    /// Positions that a token looks back on, its own among them.
    pub(super) fn seen(&self, layer: usize, position: usize) -> Range<usize> {
        (position + 1).saturating_sub(self.places[layer].window)..position + 1
    }

    fn layout(&self, layer: usize) -> Layout {
        let Place { first, n_rows, .. } = self.places[layer];
        let (key_bytes, value_bytes) = (self.key_bytes, self.value_bytes);
        Layout { first, n_rows, n_heads: self.n_head_kv, key_bytes, value_bytes }
    }

    /// Stores `[n_head_kv][head_dim]` keys and `[n_head_kv][value_dim]` values of one token, for which there is a page since
    /// [`KvCache::reserve`].
    pub(super) fn store(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        let layout = self.layout(layer);
        let (write_key, write_value) = (self.write_key, self.write_value);
        let (head_dim, value_dim) = (self.head_dim, self.value_dim);
        let n_used = self.n_used(layer, layout.at(position).0);
        self.store.write((layer, position), &layout, n_used, |head, key, value| {
            write_key(&k[head * head_dim..][..head_dim], key);
            write_value(&v[head * value_dim..][..value_dim], value);
        });
        self.n_stored = self.n_stored.max(position + 1);
    }

    /// Keys and values of one head.
    pub(super) fn of_head(&self, layer: usize, head: usize) -> HeadCache<'_> {
        self.store.of_head(self.layout(layer), head)
    }

    /// Keys and values of all heads at these positions, for threads that may be late.
    pub(super) fn lend(&self, layer: usize, positions: Range<usize>) -> Loan {
        self.store.lend(layer, self.layout(layer), positions)
    }
}
