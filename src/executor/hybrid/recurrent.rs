//! Layers that recur, on the card: what they do between their two matrices, and their states on the way to places to go back to.

use super::Hybrid;
use super::record::Card;
use super::resident::CardRecurrent;
use super::seat_of;
use crate::executor::sequence::Sequence;
use crate::gpu::Ptr;
use crate::gpu::ops::norm::Acts;
use crate::gpu::ops::recurrent::{Tokens, convolve, group_norm, scan};
use crate::placement::budget::ScratchPart as S;
use anyhow::Result;

/// Where a layer's values are: those of the whole batch.
#[derive(Clone, Copy)]
pub(super) struct Places {
    /// What the input projection gives.
    pub projected: Ptr,
    /// What the output projection reads.
    pub mixed: Ptr,
}

/// Some tokens of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub n_tokens: usize,
    /// State of the token, or [`Ptr::NULL`].
    pub token: Ptr,
    /// Position of the first one, behind that of `token`.
    pub first: usize,
    /// Number of the sequence, behind that of `token`.
    pub sequence: usize,
}

impl Card<'_> {
    /// Where values of a recurrent layer go.
    pub fn recurrent_places(&self, layer: &CardRecurrent) -> Places {
        let mixed = self.scratch.at(S::Recurrent);
        let floats = self.n_ubatch * layer.mixer.sizes.n_inner();
        Places { mixed, projected: mixed.offset((size_of::<f32>() * floats) as u64) }
    }

    /// Takes the tokens that are projected through the layer's states, up to its output projection; their quantized form goes to
    /// `x8`, unless that is [`Ptr::NULL`].
    pub fn recur(&self, layer: &CardRecurrent, taken: Taken, x8: Ptr) -> Result<()> {
        let Places { projected, mixed } = self.recurrent_places(layer);
        let Taken { n_tokens, token, first, sequence } = taken;
        let mixer = layer.mixer.of_sequence(sequence);
        let tokens = Tokens { projected, n_tokens, token, first };
        convolve(self.kernels, self.stream, &mixer, &tokens)?;
        scan(self.kernels, self.stream, &mixer, &tokens, mixed)?;
        group_norm(self.kernels, self.stream, &layer.norm, mixed, n_tokens, Acts { f32: mixed, x8 })
    }
}

impl Hybrid<'_> {
    /// The layers that recur on the card, with their numbers.
    fn recurrent(&self) -> impl Iterator<Item = (usize, &CardRecurrent)> {
        let layers = self.resident.layers.iter().enumerate();
        layers.filter_map(|(i, layer)| Some((i, layer.recurrent.as_ref()?)))
    }

    /// The card's states of `sequence` into its memory.
    pub(super) fn save_states(&self, sequence: &mut Sequence) -> Result<()> {
        let seat = seat_of(sequence)?;
        self.recurrent().try_for_each(|(i, layer)| layer.save(&self.stream, seat, sequence.memory.replaced_state(i)))
    }

    /// Those of its memory to the card.
    pub(super) fn restore_states(&self, sequence: &Sequence) -> Result<()> {
        let seat = seat_of(sequence)?;
        self.recurrent().try_for_each(|(i, layer)| layer.restore(&self.stream, seat, sequence.memory.kept_state(i)))
    }
}
