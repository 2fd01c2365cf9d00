//! Kernels for rows of floats.
#![allow(unsafe_code, reason = "instructions of NEON")]

use super::super::activations::ActRow;
use super::super::padded::padded;
use super::super::row_group::{AT_ONCE, RowGroup};
use super::super::rows::Rows;
use super::each::{each, of_each};
use super::vectors::load;
use super::{fetch_all, four, store};
use std::arch::aarch64::*;

/// Elements of a vector.
const LANES: usize = 4;
/// Vectors whose sums a row's product has.
const SUMS: usize = 4;
/// Vectors of a step: each sum gets two of them.
const VECTORS: usize = 2 * SUMS;
/// Elements of a step.
const STEP: usize = LANES * VECTORS;

/// A type whose numbers have `BYTES` bytes, of which 32 have `OF_STEP`.
pub trait Floats<const BYTES: usize, const OF_STEP: usize> {
    /// The numbers as 32-bit floats.
    fn read(bytes: &[u8; OF_STEP]) -> [float32x4_t; VECTORS];
}

pub struct F32;
pub struct F16;
pub struct BF16;

impl Floats<4, 128> for F32 {
    #[inline(always)]
    fn read(bytes: &[u8; 128]) -> [float32x4_t; VECTORS] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe { [0, 16, 32, 48, 64, 80, 96, 112].map(|at| vreinterpretq_f32_u8(load(bytes, at))) }
    }
}

/// Four vectors of 16-bit numbers.
#[inline(always)]
fn halves(bytes: &[u8; 64]) -> [uint16x8_t; 4] {
    // SAFETY: every AArch64 processor has NEON.
    unsafe { [0, 16, 32, 48].map(|at| vreinterpretq_u16_u8(load(bytes, at))) }
}

impl Floats<2, 64> for F16 {
    #[inline(always)]
    fn read(bytes: &[u8; 64]) -> [float32x4_t; VECTORS] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [a, b, c, d] = halves(bytes).map(|v| vreinterpretq_f16_u16(v));
            let (low, high) = (|v| vcvt_f32_f16(vget_low_f16(v)), |v| vcvt_high_f32_f16(v));
            [low(a), high(a), low(b), high(b), low(c), high(c), low(d), high(d)]
        }
    }
}

impl Floats<2, 64> for BF16 {
    #[inline(always)]
    fn read(bytes: &[u8; 64]) -> [float32x4_t; VECTORS] {
        // SAFETY: every AArch64 processor has NEON.
        unsafe {
            let [a, b, c, d] = halves(bytes);
            let (low, high) = (|v| vshll_n_u16::<16>(vget_low_u16(v)), |v| vshll_high_n_u16::<16>(v));
            [low(a), high(a), low(b), high(b), low(c), high(c), low(d), high(d)].map(|v| vreinterpretq_f32_u32(v))
        }
    }
}

/// Products of a row and some vectors.
#[inline(always)]
pub fn dot<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize, const N: usize>(
    row: &[u8],
    ahead: &[u8],
    x: [&ActRow; N],
) -> [f32; N] {
    for x in x {
        assert_eq!(row.len(), x.f32.len() * BYTES);
    }
    let (steps, rest) = row.as_chunks::<OF_STEP>();
    let mut x_steps: [&[[f32; STEP]]; N] = [&[]; N];
    each!(N, v, { x_steps[v] = &x[v].f32.as_chunks().0[..steps.len()] });
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let mut all = [[vdupq_n_f32(0.0); SUMS]; N];
        #[expect(clippy::needless_range_loop, reason = "an iterator would be one more register to increment")]
        for i in 0..steps.len() {
            fetch_all([ahead], i * OF_STEP, OF_STEP);
            step::<F, BYTES, OF_STEP, N>(&mut all, &steps[i], of_each(&x_steps, i));
        }
        if !rest.is_empty() {
            let x = x.map(|x| padded(x.f32.as_chunks::<STEP>().1));
            step::<F, BYTES, OF_STEP, N>(&mut all, &padded(rest), x.each_ref());
        }
        let mut products = [0.0; N];
        each!(N, v, {
            let [a, b, c, d] = all[v];
            products[v] = vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)));
        });
        products
    }
}

#[inline(always)]
fn step<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize, const N: usize>(
    all: &mut [[float32x4_t; SUMS]; N],
    row: &[u8; OF_STEP],
    x: [&[f32; STEP]; N],
) {
    let w = F::read(row);
    each!(VECTORS / SUMS, part, {
        each!(N, v, {
            let x = &x[v].as_chunks().0[part * SUMS..];
            each!(SUMS, j, {
                // SAFETY: every AArch64 processor has NEON.
                all[v][j] = unsafe { vfmaq_f32(all[v][j], w[part * SUMS + j], four(&x[j])) };
            });
        });
    });
}

/// Scaled addition.
#[inline(always)]
pub fn add<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize>(rows: Rows, a: &[f32], y: &mut [f32]) {
    assert_eq!(rows.bytes(), y.len() * BYTES);
    for start in (0..a.len()).step_by(AT_ONCE) {
        let group = RowGroup::new(rows, a, start);
        if group.a.contains(&0.0) {
            add_group::<F, BYTES, OF_STEP, true>(&group, y);
        } else {
            add_group::<F, BYTES, OF_STEP, false>(&group, y);
        }
    }
}

/// Adds some rows, with `ZEROS` among their factors.
#[inline(always)]
fn add_group<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize, const ZEROS: bool>(
    group: &RowGroup,
    y: &mut [f32],
) {
    let (steps, last) = y.as_chunks_mut::<STEP>();
    let of_rows = group.rows.map(|row| &row.as_chunks::<OF_STEP>().0[..steps.len()]);
    #[expect(clippy::needless_range_loop, reason = "as above")]
    for i in 0..steps.len() {
        fetch_all(group.ahead, i * OF_STEP, OF_STEP);
        add_step::<F, BYTES, OF_STEP, ZEROS>(group, of_each(&of_rows, i), &mut steps[i]);
    }
    if !last.is_empty() {
        let rows = group.rows.map(|row| padded(row.as_chunks::<OF_STEP>().1));
        let mut sums = padded(last);
        add_step::<F, BYTES, OF_STEP, ZEROS>(group, rows.each_ref(), &mut sums);
        last.copy_from_slice(&sums[..last.len()]);
    }
}

#[inline(always)]
fn add_step<F: Floats<BYTES, OF_STEP>, const BYTES: usize, const OF_STEP: usize, const ZEROS: bool>(
    group: &RowGroup,
    rows: [&[u8; OF_STEP]; AT_ONCE],
    y: &mut [f32; STEP],
) {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let mut sums = [vdupq_n_f32(0.0); VECTORS];
        let y = y.as_chunks_mut::<LANES>().0;
        for (sum, y) in sums.iter_mut().zip(&*y) {
            *sum = four(y);
        }
        each!(AT_ONCE, r, {
            let a = group.a[r];
            let none = vceqzq_f32(vdupq_n_f32(a));
            for (sum, w) in sums.iter_mut().zip(F::read(rows[r])) {
                // 0 times anything is 0.
                let kept = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(w), none));
                *sum = vfmaq_n_f32(*sum, if ZEROS { kept } else { w }, a);
            }
        });
        for (y, sum) in y.iter_mut().zip(sums) {
            store(y, sum);
        }
    }
}
