//! Tests that every instruction set computes what the plain kernels do, on random and on adverse operands.

use super::testing::{noise, random_rows, stored, x_seen};
use super::{Activations, Isa, Rows, plain};
use crate::quant::{GgmlType, convert};

/// The instruction sets of this processor except the plain one; prints which ones it lacks.
#[allow(clippy::print_stderr, reason = "what is skipped is said")]
fn fast() -> Vec<Isa> {
    let (have, lack): (Vec<_>, Vec<_>) =
        Isa::ALL.into_iter().filter(|i| *i > Isa::Plain).partition(|i| i.is_available());
    if !lack.is_empty() {
        eprintln!("skipped: this processor has no {lack:?}");
    }
    have
}

fn types() -> impl Iterator<Item = GgmlType> {
    plain::TABLE.iter().map(|k| k.dtype)
}

fn compare_dot(isa: Isa, dtype: GgmlType, rows: &[u8], w: &[f32], x: &[f32]) {
    let (plain, fast) = (Isa::Plain.kernels(dtype), isa.kernels(dtype));
    let n = x.len();
    let mut acts = Activations::default();
    acts.load(x, n, [plain.act, fast.act]);
    let n_rows = w.len() / n;
    let rows = Rows::range(rows, rows.len() / n_rows, 0, n_rows);
    let (mut expected, mut got) = (vec![0.0; n_rows], vec![0.0; n_rows]);
    (plain.dot)(rows, acts.row(0), &mut expected);
    (fast.dot)(rows, acts.row(0), &mut got);
    let seen = x_seen(fast.act, acts.row(0));
    for (i, w) in w.chunks(n).enumerate() {
        let size: f64 = w.iter().zip(&seen).map(|(w, x)| f64::from(w * x).abs()).sum();
        let off = (f64::from(got[i]) - f64::from(expected[i])).abs();
        assert!(off <= 4e-6 * size + 1e-37, "{isa} {dtype} {n}: {} instead of {}", got[i], expected[i]);
    }
}

fn lengths(dtype: GgmlType) -> &'static [usize] {
    match dtype.block_len() {
        1 => &[1, 15, 16, 63, 64, 100, 256, 4096],
        32 => &[32, 64, 96, 128, 160, 224, 512, 736, 4096],
        _ => &[256, 512, 768, 4096],
    }
}

#[test]
fn dots_agree_on_random_rows() {
    for isa in fast() {
        for dtype in types() {
            for (seed, &n) in lengths(dtype).iter().enumerate() {
                let (rows, w) = stored(dtype, &noise(5 * n, seed as u32));
                compare_dot(isa, dtype, &rows, &w, &noise(n, 99 + seed as u32));
            }
        }
    }
}

#[test]
fn dots_agree_on_random_bytes_and_adverse_activations() {
    for isa in fast() {
        for dtype in types().filter(|t| t.block_len() > 1) {
            for (seed, &n) in lengths(dtype).iter().enumerate() {
                let rows = random_rows(dtype, n, 3, 7 + seed as u32);
                let mut w = vec![0.0; 3 * n];
                convert::dequantizer(dtype).unwrap()(&rows, &mut w);
                let ones: Vec<f32> = (0..n).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
                let scaled = |s: f32| noise(n, 5).iter().map(|v| v * s).collect::<Vec<_>>();
                let spike: Vec<f32> = (0..n).map(|i| if i == n / 2 { 1e6 } else { 1e-3 }).collect();
                for x in [ones, vec![0.0; n], vec![-1.0; n], scaled(1e-39), scaled(1e-30), scaled(1e30), spike] {
                    compare_dot(isa, dtype, &rows, &w, &x);
                }
            }
        }
    }
}

#[test]
fn dots_agree_on_the_largest_products_in_rows_of_any_number_of_blocks() {
    // The lowest and highest values of all types, such as -128, and some between.
    const BYTES: [u8; 9] = [0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0, 0x77, 0x88, 0x5a];
    // Where a block has the upper bytes of its scales, or the exponent.
    let uppers = |dtype| match dtype {
        GgmlType::MXFP4 => vec![0],
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => vec![1, 3],
        GgmlType::Q2_K => vec![81, 83],
        GgmlType::Q3_K => vec![109],
        GgmlType::Q6_K => vec![209],
        _ => vec![1],
    };
    for isa in fast() {
        for dtype in types().filter(|t| t.block_len() > 1) {
            for n_blocks in 1..=9 {
                let n = n_blocks * dtype.block_len();
                let mut rows: Vec<u8> = BYTES.iter().flat_map(|b| vec![*b; dtype.row_bytes(n).unwrap()]).collect();
                for block in rows.chunks_mut(dtype.block_bytes()) {
                    uppers(dtype).into_iter().for_each(|at| block[at] = 0x3b);
                }
                let mut w = vec![0.0; BYTES.len() * n];
                convert::dequantizer(dtype).unwrap()(&rows, &mut w);
                assert!(w.iter().all(|w| w.is_finite()), "{dtype}");
                let alternating: Vec<f32> = (0..n).map(|i| if i / n_blocks % 2 == 0 { -1.0 } else { 1.0 }).collect();
                for x in [vec![1.0; n], vec![-1.0; n], alternating] {
                    compare_dot(isa, dtype, &rows, &w, &x);
                }
            }
        }
    }
}

#[test]
fn scaled_additions_agree_in_any_grouping_and_skip_what_has_not_fired() {
    for isa in fast().into_iter().chain([Isa::Plain]) {
        for dtype in types() {
            for (seed, &n) in lengths(dtype).iter().enumerate() {
                let n_rows = 11;
                let (rows, w) = stored(dtype, &noise(n_rows * n, seed as u32));
                let stride = rows.len() / n_rows;
                let a: Vec<f32> = noise(n_rows, 3).into_iter().map(|a| if a < -0.2 { 0.0 } else { a }).collect();
                let start = noise(n, 21);
                let k = isa.kernels(dtype);
                let mut dense = start.clone();
                (k.add_scaled)(Rows::range(&rows, stride, 0, n_rows), &a, &mut dense);
                for (i, got) in dense.iter().enumerate() {
                    let products: Vec<f64> = (0..n_rows).map(|r| f64::from(w[r * n + i]) * f64::from(a[r])).collect();
                    let exact = f64::from(start[i]) + products.iter().sum::<f64>();
                    let size = f64::from(start[i]).abs() + products.iter().map(|p| p.abs()).sum::<f64>();
                    assert!((f64::from(*got) - exact).abs() <= 1e-6 * size, "{isa} {dtype} {n}: {got} for {exact}");
                }
                let fired: Vec<u32> = (0..n_rows as u32).filter(|r| a[*r as usize] != 0.0).collect();
                let a_fired: Vec<f32> = fired.iter().map(|r| a[*r as usize]).collect();
                let mut exact = start.clone();
                (k.add_scaled)(Rows::list(&rows, stride, &fired), &a_fired, &mut exact);
                assert_eq!(dense, exact, "{isa} {dtype} {n}: skipping changes bits");
                let mut one_by_one = start.clone();
                for (row, a) in fired.iter().zip(&a_fired) {
                    (k.add_scaled)(Rows::list(&rows, stride, &[*row]), &[*a], &mut one_by_one);
                }
                assert_eq!(dense, one_by_one, "{isa} {dtype} {n}: grouping changes bits");
                let grain = dtype.block_len();
                if n > grain {
                    let (half, mut pieces) = (n / grain / 2 * grain, start);
                    let cut = half / grain * dtype.block_bytes();
                    let all = Rows::range(&rows, stride, 0, n_rows);
                    (k.add_scaled)(all.piece(0, cut), &a, &mut pieces[..half]);
                    (k.add_scaled)(all.piece(cut, stride - cut), &a, &mut pieces[half..]);
                    assert_eq!(dense, pieces, "{isa} {dtype} {n}: dividing columns changes bits");
                }
            }
        }
    }
}

#[test]
fn weights_that_are_no_numbers_do_not_touch_a_sum_whose_neuron_has_not_fired() {
    for isa in fast().into_iter().chain([Isa::Plain]) {
        for dtype in types() {
            let mut x = noise(512, 3);
            x[77] = f32::NAN;
            let mut row = vec![0; dtype.row_bytes(512).unwrap()];
            match convert::quantizer(dtype) {
                Ok(quantize) => quantize(&x, &mut row),
                // Every scale is a NaN.
                Err(_) => row.fill(0xff),
            }
            let mut y = vec![1.0; 512];
            (isa.kernels(dtype).add_scaled)(Rows::range(&row, row.len(), 0, 1), &[0.0], &mut y);
            assert!(y.iter().all(|v| *v == 1.0), "{isa} {dtype}");
        }
    }
}
