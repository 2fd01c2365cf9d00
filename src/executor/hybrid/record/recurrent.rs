//! A layer that recurs, in a token on the card.

use super::super::recurrent::Taken;
use super::{Recorder, S, Source};
use crate::executor::program::Block;
use crate::gpu::Ptr;
use crate::gpu::matrix::takes_floats;
use crate::gpu::ops::matvec::Rows;
use crate::gpu::ops::norm::Acts;
use anyhow::{Context, Result, ensure};

impl Recorder<'_> {
    pub(super) fn recurrent(&mut self, block: &Block) -> Result<()> {
        ensure!(self.n_tokens == 1, "several tokens of a layer that recurs");
        let out = self.at(S::AttnOut);
        self.keep(block.to, Source::there(out))?;
        let layer = self.layer(block.layer).recurrent.as_ref().context("a recurrent mixer that is not on the card")?;
        let places = self.card.recurrent_places(layer);
        let (input, output) = (&layer.input, &layer.output);
        let quantized = !takes_floats(input.matrix.dtype());
        let rows = Rows { bias: input.bias, ..Rows::all(&input.matrix, places.projected) };
        self.products(&[rows], self.acts(block.from, quantized)?)?;
        let x8 = if takes_floats(output.matrix.dtype()) { Ptr::NULL } else { self.at(S::Attn8) };
        self.card.recur(layer, Taken { n_tokens: 1, token: self.at(S::Token), first: 0, sequence: 0 }, x8)?;
        let rows = Rows { bias: output.bias, ..Rows::all(&output.matrix, out) };
        self.products(&[rows], Acts { f32: places.mixed, x8 })
    }
}
