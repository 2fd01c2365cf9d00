//! The specification: formulas of [`super`], one token at a time, each sum in its natural order.

use super::kernels::Token;
use super::sizes::Sizes;
use super::softplus;

/// Weights of a layer between its two matrices, as files have them.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// `[C][K]` for `C` channels, those of the oldest token first.
    pub taps: &'a [f32],
    /// `[C]`: added to what is convolved.
    pub bias: &'a [f32],
    /// `[M]`: added to step widths.
    pub dt_bias: &'a [f32],
    /// `[M]`: `a`.
    pub rates: &'a [f32],
    /// `[M]`: `d`.
    pub past: &'a [f32],
}

/// One token between the two matrices of a layer: `projected` is what the first gives, `y` (`[M][P]`) what is normalised before the
/// second. `conv` (`[K - 1][C]`, the oldest first) and `states` (`[M][N][P]`) take the token up.
pub fn mix(sizes: Sizes, of: &Weights, projected: &[f32], conv: &mut [f32], states: &mut [f32], y: &mut [f32]) {
    let (n, n_inner) = (sizes.n_channels(), sizes.n_inner());
    let (z, u) = projected.split_at(n_inner);
    let (u, dt) = u.split_at(n);
    let taps: Vec<f32> =
        (0..sizes.n_conv).flat_map(|k| of.taps.iter().skip(k).step_by(sizes.n_conv).copied()).collect();
    let window: Vec<&[f32]> = conv.chunks_exact(n).chain([u]).collect();
    let mut v = vec![0.0; n];
    convolve(&taps, of.bias, &window, &mut v);
    if let Some(last) = conv.len().checked_sub(n) {
        conv.copy_within(n.., 0);
        conv[last..].copy_from_slice(u);
    }
    let heads = states.chunks_exact_mut(sizes.n_head_state()).zip(y.chunks_exact_mut(sizes.head_dim)).enumerate();
    for (head, (state, y)) in heads {
        let (x, b, c) = sizes.of_head(&v, head);
        let delta = softplus(dt[head] + of.dt_bias[head]);
        step(state, Token { decay: (delta * of.rates[head]).exp(), delta, x, b, c }, y);
        y.iter_mut().zip(x).for_each(|(y, x)| *y += of.past[head] * x);
        gate(&z[head * sizes.head_dim..][..sizes.head_dim], y);
    }
}

/// `out[c] = silu(bias[c] + sum over k of taps[k][c] * window[k][c])`, where `taps` are `[K][n]`, oldest first, and
/// `window` has the `n` channels of the last `K` tokens, the token's own at the end.
pub fn convolve(taps: &[f32], bias: &[f32], window: &[&[f32]], out: &mut [f32]) {
    let n = bias.len();
    for (c, out) in out.iter_mut().enumerate() {
        let sum = window.iter().zip(taps.chunks_exact(n)).fold(bias[c], |sum, (u, tap)| sum + tap[c] * u[c]);
        *out = silu(sum);
    }
}

/// One token of one head: `state` (`[N][P]`) becomes `decay * state + b (outer) delta x`, and `y = state . c`.
pub fn step(state: &mut [f32], of: Token, y: &mut [f32]) {
    let Token { decay, delta, x, b, c } = of;
    y.fill(0.0);
    for ((row, b), c) in state.chunks_exact_mut(x.len()).zip(b).zip(c) {
        for ((s, x), y) in row.iter_mut().zip(x).zip(&mut *y) {
            *s = *s * decay + b * (delta * x);
            *y += c * *s;
        }
    }
}

/// `y *= silu(z)`.
pub fn gate(z: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(z).for_each(|(y, z)| *y *= silu(*z));
}

/// `x * sigmoid(x)`.
pub fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}
