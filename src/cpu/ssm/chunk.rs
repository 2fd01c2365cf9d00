//! Many tokens of one head at once: the dual form of a state-space model (arXiv 2405.21060, section 6), in chunks.
//!
//! With `A_t` the sum of `delta a` up to token `t` of the chunk, and `S` the state before it:
//!
//! ```text
//! y_t = exp(A_t) S C_t + sum over s <= t of (C_t . B_s) exp(A_t - A_s) delta_s x_s
//! S'  = exp(A_end) S + sum over s of exp(A_end - A_s) delta_s x_s (outer) B_s
//! ```
//!
//! Sums run in another order than token by token, so that results differ by rounding.

use super::{Kernels, Product, Sizes};
use crate::cpu::exp::exp;

/// Tokens of a chunk: more make the sums over states rarer, and those over pairs of tokens longer.
pub const TOKENS: usize = 32;

/// Tokens of one head.
pub struct Tokens<'a> {
    /// Sizes of the layer.
    pub sizes: Sizes,
    /// Which head.
    pub head: usize,
    /// Behind the convolution, `[n_tokens][n_channels]`.
    pub v: &'a [f32],
    /// Step widths of the head's tokens.
    pub delta: &'a [f32],
    /// The head's `a`.
    pub a: f32,
}

/// What is worked out on the way, kept from head to head.
#[derive(Default)]
pub struct Scratch {
    /// The group and the chunks that `products` are of.
    of: Option<usize>,
    /// `[chunks][TOKENS][TOKENS]`: `C_t . B_s`, of pairs with `s <= t` only.
    products: Vec<f32>,
    turned: Vec<f32>,
    weights: Vec<f32>,
    decayed: Vec<f32>,
    /// `A_t`: differences of large sums must keep their digits.
    sums: Vec<f64>,
}

impl Scratch {
    /// Forgets what belongs to the tokens before.
    pub fn renew(&mut self) {
        self.of = None;
    }

    /// `C_t . B_s` of all chunks of a group of heads, which its heads share.
    fn prepare(&mut self, kernels: &Kernels, sizes: Sizes, group: usize, v: &[f32]) {
        if self.of.replace(group) == Some(group) {
            return;
        }
        let (n, n_channels) = (sizes.n_state, sizes.n_channels());
        let first_b = sizes.n_inner() + group * n;
        let first_c = first_b + sizes.n_groups * n;
        let n_chunks = (v.len() / n_channels).div_ceil(TOKENS);
        self.products.clear();
        self.products.resize(n_chunks * TOKENS * TOKENS, 0.0);
        for (v, products) in v.chunks(TOKENS * n_channels).zip(self.products.chunks_exact_mut(TOKENS * TOKENS)) {
            let n_tokens = v.len() / n_channels;
            self.turned.clear();
            self.turned.resize(n * TOKENS, 0.0);
            for (s, v) in v.chunks_exact(n_channels).enumerate() {
                for (row, b) in self.turned.chunks_exact_mut(TOKENS).zip(&v[first_b..][..n]) {
                    row[s] = *b;
                }
            }
            let of = Product {
                factors: &v[first_c..],
                strides: (n_channels, 1),
                depth: n,
                rows: &self.turned,
                stride: TOKENS,
            };
            (kernels.add_product)(&of, TOKENS, &mut products[..n_tokens * TOKENS]);
        }
    }
}

/// Takes `state` (`[N][P]`) through the tokens; `y` becomes `S C` of each (`[n_tokens][P]`).
pub fn scan(kernels: &Kernels, tokens: &Tokens, state: &mut [f32], y: &mut [f32], scratch: &mut Scratch) {
    let Tokens { sizes, head, v, delta, a } = *tokens;
    let (p, n, n_channels) = (sizes.head_dim, sizes.n_state, sizes.n_channels());
    let group = sizes.group_of(head);
    scratch.prepare(kernels, sizes, group, v);
    let first_b = sizes.n_inner() + group * n;
    let first_c = first_b + sizes.n_groups * n;
    let chunks = v.chunks(TOKENS * n_channels).zip(delta.chunks(TOKENS)).zip(y.chunks_mut(TOKENS * p));
    for (((v, delta), y), products) in chunks.zip(scratch.products.chunks_exact(TOKENS * TOKENS)) {
        let n_tokens = delta.len();
        scratch.sums.clear();
        let mut sum = 0.0;
        scratch.sums.extend(delta.iter().map(|delta| {
            sum += f64::from(delta * a);
            sum
        }));
        // What the state before the chunk gives.
        y.fill(0.0);
        let of = Product { factors: &v[first_c..], strides: (n_channels, 1), depth: n, rows: state, stride: p };
        (kernels.add_product)(&of, p, y);
        for (y, sum) in y.chunks_exact_mut(p).zip(&scratch.sums) {
            let decay = exp::<false>(*sum as f32);
            y.iter_mut().for_each(|y| *y *= decay);
        }
        // What the tokens of the chunk give each other.
        scratch.weights.clear();
        scratch.weights.resize(n_tokens * TOKENS, 0.0);
        for (t, weights) in scratch.weights.chunks_exact_mut(TOKENS).enumerate() {
            let (products, sum) = (&products[t * TOKENS..][..TOKENS], scratch.sums[t]);
            let before = delta.iter().zip(&scratch.sums).take(t + 1);
            for ((weight, product), (delta, before)) in weights.iter_mut().zip(products).zip(before) {
                *weight = product * delta * exp::<false>((sum - before) as f32);
            }
        }
        let of = Product {
            factors: &scratch.weights,
            strides: (TOKENS, 1),
            depth: n_tokens,
            rows: &v[head * p..],
            stride: n_channels,
        };
        (kernels.add_product)(&of, p, y);
        // The state behind the chunk.
        scratch.decayed.clear();
        for ((v, delta), before) in v.chunks_exact(n_channels).zip(delta).zip(&scratch.sums) {
            let weight = exp::<false>((sum - before) as f32) * delta;
            scratch.decayed.extend(v[head * p..][..p].iter().map(|x| x * weight));
        }
        let decay = (sum as f32).exp();
        state.iter_mut().for_each(|s| *s *= decay);
        let of = Product {
            factors: &v[first_b..],
            strides: (1, n_channels),
            depth: n_tokens,
            rows: &scratch.decayed,
            stride: p,
        };
        (kernels.add_product)(&of, p, state);
    }
}
