//! Rows of the cache as bytes, for those that move them elsewhere and back.

use super::KvCache;
use std::ops::Range;

/// What a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum Plane {
    /// Keys of a head.
    Keys,
    /// Values of a head.
    Values,
}

impl Plane {
    /// Both, in the order in which a card and files have them.
    pub const BOTH: [Self; 2] = [Self::Keys, Self::Values];
}

impl KvCache {
    /// Heads of keys and values.
    pub fn n_head_kv(&self) -> usize {
        self.n_head_kv
    }

    /// Bytes of a row.
    pub fn row_bytes(&self, plane: Plane) -> usize {
        match plane {
            Plane::Keys => self.key_bytes,
            Plane::Values => self.value_bytes,
        }
    }

    /// Whether a layer has keys and values.
    pub fn has_rows(&self, layer: usize) -> bool {
        self.places[layer].n_rows > 0
    }

    /// Of the first `n_past` positions, those that a layer has.
    pub fn held(&self, layer: usize, n_past: usize) -> Range<usize> {
        self.first_kept(layer).min(n_past)..n_past
    }

    /// Of the first `n_past` positions, those that a layer has room for.
    pub fn room(&self, layer: usize, n_past: usize) -> Range<usize> {
        n_past.saturating_sub(self.places[layer].n_rows)..n_past
    }

    /// Appends the rows of `positions`, which the layer has, to `out`.
    pub fn copy_rows(&self, layer: usize, head: usize, plane: Plane, positions: Range<usize>, out: &mut Vec<u8>) {
        let cache = self.of_head(layer, head);
        cache.stretches(positions).for_each(|stretch| out.extend_from_slice(cache.stored(plane, &stretch)));
    }

    /// Writes rows of the positions from `first` on, of which the layer has room for all, and pages since [`KvCache::reserve`].
    pub fn put_rows(&mut self, layer: usize, head: usize, plane: Plane, first: usize, rows: &[u8]) {
        let (layout, row_bytes) = (self.layout(layer), self.row_bytes(plane));
        let mut rest = rows;
        for stretch in layout.stretches(first..first + rows.len() / row_bytes) {
            let own;
            (own, rest) = rest.split_at(stretch.len() * row_bytes);
            let n_used = self.n_used(layer, layout.at(stretch.start).0);
            self.store.get_mut(&layout, (plane, head), &stretch, n_used).copy_from_slice(own);
        }
    }

    /// All layers have the last ones of the first `n_past` positions that they have room for, but of layer `i` none below
    /// `lost[i]`.
    pub fn set_held(&mut self, n_past: usize, lost: Vec<usize>) {
        (self.n_past, self.n_stored, self.lost) = (n_past, n_past, lost);
    }

    /// The rows of its tokens that others than the processor have stored count as stored.
    pub fn count_stored(&mut self) {
        self.n_stored = self.n_stored.max(self.n_past);
    }
}
