//! The inner loops of [`super::sparse`] for AVX-512.
//!
//! Every function here has `#[target_feature]`; [`super::sparse`], the only caller, has asserted that the processor has
//! these features.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::sparse::{NEURONS, STRIP, Strip, TokenFactors};
use std::arch::x86_64::*;

const LANES: usize = 16;
const VECTORS: usize = STRIP / LANES;

/// As `sparse::add_strip_plain`, with fused multiply-adds.
pub(super) fn add_strip<'a>(w: &[Strip; NEURONS], x: TokenFactors<'a>, sums: &mut [Strip]) -> &'a [f32] {
    // SAFETY: the processor has the features, see the head of the file.
    unsafe { if x.zeros { add::<true>(w, x, sums) } else { add::<false>(w, x, sums) } }
}

/// A bit for each of up to [`NEURONS`] factors that is not zero.
pub(super) fn nonzero(h: &[f32]) -> u64 {
    // SAFETY: as above.
    unsafe { flags(h) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn load(strip: &Strip) -> [__m512; VECTORS] {
    // SAFETY: the strip has as many vectors, and begins at a multiple of 64 bytes.
    std::array::from_fn(|i| unsafe { _mm512_load_ps(strip.0.as_ptr().add(i * LANES)) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn store(values: [__m512; VECTORS], strip: &mut Strip) {
    for (i, value) in values.into_iter().enumerate() {
        // SAFETY: the strip has as many vectors, and begins at a multiple of 64 bytes.
        unsafe { _mm512_store_ps(strip.0.as_mut_ptr().add(i * LANES), value) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn add<'a, const ZEROS: bool>(w: &[Strip; NEURONS], x: TokenFactors<'a>, sums: &mut [Strip]) -> &'a [f32] {
    assert_eq!(x.fired.len(), sums.len());
    let mut left = x.h;
    for (sums, fired) in sums.iter_mut().zip(x.fired) {
        let (h, rest) = left.split_at(fired.count_ones() as usize);
        left = rest;
        let mut all = load(sums);
        let mut fired = *fired;
        for h in h {
            let w = load(&w[fired.trailing_zeros() as usize % NEURONS]);
            fired &= fired.wrapping_sub(1);
            let keep = if ZEROS && *h == 0.0 { 0 } else { !0 };
            for (sum, w) in all.iter_mut().zip(w) {
                let h = _mm512_set1_ps(*h);
                *sum = if ZEROS { _mm512_mask3_fmadd_ps(w, h, *sum, keep) } else { _mm512_fmadd_ps(w, h, *sum) };
            }
        }
        store(all, sums);
    }
    left
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn flags(h: &[f32]) -> u64 {
    assert!(h.len() <= NEURONS);
    let mut flags = 0;
    for (i, h) in h.chunks(16).enumerate() {
        let present = ((1u32 << h.len()) - 1) as __mmask16;
        // SAFETY: the mask leaves out what is beyond the end.
        let values = unsafe { _mm512_maskz_loadu_ps(present, h.as_ptr()) };
        let nonzero = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(values, _mm512_setzero_ps());
        flags |= u64::from(nonzero) << (16 * i);
    }
    flags
}
