//! The kernels in plain Rust: the specification that every faster kernel is tested against.
//!
//! Sums of products run in 16 interleaved partial sums that are added pairwise at the end: a fixed order
//! that vectorises.

use super::activations::ActRow;
use crate::quant::GgmlType;
use crate::quant::blocks::{self, Q4_0_BYTES, Q8_0_BYTES, QK};
use crate::quant::convert::{self, Dequantize};

/// Partial sums of a floating-point dot product.
const LANES: usize = 16;
/// Elements converted at a time; a multiple of [`LANES`], so that the lane of an element is its index modulo
/// [`LANES`] whether or not the row was converted in pieces.
const STEP: usize = 64;

struct Lanes([f32; LANES]);

impl Lanes {
    #[inline(always)]
    fn add(&mut self, w: &[f32], x: &[f32]) {
        let (w_body, w_tail) = w.as_chunks::<LANES>();
        let (x_body, x_tail) = x.as_chunks::<LANES>();
        for (w, x) in w_body.iter().zip(x_body) {
            for i in 0..LANES {
                self.0[i] += w[i] * x[i];
            }
        }
        for (i, (w, x)) in w_tail.iter().zip(x_tail).enumerate() {
            self.0[i] += w * x;
        }
    }

    #[inline(always)]
    fn sum(mut self) -> f32 {
        let mut n = LANES / 2;
        while n > 0 {
            for i in 0..n {
                self.0[i] += self.0[i + n];
            }
            n /= 2;
        }
        self.0[0]
    }
}

/// Dot product of two float vectors in the order that all kernels share.
#[inline]
pub fn dot(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = Lanes([0.0; LANES]);
    lanes.add(w, x);
    lanes.sum()
}

#[inline(always)]
fn dot_converted(row: &[u8], element_bytes: usize, convert: Dequantize, x: &[f32]) -> f32 {
    let mut lanes = Lanes([0.0; LANES]);
    let mut w = [0.0; STEP];
    for (row, x) in row.chunks(STEP * element_bytes).zip(x.chunks(STEP)) {
        let w = &mut w[..x.len()];
        convert(row, w);
        lanes.add(w, x);
    }
    lanes.sum()
}

/// `F32` row times activations.
pub fn dot_f32(row: &[u8], x: ActRow) -> f32 {
    dot_converted(row, 4, convert::from_f32, x.f32)
}

/// `F16` row times activations.
pub fn dot_f16(row: &[u8], x: ActRow) -> f32 {
    dot_converted(row, 2, convert::from_f16, x.f32)
}

/// `BF16` row times activations.
pub fn dot_bf16(row: &[u8], x: ActRow) -> f32 {
    dot_converted(row, 2, convert::from_bf16, x.f32)
}

/// `Q8_0` row times `Q8_0` activations: integer products per block, then both scales.
pub fn dot_q8_0(row: &[u8], x: ActRow) -> f32 {
    dot_blocks(row, Q8_0_BYTES, blocks::q8_0_values, x.q8)
}

/// `Q4_0` row times `Q8_0` activations.
pub fn dot_q4_0(row: &[u8], x: ActRow) -> f32 {
    dot_blocks(row, Q4_0_BYTES, blocks::q4_0_values, x.q8)
}

#[inline(always)]
fn dot_blocks(row: &[u8], block_bytes: usize, values: fn(&[u8], &mut [i8; QK]), x: &[u8]) -> f32 {
    let (mut w, mut v) = ([0i8; QK], [0i8; QK]);
    let mut sum = 0.0;
    for (block, x) in row.chunks_exact(block_bytes).zip(x.chunks_exact(Q8_0_BYTES)) {
        values(block, &mut w);
        blocks::q8_0_values(x, &mut v);
        let products: i32 = w.iter().zip(&v).map(|(w, v)| i32::from(*w) * i32::from(*v)).sum();
        sum += products as f32 * (blocks::scale(block) * blocks::scale(x));
    }
    sum
}

/// All ones, or all zeros where `a` is zero: a weight masked with it contributes exactly nothing.
#[inline(always)]
fn keep(a: f32) -> u32 {
    if a == 0.0 { 0 } else { u32::MAX }
}

/// `y += a * w` for floats, with 0 times anything being 0.
#[inline]
pub fn add_scaled(w: &[f32], a: f32, y: &mut [f32]) {
    let keep = keep(a);
    for (y, w) in y.iter_mut().zip(w) {
        *y += a * f32::from_bits(w.to_bits() & keep);
    }
}

#[inline(always)]
fn add_converted(row: &[u8], bytes_per_step: usize, convert: Dequantize, a: f32, y: &mut [f32]) {
    let mut w = [0.0; STEP];
    for (row, y) in row.chunks(bytes_per_step).zip(y.chunks_mut(STEP)) {
        let w = &mut w[..y.len()];
        convert(row, w);
        add_scaled(w, a, y);
    }
}

fn step_bytes(dtype: GgmlType) -> usize {
    STEP / dtype.block_len() * dtype.block_bytes()
}

/// `y += a * row` for an `F32` row.
pub fn add_scaled_f32(row: &[u8], a: f32, y: &mut [f32]) {
    add_converted(row, step_bytes(GgmlType::F32), convert::from_f32, a, y);
}

/// `y += a * row` for an `F16` row.
pub fn add_scaled_f16(row: &[u8], a: f32, y: &mut [f32]) {
    add_converted(row, step_bytes(GgmlType::F16), convert::from_f16, a, y);
}

/// `y += a * row` for a `BF16` row.
pub fn add_scaled_bf16(row: &[u8], a: f32, y: &mut [f32]) {
    add_converted(row, step_bytes(GgmlType::BF16), convert::from_bf16, a, y);
}

/// `y += a * row` for a `Q8_0` row.
pub fn add_scaled_q8_0(row: &[u8], a: f32, y: &mut [f32]) {
    add_converted(row, step_bytes(GgmlType::Q8_0), convert::from_q8_0, a, y);
}

/// `y += a * row` for a `Q4_0` row.
pub fn add_scaled_q4_0(row: &[u8], a: f32, y: &mut [f32]) {
    add_converted(row, step_bytes(GgmlType::Q4_0), convert::from_q4_0, a, y);
}

#[cfg(test)]
mod tests {
    use super::super::activations::{ActKind, Activations};
    use super::super::kernels::kernels;
    use super::*;

    const TYPES: [GgmlType; 5] = [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0, GgmlType::Q4_0];

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn stored(dtype: GgmlType, x: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let mut row = vec![0; dtype.row_bytes(x.len()).unwrap()];
        convert::quantizer(dtype).unwrap()(x, &mut row);
        let mut values = vec![0.0; x.len()];
        convert::dequantizer(dtype).unwrap()(&row, &mut values);
        (row, values)
    }

    #[test]
    fn dot_agrees_with_a_sum_in_64_bits_on_every_type() {
        for dtype in TYPES {
            let k = kernels(dtype).unwrap();
            for n in [32, 64, 96, 256, 1024] {
                let (row, w) = stored(dtype, &noise(n, 7));
                let x = noise(n, 11);
                let mut acts = Activations::default();
                acts.load(&x, n, [k.act]);
                let seen = if k.act == ActKind::Q8 { stored(GgmlType::Q8_0, &x).1 } else { x };
                let exact: f64 = w.iter().zip(&seen).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let size: f64 = w.iter().zip(&seen).map(|(w, x)| f64::from(w * x).abs()).sum();
                let got = f64::from((k.dot)(&row, acts.row(0)));
                assert!((got - exact).abs() <= 1e-6 * size, "{dtype} {n}: {got} instead of {exact}");
            }
        }
    }

    #[test]
    fn float_dots_take_rows_of_any_length() {
        for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
            for n in [1, 15, 17, 65, 100] {
                let (row, w) = stored(dtype, &noise(n, 3));
                let x = noise(n, 5);
                let mut acts = Activations::default();
                acts.load(&x, n, [ActKind::F32]);
                assert_eq!((kernels(dtype).unwrap().dot)(&row, acts.row(0)), dot(&w, &x), "{dtype} {n}");
            }
        }
    }

    #[test]
    fn add_scaled_is_a_multiply_and_add_per_element() {
        for dtype in TYPES {
            for n in [32, 160] {
                let (row, w) = stored(dtype, &noise(n, 13));
                let mut y = noise(n, 17);
                let expected: Vec<f32> = y.iter().zip(&w).map(|(y, w)| y + 0.75 * w).collect();
                (kernels(dtype).unwrap().add_scaled)(&row, 0.75, &mut y);
                assert_eq!(y, expected, "{dtype} {n}");
            }
        }
    }

    #[test]
    fn adding_a_neuron_that_did_not_fire_changes_no_bit() {
        let row: Vec<u8> = [f32::INFINITY, f32::NAN, -1.0, f32::MAX].iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut y = [0.0, -3.5, f32::MIN_POSITIVE, 7.0];
        let before = y.map(f32::to_bits);
        add_scaled_f32(&row, 0.0, &mut y);
        assert_eq!(y.map(f32::to_bits), before);
    }
}
