//! Keys and values that the card has, on the way to the processor's memory and back.

use super::Hybrid;
use super::resident::CardAttention;
use super::seat_of;
use crate::executor::kv_cache::Plane;
use crate::executor::sequence::Sequence;
use crate::gpu::ops::kv_rows::HeadRows;
use anyhow::Result;

impl Hybrid<'_> {
    /// The layers whose attention is on the card, with their numbers.
    fn attentive(&self) -> impl Iterator<Item = (usize, &CardAttention)> {
        let layers = self.resident.layers.iter().enumerate();
        layers.filter_map(|(i, layer)| Some((i, layer.attention.as_ref()?)))
    }

    /// The card's keys and values of `sequence` into its memory, as far as that has room for them.
    pub(super) fn save_rows(&self, sequence: &mut Sequence) -> Result<()> {
        let seat = seat_of(sequence)?;
        let kv = sequence.memory.kv_mut();
        let (mut rows, n_past) = (Vec::new(), kv.n_past());
        kv.count_stored();
        kv.reserve(0..n_past, |_| false)?;
        for (layer, attention) in self.attentive() {
            let cache = attention.cache.of_sequence(seat)?;
            for head in 0..kv.n_head_kv() {
                for (plane, of) in Plane::BOTH.into_iter().enumerate() {
                    let positions = kv.held(layer, n_past);
                    let first = positions.start;
                    cache.read_rows(&self.stream, &HeadRows { plane, head, positions }, &mut rows)?;
                    kv.put_rows(layer, head, of, first, &rows);
                }
            }
        }
        Ok(())
    }

    /// Those of its memory to the card.
    pub(super) fn restore_rows(&self, sequence: &Sequence) -> Result<()> {
        let (seat, kv, mut rows) = (seat_of(sequence)?, sequence.memory.kv(), Vec::new());
        for (layer, attention) in self.attentive() {
            let cache = attention.cache.of_sequence(seat)?;
            for head in 0..kv.n_head_kv() {
                for (plane, of) in Plane::BOTH.into_iter().enumerate() {
                    let positions = kv.held(layer, kv.n_past());
                    rows.clear();
                    kv.copy_rows(layer, head, of, positions.clone(), &mut rows);
                    cache.write_rows(&self.stream, &HeadRows { plane, head, positions }, &rows)?;
                }
            }
        }
        Ok(())
    }

    /// Those of the tokens that are in `to`, from where `from` has them on the card.
    pub(super) fn copy_rows(&self, from: &Sequence, to: &Sequence) -> Result<()> {
        let (seats, kv) = ((seat_of(from)?, seat_of(to)?), to.memory.kv());
        for (_, attention) in self.attentive() {
            let (from, to) = (attention.cache.of_sequence(seats.0)?, attention.cache.of_sequence(seats.1)?);
            for head in 0..kv.n_head_kv() {
                for plane in 0..Plane::BOTH.len() {
                    from.copy_rows(&self.stream, &HeadRows { plane, head, positions: 0..kv.n_past() }, &to)?;
                }
            }
        }
        Ok(())
    }
}
