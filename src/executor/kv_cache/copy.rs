//! Keys and values that a sequence takes over from another one, which begins with the same tokens.

use super::KvCache;
use super::page::PAGE;

impl KvCache {
    /// Holds the first `n` tokens of `other`, which is laid out alike and has as many, and nothing else: the pages that they are in
    /// are those of both until one of them writes there. Of layers that are `elsewhere` none are taken. `false`, with nothing
    /// changed, where a layer with a window has given up what the next token would look back on.
    pub fn share_with(&mut self, other: &Self, n: usize, elsewhere: impl Fn(usize) -> bool) -> bool {
        let with_rows = || other.places.iter().enumerate().filter(|(_, place)| place.n_rows > 0);
        if with_rows().any(|(layer, place)| other.first_kept(layer) > (n + 1).saturating_sub(place.window)) {
            return false;
        }
        let mut lost = vec![0; other.places.len()];
        for (layer, place) in with_rows() {
            let first = other.first_kept(layer).max(n.saturating_sub(place.n_rows)).min(n);
            let layout = other.layout(layer);
            layout.pages().for_each(|page| self.store.give_up(page));
            for stretch in layout.stretches(first..n).filter(|_| !elsewhere(layer)) {
                self.store.share(layout.at(stretch.start).0, &other.store);
            }
            lost[layer] = first;
        }
        self.set_held(n, lost);
        true
    }

    /// Bytes of the pages that caches share for certain once they hold the same `n` tokens, to which they go on to add others: of
    /// the pages that are full, in layers that are not `elsewhere`. None where a layer has a window, which may have moved on.
    pub fn n_bytes_shared(&self, n: usize, elsewhere: impl Fn(usize) -> bool) -> usize {
        let here = self.places.iter().enumerate().filter(|(layer, _)| !elsewhere(*layer));
        let n_rows = here.map(|(_, place)| place.n_rows).filter(|n| *n > 0);
        if n_rows.clone().any(|n| n < self.n_ctx) {
            return 0;
        }
        n_rows.count() * (n / PAGE * PAGE) * self.n_head_kv * (self.key_bytes + self.value_bytes)
    }
}
