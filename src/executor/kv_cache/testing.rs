//! For tests: a head whose keys and values are known.

use super::Plane;
use super::head::HeadCache;
use super::page::Layout;
use super::store::Store;

/// A cache of one layer with one head.
pub(in crate::executor) struct OneHead {
    store: Store,
    layout: Layout,
}

impl OneHead {
    /// Of keys and values in rows of so many bytes, of all positions that there is room for.
    pub fn of(keys: &[u8], values: &[u8], key_bytes: usize, value_bytes: usize) -> Self {
        let n_rows = keys.len() / key_bytes;
        let layout = Layout { first: 0, n_rows, n_heads: 1, key_bytes, value_bytes };
        let mut store = Store::new(layout.pages().len(), 1);
        for stretch in layout.stretches(0..n_rows) {
            for (plane, rows, bytes) in [(Plane::Keys, keys, key_bytes), (Plane::Values, values, value_bytes)] {
                let rows = &rows[stretch.start * bytes..stretch.end * bytes];
                store.get_mut(&layout, (plane, 0), &stretch, 0).copy_from_slice(rows);
            }
        }
        Self { store, layout }
    }

    /// The head.
    pub fn head(&self) -> HeadCache<'_> {
        self.store.of_head(self.layout, 0)
    }
}
