//! Norms, merging and quantization.

use super::card::{Card, assert_close};
use super::support::Random;
use powerinfer::gpu::ops::norm::{Acts, Merge, Norm, merge_norm, norm, quantize, x8_bytes};
use powerinfer::gpu::{DeviceBuffer, Ptr};
use powerinfer::model::NormKind;

/// Relative to the largest output: the scale may be rounded the other way, and four operations round after it.
const TOLERANCE: f64 = 4.0 * f32::EPSILON as f64;

/// What src/executor/norm.rs computes, before the last rounding.
fn reference(kind: NormKind, eps: f32, weight: &[f32], bias: Option<&[f32]>, x: &[f32]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().map(|v| f64::from(*v)).sum::<f64>() / n,
    };
    let square = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let (mean, scale) = (mean as f32, 1.0 / (square as f32 + eps).sqrt());
    let value = |i: usize| f64::from(x[i] - mean) * f64::from(scale) * f64::from(weight[i]);
    (0..x.len()).map(|i| value(i) + bias.map_or(0.0, |b| f64::from(b[i]))).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m: f64, v| m.max(v.abs()))
}

/// A norm with random weights.
struct Case {
    kind: NormKind,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    on_card: (DeviceBuffer, DeviceBuffer),
}

const EPS: f32 = 1e-5;

impl Case {
    fn new(card: &Card, random: &mut Random, n: usize, kind: NormKind, bias: bool) -> Self {
        let weight = random.values(n);
        let bias = bias.then(|| random.values(n));
        let on_card = (card.put(&weight), card.put(bias.as_deref().unwrap_or_default()));
        Self { kind, weight, bias, on_card }
    }

    fn norm(&self) -> Norm {
        Norm { kind: self.kind, eps: EPS, weight: self.on_card.0.ptr(), bias: self.on_card.1.ptr() }
    }

    fn assert(&self, got: &[f32], x: &[f32], what: &str) {
        for (got, x) in got.chunks_exact(self.weight.len()).zip(x.chunks_exact(self.weight.len())) {
            let expected = reference(self.kind, EPS, &self.weight, self.bias.as_deref(), x);
            assert_close(got, &expected, TOLERANCE * largest(&expected), what);
        }
    }
}

#[test]
fn norms_are_those_of_the_processor() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for (n, n_tokens) in [(32, 1), (96, 3), (4096, 1), (4096 + 32, 2), (5120, 1), (16384, 1)] {
        for (kind, bias) in [(NormKind::Rms, false), (NormKind::Layer, true), (NormKind::Rms, true)] {
            // An offset makes the mean large beside what is left of the values.
            for (scale, offset) in [(1.0, 0.0), (0.01, 1000.0), (1e-9, 0.0), (1e15, 0.0)] {
                let case = Case::new(&card, &mut random, n, kind, bias);
                let x: Vec<f32> = random.values(n * n_tokens).iter().map(|v| v * scale + offset).collect();
                let x_on_card = card.put(&x);
                let (out, x8) = (card.room::<f32>(x.len()), card.room::<u8>(x8_bytes(n) as usize * n_tokens));
                let acts = Acts { f32: out.ptr(), x8: x8.ptr() };
                norm(card.kernels, &card.stream, x_on_card.ptr(), n, n_tokens, &case.norm(), acts).unwrap();
                let got = card.get::<f32>(out.ptr(), x.len());
                case.assert(&got, &x, &format!("{kind:?} of {n}, {scale} + {offset}"));
                card.assert_quantized(x8.ptr(), &got, n);
            }
        }
    }
}

#[test]
fn a_norm_of_something_that_is_no_number_is_none() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let case = Case::new(&card, &mut random, 64, NormKind::Rms, false);
    let mut x = random.values(64);
    x[random.below(64)] = f32::NAN;
    let (x, out) = (card.put(&x), card.room::<f32>(64));
    norm(card.kernels, &card.stream, x.ptr(), 64, 1, &case.norm(), Acts { f32: out.ptr(), x8: Ptr::NULL }).unwrap();
    assert!(card.get::<f32>(out.ptr(), 64).iter().all(|v| v.is_nan()));
}

#[test]
fn parts_are_merged_before_the_norm() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for n in [32, 2048, 4128] {
        for with in 0..4 {
            let case = Case::new(&card, &mut random, n, NormKind::Rms, false);
            let (x, a, b) = (random.values(n), random.values(n), random.values(n));
            let (x_on_card, a_on_card, b_on_card) = (card.put(&x), card.put(&a), card.put(&b));
            let (out, x8) = (card.room::<f32>(n), card.room::<u8>(x8_bytes(n) as usize));
            let given = |bit: usize, ptr: Ptr| if with & bit != 0 { ptr } else { Ptr::NULL };
            let (a_given, b_given) = (given(1, a_on_card.ptr()), given(2, b_on_card.ptr()));
            let merge = Merge { a: a_given, b: b_given, ..Merge::nothing(x_on_card.ptr(), n) };
            let acts = Acts { f32: out.ptr(), x8: x8.ptr() };
            merge_norm(card.kernels, &card.stream, &merge, Some(&case.norm()), acts).unwrap();
            let part = |bit: usize, v: f32| if with & bit != 0 { v } else { 0.0 };
            let sum: Vec<f32> = (0..n).map(|i| x[i] + part(1, a[i]) + part(2, b[i])).collect();
            assert_eq!(card.get::<f32>(x_on_card.ptr(), n), sum);
            let normed = card.get::<f32>(out.ptr(), n);
            case.assert(&normed, &sum, &format!("merge of {n}"));
            card.assert_quantized(x8.ptr(), &normed, n);
        }
    }
}

#[test]
fn parts_of_many_tokens_are_scaled_and_may_begin_at_zero() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for (n, n_tokens) in [(32, 1), (160, 3), (4128, 2)] {
        for kind in [NormKind::Rms, NormKind::Layer] {
            let case = Case::new(&card, &mut random, n, kind, kind == NormKind::Layer);
            let [x, a, b] = [0, 1, 2].map(|_| random.values(n * n_tokens));
            let shift = random.values(n);
            let on_card = [&x, &a, &b, &shift].map(|v| card.put(v));
            let [x_at, a_at, b_at, shift_at] = [0, 1, 2, 3].map(|i| on_card[i].ptr());
            let (out, x8) = (card.room::<f32>(x.len()), card.room::<u8>(x8_bytes(n) as usize * n_tokens));
            let acts = Acts { f32: out.ptr(), x8: x8.ptr() };
            let (a_scale, b_scale) = (0.375, -2.5);
            let merge =
                Merge { n_tokens, a: a_at, a_scale, b: b_at, shift: shift_at, b_scale, ..Merge::nothing(x_at, n) };
            merge_norm(card.kernels, &card.stream, &merge, Some(&case.norm()), acts).unwrap();
            let second = |i: usize| b[i] + shift[i % n];
            let sum: Vec<f32> = (0..x.len()).map(|i| x[i] + a_scale * a[i] + b_scale * second(i)).collect();
            assert_eq!(card.get::<f32>(x_at, x.len()), sum);
            let normed = card.get::<f32>(out.ptr(), x.len());
            case.assert(&normed, &sum, &format!("{n_tokens} of {n}"));
            card.assert_quantized(x8.ptr(), &normed, n);
            // The norm takes the place of what it is of.
            let merge = Merge { n_tokens, b: b_at, shift: shift_at, ..Merge::nothing(Ptr::NULL, n) };
            let in_place = Acts { f32: b_at, x8: Ptr::NULL };
            merge_norm(card.kernels, &card.stream, &merge, Some(&case.norm()), in_place).unwrap();
            let sum: Vec<f32> = (0..x.len()).map(second).collect();
            case.assert(&card.get::<f32>(b_at, x.len()), &sum, &format!("{n_tokens} of {n}, from zero"));
        }
    }
}

#[test]
fn activations_are_quantized_bit_for_bit() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for (n, n_tokens) in [(32, 1), (64, 5), (4096, 1), (11008, 2)] {
        let mut x: Vec<f32> = random.values(n * n_tokens);
        for block in x.chunks_exact_mut(32) {
            let scale = [1.0, 1e-45, 1e-38, 1e-36, 1e30, 3e38, 0.0][random.below(7)];
            block.iter_mut().for_each(|v| *v *= scale);
            // Values half way between two steps.
            if random.below(4) == 0 {
                block.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32 * 0.5);
                block[31] = 127.0;
            }
            if random.below(8) == 0 {
                block[random.below(32)] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][random.below(3)];
            }
        }
        let (on_card, x8) = (card.put(&x), card.room::<u8>(x8_bytes(n) as usize * n_tokens));
        quantize(card.kernels, &card.stream, on_card.ptr(), n, n_tokens, x8.ptr()).unwrap();
        card.assert_quantized(x8.ptr(), &x, n);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let Some(card) = Card::open() else { return };
    let case = Norm { kind: NormKind::Rms, eps: EPS, weight: Ptr::NULL, bias: Ptr::NULL };
    for n in [0, 31, 33, 16384 + 32] {
        let error = norm(card.kernels, &card.stream, Ptr::NULL, n, 1, &case, Acts::default()).unwrap_err();
        assert!(error.to_string().contains(&n.to_string()), "{error}");
    }
    assert!(quantize(card.kernels, &card.stream, Ptr::NULL, 48, 1, Ptr::NULL).is_err());
}
