//! The FFN of many tokens: dense products by tiles, but for `down` by rows, which takes what has fired.

use super::super::compute::Compute;
use super::super::product::add_bias;
use super::super::tiles::{Tiles, add_neurons, matmul};
use crate::cpu::Activations;
use crate::model::{Activation, Down, Mode, NeuronGroup, rest};

/// Buffers of [`activate`] and [`sum`].
#[derive(Default)]
pub(in crate::executor::cpu) struct ManyBuffers {
    /// `[n_tokens][n_ff]` activations of the mask matrix.
    pub act: Vec<f32>,
    /// `[n_tokens][n_ff]` values that the `down` vectors are multiplied with, before the group's weights.
    pub h: Vec<f32>,
    /// `[n_tokens][n_embd]`: the result.
    pub y: Vec<f32>,
    h_forms: Activations,
}

/// What they compute.
pub(in crate::executor::cpu) struct ManyWork<'a> {
    /// The neurons.
    pub group: &'a NeuronGroup,
    /// The normalised inputs.
    pub x: &'a Activations,
    /// Activation of the FFN.
    pub activation: Activation,
    /// What activations must be above to count.
    pub threshold: f32,
    /// What may be skipped.
    pub mode: Mode,
}

/// Activations, and what `down` is multiplied with. `seen` is shown what the activation function is applied to.
pub(in crate::executor::cpu) fn activate(
    cx: Compute,
    work: &ManyWork,
    buffers: &mut ManyBuffers,
    tiles: &mut Tiles,
    seen: &mut dyn FnMut(&[f32]),
) {
    let ManyBuffers { act, h, .. } = buffers;
    let ManyWork { group, x, activation, threshold, .. } = *work;
    matmul(cx, group.mask_matrix(), x, tiles, act);
    add_bias(group.mask(), act);
    seen(act);
    cx.pool.fill(act, 1024, |_, piece| {
        piece.iter_mut().for_each(|a| *a = activation.apply(*a));
        rest(threshold, piece);
    });
    if group.gate.is_some() {
        matmul(cx, group.ffn_up(), x, tiles, h);
        add_bias(&group.up, h);
        h.iter_mut().zip(&*act).for_each(|(h, a)| *h = activation.gated(*a, *h));
    } else {
        h.clone_from(act);
    }
}

/// From there back to the width of the residual stream: `y` becomes the sum of the neurons.
pub(in crate::executor::cpu) fn sum(cx: Compute, work: &ManyWork, buffers: &mut ManyBuffers, tiles: &mut Tiles) {
    let ManyBuffers { h, y, h_forms, .. } = buffers;
    match work.group.ffn_down() {
        Down::Columns(down) => {
            h_forms.load(h, work.group.n_ff(), [cx.isa.kernels(down.dtype()).act]);
            matmul(cx, down, h_forms, tiles, y);
        }
        down @ (Down::Rows(_) | Down::Lossless(_)) => add_neurons(cx, down, h, work.mode != Mode::Dense, tiles, y),
    }
}
