//! Products and softmax of strips against sums in 64 bits, and each lane against itself alone.

use super::*;
use crate::cpu::Isa;
use crate::cpu::testing::noise;

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn rows(n: usize, seed: u32) -> Vec<Lanes> {
    noise(n * LANES, seed).as_chunks::<LANES>().0.iter().map(|row| Lanes(*row)).collect()
}

fn bits(rows: &[Lanes], n_lanes: usize) -> Vec<u32> {
    rows.iter().flat_map(|row| &row.0[..n_lanes]).map(|v| v.to_bits()).collect()
}

#[test]
fn products_are_sums_in_the_order_of_their_terms_in_tiles_of_every_size() {
    for isa in available() {
        let kernels = Kernels::of(isa);
        for (n_rows, depth, n_lanes) in
            [(1, 1, 1), (2, 3, 16), (5, 7, 17), (6, 64, 33), (13, 40, 48), (17, 65, 64), (64, 5, 50), (3, 0, 9)]
        {
            let (factors, terms) = (noise(n_rows * depth + 1, 3), rows(depth, 5));
            for strides in [(depth.max(1), 1), (1, n_rows)] {
                let product = Product { factors: &factors, strides, rows: &terms, n_lanes };
                let before = rows(n_rows, 7);
                let (mut out, mut masked) = (before.clone(), before.clone());
                (kernels.add)(&product, &mut out);
                (kernels.add_where)(&product, &mut masked);
                assert_eq!(bits(&out, n_lanes), bits(&masked, n_lanes), "{isa}, {n_rows} rows of {depth}");
                for (i, (out, before)) in out.iter().zip(&before).enumerate() {
                    for lane in 0..n_lanes {
                        let factor = |k: usize| f64::from(factors[i * strides.0 + k * strides.1]);
                        let sum: f64 = (0..depth).map(|k| factor(k) * f64::from(terms[k].0[lane])).sum();
                        let exact = f64::from(before.0[lane]) + sum;
                        assert!((f64::from(out.0[lane]) - exact).abs() < 1e-5, "{isa}: {n_rows} rows of {depth}");
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_times_anything_is_nothing_where_that_is_asked_for() {
    let terms = [Lanes(std::array::from_fn(|lane| if lane % 3 == 0 { 0.0 } else { 1.0 }))];
    for isa in available() {
        for factor in [f32::INFINITY, f32::NAN] {
            let product = Product { factors: &[factor], strides: (1, 1), rows: &terms, n_lanes: LANES };
            let mut out = [Lanes::all(2.0)];
            (Kernels::of(isa).add_where)(&product, &mut out);
            assert!(out[0].0.iter().enumerate().all(|(lane, o)| (*o == 2.0) == (lane % 3 == 0)), "{isa} {factor}");
        }
    }
}

/// Softmax of scores block by block: weights relative to the largest, of which each lane sees other positions.
#[test]
fn a_running_softmax_is_one_over_all_scores() {
    let n = 3 * KEYS;
    let all: Vec<Lanes> = rows(n, 11).iter().map(|row| Lanes(row.0.map(|s| s * 30.0))).collect();
    let first: [u32; LANES] = std::array::from_fn(|lane| (lane * 2) as u32);
    let end: [u32; LANES] = std::array::from_fn(|lane| (lane * 3 + 1) as u32);
    let seen = Seen { first, end };
    for isa in available() {
        for cap in [None, Some(3.0f32)] {
            let (max, sum) = (Lanes::all(f32::NEG_INFINITY), Lanes::all(0.0));
            let (mut running, mut out) = (Running { max, sum }, vec![Lanes::all(0.0); 2]);
            for (i, block) in all.chunks(KEYS).enumerate() {
                let mut scores = block.to_vec();
                let position = (i * KEYS) as u32;
                let soften = Soften { position, seen: Some(&seen), cap, n_lanes: LANES };
                (Kernels::of(isa).soften)(&soften, &mut scores, &mut running, &mut out);
                // Beside the sum of the weights, that of the weights times their positions.
                for (k, row) in scores.iter().enumerate() {
                    for lane in 0..LANES {
                        out[0].0[lane] += row.0[lane];
                        out[1].0[lane] += row.0[lane] * (i * KEYS + k) as f32;
                    }
                }
            }
            for lane in 0..LANES {
                let capped = |s: f32| cap.map_or(f64::from(s), |cap| f64::from(cap) * f64::from(s / cap).tanh());
                let weight = |i: u32| capped(all[i as usize].0[lane]).exp();
                let sum: f64 = (first[lane]..end[lane]).map(weight).sum();
                let mean: f64 = (first[lane]..end[lane]).map(|i| weight(i) * f64::from(i)).sum::<f64>() / sum;
                let got = f64::from(out[1].0[lane]) / f64::from(running.sum.0[lane]);
                assert!(
                    (got - mean).abs() < 1e-5 * mean.max(1.0),
                    "{isa}, cap {cap:?}, lane {lane}: {got}, not {mean}"
                );
                assert!((out[0].0[lane] - running.sum.0[lane]).abs() <= 1e-5 * running.sum.0[lane]);
            }
        }
    }
}

#[test]
fn a_lane_that_sees_nothing_yet_keeps_nothing() {
    let seen = Seen { first: [KEYS as u32; LANES], end: [2 * KEYS as u32; LANES] };
    for isa in available() {
        let (max, sum) = (Lanes::all(f32::NEG_INFINITY), Lanes::all(0.0));
        let (mut running, mut out) = (Running { max, sum }, vec![Lanes::all(0.0)]);
        let before = running;
        let mut scores = rows(KEYS, 3);
        let soften = Soften { position: 0, seen: Some(&seen), cap: None, n_lanes: LANES };
        (Kernels::of(isa).soften)(&soften, &mut scores, &mut running, &mut out);
        assert_eq!((running, out[0]), (before, Lanes::all(0.0)), "{isa}");
        assert!(scores.iter().all(|row| *row == Lanes::all(0.0)), "{isa}");
    }
}

#[test]
fn floats_of_16_bits_are_read_alike() {
    use crate::quant::GgmlType;
    let values = noise(83, 5);
    for isa in available() {
        for n in [0, 1, 7, 8, 9, 64, 83] {
            let stored: Vec<u8> = values[..n].iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
            let mut out = vec![f32::NAN; n];
            Kernels::of(isa).reader(GgmlType::F16).unwrap()(&stored, &mut out);
            let wanted = values[..n].iter().map(|v| half::f16::from_f32(*v).to_f32());
            assert!(out.iter().copied().eq(wanted), "{isa}, {n}");
        }
    }
}

#[test]
fn scores_of_one_query_become_weights() {
    for isa in available() {
        for n in [1, 2, 15, 16, 17, 100, 128] {
            for (cap, before) in [(None, f32::NEG_INFINITY), (Some(2.0f32), 0.5), (None, 100.0)] {
                let scores: Vec<f32> = noise(n, 5).iter().map(|s| s * 40.0).collect();
                let mut weights = scores.clone();
                let (max, sum) = (Kernels::of(isa).weigh)(0.25, cap, before, &mut weights);
                let scaled = |s: f32| f64::from(s * 0.25);
                let capped = |s: f32| cap.map_or(scaled(s), |cap| f64::from(cap) * (scaled(s) / f64::from(cap)).tanh());
                let exact: Vec<f64> = scores.iter().map(|s| (capped(*s) - f64::from(max)).exp()).collect();
                let largest = scores.iter().map(|s| capped(*s)).fold(f64::from(before), f64::max);
                assert!((f64::from(max) - largest).abs() < 1e-6, "{isa}, {n}: {max}, not {largest}");
                assert!((f64::from(sum) - exact.iter().sum::<f64>()).abs() < 2e-6 * n as f64, "{isa}, {n}: {sum}");
                let pairs = weights.iter().zip(&exact);
                assert!(pairs.into_iter().all(|(w, e)| (f64::from(*w) - e).abs() < 2e-6), "{isa}, {n}");
            }
        }
        let mut hidden = [f32::NEG_INFINITY, 1.0, f32::NAN];
        let (max, sum) = (Kernels::of(isa).weigh)(1.0, None, f32::NEG_INFINITY, &mut hidden[..2]);
        assert_eq!((max, sum, hidden[0], hidden[1]), (1.0, 1.0, 0.0, 1.0), "{isa}");
        assert!((Kernels::of(isa).weigh)(1.0, None, 0.0, &mut hidden).1.is_nan(), "{isa}");
    }
}
