//! Scaled additions: `y += a * row`, several rows at a time so that `y` is loaded and stored less often.
//!
//! Every element of `y` gets one fused multiply-add per row, in the order of the rows, however they are grouped.
#![allow(unsafe_code, reason = "vector stores take raw pointers")]

use super::super::activations::SUPER;
use super::super::padded::padded;
use super::super::row_group::{AT_ONCE, RowGroup};
use super::super::rows::Rows;
use super::blocks::Blocks;
use super::each::{each, of_each};
use super::supers::Supers;
use super::vectors::{f16x4, floats};
use super::{fetch_all, four, store};
use crate::quant::blocks::QK;
use std::arch::aarch64::*;

/// Blocks whose scales are read together.
const SCALES: usize = 4;

/// Scales times `a`; 0 where that is 0, as 0 times anything is.
#[inline(always)]
pub fn scaled(scales: float32x4_t, a: f32) -> float32x4_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let none = vceqzq_f32(vdupq_n_f32(a));
        vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(vmulq_n_f32(scales, a)), none))
    }
}

/// The same for four vectors of them.
#[inline(always)]
fn all_scaled(scales: [float32x4_t; 4], a: f32) -> [f32; 16] {
    let mut all = [0.0; 16];
    for (all, scales) in all.as_chunks_mut().0.iter_mut().zip(scales) {
        store(all, scaled(scales, a));
    }
    all
}

/// Sums of 32 elements, 16 by 16.
type Sums = [[float32x4_t; 4]; 2];

#[inline(always)]
fn load_sums(y: &[f32; QK]) -> Sums {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); 4]; 2];
        for (sum, y) in sums.as_flattened_mut().iter_mut().zip(y.as_chunks().0) {
            *sum = four(y);
        }
        sums
    }
}

#[inline(always)]
fn store_sums(y: &mut [f32; QK], sums: Sums) {
    for (y, sum) in y.as_chunks_mut().0.iter_mut().zip(sums.as_flattened()) {
        store(y, *sum);
    }
}

/// Adds `q * scale`, or `q * scale + minimum`, to 16 sums.
#[inline(always)]
fn add_bytes(sums: &mut [float32x4_t; 4], q: int8x16_t, fraction: u32, scale: f32, minimum: Option<f32>) {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        for (sum, q) in sums.iter_mut().zip(floats(q, fraction)) {
            *sum = match minimum {
                None => vfmaq_n_f32(*sum, q, scale),
                Some(minimum) => vaddq_f32(*sum, vfmaq_n_f32(vdupq_n_f32(minimum), q, scale)),
            };
        }
    }
}

/// Scaled addition of rows of blocks of 32 elements.
#[inline(always)]
pub fn blocks<F: Blocks<BYTES>, const BYTES: usize>(rows: Rows, a: &[f32], y: &mut [f32]) {
    let (y, rest) = y.as_chunks_mut::<QK>();
    assert!(rest.is_empty() && rows.bytes() == y.len() * BYTES);
    for start in (0..a.len()).step_by(AT_ONCE) {
        let group = RowGroup::new(rows, a, start);
        let of_rows = group.rows.map(|row| row.as_chunks::<BYTES>().0.as_chunks::<SCALES>());
        let n_steps = y.len() / SCALES;
        let mut rest = [[[0; BYTES]; SCALES]; AT_ONCE];
        if !y.len().is_multiple_of(SCALES) {
            rest = of_rows.map(|(_, rest)| padded(rest));
        }
        for (i, y) in y.chunks_mut(SCALES).enumerate() {
            fetch_all(group.ahead, i * SCALES * BYTES, SCALES * BYTES);
            let blocks = if i < n_steps { of_rows.map(|(steps, _)| &steps[i]) } else { rest.each_ref() };
            add_blocks::<F, BYTES>(&group, blocks, y);
        }
    }
}

/// Adds the first of four blocks of each row, as many as there are of `y`.
#[inline(always)]
fn add_blocks<F: Blocks<BYTES>, const BYTES: usize>(
    group: &RowGroup,
    blocks: [&[[u8; BYTES]; SCALES]; AT_ONCE],
    y: &mut [[f32; QK]],
) {
    let (mut scales, mut minima) = ([[0.0; SCALES]; AT_ONCE], [[0.0; SCALES]; AT_ONCE]);
    for r in 0..AT_ONCE {
        let of_blocks = F::scales(blocks[r]);
        store(&mut scales[r], scaled(of_blocks, group.a[r]));
        if F::HAS_MIN {
            store(&mut minima[r], scaled(f16x4(blocks[r], 2), group.a[r]));
        }
    }
    for (j, y) in y.iter_mut().enumerate().take(SCALES) {
        let mut sums = load_sums(y);
        each!(AT_ONCE, r, {
            let (scale, minimum) = (scales[r][j], F::HAS_MIN.then_some(minima[r][j]));
            let [low, high] = F::unpack(F::load(&blocks[r][j]));
            add_bytes(&mut sums[0], low, F::FRACTION, scale, minimum);
            add_bytes(&mut sums[1], high, F::FRACTION, scale, minimum);
        });
        store_sums(y, sums);
    }
}

/// Scaled addition of rows of super-blocks.
#[inline(always)]
pub fn supers<F: Supers<BYTES>, const BYTES: usize>(rows: Rows, a: &[f32], y: &mut [f32]) {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let (y, rest) = y.as_chunks_mut::<SUPER>();
        assert!(rest.is_empty() && rows.bytes() == y.len() * BYTES);
        for start in (0..a.len()).step_by(AT_ONCE) {
            let group = RowGroup::new(rows, a, start);
            let of_rows = group.rows.map(|row| &row.as_chunks::<BYTES>().0[..y.len()]);
            for (i, y) in y.iter_mut().enumerate() {
                fetch_all(group.ahead, i * BYTES, BYTES);
                let blocks = of_each(&of_rows, i);
                let (mut scales, mut minima) = ([[0.0; 16]; AT_ONCE], [[0.0; 16]; AT_ONCE]);
                for r in 0..AT_ONCE {
                    let of_block = F::scales(blocks[r]);
                    let floats = of_block.scales.map(|s| vmulq_n_f32(vcvtq_f32_s32(s), of_block.d));
                    scales[r] = all_scaled(floats, group.a[r]);
                    if F::HAS_MIN {
                        minima[r] = all_scaled(of_block.minima.map(|v| vnegq_f32(v)), group.a[r]);
                    }
                }
                let ([first, last], []) = y.as_chunks_mut::<{ SUPER / 2 }>() else { unreachable!() };
                add_half::<F, BYTES, 0>(blocks, &scales, &minima, first);
                add_half::<F, BYTES, 1>(blocks, &scales, &minima, last);
            }
        }
    }
}

/// Adds half a super-block of each row.
#[inline(always)]
fn add_half<F: Supers<BYTES>, const BYTES: usize, const HALF: usize>(
    blocks: [&[u8; BYTES]; AT_ONCE],
    scales: &[[f32; 16]; AT_ONCE],
    minima: &[[f32; 16]; AT_ONCE],
    y: &mut [f32; SUPER / 2],
) {
    let (y, _) = y.as_chunks_mut::<QK>();
    each!(4, j, {
        let mut sums = load_sums(&y[j]);
        each!(AT_ONCE, r, {
            let values = F::unpack::<HALF>(F::load::<HALF>(blocks[r]));
            each!(2, part, {
                // Of the vectors of 16 elements in the block.
                let vector = 8 * HALF + 2 * j + part;
                let at = vector * 16 / F::PER_SCALE;
                let minimum = F::HAS_MIN.then_some(minima[r][at]);
                add_bytes(&mut sums[part], values[2 * j + part], F::FRACTION, scales[r][at], minimum);
            });
        });
        store_sums(&mut y[j], sums);
    });
}
