//! Keys and values that a sequence takes over from another one, which begins with the same tokens.

use super::{KvCache, Plane};

impl KvCache {
    /// Holds the first `n` tokens of `other`, which is laid out alike and has as many, and nothing else. `false`, with nothing
    /// changed, where a layer with a window has given up what the next token would look back on.
    pub fn copy_from(&mut self, other: &Self, n: usize) -> bool {
        let with_rows = || other.places.iter().enumerate().filter(|(_, place)| place.n_rows > 0);
        if with_rows().any(|(layer, place)| other.first_kept(layer) > (n + 1).saturating_sub(place.window)) {
            return false;
        }
        let (mut lost, mut rows) = (vec![0; other.places.len()], Vec::new());
        for (layer, place) in with_rows() {
            let first = other.first_kept(layer).max(n.saturating_sub(place.n_rows)).min(n);
            for head in 0..other.n_head_kv {
                for plane in Plane::BOTH {
                    rows.clear();
                    other.copy_rows(layer, head, plane, first..n, &mut rows);
                    self.put_rows(layer, head, plane, first, &rows);
                }
            }
            lost[layer] = first;
        }
        self.set_held(n, lost);
        true
    }
}
