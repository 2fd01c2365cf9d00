//! Products of many tokens with a matrix against the same sums in 64 bits.

use super::matvec::ACTIVATIONS;
use super::operands::{Bench, TYPES, Weights};
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::gemm::{Combine, Packed, Product, STEP, Tokens, gemm, gemm_t, pack};
use powerinfer::model::{Activation, Threshold};
use powerinfer::quant::GgmlType;

/// Of the sum of the products' sizes. Activations are rounded to 11 bits (2^-12 of a value at most, 2^-11 where a product
/// with another rounded value comes together), weights too where they are no small integers (Q6_K by neurons
/// twice): 2^-11 + 2^-10 in all. Sums of 32-bit floats add little to that.
pub const PRODUCT_TOLERANCE: f64 = 1.0 / 2048.0 + 1.0 / 1024.0;

/// Numbers of tokens that leave blocks, warps and eights unfinished.
const N_TOKENS: [usize; 5] = [1, 2, 3, 17, 65];

/// Tokens' values, here and on the device.
pub struct Inputs {
    pub values: Vec<f32>,
    pub tokens: Tokens,
}

impl Inputs {
    /// `n_tokens` rows of `n` values in the middle of others, which are not numbers.
    pub fn new(bench: &mut Bench, n: usize, n_tokens: usize, scale: f32) -> Self {
        let (before, stride) = (3, n + 8);
        let values: Vec<f32> = bench.random.values(n * n_tokens).iter().map(|v| v * scale).collect();
        let mut laid_out = vec![f32::NAN; stride * n_tokens];
        for (to, from) in laid_out.chunks_exact_mut(stride).zip(values.chunks_exact(n)) {
            to[before..before + n].copy_from_slice(from);
        }
        let tokens = Tokens { ptr: bench.floats(&laid_out), stride }.columns(before);
        Self { values, tokens }
    }
}

/// Packs `n` values of each token.
pub fn packed(bench: &mut Bench, x: Tokens, n: usize, n_tokens: usize) -> Packed {
    let room = bench.room(Packed::bytes(n, n_tokens));
    pack(&bench.kernels, &bench.stream, x, n, n_tokens, room).unwrap()
}

/// Room for a result: `n` values per token, in the middle of others.
pub fn room(bench: &mut Bench, n: usize, n_tokens: usize) -> Tokens {
    let stride = n + 5;
    Tokens { ptr: bench.room_for(stride * n_tokens), stride }.columns(2)
}

/// What was stored for each token; fails where the room around it was touched.
pub fn stored(bench: &Bench, y: Tokens, n: usize, n_tokens: usize) -> Vec<f32> {
    let all = bench.read(Ptr(y.ptr.0 - 8), y.stride * n_tokens);
    let mut values = Vec::new();
    for (token, row) in all.chunks_exact(y.stride).enumerate() {
        let around = row[..2].iter().chain(&row[2 + n..]);
        assert!(around.into_iter().all(|v| v.to_bits() == u32::MAX), "token {token}: stored outside");
        values.extend_from_slice(&row[2..2 + n]);
    }
    values
}

fn widths(dtype: GgmlType) -> [usize; 2] {
    if dtype.block_len() == 256 { [256, 768] } else { [32, 160] }
}

/// `sum of w[k] * x[k]` and the sum of the sizes.
fn dot(w: &[f32], x: &[f32]) -> (f64, f64) {
    let products = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
    products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
}

fn assert_within(what: &str, got: f32, expected: f64, tolerance: f64) {
    let error = (f64::from(got) - expected).abs();
    assert!(error <= tolerance, "{what}: {got} instead of {expected}: {error:e}, allowed {tolerance:e}");
}

#[test]
fn products_of_every_type_and_shape_are_those_of_64_bits() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        for (n_tokens, n_cols, first, n_rows) in [
            (1, widths(dtype)[1], 0, 1),
            (2, widths(dtype)[0], 3, 130),
            (3, widths(dtype)[1], 7, 31),
            (17, widths(dtype)[1], 1, 129),
            (65, widths(dtype)[0], 2, 5),
        ] {
            let what = format!("{dtype}, {n_tokens} tokens, {n_rows} x {n_cols} from {first}");
            let w = bench.weights(dtype, first + n_rows + 2, n_cols);
            let x = Inputs::new(&mut bench, n_cols, n_tokens, 1.0);
            let p = packed(&mut bench, x.tokens, n_cols, n_tokens);
            let y = room(&mut bench, n_rows, n_tokens);
            let product = Product { first, n_rows, ..Product::all(&w.matrix, y) };
            gemm(&bench.kernels, &bench.stream, &product, &p).unwrap();
            let got = stored(&bench, y, n_rows, n_tokens);
            let rows: Vec<Vec<f32>> = (first..first + n_rows).map(|r| w.row(r)).collect();
            for (x, got) in x.values.chunks_exact(n_cols).zip(got.chunks_exact(n_rows)) {
                for (row, got) in rows.iter().zip(got) {
                    let (expected, size) = dot(row, x);
                    assert_within(&what, *got, expected, PRODUCT_TOLERANCE * size);
                }
            }
        }
    }
}

#[test]
fn bias_activation_and_second_operand_come_in_this_order() {
    let Some(mut bench) = Bench::new() else { return };
    let (n_cols, n_rows, n_tokens) = (64, 21, 9);
    let w = bench.weights(GgmlType::Q8_0, n_rows, n_cols);
    let x = Inputs::new(&mut bench, n_cols, n_tokens, 1.0);
    let p = packed(&mut bench, x.tokens, n_cols, n_tokens);
    let bias = bench.random.values(n_rows);
    let on_device = bench.floats(&bias);
    let jump = 0.25;
    let jumping = Activation::FatRelu(Threshold::new(jump).unwrap());
    for activation in ACTIVATIONS.into_iter().chain([jumping]).map(Some).chain([None]) {
        for mode in 0..3 {
            let y = room(&mut bench, n_rows, n_tokens);
            let others = bench.random.values(y.stride * n_tokens);
            // In place, as the executor has it.
            let other = Tokens { ptr: bench.floats(&others), stride: y.stride };
            let (combine, y) = match mode {
                0 => (Combine::Store, y),
                1 => (Combine::Multiply(other), other),
                _ => (Combine::Add(other), y),
            };
            let product = Product { bias: on_device, activation, combine, ..Product::all(&w.matrix, y) };
            gemm(&bench.kernels, &bench.stream, &product, &p).unwrap();
            let got = bench.read(y.ptr, y.stride * (n_tokens - 1) + n_rows);
            for token in 0..n_tokens {
                for row in 0..n_rows {
                    let (sum, size) = dot(&w.row(row), &x.values[token * n_cols..][..n_cols]);
                    let sum = sum + f64::from(bias[row]);
                    let delta = PRODUCT_TOLERANCE * (size + f64::from(bias[row].abs()));
                    if activation == Some(jumping) && (sum - f64::from(jump)).abs() <= delta {
                        continue;
                    }
                    // No function here is steeper than twice its argument plus the error, or 1.1.
                    let (value, slope) = match activation {
                        None => (sum, 1.0),
                        Some(Activation::Silu) => (sum / (1.0 + (-sum).exp()), 1.1),
                        Some(Activation::Relu) => (sum.max(0.0), 1.0),
                        Some(Activation::Relu2) => (sum.max(0.0).powi(2), 2.0 * sum.abs() + delta),
                        // These are steeper than 1 by a seventh at the most.
                        Some(other) => (f64::from(other.apply(sum as f32)), 1.2),
                    };
                    let other = f64::from(others[token * y.stride + row]);
                    let (expected, factor) = match mode {
                        0 => (value, 1.0),
                        1 if activation == Some(Activation::DRelu) && other <= 0.0 => (0.0, 0.0),
                        1 => (value * other, other.abs()),
                        _ => (value + other, 1.0),
                    };
                    let what = format!("{activation:?} {mode} {token} {row}");
                    let tolerance = delta * slope * factor + 1e-6;
                    assert_within(&what, got[token * y.stride + row], expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn a_neuron_at_rest_gives_zero_whatever_up_gave() {
    let Some(mut bench) = Bench::new() else { return };
    let (n_cols, n_rows) = (32, 3);
    let w = bench.weights_of(GgmlType::F16, n_rows, n_cols, &[[-1.0; 32], [1.0; 32], [f32::NAN; 32]].concat());
    let x = Tokens { ptr: bench.floats(&[0.5; 32]), stride: n_cols };
    let p = packed(&mut bench, x, n_cols, 1);
    let y = Tokens { ptr: bench.floats(&[f32::NAN, 2.0, 0.0]), stride: n_rows };
    let activation = Some(Activation::Relu);
    let product = Product { activation, combine: Combine::Multiply(y), ..Product::all(&w.matrix, y) };
    gemm(&bench.kernels, &bench.stream, &product, &p).unwrap();
    let got = bench.read(y.ptr, n_rows);
    assert_eq!(got[0].to_bits(), 0, "{got:?}");
    assert_eq!(got[1], 32.0);
    // What is not a number is not at rest.
    assert!(got[2].is_nan(), "{got:?}");
}

#[test]
fn sizes_that_halves_do_not_have_are_kept() {
    let Some(mut bench) = Bench::new() else { return };
    let (n_cols, n_rows, n_tokens) = (96, 40, 5);
    for dtype in [GgmlType::F32, GgmlType::BF16] {
        for scale in [1e-30f32, 1e-6, 1e6, 1e30] {
            let values: Vec<f32> = bench.random.values(n_rows * n_cols).iter().map(|v| v * scale).collect();
            let w = bench.weights_of(dtype, n_rows, n_cols, &values);
            // The result is far inside of the range of floats, the operands are not in that of halves.
            let x = Inputs::new(&mut bench, n_cols, n_tokens, 1.0 / scale * 8.0);
            let p = packed(&mut bench, x.tokens, n_cols, n_tokens);
            let (y, z) = (room(&mut bench, n_rows, n_tokens), bench.floats(&vec![0.0; n_tokens * n_cols]));
            gemm(&bench.kernels, &bench.stream, &Product::all(&w.matrix, y), &p).unwrap();
            let h = Inputs::new(&mut bench, n_rows, n_tokens, 1.0 / scale * 8.0);
            let hp = packed(&mut bench, h.tokens, n_rows, n_tokens);
            gemm_t(&bench.kernels, &bench.stream, &w.matrix, 0, &hp, Tokens { ptr: z, stride: n_cols }).unwrap();
            let (got, sums) = (stored(&bench, y, n_rows, n_tokens), bench.read(z, n_tokens * n_cols));
            let what = format!("{dtype} {scale:e}");
            let rows: Vec<Vec<f32>> = (0..n_rows).map(|r| w.row(r)).collect();
            for token in 0..n_tokens {
                for (r, row) in rows.iter().enumerate() {
                    let (expected, size) = dot(row, &x.values[token * n_cols..][..n_cols]);
                    assert_within(&what, got[token * n_rows + r], expected, PRODUCT_TOLERANCE * size);
                }
                for column in 0..n_cols {
                    let down: Vec<f32> = rows.iter().map(|row| row[column]).collect();
                    let (expected, size) = dot(&down, &h.values[token * n_rows..][..n_rows]);
                    assert_within(&what, sums[token * n_cols + column], expected, PRODUCT_TOLERANCE * size);
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_with_its_token() {
    let Some(mut bench) = Bench::new() else { return };
    let (n_cols, n_tokens) = (64, 3);
    let w = bench.weights(GgmlType::Q4_0, 4, n_cols);
    let mut x = bench.random.values(n_cols * n_tokens);
    x[n_cols + 40] = f32::NAN;
    let p = Tokens { ptr: bench.floats(&x), stride: n_cols };
    let p = packed(&mut bench, p, n_cols, n_tokens);
    let y = Tokens { ptr: bench.room_for(4 * n_tokens), stride: 4 };
    gemm(&bench.kernels, &bench.stream, &Product::all(&w.matrix, y), &p).unwrap();
    let got = bench.read(y.ptr, 4 * n_tokens);
    for (i, value) in got.iter().enumerate() {
        assert_eq!(value.is_nan(), i / 4 == 1, "{got:?}");
    }
}

/// `y += h * rows` by neurons, on the device: from `first` on, in calls of these numbers of rows.
fn by_neurons(bench: &mut Bench, w: &Weights, first: usize, h: &Inputs, calls: &[usize], y: &[f32]) -> Vec<f32> {
    let n_cols = w.matrix.n_cols();
    let n_tokens = y.len() / n_cols;
    let to = Tokens { ptr: bench.floats(y), stride: n_cols };
    let mut done = 0;
    for n in calls {
        let p = packed(bench, h.tokens.columns(done), *n, n_tokens);
        gemm_t(&bench.kernels, &bench.stream, &w.matrix, first + done, &p, to).unwrap();
        done += n;
    }
    bench.read(to.ptr, y.len())
}

#[test]
fn sums_by_neurons_of_every_type_are_those_of_64_bits_in_one_call_or_many() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        for (n_tokens, n_cols, first, n) in [
            (1, widths(dtype)[1], 0, 1),
            (2, widths(dtype)[0], 5, 32),
            (3, widths(dtype)[1], 1, 101),
            (17, widths(dtype)[0], 0, 64),
            (65, widths(dtype)[1], 2, 33),
        ] {
            let what = format!("{dtype}, {n_tokens} tokens, {n} neurons of {n_cols} from {first}");
            let w = bench.weights(dtype, first + n + 1, n_cols);
            let h = Inputs::new(&mut bench, n, n_tokens, 1.0);
            let y = bench.random.values(n_tokens * n_cols);
            let got = by_neurons(&mut bench, &w, first, &h, &[n], &y);
            let rows: Vec<Vec<f32>> = (first..first + n).map(|r| w.row(r)).collect();
            for token in 0..n_tokens {
                for column in 0..n_cols {
                    let down: Vec<f32> = rows.iter().map(|row| row[column]).collect();
                    let (sum, size) = dot(&down, &h.values[token * n..][..n]);
                    let before = f64::from(y[token * n_cols + column]);
                    let tolerance = PRODUCT_TOLERANCE * (size + before.abs());
                    assert_within(&what, got[token * n_cols + column], before + sum, tolerance);
                }
            }
            if n > STEP {
                let calls = [STEP, n - STEP];
                assert_eq!(by_neurons(&mut bench, &w, first, &h, &calls, &y), got, "{what}, in two calls");
            }
        }
    }
}

#[test]
fn a_token_gets_the_same_bits_alone_and_among_others() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in [GgmlType::F16, GgmlType::Q4_0, GgmlType::BF16] {
        let (n_cols, n_rows) = (160, 70);
        let w = bench.weights(dtype, n_rows, n_cols);
        let most = N_TOKENS[N_TOKENS.len() - 1];
        let (x, h) = (Inputs::new(&mut bench, n_cols, most, 1.0), Inputs::new(&mut bench, n_rows, most, 1.0));
        let before = bench.random.values(most * n_cols);
        let mut all: Vec<(Vec<f32>, Vec<f32>)> = Vec::new();
        for n_tokens in N_TOKENS {
            let p = packed(&mut bench, x.tokens, n_cols, n_tokens);
            let y = room(&mut bench, n_rows, n_tokens);
            gemm(&bench.kernels, &bench.stream, &Product::all(&w.matrix, y), &p).unwrap();
            let sums = by_neurons(&mut bench, &w, 0, &h, &[n_rows], &before[..n_tokens * n_cols]);
            all.push((stored(&bench, y, n_rows, n_tokens), sums));
        }
        let (most_y, most_sums) = all.last().unwrap();
        for (y, sums) in &all {
            assert!(most_y.starts_with(y) && most_sums.starts_with(sums), "{dtype}");
        }
        // The last token in the first place.
        let stride = x.tokens.stride;
        let last = Tokens { ptr: x.tokens.columns((most - 1) * stride).ptr, stride };
        let p = packed(&mut bench, last, n_cols, 1);
        let y = room(&mut bench, n_rows, 1);
        gemm(&bench.kernels, &bench.stream, &Product::all(&w.matrix, y), &p).unwrap();
        assert_eq!(stored(&bench, y, n_rows, 1), most_y[(most - 1) * n_rows..], "{dtype}");
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let Some(mut bench) = Bench::new() else { return };
    let w = bench.weights(GgmlType::F16, 4, 64);
    let x = Tokens { ptr: bench.floats(&[0.0; 128]), stride: 64 };
    let (p, short) = (packed(&mut bench, x, 64, 2), packed(&mut bench, x, 32, 2));
    let y = Tokens { ptr: bench.room_for(128), stride: 64 };
    let all = Product::all(&w.matrix, y);
    let refused = |product: &Product, p: &Packed| gemm(&bench.kernels, &bench.stream, product, p).is_err();
    assert!(refused(&all, &short));
    assert!(refused(&Product { first: 1, ..all }, &p));
    assert!(refused(&Product { y: Tokens { stride: 3, ..y }, ..all }, &p));
    assert!(refused(&Product { combine: Combine::Add(Tokens { stride: 65, ..y }), ..all }, &p));
    assert!(refused(&Product { combine: Combine::Multiply(Tokens { ptr: Ptr::NULL, ..y }), ..all }, &p));
    assert!(gemm_t(&bench.kernels, &bench.stream, &w.matrix, 0, &p, y).is_err(), "64 neurons of 4");
    assert!(pack(&bench.kernels, &bench.stream, x, 65, 2, y.ptr).is_err());
    assert!(pack(&bench.kernels, &bench.stream, x, 64, 2, y.ptr.offset(8)).is_err());
    bench.stream.synchronize().unwrap();
}
