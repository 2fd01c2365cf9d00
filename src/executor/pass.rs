//! The forward pass, once for every device. Read this first: everything else in the executor serves it.

use crate::model::{Model, Residual};
use anyhow::Result;
use std::ops::Range;

/// A normalisation of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NormOf {
    /// Before a layer's attention; with a parallel residual, before its FFN as well.
    Attention(usize),
    /// Before a layer's FFN.
    Ffn(usize),
    /// Before the head.
    Output,
}

/// What joins the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What attention gave last.
    Attention,
    /// What the FFN gave last.
    Ffn,
}

/// The blocks that a pass is made of, on some device: either done at once, or written down to be done later.
pub(super) trait Blocks {
    /// The residual stream, normalised, becomes the input of what follows.
    fn normalize(&mut self, of: NormOf) -> Result<()>;
    /// A layer's attention of that input.
    fn attention(&mut self, layer: usize) -> Result<()>;
    /// A layer's FFN of that input.
    fn ffn(&mut self, layer: usize) -> Result<()>;
    /// Adds to the residual stream.
    fn add(&mut self, part: Part) -> Result<()>;
}

/// Takes the residual stream through `layers`.
pub(super) fn layers(model: &Model, layers: Range<usize>, blocks: &mut impl Blocks) -> Result<()> {
    for i in layers {
        blocks.normalize(NormOf::Attention(i))?;
        blocks.attention(i)?;
        if model.config.residual == Residual::Serial && model.weights.layers[i].ffn_norm.is_some() {
            blocks.add(Part::Attention)?;
            blocks.normalize(NormOf::Ffn(i))?;
            blocks.ffn(i)?;
        } else {
            blocks.ffn(i)?;
            blocks.add(Part::Attention)?;
        }
        blocks.add(Part::Ffn)?;
    }
    Ok(())
}
