//! The inner loops of [`super::sparse`] for AVX2 with FMA.
//!
//! Every function here has `#[target_feature]`; [`super::sparse::add_rows`], the only way in, has asserted that the
//! processor has these features.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::sparse::{NEURONS, STRIP, Strip, TokenFactors};
use std::arch::x86_64::*;

const LANES: usize = 8;
/// Vectors of sums kept in registers: half a strip.
const VECTORS: usize = STRIP / LANES / 2;

/// As `sparse::add_strip_plain`, with fused multiply-adds.
pub(super) fn add_strip<'a>(w: &[Strip; NEURONS], x: TokenFactors<'a>, sums: &mut [Strip]) -> &'a [f32] {
    // SAFETY: the processor has the features, see the head of the file.
    unsafe { if x.zeros { add::<true>(w, x, sums) } else { add::<false>(w, x, sums) } }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(strip: &Strip, half: usize) -> [__m256; VECTORS] {
    let strip = &strip.0[half * STRIP / 2..][..STRIP / 2];
    // SAFETY: half a strip has as many vectors.
    std::array::from_fn(|i| unsafe { _mm256_loadu_ps(strip.as_ptr().add(i * LANES)) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(values: [__m256; VECTORS], strip: &mut Strip, half: usize) {
    let strip = &mut strip.0[half * STRIP / 2..][..STRIP / 2];
    for (i, value) in values.into_iter().enumerate() {
        // SAFETY: half a strip has this many vectors.
        unsafe { _mm256_storeu_ps(strip.as_mut_ptr().add(i * LANES), value) };
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn add<'a, const ZEROS: bool>(w: &[Strip; NEURONS], x: TokenFactors<'a>, sums: &mut [Strip]) -> &'a [f32] {
    assert_eq!(x.fired.len(), sums.len());
    let mut left = x.h;
    for (sums, fired) in sums.iter_mut().zip(x.fired) {
        let (h, rest) = left.split_at(fired.count_ones() as usize);
        left = rest;
        for half in 0..2 {
            let mut all = load(sums, half);
            let mut fired = *fired;
            for h in h {
                let (w, h) = (load(&w[fired.trailing_zeros() as usize % NEURONS], half), _mm256_set1_ps(*h));
                fired &= fired.wrapping_sub(1);
                let keep = _mm256_cmp_ps::<_CMP_NEQ_UQ>(h, _mm256_setzero_ps());
                for (sum, w) in all.iter_mut().zip(w) {
                    let added = _mm256_fmadd_ps(w, h, *sum);
                    *sum = if ZEROS { _mm256_blendv_ps(*sum, added, keep) } else { added };
                }
            }
            store(all, sums, half);
        }
    }
    left
}
