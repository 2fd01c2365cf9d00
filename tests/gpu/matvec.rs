//! Matrix times vector, and the layout of matrices, against plain Rust.

use super::operands::{Bench, TYPES, Weights, assert_close};
use powerinfer::cpu::Activations;
use powerinfer::gpu::Ptr;
use powerinfer::gpu::matrix::{planes, takes_floats};
use powerinfer::gpu::ops::matvec::{Rows, matvec};
use powerinfer::gpu::ops::norm::Acts;
use powerinfer::model::{Activation, Threshold};
use powerinfer::quant::GgmlType;

/// Of the sum of the products' sizes. Integer sums are exact; what remains is the rounding of a few dozen additions per
/// thread here, of up to some thousand in plain Rust's 16 sums, each 6e-8 of what has been added up.
pub const DOT_TOLERANCE: f32 = 2e-6;

/// Widths that leave threads idle, ranges of a warp unfinished, and that models have.
fn widths(dtype: GgmlType) -> &'static [usize] {
    if dtype.block_len() == 256 { &[256, 768, 1280, 4096] } else { &[32, 96, 160, 1056, 4096] }
}

fn expected(w: &Weights, first: usize, n: usize, x: &Activations) -> Vec<f32> {
    (first..first + n).map(|row| w.dot(row, x)).collect()
}

#[test]
fn uploaded_blocks_are_taken_apart_and_lose_nothing() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        bench.clear();
        let (n_rows, n_cols) = (5, 768);
        let w = bench.weights(dtype, n_rows, n_cols);
        let on_device: Vec<u8> = bench.stream.read_vec(w.matrix.ptr(), w.bytes.len()).unwrap();
        let planes = planes(dtype).unwrap();
        let (mut quants, mut scales) = (Vec::new(), Vec::new());
        for block in w.bytes.chunks(dtype.block_bytes()) {
            // The scale of a Q6_K block is at its end, others at their beginning.
            let (scale, rest) = match dtype {
                GgmlType::Q6_K => (&block[planes.quants..], &block[..planes.quants]),
                _ => block.split_at(planes.scales),
            };
            quants.extend_from_slice(rest);
            scales.extend_from_slice(scale);
        }
        assert!(on_device == [quants, scales].concat(), "{dtype}");
    }
}

#[test]
fn every_type_agrees_with_plain_rust_on_every_shape() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        for &n_cols in widths(dtype) {
            for n_rows in [1, 7, 33] {
                bench.clear();
                let w = bench.weights(dtype, n_rows, n_cols);
                let x = bench.random.values(n_cols);
                let (acts, on_device) = bench.acts(dtype, &x);
                let y = bench.room_for(n_rows);
                matvec(&bench.kernels, &bench.stream, &[Rows::all(&w.matrix, y)], on_device, None).unwrap();
                let what = format!("{dtype} {n_rows} x {n_cols}");
                let size = |row| w.dot_size(row, &x);
                assert_close(&what, &bench.read(y, n_rows), &expected(&w, 0, n_rows, &acts), DOT_TOLERANCE, size);
            }
        }
    }
}

#[test]
fn many_rows_are_shared_as_few_are() {
    let Some(mut bench) = Bench::new() else { return };
    // So many that one warp has a row, and of so few columns that several rows share a warp.
    for (dtype, n_rows, n_cols) in [
        (GgmlType::Q4_0, 2051, 1024),
        (GgmlType::F16, 2051, 256),
        (GgmlType::F32, 3001, 32),
        (GgmlType::Q8_0, 3001, 32),
    ] {
        let w = bench.weights(dtype, n_rows, n_cols);
        let x = bench.random.values(n_cols);
        let (acts, on_device) = bench.acts(dtype, &x);
        let y = bench.room_for(n_rows);
        matvec(&bench.kernels, &bench.stream, &[Rows::all(&w.matrix, y)], on_device, None).unwrap();
        let what = format!("{dtype} {n_rows} x {n_cols}");
        let size = |row| w.dot_size(row, &x);
        assert_close(&what, &bench.read(y, n_rows), &expected(&w, 0, n_rows, &acts), DOT_TOLERANCE, size);
    }
}

#[test]
fn three_matrices_in_one_launch_with_biases_and_rows_from_the_middle() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        bench.clear();
        let n_cols = 512;
        let shapes = [(40, 3, 35), (9, 0, 0), (18, 1, 17)];
        let weights: Vec<_> = shapes.map(|(n_stored, ..)| bench.weights(dtype, n_stored, n_cols)).into();
        let biases = shapes.map(|(_, _, n)| bench.random.values(n));
        let x = bench.random.values(n_cols);
        let (acts, on_device) = bench.acts(dtype, &x);
        let mut parts = Vec::new();
        for ((w, (_, first, n_rows)), bias) in weights.iter().zip(shapes).zip(&biases) {
            // The last one has no bias.
            let bias = if parts.len() == 2 { Ptr::NULL } else { bench.floats(bias) };
            parts.push(Rows { first, n_rows, bias, ..Rows::all(&w.matrix, bench.room_for(n_rows)) });
        }
        let relu = Some(Activation::Relu);
        matvec(&bench.kernels, &bench.stream, &parts, on_device, relu).unwrap();
        for (i, ((w, part), bias)) in weights.iter().zip(&parts).zip(&biases).enumerate() {
            let mut wanted = expected(w, part.first, part.n_rows, &acts);
            for (y, bias) in wanted.iter_mut().zip(bias) {
                *y = Activation::Relu.apply(*y + if i == 2 { 0.0 } else { *bias });
            }
            let got = bench.read(part.y, part.n_rows);
            let size = |row| w.dot_size(part.first + row, &x) + 1.0;
            assert_close(&format!("{dtype} part {i}"), &got, &wanted, DOT_TOLERANCE, size);
        }
    }
}

#[test]
fn activation_functions_are_those_of_the_model_and_keep_what_is_not_a_number() {
    let Some(mut bench) = Bench::new() else { return };
    /// Of the value: the device's exponential is off by 2 of 2^24, and a product and a quotient follow.
    const ACTIVATION_TOLERANCE: f32 = 1e-6;
    for dtype in [GgmlType::F16, GgmlType::Q4_0] {
        let (n_rows, n_cols) = (31, 64);
        let w = bench.weights(dtype, n_rows, n_cols);
        let mut x = bench.random.values(n_cols);
        for poisoned in [false, true] {
            if poisoned {
                x[40] = f32::INFINITY - f32::INFINITY;
            }
            let (acts, on_device) = bench.acts(dtype, &x);
            let y = bench.room_for(n_rows);
            // As far from where it jumps as possible: there both sides are right.
            let jumping = Activation::FatRelu(between(&expected(&w, 0, n_rows, &acts)));
            for activation in ACTIVATIONS.into_iter().chain([jumping]) {
                matvec(&bench.kernels, &bench.stream, &[Rows::all(&w.matrix, y)], on_device, Some(activation)).unwrap();
                let wanted: Vec<_> = expected(&w, 0, n_rows, &acts).iter().map(|y| activation.apply(*y)).collect();
                let got = bench.read(y, n_rows);
                assert_eq!(got.iter().all(|y| y.is_nan()), poisoned);
                // The square doubles what the product is off by, relative to its value.
                let size = |row: usize| (1.0 + 2.0 * wanted[row].abs().sqrt()) * w.dot_size(row, &x);
                let tolerance = DOT_TOLERANCE + ACTIVATION_TOLERANCE;
                assert_close(&format!("{dtype} {activation}"), &got, &wanted, tolerance, size);
            }
        }
    }
}

/// The middle of the widest gap between values above 0.
fn between(values: &[f32]) -> Threshold {
    let mut above: Vec<f32> = values.iter().copied().filter(|v| *v > 0.0).chain([0.0]).collect();
    above.sort_by(f32::total_cmp);
    let widest = above.windows(2).max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
    Threshold::new(widest.map_or(0.0, |pair| (pair[0] + pair[1]) / 2.0)).unwrap()
}

/// All that kernels have a code for, but for FATReLU, which jumps.
pub const ACTIVATIONS: [Activation; 7] = [
    Activation::Silu,
    Activation::Relu,
    Activation::Relu2,
    Activation::Gelu,
    Activation::GeluErf,
    Activation::GeluQuick,
    Activation::DRelu,
];

#[test]
fn what_does_not_fit_together_is_refused() {
    let Some(mut bench) = Bench::new() else { return };
    let (a, b) = (bench.weights(GgmlType::F16, 4, 64), bench.weights(GgmlType::F16, 4, 96));
    let (q, y) = (bench.weights(GgmlType::Q8_0, 4, 64), bench.room_for(8));
    let (_, x) = bench.acts(GgmlType::F16, &[0.5; 64]);
    let refused = |parts: &[Rows], x: Acts| matvec(&bench.kernels, &bench.stream, parts, x, None).is_err();
    assert!(refused(&[Rows::all(&a.matrix, y), Rows::all(&b.matrix, y)], x));
    assert!(refused(&[Rows::all(&a.matrix, y), Rows::all(&q.matrix, y)], x));
    assert!(refused(&[Rows { first: 2, ..Rows::all(&a.matrix, y) }], x));
    assert!(refused(&[], x));
    // Floats were given, bytes are wanted.
    assert!(!takes_floats(GgmlType::Q8_0) && refused(&[Rows::all(&q.matrix, y)], x));
}
