//! Groups of neurons of another width than the residual stream's, in a token on the card: what leads to them, and back. Those that
//! are computed for every token beside them are as wide as the stream.

use super::super::resident::{CardLatent, CardLayer};
use super::{Card, Recorder, S, Source};
use crate::executor::program::{Added, Block};
use crate::gpu::Ptr;
use crate::gpu::matrix::takes_floats;
use crate::gpu::ops::matvec::Rows;
use crate::gpu::ops::norm::{Acts, Merge, merge_norm, quantize};
use crate::gpu::ops::token::take_reply;
use crate::model::{Role, Vector};
use anyhow::{Context, Result, bail};

impl Recorder<'_> {
    /// The product of a vector with one of the two matrices.
    pub(super) fn project(&mut self, layer: usize, of: Role, from: Vector, to: Vector) -> Result<()> {
        let latent = self.layer(layer).latent.context("a matrix to another width that is not on the card")?;
        if to == Vector::Latent {
            let quantized = !takes_floats(latent.down.matrix.dtype());
            let x = self.acts(from, quantized)?;
            let rows = Rows { bias: latent.down.bias, ..Rows::all(&latent.down.matrix, self.at(S::Latent)) };
            return self.products(&[rows], x);
        }
        let y = match to {
            Vector::Mixed => self.at(S::AttnOut),
            Vector::Fed => self.at(S::FfnOut),
            Vector::Residual | Vector::Normed | Vector::Latent | Vector::LatentFed => {
                bail!("{of:?} does not lead to {to:?} on a card")
            }
        };
        let x = self.narrow_result(&latent)?;
        self.products(&[Rows { bias: latent.up.bias, ..Rows::all(&latent.up.matrix, y) }], x)?;
        self.keep(to, Source::there(y))
    }

    /// What the groups read.
    pub(super) fn narrow_acts(&self, latent: &CardLatent, quantized: bool) -> Result<Acts> {
        self.narrow_form(self.at(S::Latent), latent, quantized)
    }

    /// Where the sum of what they give belongs.
    pub(super) fn narrow_sum(&self, latent: &CardLatent) -> Ptr {
        self.at(S::Latent).offset((size_of::<f32>() * latent.width()) as u64)
    }

    fn narrow_form(&self, f32: Ptr, latent: &CardLatent, quantized: bool) -> Result<Acts> {
        let acts = Acts { f32, x8: self.at(S::Latent8) };
        if quantized {
            quantize(self.card.kernels, self.card.stream, acts.f32, latent.width(), 1, acts.x8)?;
        }
        Ok(acts)
    }

    /// What they gave, with the CPU's part of it.
    fn narrow_result(&mut self, latent: &CardLatent) -> Result<Acts> {
        let Card { kernels, stream, .. } = self.card;
        let (at, n) = (self.narrow_sum(latent), latent.width());
        match (self.narrow.ptr.is_null(), self.narrow.answer) {
            (true, Some(answer)) => take_reply(kernels, stream, at, n, &answer)?,
            (false, answer @ Some(_)) => {
                merge_norm(kernels, stream, &Merge { answer, ..Merge::nothing(at, n) }, None, Acts::default())?;
            }
            (false, None) => {}
            (true, None) => bail!("groups of another width of which neither side has anything"),
        }
        self.narrow_form(at, latent, !takes_floats(latent.up.matrix.dtype()))
    }

    /// The groups that are computed for every token beside those of another width.
    pub(super) fn beside(&mut self, block: &Block, layer: &CardLayer) -> Result<()> {
        let weights = &self.card.model.weights.layers[block.layer];
        let always: Vec<usize> = (0..layer.groups.len()).filter(|g| !weights.groups[*g].is_routed()).collect();
        let x = self.acts(block.from, always.iter().any(|g| layer.groups[*g].reads_quantized()))?;
        for (i, g) in always.iter().enumerate() {
            if i > 0 {
                // One answer at a time is under way.
                self.merge(&[Added { from: block.to, scale: 1.0 }], None)?;
            }
            let source = self.group(block.layer, *g, &layer.groups[*g], x)?;
            self.keep(block.to, source)?;
        }
        Ok(())
    }
}
