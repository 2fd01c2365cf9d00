//! The inner loops of [`crate::cpu::gemm::sparse`] for NEON.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::sparse::{NEURONS, STRIP, Strip, TokenFactors};
use super::vectors::{LANES, read, write};
use std::arch::aarch64::*;

/// Vectors of sums kept in registers: half a strip.
const VECTORS: usize = STRIP / LANES / 2;

/// As `sparse::add_strip_plain`, with fused multiply-adds.
pub(in crate::cpu::gemm) fn add_strip<'a>(w: &[Strip; NEURONS], x: TokenFactors<'a>, sums: &mut [Strip]) -> &'a [f32] {
    // SAFETY: the processor has NEON, as all that are built for.
    unsafe { if x.zeros { add::<true>(w, x, sums) } else { add::<false>(w, x, sums) } }
}

/// The vectors of half a strip.
#[inline(always)]
fn half_of(strip: &Strip, half: usize) -> &[[f32; LANES]; VECTORS] {
    &strip.0.as_chunks().0.as_chunks().0[half]
}

#[target_feature(enable = "neon")]
fn add<'a, const ZEROS: bool>(w: &[Strip; NEURONS], x: TokenFactors<'a>, sums: &mut [Strip]) -> &'a [f32] {
    assert_eq!(x.fired.len(), sums.len());
    let mut left = x.h;
    for (sums, fired) in sums.iter_mut().zip(x.fired) {
        let (h, rest) = left.split_at(fired.count_ones() as usize);
        left = rest;
        for half in 0..2 {
            let mut all = half_of(sums, half).each_ref().map(|sum| read(sum));
            let mut fired = *fired;
            for h in h {
                let w = half_of(&w[fired.trailing_zeros() as usize % NEURONS], half);
                fired &= fired.wrapping_sub(1);
                if ZEROS && *h == 0.0 {
                    continue;
                }
                let h = vdupq_n_f32(*h);
                for (sum, w) in all.iter_mut().zip(w) {
                    *sum = vfmaq_f32(*sum, read(w), h);
                }
            }
            for (sum, value) in sums.0.as_chunks_mut().0[half * VECTORS..].iter_mut().zip(all) {
                write(value, sum);
            }
        }
    }
    left
}
