//! The specification: formulas of [`super`], one token at a time, each sum in its natural order.

use super::kernels::Token;

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
