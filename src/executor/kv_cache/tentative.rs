//! Rows that tokens overwrite which may be taken back.

use super::KvCache;
use super::rows::Plane;

/// What there was before such tokens.
#[derive(Default)]
pub(super) struct Overwritten {
    first: usize,
    n_tokens: usize,
    n_stored: usize,
    /// Layer by layer with a window, head by head, keys and then values: the rows of all of the tokens.
    rows: Vec<u8>,
}

impl KvCache {
    /// Layers whose rows are used again, of those that are in memory.
    fn windowed(&self) -> Vec<usize> {
        let is_here = |layer| self.layout(layer).pages().any(|page| self.store.has(page));
        let again = |layer: &usize| self.has_rows(*layer) && self.places[*layer].n_rows < self.n_ctx && is_here(*layer);
        (0..self.places.len()).filter(again).collect()
    }

    /// The next `n_tokens` tokens may be taken back: keeps what they overwrite.
    pub fn mark(&mut self, n_tokens: usize) {
        let first = self.n_past;
        let mut rows = std::mem::take(&mut self.overwritten.rows);
        rows.clear();
        for layer in self.windowed() {
            for head in 0..self.n_head_kv {
                Plane::BOTH
                    .into_iter()
                    .for_each(|plane| self.copy_rows(layer, head, plane, first..first + n_tokens, &mut rows));
            }
        }
        self.overwritten = Overwritten { first, n_tokens, n_stored: self.n_stored, rows };
    }

    /// Of the tokens since the mark those before `n_past` stay. All is as if the others had never been there.
    pub fn take_back(&mut self, n_past: usize) {
        let Overwritten { first, n_tokens, n_stored, rows } = std::mem::take(&mut self.overwritten);
        let mut rest = &rows[..];
        for layer in self.windowed() {
            for head in 0..self.n_head_kv {
                for plane in Plane::BOTH {
                    let n = self.row_bytes(plane);
                    let (own, others) = rest.split_at(n_tokens * n);
                    self.put_rows(layer, head, plane, n_past, &own[(n_past - first) * n..]);
                    rest = others;
                }
            }
        }
        (self.n_past, self.n_stored) = (n_past, n_stored.max(n_past));
        self.overwritten.rows = rows;
    }
}
