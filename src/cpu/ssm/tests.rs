//! Every instruction set against the specification, and many tokens against one at a time, on random input.

use super::chunk::{self, Scratch, TOKENS, Tokens};
use super::{Convolution, Kernels, Product, Sizes, Token, plain, softplus};
use crate::cpu::Isa;
use crate::cpu::testing::noise;

/// Sizes of published models, and some that leave a rest everywhere.
const SIZES: [Sizes; 5] = [
    Sizes { n_heads: 4, head_dim: 64, n_groups: 2, n_state: 128, n_conv: 4 },
    Sizes { n_heads: 2, head_dim: 80, n_groups: 1, n_state: 128, n_conv: 4 },
    Sizes { n_heads: 6, head_dim: 7, n_groups: 3, n_state: 5, n_conv: 3 },
    Sizes { n_heads: 1, head_dim: 1, n_groups: 1, n_state: 1, n_conv: 1 },
    Sizes { n_heads: 3, head_dim: 21, n_groups: 3, n_state: 17, n_conv: 2 },
];

fn all() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn close(found: &[f32], wanted: &[f32], tolerance: f32, what: &str) {
    let size = wanted.iter().fold(1e-3f32, |most, x| most.max(x.abs()));
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((found - wanted).abs() <= tolerance * size, "{what}: {i}: {found} instead of {wanted} of {size}");
    }
}

#[test]
fn steps_agree_with_sums_in_64_bits_on_every_isa() {
    for (seed, sizes) in SIZES.into_iter().enumerate() {
        let (p, n) = (sizes.head_dim, sizes.n_state);
        let noise = |n: usize, i: u32| noise(n, 10 * seed as u32 + i);
        let (before, x, b, c) = (noise(n * p, 1), noise(p, 2), noise(n, 3), noise(n, 4));
        let state = |i: usize| f64::from(before[i]) * 0.75 + f64::from(b[i / p]) * 1.5 * f64::from(x[i % p]);
        let exact: Vec<f32> = (0..n * p).map(|i| state(i) as f32).collect();
        let y = |x: usize| (0..n).map(|row| f64::from(c[row]) * state(row * p + x)).sum::<f64>() as f32;
        let exact_y: Vec<f32> = (0..p).map(y).collect();
        for isa in all() {
            let (mut state, mut y) = (before.clone(), vec![9.0; p]);
            (Kernels::of(isa).step)(&mut state, Token { decay: 0.75, delta: 1.5, x: &x, b: &b, c: &c }, &mut y);
            close(&state, &exact, 1e-6, "state");
            close(&y, &exact_y, 1e-5, "y");
        }
    }
}

#[test]
fn convolutions_and_gates_agree_with_the_plain_ones_on_every_isa() {
    for (n, n_conv) in [(1, 4), (70, 4), (133, 2), (48, 1), (31, 3)] {
        let (taps, bias) = (noise(n * n_conv, 1), noise(n, 2));
        let u: Vec<Vec<f32>> = (0..n_conv).map(|k| noise(n, 5 + k as u32)).collect();
        let window: Vec<&[f32]> = u.iter().map(|u| &**u).collect();
        let mut wanted = vec![0.0; n];
        plain::convolve(&taps, &bias, &window, &mut wanted);
        let mut gated = noise(n, 40);
        plain::gate(&bias, &mut gated);
        for isa in all() {
            let kernels = Kernels::of(isa);
            let of = Convolution { taps: &taps, bias: &bias, window: &window };
            for first in [0, n / 3] {
                let mut out = vec![0.0; n - first];
                (kernels.convolve)(&of, first, &mut out);
                close(&out, &wanted[first..], 1e-6, "convolution");
            }
            let mut y = noise(n, 40);
            (kernels.gate)(&bias, &mut y);
            close(&y, &gated, 1e-6, "gate");
        }
    }
}

#[test]
fn products_agree_with_sums_in_64_bits_on_every_isa() {
    for (n_rows, depth, n) in [(1, 1, 1), (4, 64, 64), (5, 65, 80), (32, 130, 39), (7, 3, 16)] {
        for turned in [false, true] {
            let (factors, rows, start) = (noise(n_rows * depth, 1), noise(depth * (n + 3), 2), noise(n_rows * n, 3));
            let strides = if turned { (1, n_rows) } else { (depth, 1) };
            let exact = |i: usize| {
                let terms = (0..depth).map(|k| {
                    let factor = factors[i / n * strides.0 + k * strides.1];
                    f64::from(factor) * f64::from(rows[k * (n + 3) + i % n])
                });
                (f64::from(start[i]) + terms.sum::<f64>()) as f32
            };
            let wanted: Vec<f32> = (0..n_rows * n).map(exact).collect();
            for isa in all() {
                let of = Product { factors: &factors, strides, depth, rows: &rows, stride: n + 3 };
                let mut out = start.clone();
                (Kernels::of(isa).add_product)(&of, n, &mut out);
                close(&out, &wanted, 1e-5, "product");
            }
        }
    }
}

#[test]
fn many_tokens_at_once_agree_with_one_at_a_time() {
    for (seed, sizes) in SIZES.into_iter().enumerate() {
        for n_tokens in [1, TOKENS - 1, TOKENS, 2 * TOKENS + 5] {
            let n_channels = sizes.n_channels();
            let v = noise(n_tokens * n_channels, 7 + seed as u32);
            // From heads that forget at once to those that keep nearly all.
            let delta: Vec<f32> = noise(n_tokens, 9).iter().map(|x| softplus(4.0 * x)).collect();
            for isa in all() {
                let (kernels, mut scratch) = (Kernels::of(isa), Scratch::default());
                for head in 0..sizes.n_heads {
                    let a = [-0.001, -0.5, -16.0][head % 3];
                    let before = noise(sizes.n_head_state(), 11);
                    let (mut state, mut wanted) = (before.clone(), vec![]);
                    for (v, delta) in v.chunks_exact(n_channels).zip(&delta) {
                        let (x, b, c) = sizes.of_head(v, head);
                        let mut y = vec![0.0; sizes.head_dim];
                        let of = Token { decay: (delta * a).exp(), delta: *delta, x, b, c };
                        plain::step(&mut state, of, &mut y);
                        wanted.extend(y);
                    }
                    let (mut found, mut y) = (before, vec![9.0; wanted.len()]);
                    let tokens = Tokens { sizes, head, v: &v, delta: &delta, a };
                    chunk::scan(kernels, &tokens, &mut found, &mut y, &mut scratch);
                    close(&y, &wanted, 3e-5, "y");
                    close(&found, &state, 3e-5, "state");
                }
            }
        }
    }
}

#[test]
fn step_widths_are_positive_and_grow() {
    assert_eq!(softplus(30.0), 30.0);
    assert!((softplus(0.0) - 2f32.ln()).abs() < 1e-7 && softplus(-100.0) >= 0.0);
    assert!((softplus(-5.0) - 0.006_715_348).abs() < 1e-8);
    assert!(softplus(f32::NAN).is_nan());
}
