//! A recurrent layer (Mamba-2, arXiv 2405.21060): projection, convolution, state, norm, projection. The formulas are those of
//! [`crate::cpu::ssm`].

use super::buffers::Buffers;
use super::compute::{Compute, How};
use super::norm::normalize_pieces;
use super::recurrent_buffers::RecurrentBuffers;
use crate::cpu::ssm::chunk::{self, Scratch, Tokens as ChunkTokens};
use crate::cpu::ssm::{Convolution, Kernels, Sizes, Token, softplus};
use crate::executor::device::Tokens;
use crate::model::{Config, Layer, Model, Part, Role, Vector};

/// Tokens that a convolution sees at the most.
const MOST_TAPS: usize = 16;
/// Channels that a thread takes at the least.
const CHANNELS: usize = 64;

/// Weights of the convolution of each layer that has one, `[n_conv][n_channels]`: files have them channel by channel.
pub(super) fn taps(model: &Model) -> Vec<Vec<f32>> {
    let of_layer = |layer: &Layer| {
        let Some(part) = layer.find(Role::SsmConv) else { return Vec::new() };
        let n_conv = model.config.ssm.map_or(1, |ssm| ssm.n_conv);
        let weights = part.vector();
        (0..n_conv).flat_map(|k| weights.iter().skip(k).step_by(n_conv).copied()).collect()
    };
    model.weights.layers.iter().map(of_layer).collect()
}

/// The layer and the weights of its convolution.
#[derive(Clone, Copy)]
pub(super) struct RecurrentLayer<'a> {
    pub number: usize,
    pub layer: &'a Layer,
    pub taps: &'a [f32],
}

/// The layer's output for each token of `from`, into `to`; the states of its sequences take the tokens up.
pub(super) fn recur(
    cx: Compute,
    how: How,
    config: &Config,
    of: RecurrentLayer,
    (from, to): (Vector, Vector),
    tokens: &mut Tokens,
    b: &mut Buffers,
) {
    let Some(ssm) = &config.ssm else { return };
    let (sizes, kernels) = (ssm.sizes(), Kernels::of(cx.isa));
    let part = |role| of.layer.part(role);
    let (input, output) = (part(Role::SsmIn), part(Role::SsmOut));
    b.forms.load(&b.streams[from.index()], config.n_embd, [cx.isa.kernels(input.matrix().dtype()).act]);
    b.products.of(cx, how, [input], &b.forms, [&mut b.recurrent.projected]);
    b.recurrent.mixed.resize(tokens.batch.len() * sizes.n_inner(), 0.0);
    for sequence in 0..tokens.sequences.len() {
        let own = tokens.batch.entries().iter().enumerate().filter(|(_, entry)| entry.sequence == sequence);
        b.recurrent.tokens.clear();
        b.recurrent.tokens.extend(own.map(|(token, _)| token as u32));
        if b.recurrent.tokens.is_empty() {
            continue;
        }
        let state = tokens.sequences[sequence].memory.state(of.number);
        convolve(cx, kernels, sizes, of, &mut state.conv, &mut b.recurrent);
        widen(sizes, part(Role::SsmDt), &mut b.recurrent);
        scan(cx, kernels, how, sizes, of.layer, &mut state.heads, &mut b.recurrent);
    }
    let (norm, mixed) = (part(Role::SsmNorm), &b.recurrent.mixed);
    b.spare.resize(mixed.len(), 0.0);
    normalize_pieces(config.norm, config.norm_eps, norm, sizes.n_inner() / sizes.n_groups, mixed, &mut b.spare);
    b.forms.load(&b.spare, sizes.n_inner(), [cx.isa.kernels(output.matrix().dtype()).act]);
    b.products.of(cx, how, [output], &b.forms, [&mut b.streams[to.index()]]);
}

/// Convolves the channels of one sequence's tokens; `before` are those of the tokens before them.
fn convolve(
    cx: Compute,
    kernels: &Kernels,
    sizes: Sizes,
    of: RecurrentLayer,
    before: &mut [f32],
    b: &mut RecurrentBuffers,
) {
    let (n, n_conv) = (sizes.n_channels(), sizes.n_conv);
    let part = of.layer.part(Role::SsmConv);
    let bias = part.bias.as_deref().unwrap_or(&[]);
    let RecurrentBuffers { projected, tokens, convolved, .. } = b;
    let (projected, tokens) = (&**projected, &**tokens);
    let channels = |token: usize| &projected[tokens[token] as usize * sizes.n_projected() + sizes.n_inner()..][..n];
    convolved.resize(tokens.len() * n, 0.0);
    let earlier = &*before;
    cx.pool.fill(convolved, CHANNELS, |start, mut piece| {
        let (mut token, mut first) = (start / n, start % n);
        while !piece.is_empty() {
            let own;
            (own, piece) = piece.split_at_mut((n - first).min(piece.len()));
            let mut window: [&[f32]; MOST_TAPS] = [&[]; MOST_TAPS];
            for (k, window) in window[..n_conv].iter_mut().enumerate() {
                // The token's own is the last of them.
                *window = match (token + k + 1).checked_sub(n_conv) {
                    Some(token) => channels(token),
                    None => &earlier[(token + k) * n..][..n],
                };
            }
            let convolution = Convolution { taps: of.taps, bias, window: &window[..n_conv] };
            (kernels.convolve)(&convolution, first, own);
            (token, first) = (token + 1, 0);
        }
    });
    // What the next tokens see of these.
    for k in 0..n_conv - 1 {
        match (k + 1 + tokens.len()).checked_sub(n_conv) {
            Some(token) => before[k * n..][..n].copy_from_slice(channels(token)),
            None => before.copy_within((k + tokens.len()) * n..(k + tokens.len() + 1) * n, k * n),
        }
    }
}

/// Step widths of the tokens, head by head.
fn widen(sizes: Sizes, bias: &Part, b: &mut RecurrentBuffers) {
    let first = sizes.n_projected() - sizes.n_heads;
    b.delta.clear();
    for (head, bias) in bias.vector().iter().enumerate() {
        let dt = |token: &u32| b.projected[*token as usize * sizes.n_projected() + first + head];
        b.delta.extend(b.tokens.iter().map(|token| softplus(dt(token) + bias)));
    }
}

/// Takes the states of all heads through the tokens, and gathers what they give, gated.
fn scan(
    cx: Compute,
    kernels: &Kernels,
    how: How,
    sizes: Sizes,
    layer: &Layer,
    states: &mut [f32],
    b: &mut RecurrentBuffers,
) {
    let (p, n_tokens) = (sizes.head_dim, b.tokens.len());
    let (rates, past) = (layer.part(Role::SsmA).vector(), layer.part(Role::SsmD).vector());
    let RecurrentBuffers { projected, tokens, convolved, delta, by_head, mixed } = b;
    let (projected, tokens, convolved, delta) = (&**projected, &**tokens, &**convolved, &**delta);
    by_head.resize(sizes.n_heads * n_tokens * p, 0.0);
    let grain = (sizes.n_head_state(), n_tokens * p);
    cx.pool.fill_pairs((states, by_head), grain, |first, states, ys| {
        let mut scratch = Scratch::default();
        for (i, (state, ys)) in states.chunks_exact_mut(grain.0).zip(ys.chunks_exact_mut(grain.1)).enumerate() {
            let head = first + i;
            let (a, delta) = (rates[head], &delta[head * n_tokens..][..n_tokens]);
            if how == How::Tiles {
                let tokens = ChunkTokens { sizes, head, v: convolved, delta, a };
                chunk::scan(kernels, &tokens, state, ys, &mut scratch);
            }
            let each = ys.chunks_exact_mut(p).zip(convolved.chunks_exact(sizes.n_channels())).zip(delta).zip(tokens);
            for (((y, v), delta), token) in each {
                let (x, b, c) = sizes.of_head(v, head);
                if how == How::Rows {
                    (kernels.step)(state, Token { decay: (delta * a).exp(), delta: *delta, x, b, c }, y);
                }
                y.iter_mut().zip(x).for_each(|(y, x)| *y += past[head] * x);
                let gate = &projected[*token as usize * sizes.n_projected() + head * p..][..p];
                (kernels.gate)(gate, y);
            }
        }
    });
    for (head, ys) in by_head.chunks_exact(grain.1).enumerate() {
        for (y, token) in ys.chunks_exact(p).zip(tokens) {
            mixed[*token as usize * sizes.n_inner() + head * p..][..p].copy_from_slice(y);
        }
    }
}
