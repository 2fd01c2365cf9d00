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

    /// Where the row of a position of a head begins.
    fn row_at(&self, layer: usize, head: usize, position: usize) -> usize {
        self.head(layer, head) + position % self.places[layer].n_rows
    }

    /// Appends the rows of `positions`, which the layer has, to `out`.
    pub fn copy_rows(&self, layer: usize, head: usize, plane: Plane, positions: Range<usize>, out: &mut Vec<u8>) {
        let n = self.row_bytes(plane);
        for position in positions {
            let row = self.row_at(layer, head, position);
            out.extend_from_slice(self.store.get(plane, row * n..(row + 1) * n));
        }
    }

    /// Writes rows of the positions from `first` on, of which the layer has room for all.
    pub fn put_rows(&mut self, layer: usize, head: usize, plane: Plane, first: usize, rows: &[u8]) {
        let n = self.row_bytes(plane);
        for (i, row) in rows.chunks_exact(n).enumerate() {
            let at = self.row_at(layer, head, first + i) * n;
            self.store.get_mut(plane, at..at + n).copy_from_slice(row);
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
