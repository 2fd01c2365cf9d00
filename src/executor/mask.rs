//! Masks: which neurons are computed in exact mode.

use crate::model::{GroupAt, Slot};
use std::ops::Range;

/// Says which neurons of a shard are active.
pub trait MaskSource: Send + Sync {
    /// Appends the active ones of `slots` to `active`, in rising order. `act` holds their activations: what the mask
    /// matrix (gate, or up where there is no gate) gave, one per slot. Where a shard's slots are a list, these are places
    /// in it.
    fn select(&self, group: GroupAt, slots: Range<usize>, act: &[f32], active: &mut Vec<Slot>);
}

/// The mask that loses nothing: a neuron is active when its activation is not zero.
pub struct Fired;

impl MaskSource for Fired {
    fn select(&self, _group: GroupAt, slots: Range<usize>, act: &[f32], active: &mut Vec<Slot>) {
        // Written whether it fires or not, so that nothing has to be guessed: what fires follows no pattern.
        let begin = active.len();
        active.resize(begin + slots.len(), Slot(0));
        let mut n = begin;
        for (slot, a) in slots.zip(act) {
            active[n] = Slot(slot as u32);
            n += usize::from(*a != 0.0);
        }
        active.truncate(n);
    }
}
