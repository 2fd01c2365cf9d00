//! The halves of an FFN, up and gate before, down after the activation, against plain Rust.

use super::matvec::DOT_TOLERANCE;
use super::operands::{Bench, TYPES, Weights, assert_close};
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::down::{clear_scratch, down, scratch_bytes};
use powerinfer::gpu::ops::ffn::{List, gate_up, up};
use powerinfer::model::Activation;
use powerinfer::quant::GgmlType;

/// Of the sum of the contributions' sizes in a column: each is rounded once, and so is every one of the additions, which
/// here are some dozens in a row and in plain Rust as many as there are neurons.
const SUM_TOLERANCE: f32 = 4e-6;

fn width(dtype: GgmlType) -> usize {
    if dtype.block_len() == 256 { 768 } else { 416 }
}

/// A list in memory of the device, longer there than its count says.
fn on_device(bench: &mut Bench, slots: &[u32], n: usize) -> List {
    let mut padded = slots.to_vec();
    padded.resize(n.max(1), u32::MAX);
    List { slots: bench.words(&padded), count: bench.words(&[slots.len() as u32]), n }
}

/// Lists of `n` slots: none, one, the last, an odd number, most, all.
fn lists(bench: &mut Bench, n: usize) -> Vec<Vec<u32>> {
    let (one, few, most) = (bench.random.below(n) as u32, bench.random.some(n, 0.1), bench.random.some(n, 0.9));
    vec![vec![], vec![one], vec![n as u32 - 1], few, most, (0..n as u32).collect()]
}

fn check_up(bench: &mut Bench, w: &Weights, x: &[f32], slots: &[u32], list: &List) {
    let dtype = w.matrix.dtype();
    let (acts, x8) = bench.acts(dtype, x);
    let mut act = bench.random.values(slots.len());
    act.iter_mut().step_by(7).for_each(|a| *a = 0.0);
    let (act_there, h) = (bench.floats(&[&act[..], &[1.0]].concat()), bench.room_for(slots.len() + 1));
    up(&bench.kernels, &bench.stream, &w.matrix, list, act_there, x8, h).unwrap();
    let product = |(slot, a): (&u32, &f32)| if *a == 0.0 { 0.0 } else { a * w.dot(*slot as usize, &acts) };
    let expected: Vec<f32> = slots.iter().zip(&act).map(product).collect();
    let got = bench.read(h, slots.len() + 1);
    let size = |i: usize| act[i].abs() * w.dot_size(slots[i] as usize, x);
    let what = format!("{dtype} {} of {}", slots.len(), w.matrix.n_stored());
    assert_close(&what, &got[..slots.len()], &expected, DOT_TOLERANCE, size);
    for (act, h) in act.iter().zip(&got) {
        assert!(*act != 0.0 || h.to_bits() == 0, "{what}: a neuron at rest");
    }
    assert!(got[slots.len()].is_nan(), "{what}: written past the end");
}

#[test]
fn up_of_a_list_agrees_with_plain_rust() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        bench.clear();
        let n = 75;
        let w = bench.weights(dtype, n, width(dtype));
        let x = bench.random.values(width(dtype));
        for slots in lists(&mut bench, n) {
            let list = on_device(&mut bench, &slots, n);
            check_up(&mut bench, &w, &x, &slots, &list);
        }
        let all: Vec<u32> = (0..n as u32 - 2).collect();
        check_up(&mut bench, &w, &x, &all, &List::all(n - 2));
    }
}

#[test]
fn up_of_more_rows_than_the_device_has_warps() {
    let Some(mut bench) = Bench::new() else { return };
    let n = bench.device.n_sm() as usize * 24 * 2 + 131;
    for dtype in [GgmlType::Q4_0, GgmlType::F16] {
        let w = bench.weights(dtype, n, 64);
        let x = bench.random.values(64);
        let all: Vec<u32> = (0..n as u32).collect();
        check_up(&mut bench, &w, &x, &all, &List::all(n));
        let slots = bench.random.some(n, 0.9);
        let list = on_device(&mut bench, &slots, n);
        check_up(&mut bench, &w, &x, &slots, &list);
    }
}

#[test]
fn gate_and_up_in_one_kernel_agree_with_plain_rust() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        bench.clear();
        let (n_cols, n_stored) = (width(dtype), 45);
        let (gate, up) = (bench.weights(dtype, n_stored, n_cols), bench.weights(dtype, n_stored + 3, n_cols));
        let x = bench.random.values(n_cols);
        let (acts, x8) = bench.acts(dtype, &x);
        for activation in [Activation::Relu, Activation::Relu2, Activation::Silu] {
            for n in [0, 1, 16, 43] {
                let h = bench.room_for(n + 1);
                gate_up(&bench.kernels, &bench.stream, &gate.matrix, &up.matrix, n, x8, activation, h).unwrap();
                let act: Vec<f32> = (0..n).map(|i| activation.apply(gate.dot(i, &acts))).collect();
                let expected: Vec<f32> = (0..n).map(|i| act[i] * up.dot(i, &acts)).collect();
                let got = bench.read(h, n + 1);
                let what = format!("{dtype} {activation} {n}");
                // Both factors are off, each relative to its own size; the square's slope is twice its root.
                let size = |i: usize| {
                    let (gate_size, up_size) = (gate.dot_size(i, &x), up.dot_size(i, &x));
                    act[i].abs() * up_size + (1.1 + 2.0 * act[i].abs().sqrt()) * gate_size * up.dot(i, &acts).abs()
                };
                assert_close(&what, &got[..n], &expected, 2.0 * DOT_TOLERANCE, size);
                for i in 0..n {
                    assert!(act[i] != 0.0 || got[i].to_bits() == 0, "{what}: {i} rests");
                }
                assert!(got[n].is_nan(), "{what}: written past the end");
            }
        }
    }
}

#[test]
fn a_neuron_at_rest_is_zero_whatever_its_rows_hold_and_what_is_not_a_number_spreads() {
    let Some(mut bench) = Bench::new() else { return };
    let n_cols = 64;
    // Row 0 of gate gives a negative number, row 1 a positive one, row 2 none at all.
    let gate: Vec<f32> = [-1.0, 1.0, f32::NAN].iter().flat_map(|v| [*v; 64]).collect();
    let gate = bench.weights_of(GgmlType::F16, 3, n_cols, &gate);
    let infinite = bench.weights_of(GgmlType::F16, 3, n_cols, &[f32::INFINITY; 192]);
    let (_, x) = bench.acts(GgmlType::F16, &[1.0; 64]);
    let h = bench.room_for(3);
    gate_up(&bench.kernels, &bench.stream, &gate.matrix, &infinite.matrix, 3, x, Activation::Relu, h).unwrap();
    let got = bench.read(h, 3);
    assert!(got[0].to_bits() == 0 && got[1] == f32::INFINITY && got[2].is_nan(), "{got:?}");

    let act = bench.floats(&[0.0, 1.0, f32::NAN]);
    up(&bench.kernels, &bench.stream, &infinite.matrix, &List::all(3), act, x, h).unwrap();
    let got = bench.read(h, 3);
    assert!(got[0].to_bits() == 0 && got[1] == f32::INFINITY && got[2].is_nan(), "{got:?}");
}

/// The sum by the device, twice: scratch memory is as it was afterwards, and no bit depends on chance.
fn down_twice(bench: &mut Bench, w: &Weights, list: &List, h: &[f32]) -> Vec<f32> {
    let n_embd = w.matrix.n_cols();
    let scratch = bench.room(scratch_bytes(w.matrix.dtype(), n_embd).unwrap());
    clear_scratch(&bench.stream, scratch).unwrap();
    let h = bench.floats(&[h, &[f32::NAN]].concat());
    let mut run = || {
        let y = bench.room_for(n_embd);
        down(&bench.kernels, &bench.stream, &w.matrix, list, h, y, scratch).unwrap();
        bench.read(y, n_embd)
    };
    let (first, second) = (run(), run());
    let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&first), bits(&second));
    first
}

fn check_down(bench: &mut Bench, w: &Weights, slots: &[u32], list: &List) {
    let mut h = bench.random.values(slots.len());
    h.iter_mut().step_by(5).for_each(|h| *h = 0.0);
    let got = down_twice(bench, w, list, &h);
    let rows: Vec<Vec<f32>> = slots.iter().map(|slot| w.row(*slot as usize)).collect();
    // Offsets and minima are taken away after the products are added up: sizes are those of a row's largest weight.
    let largest = |row: &Vec<f32>| row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    let size: f32 = rows.iter().zip(&h).map(|(row, h)| largest(row) * h.abs()).sum();
    let what = format!("{} {} of {} x {}", w.matrix.dtype(), slots.len(), w.matrix.n_stored(), w.matrix.n_cols());
    assert_close(&what, &got, &w.sum(slots, &h), SUM_TOLERANCE, |_| size);
}

#[test]
fn down_of_a_list_agrees_with_plain_rust() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        bench.clear();
        let n_ff = 333;
        let w = bench.weights(dtype, n_ff, width(dtype));
        for slots in lists(&mut bench, n_ff) {
            let list = on_device(&mut bench, &slots, n_ff);
            check_down(&mut bench, &w, &slots, &list);
        }
        let all: Vec<u32> = (0..n_ff as u32 - 2).collect();
        check_down(&mut bench, &w, &all, &List::all(n_ff - 2));
    }
}

#[test]
fn down_of_other_widths_and_of_longer_lists() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        for (n_cols, n_ff) in [(32, 3), (96, 70), (256, 2049), (2048, 131)] {
            if n_cols % dtype.block_len() != 0 {
                continue;
            }
            bench.clear();
            let w = bench.weights(dtype, n_ff, n_cols);
            let slots = bench.random.some(n_ff, 0.5);
            let list = on_device(&mut bench, &slots, n_ff);
            check_down(&mut bench, &w, &slots, &list);
        }
    }
}

#[test]
fn down_adds_nothing_for_a_neuron_at_rest_and_spreads_what_is_not_a_number() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        bench.clear();
        // Whatever the middle row is made of, its sums are not numbers, or infinite.
        let n_cols = 256;
        let mut values = bench.random.values(3 * n_cols);
        values[n_cols..2 * n_cols].fill(f32::INFINITY);
        let w = bench.weights_of(dtype, 3, n_cols, &values);
        let y = down_twice(&mut bench, &w, &List::all(3), &[1.0, 0.0, 1.0]);
        assert!(y.iter().all(|y| y.is_finite()), "{dtype}");
        let y = down_twice(&mut bench, &w, &List::all(3), &[1.0, 1.0, 1.0]);
        assert!(y.iter().all(|y| !y.is_finite()), "{dtype}");
        let y = down_twice(&mut bench, &w, &List::all(1), &[f32::NAN]);
        assert!(y.iter().all(|y| y.is_nan()), "{dtype}");
        let empty = List { slots: Ptr::NULL, count: bench.words(&[0]), n: 3 };
        let y = down_twice(&mut bench, &w, &empty, &[1.0, 1.0, 1.0]);
        assert!(y.iter().all(|y| y.to_bits() == 0), "{dtype}");
    }
}
