//! Keys and values that the card has, on the way to the processor's memory and back.

use super::Hybrid;
use super::resident::CardAttention;
use crate::executor::kv_cache::{KvCache, Plane};
use crate::gpu::ops::kv_rows::HeadRows;
use anyhow::Result;

impl Hybrid<'_> {
    /// The layers whose attention is on the card, with their numbers.
    fn attentive(&self) -> impl Iterator<Item = (usize, &CardAttention)> {
        let layers = self.resident.layers.iter().enumerate();
        layers.filter_map(|(i, layer)| Some((i, layer.attention.as_ref()?)))
    }

    /// The card's keys and values into `kv`, as far as that has room for them.
    pub(super) fn save_rows(&self, kv: &mut KvCache) -> Result<()> {
        let (mut rows, n_past) = (Vec::new(), kv.n_past());
        kv.count_stored();
        kv.reserve(0..n_past)?;
        for (layer, attention) in self.attentive() {
            for head in 0..kv.n_head_kv() {
                for (plane, of) in Plane::BOTH.into_iter().enumerate() {
                    let positions = kv.held(layer, n_past);
                    let first = positions.start;
                    attention.cache.read_rows(&self.stream, &HeadRows { plane, head, positions }, &mut rows)?;
                    kv.put_rows(layer, head, of, first, &rows);
                }
            }
        }
        Ok(())
    }

    /// Those of `kv` to the card.
    pub(super) fn restore_rows(&self, kv: &KvCache) -> Result<()> {
        let mut rows = Vec::new();
        for (layer, attention) in self.attentive() {
            for head in 0..kv.n_head_kv() {
                for (plane, of) in Plane::BOTH.into_iter().enumerate() {
                    let positions = kv.held(layer, kv.n_past());
                    rows.clear();
                    kv.copy_rows(layer, head, of, positions.clone(), &mut rows);
                    attention.cache.write_rows(&self.stream, &HeadRows { plane, head, positions }, &rows)?;
                }
            }
        }
        Ok(())
    }
}
