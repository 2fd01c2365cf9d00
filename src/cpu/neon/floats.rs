//! Kernels for rows of floats.
#![allow(unsafe_code, reason = "what reads a type needs NEON")]

use super::super::activations::ActRow;
use super::super::padded::padded;
use super::super::row_group::{AT_ONCE, RowGroup};
use super::super::rows::Rows;
use super::vectors::load;
use super::{fetch, four, store};
use std::arch::aarch64::*;

/// Elements of a vector.
const LANES: usize = 4;
/// Vectors of a step.
const VECTORS: usize = 4;
/// Elements of a step.
const STEP: usize = LANES * VECTORS;

/// A type whose numbers have `BYTES` bytes, of which 16 have `OF_STEP`.
pub trait Floats<const BYTES: usize, const OF_STEP: usize> {
    /// The numbers as 32-bit floats, or zeros where `keep` is zero and not all ones.
    ///
    /// # Safety
    /// The processor must have NEON.
    unsafe fn read(bytes: &[u8; OF_STEP], keep: uint8x16_t) -> [float32x4_t; VECTORS];
}

pub struct F32;
pub struct F16;
pub struct BF16;

impl Floats<4, 64> for F32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn read(bytes: &[u8; 64], keep: uint8x16_t) -> [float32x4_t; VECTORS] {
        [0, 16, 32, 48].map(|at| vreinterpretq_f32_u8(vandq_u8(load(bytes, at), keep)))
    }
}

/// Two vectors of 16-bit numbers.
#[inline]
#[target_feature(enable = "neon")]
fn halves(bytes: &[u8; 32], keep: uint8x16_t) -> [uint16x8_t; 2] {
    [0, 16].map(|at| vreinterpretq_u16_u8(vandq_u8(load(bytes, at), keep)))
}

impl Floats<2, 32> for F16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn read(bytes: &[u8; 32], keep: uint8x16_t) -> [float32x4_t; VECTORS] {
        let [a, b] = halves(bytes, keep).map(|v| vreinterpretq_f16_u16(v));
        [vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b)]
    }
}

impl Floats<2, 32> for BF16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn read(bytes: &[u8; 32], keep: uint8x16_t) -> [float32x4_t; VECTORS] {
        let [a, b] = halves(bytes, keep);
        [
            vshll_n_u16::<16>(vget_low_u16(a)),
            vshll_high_n_u16::<16>(a),
            vshll_n_u16::<16>(vget_low_u16(b)),
            vshll_high_n_u16::<16>(b),
        ]
        .map(|v| vreinterpretq_f32_u32(v))
    }
}

/// Products of a row and some vectors.
#[inline]
#[target_feature(enable = "neon")]
pub fn dot<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize, const N: usize>(
    row: &[u8],
    ahead: &[u8],
    x: [&ActRow; N],
) -> [f32; N] {
    let x = x.map(|x| x.f32);
    for x in x {
        assert_eq!(row.len(), x.len() * BYTES);
    }
    let (steps, rest) = row.as_chunks::<OF_STEP>();
    let x_steps = x.map(|x| &x.as_chunks::<STEP>().0[..steps.len()]);
    let mut all = [[vdupq_n_f32(0.0); VECTORS]; N];
    for (i, row) in steps.iter().enumerate() {
        // A step is a line, or half of one.
        if (i * OF_STEP).is_multiple_of(64) {
            fetch(ahead, i * OF_STEP);
        }
        step::<F, BYTES, OF_STEP, N>(&mut all, row, x_steps.map(|x| &x[i]));
    }
    if !rest.is_empty() {
        let x = x.map(|x| padded(x.as_chunks::<STEP>().1));
        step::<F, BYTES, OF_STEP, N>(&mut all, &padded(rest), x.each_ref());
    }
    let mut products = [0.0; N];
    for v in 0..N {
        let [a, b, c, d] = all[v];
        products[v] = vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)));
    }
    products
}

#[inline]
#[target_feature(enable = "neon")]
fn step<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize, const N: usize>(
    all: &mut [[float32x4_t; VECTORS]; N],
    row: &[u8; OF_STEP],
    x: [&[f32; STEP]; N],
) {
    // SAFETY: this function has NEON too.
    let w = unsafe { F::read(row, vdupq_n_u8(u8::MAX)) };
    for v in 0..N {
        for (j, x) in x[v].as_chunks().0.iter().enumerate() {
            all[v][j] = vfmaq_f32(all[v][j], w[j], four(x));
        }
    }
}

/// Scaled addition.
#[inline]
#[target_feature(enable = "neon")]
pub fn add<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize>(rows: Rows, a: &[f32], y: &mut [f32]) {
    assert_eq!(rows.bytes(), y.len() * BYTES);
    for start in (0..a.len()).step_by(AT_ONCE) {
        let group = RowGroup::new(rows, a, start);
        let of_rows = group.rows.map(|row| row.as_chunks::<OF_STEP>());
        let (steps, last) = y.as_chunks_mut::<STEP>();
        for (i, y) in steps.iter_mut().enumerate() {
            if (i * OF_STEP).is_multiple_of(64) {
                group.fetch(i * OF_STEP);
            }
            add_step::<F, BYTES, OF_STEP>(&group, of_rows.map(|(steps, _)| &steps[i]), y);
        }
        if !last.is_empty() {
            let rows = of_rows.map(|(_, last)| padded(last));
            let mut sums = padded(last);
            add_step::<F, BYTES, OF_STEP>(&group, rows.each_ref(), &mut sums);
            last.copy_from_slice(&sums[..last.len()]);
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn add_step<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize>(
    group: &RowGroup,
    rows: [&[u8; OF_STEP]; AT_ONCE],
    y: &mut [f32; STEP],
) {
    let mut sums = [vdupq_n_f32(0.0); VECTORS];
    let y = y.as_chunks_mut::<LANES>().0;
    for (sum, y) in sums.iter_mut().zip(&*y) {
        *sum = four(y);
    }
    for (row, a) in rows.into_iter().zip(group.a) {
        // 0 times anything is 0.
        let keep = vreinterpretq_u8_u32(vmvnq_u32(vceqzq_f32(vdupq_n_f32(a))));
        // SAFETY: this function has NEON too.
        let w = unsafe { F::read(row, keep) };
        for (sum, w) in sums.iter_mut().zip(w) {
            *sum = vfmaq_n_f32(*sum, w, a);
        }
    }
    for (y, sum) in y.iter_mut().zip(sums) {
        store(y, sum);
    }
}
