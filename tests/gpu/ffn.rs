//! The halves of an FFN, up and gate before, down after the activation, against plain Rust.

use super::matvec::DOT_TOLERANCE;
use super::operands::{Bench, TYPES, Weights, assert_close};
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::down::{Factors, clear_scratch, down, scratch_bytes};
use powerinfer::gpu::ops::ffn::{List, gate_up, up};
use powerinfer::model::{Activation, Threshold};
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

fn check_up(bench: &mut Bench, w: &Weights, x: &[f32], slots: &[u32], list: &List, biased: bool) {
    let (dtype, n) = (w.matrix.dtype(), w.matrix.n_stored());
    let (acts, x8) = bench.acts(dtype, x);
    let mut act = bench.random.values(n);
    act.iter_mut().step_by(7).for_each(|a| *a = 0.0);
    let (act_there, h) = (bench.floats(&act), bench.room_for(n));
    let activation = if biased { Activation::DRelu } else { Activation::Relu };
    let bias = if biased { bench.random.values(n) } else { vec![0.0; n] };
    let bias_there = if biased { bench.floats(&bias) } else { Ptr::NULL };
    up(&bench.kernels, &bench.stream, &w.matrix, bias_there, list, act_there, x8, activation, h).unwrap();
    let got = bench.read(h, n);
    let what = format!("{dtype} {} of {n}", slots.len());
    let at = |slot: &u32| *slot as usize;
    let dot = |slot: &u32| w.dot(at(slot), &acts) + bias[at(slot)];
    let product = |slot: &u32| activation.gated(act[at(slot)], dot(slot));
    let expected: Vec<f32> = slots.iter().map(product).collect();
    let listed: Vec<f32> = slots.iter().map(|slot| got[at(slot)]).collect();
    let size = |i: usize| act[at(&slots[i])].abs() * (w.dot_size(at(&slots[i]), x) + bias[at(&slots[i])].abs());
    assert_close(&what, &listed, &expected, DOT_TOLERANCE, size);
    for (slot, h) in got.iter().enumerate() {
        match slots.binary_search(&(slot as u32)) {
            Ok(_) => assert!(act[slot] != 0.0 || h.to_bits() == 0, "{what}: a neuron at rest"),
            Err(_) => assert!(h.is_nan(), "{what}: slot {slot} is not in the list"),
        }
    }
    // The products may take the place of the activations.
    up(&bench.kernels, &bench.stream, &w.matrix, bias_there, list, act_there, x8, activation, act_there).unwrap();
    let in_place = bench.read(act_there, n);
    for slot in slots {
        assert_eq!(in_place[at(slot)].to_bits(), got[at(slot)].to_bits(), "{what}: in place");
    }
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
            check_up(&mut bench, &w, &x, &slots, &list, true);
        }
        let all: Vec<u32> = (0..n as u32 - 2).collect();
        check_up(&mut bench, &w, &x, &all, &List::all(n - 2), false);
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
        check_up(&mut bench, &w, &x, &all, &List::all(n), true);
        let slots = bench.random.some(n, 0.9);
        let list = on_device(&mut bench, &slots, n);
        check_up(&mut bench, &w, &x, &slots, &list, false);
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
        let fatrelu = Activation::FatRelu(Threshold::new(0.25).unwrap());
        for activation in [Activation::Relu, Activation::Relu2, Activation::Silu, Activation::DRelu, fatrelu] {
            for n in [0, 1, 16, 43] {
                let h = bench.room_for(n + 1);
                gate_up(&bench.kernels, &bench.stream, &gate.matrix, &up.matrix, n, x8, activation, h).unwrap();
                let act: Vec<f32> = (0..n).map(|i| activation.apply(gate.dot(i, &acts))).collect();
                let expected: Vec<f32> = (0..n).map(|i| activation.gated(act[i], up.dot(i, &acts))).collect();
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
    up(&bench.kernels, &bench.stream, &infinite.matrix, Ptr::NULL, &List::all(3), act, x, Activation::DRelu, h)
        .unwrap();
    let got = bench.read(h, 3);
    assert!(got[0].to_bits() == 0 && got[1] == f32::INFINITY && got[2].is_nan(), "{got:?}");
}

/// The sum by the device, of what is not 0 and of all: scratch memory is as it was afterwards, and no bit depends on
/// chance, nor on whether rows are read that add nothing.
fn down_twice(bench: &mut Bench, w: &Weights, h: &[f32]) -> Vec<f32> {
    let n_embd = w.matrix.n_cols();
    let scratch = bench.room(scratch_bytes(w.matrix.dtype(), n_embd).unwrap());
    clear_scratch(&bench.stream, scratch).unwrap();
    let on_card = bench.floats(&[h, &[f32::NAN]].concat());
    let mut run = |all| {
        let y = bench.room_for(n_embd);
        let factors = Factors { h: on_card, n: h.len(), all };
        down(&bench.kernels, &bench.stream, &w.matrix, &factors, y, scratch).unwrap();
        bench.read(y, n_embd)
    };
    let sums = [false, true, false].map(&mut run);
    let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&sums[0]), bits(&sums[1]), "{}: exact and dense", w.matrix.dtype());
    assert_eq!(bits(&sums[0]), bits(&sums[2]), "{}: twice", w.matrix.dtype());
    let [sum, ..] = sums;
    sum
}

/// With `n` neurons, of which a share fires.
fn check_down(bench: &mut Bench, w: &Weights, n: usize, firing: f32) {
    let h = bench.random.sparse(n, firing);
    let got = down_twice(bench, w, &h);
    let slots: Vec<u32> = (0..n as u32).collect();
    let rows: Vec<Vec<f32>> = slots.iter().map(|slot| w.row(*slot as usize)).collect();
    // Offsets and minima are taken away after the products are added up: sizes are those of a row's largest weight.
    let largest = |row: &Vec<f32>| row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    let size: f32 = rows.iter().zip(&h).map(|(row, h)| largest(row) * h.abs()).sum();
    let what = format!("{} {n} of {} x {}", w.matrix.dtype(), w.matrix.n_stored(), w.matrix.n_cols());
    assert_close(&what, &got, &w.sum(&slots, &h), SUM_TOLERANCE, |_| size);
}

#[test]
fn down_agrees_with_plain_rust_and_exact_with_dense() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        bench.clear();
        let n_ff = 333;
        let w = bench.weights(dtype, n_ff, width(dtype));
        for firing in [0.0, 0.02, 0.1, 0.5, 1.0] {
            for n in [0, 1, 64, 65, n_ff - 2, n_ff] {
                check_down(&mut bench, &w, n, firing);
            }
        }
    }
}

#[test]
fn down_of_other_widths_and_of_more_neurons() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        // The last two have more than 32 rows for each row lane of a split.
        for (n_cols, n_ff) in [(32, 3), (96, 70), (256, 2049), (2048, 131), (8192, 3300), (16_384, 2100)] {
            if n_cols % dtype.block_len() != 0 || n_cols > 2048 && !matches!(dtype, GgmlType::F32 | GgmlType::Q4_0) {
                continue;
            }
            bench.clear();
            let w = bench.weights(dtype, n_ff, n_cols);
            check_down(&mut bench, &w, n_ff, 0.3);
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
        let y = down_twice(&mut bench, &w, &[1.0, 0.0, 1.0]);
        assert!(y.iter().all(|y| y.is_finite()), "{dtype}");
        let y = down_twice(&mut bench, &w, &[1.0, 1.0, 1.0]);
        assert!(y.iter().all(|y| !y.is_finite()), "{dtype}");
        let y = down_twice(&mut bench, &w, &[f32::NAN]);
        assert!(y.iter().all(|y| y.is_nan()), "{dtype}");
        let y = down_twice(&mut bench, &w, &[0.0; 3]);
        assert!(y.iter().all(|y| y.to_bits() == 0), "{dtype}");
    }
}
