//! Mamba-2 (arXiv 2405.21060): the convolution, the state-space model, and the gate behind it, of one layer.
//!
//! A layer has `M` heads of `P` elements, in `G` groups that share the vectors `B` and `C` of `N` elements. Of a token, the
//! input projection gives `z [M P]`, `u [M P + 2 G N]` and `dt [M]`. With `*` element by element:
//!
//! ```text
//! v       = silu(bias + sum over k of taps[k] * u[t - K + 1 + k])      x, B, C = the parts of v
//! delta_m = softplus(dt_m + dt_bias_m)
//! S_m     = exp(delta_m a_m) S_m + delta_m x_m (outer) B_g              S_m is [P][N], here [N][P]
//! y_m     = (S_m C_g + d_m x_m) * silu(z_m)
//! ```
//!
//! [`plain`] is that, token by token. [`Kernels`] do the same faster for a token, and [`chunk`] for many.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod blocks;
pub mod chunk;
mod fused;
mod kernels;
pub mod plain;
mod sizes;
#[cfg(test)]
mod tests;

pub use kernels::{Convolution, Kernels, Product, Token};
pub use sizes::Sizes;

/// `ln(1 + exp(x))`, which is `x` for large ones.
pub fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}
