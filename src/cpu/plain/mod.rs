//! The kernels in plain Rust: the specification that every faster kernel is tested against.
//!
//! Sums of products run in 16 interleaved partial sums that are added pairwise at the end: a fixed order
//! that vectorises.

use super::activations::{ActKind, ActRow, SUM_LEN};
use super::kernels::Kernels;
use crate::quant::GgmlType;
use crate::quant::blocks::{self, Q4_0_BYTES, Q8_0_BYTES, QK};
use crate::quant::convert::{self, Dequantize};
use crate::quant::decoded::{self, BlockFormat, Decoded, MAX_BLOCK_LEN};
use crate::quant::{iq4, k_quants, legacy, mxfp4};

/// Partial sums of a floating-point dot product.
const LANES: usize = 16;
/// Elements converted at a time: whole blocks of every type, and a multiple of [`LANES`], so that the lane of an
/// element is its index modulo [`LANES`] even where a row is converted in pieces.
const STEP: usize = MAX_BLOCK_LEN;

/// The kernels of one type, from its functions for a single row.
macro_rules! kernels {
    ($dtype:expr, $act:expr, $dot:expr, $convert:expr) => {
        Kernels {
            dtype: $dtype,
            act: $act,
            dot: |rows, x, out| out.iter_mut().enumerate().for_each(|(i, o)| *o = $dot(rows.get(i), x)),
            dot_some: |rows, range, x, out, stride| {
                for (i, out) in range.zip(out.chunks_mut(stride)) {
                    out.iter_mut().zip(x).for_each(|(o, x)| *o = $dot(rows.get(i), **x));
                }
            },
            add_scaled: |rows, a, y| {
                a.iter().enumerate().for_each(|(i, a)| add_converted($dtype, $convert, rows.get(i), *a, y));
            },
        }
    };
}

macro_rules! floats {
    ($dtype:expr, $convert:expr) => {
        kernels!($dtype, ActKind::F32, |row, x| dot_floats($dtype, $convert, row, x), $convert)
    };
}

/// Kernels of a type that unpacks to [`Decoded`].
macro_rules! unpacked {
    ($format:path) => {
        kernels!($format.dtype, ActKind::Q8, |row, x| dot_unpacked(&$format, row, x), |row, out| {
            decoded::dequantize(&$format, row, out);
        })
    };
}

/// The kernels of every supported type.
pub(super) static TABLE: [Kernels; 16] = [
    floats!(GgmlType::F32, convert::from_f32),
    floats!(GgmlType::F16, convert::from_f16),
    floats!(GgmlType::BF16, convert::from_bf16),
    kernels!(GgmlType::Q8_0, ActKind::Q8, dot_q8_0, convert::from_q8_0),
    kernels!(GgmlType::Q4_0, ActKind::Q8, dot_q4_0, convert::from_q4_0),
    unpacked!(legacy::Q4_1),
    unpacked!(legacy::Q5_0),
    unpacked!(legacy::Q5_1),
    unpacked!(k_quants::Q2_K),
    unpacked!(k_quants::Q3_K),
    unpacked!(k_quants::Q4_K),
    unpacked!(k_quants::Q5_K),
    unpacked!(k_quants::Q6_K),
    unpacked!(iq4::IQ4_NL),
    unpacked!(iq4::IQ4_XS),
    unpacked!(mxfp4::MXFP4),
];

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

/// Dot product of two float vectors, in the order that all plain kernels share.
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

/// Dot product of a row whose elements are multiplied as floats.
fn dot_floats(dtype: GgmlType, convert: Dequantize, row: &[u8], x: ActRow) -> f32 {
    dot_converted(row, dtype.block_bytes(), convert, x.f32)
}

fn dot_q8_0(row: &[u8], x: ActRow) -> f32 {
    dot_blocks(row, Q8_0_BYTES, blocks::q8_0_values, x)
}

fn dot_q4_0(row: &[u8], x: ActRow) -> f32 {
    dot_blocks(row, Q4_0_BYTES, blocks::q4_0_values, x)
}

/// Integer products per block, then both scales.
#[inline(always)]
fn dot_blocks(row: &[u8], block_bytes: usize, values: fn(&[u8], &mut [i8; QK]), x: ActRow) -> f32 {
    let mut w = [0i8; QK];
    let mut sum = 0.0;
    for ((block, q), d) in row.chunks_exact(block_bytes).zip(x.q.as_chunks::<QK>().0).zip(x.d) {
        values(block, &mut w);
        let products: i32 = w.iter().zip(q).map(|(w, q)| i32::from(*w) * i32::from(*q)).sum();
        sum += products as f32 * (blocks::scale(block) * d);
    }
    sum
}

/// Integer products per sub-block, then the scales and minima.
fn dot_unpacked(format: &BlockFormat, row: &[u8], x: ActRow) -> f32 {
    let mut block = Decoded::default();
    let (len, sub_len, offset) = (format.dtype.block_len(), format.sub_len, i32::from(format.offset));
    let mut sum = 0.0;
    for (i, bytes) in row.chunks_exact(format.dtype.block_bytes()).enumerate() {
        block.read(format, bytes);
        for (k, w) in block.q[..len].chunks_exact(sub_len).enumerate() {
            let at = i * len + k * sub_len;
            let q = &x.q[at..at + sub_len];
            let q_sum = -x.neg_sums[at / SUM_LEN..(at + sub_len) / SUM_LEN].iter().sum::<i32>();
            let products: i32 = w.iter().zip(q).map(|(w, q)| i32::from(*w) * i32::from(*q)).sum();
            let products = (products - offset * q_sum) as f32 * block.scale[k] - q_sum as f32 * block.min[k];
            sum += products * x.d[at / QK];
        }
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
fn add_converted(dtype: GgmlType, convert: Dequantize, row: &[u8], a: f32, y: &mut [f32]) {
    let mut w = [0.0; STEP];
    for (row, y) in row.chunks(STEP / dtype.block_len() * dtype.block_bytes()).zip(y.chunks_mut(STEP)) {
        let w = &mut w[..y.len()];
        convert(row, w);
        add_scaled(w, a, y);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, stored, x_seen};
    use super::super::{Activations, Isa, Rows};
    use super::*;

    #[test]
    fn dot_agrees_with_a_sum_in_64_bits_on_every_type() {
        for k in &TABLE {
            let dtype = k.dtype;
            // One block is enough for Miri, which takes minutes for each further one.
            for n in [256, 512, 1024].into_iter().take(if cfg!(miri) { 1 } else { 3 }) {
                let (row, w) = stored(dtype, &noise(n, 7));
                let mut acts = Activations::default();
                acts.load(&noise(n, 11), n, [k.act]);
                let seen = x_seen(k.act, acts.row(0));
                let exact: f64 = w.iter().zip(&seen).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let size: f64 = w.iter().zip(&seen).map(|(w, x)| f64::from(w * x).abs()).sum();
                let mut got = [0.0];
                (k.dot)(Rows::range(&row, row.len(), 0, 1), acts.row(0), &mut got);
                assert!((f64::from(got[0]) - exact).abs() <= 1e-6 * size, "{dtype} {n}: {got:?} instead of {exact}");
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
                let mut got = [0.0];
                (Isa::Plain.kernels(dtype).dot)(Rows::range(&row, row.len(), 0, 1), acts.row(0), &mut got);
                assert_eq!(got[0], dot(&w, &x), "{dtype} {n}");
            }
        }
    }

    #[test]
    fn add_scaled_is_a_multiply_and_add_per_element() {
        for k in &TABLE {
            for n in [256, 768] {
                let (row, w) = stored(k.dtype, &noise(n, 13));
                let mut y = noise(n, 17);
                let expected: Vec<f32> = y.iter().zip(&w).map(|(y, w)| y + 0.75 * w).collect();
                (k.add_scaled)(Rows::range(&row, row.len(), 0, 1), &[0.75], &mut y);
                assert_eq!(y, expected, "{} {n}", k.dtype);
            }
        }
    }

    #[test]
    fn adding_a_neuron_that_did_not_fire_changes_no_bit() {
        let row: Vec<u8> = [f32::INFINITY, f32::NAN, -1.0, f32::MAX].iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut y = [0.0, -3.5, f32::MIN_POSITIVE, 7.0];
        let before = y.map(f32::to_bits);
        (Isa::Plain.kernels(GgmlType::F32).add_scaled)(Rows::range(&row, row.len(), 0, 1), &[0.0], &mut y);
        assert_eq!(y.map(f32::to_bits), before);
    }
}
