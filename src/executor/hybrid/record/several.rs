//! How far what is a token's lies from what is the next one's, where several are written down.

use super::Recorder;
use crate::gpu::ops::several::Several;

impl Recorder<'_> {
    /// Words that are counted of a token.
    pub(super) fn n_counts(&self) -> usize {
        2 * self.card.model.weights.groups().count()
    }

    /// The tokens, where a group has so many neurons.
    pub(super) fn several(&self, n_ff: usize) -> Several {
        let (counts, lists) = (self.n_counts(), self.card.mailbox.list_stride);
        Several { n_tokens: self.n_tokens, acts: n_ff, counts, lists }
    }
}
