//! Kernels for AVX-512 (F, BW, DQ, VL, VBMI) with VNNI.
//!
//! Every function here has `#[target_feature]`; the table is reached through [`super::Isa::kernels`] only, which has
//! asserted that the processor has these features.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

mod add;
pub(super) mod dot;
mod half_dot;
mod k_add;
pub(super) mod k_dot;

use super::activations::GROUP;
use super::kernels::{Kernels, row_kernels};
use super::ordered::Ordered;
use super::row_group::fetch;
use super::rows::Rows;
use std::arch::x86_64::*;

/// See [`row_kernels`].
macro_rules! kernels {
    ($($of:tt)*) => {
        row_kernels!(
            "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c",
            "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c",
            $($of)*
        )
    };
}

/// The types that have kernels of their own here.
pub(super) static TABLE: [Kernels; 16] = [
    kernels!(F32, F32, pairs 2 dot::f32, add::f32),
    kernels!(F16, F32, pairs 2 dot::f16, add::f16),
    kernels!(BF16, F32, pairs 2 dot::bf16, add::bf16),
    kernels!(Q8_0, Q8, pairs 4 dot::q8_0, add::q8_0),
    kernels!(Q4_0, Q8Halves, pairs 4 dot::q4_0, add::q4_0),
    kernels!(Q4_1, Q8Halves, half_dot::q4_1, simpler::q4_1),
    kernels!(Q5_0, Q8Halves, half_dot::q5_0, simpler::q5_0),
    kernels!(Q5_1, Q8Halves, half_dot::q5_1, simpler::q5_1),
    kernels!(MXFP4, Q8Halves, half_dot::mxfp4, simpler::mxfp4),
    kernels!(IQ4_NL, Q8Halves, pairs 4 dot::iq4_nl, simpler::iq4_nl),
    kernels!(Q2_K, Q8Supers, k_dot::q2_k, simpler::q2_k),
    kernels!(Q3_K, Q8, k_dot::q3_k, simpler::q3_k),
    kernels!(Q4_K, Q8Supers, k_dot::q4_k, k_add::q4_k),
    kernels!(Q5_K, Q8Supers, k_dot::q5_k, k_add::q5_k),
    kernels!(Q6_K, Q8, k_dot::q6_k, k_add::q6_k),
    kernels!(IQ4_XS, Q8Halves, k_dot::iq4_xs, simpler::iq4_xs),
];

/// Scaled additions of Q4_0 to several vectors of sums.
pub(super) static Q4_0_ORDERED: Ordered = {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
    fn add(rows: Rows, a: &[f32], y: &mut [f32]) {
        assert_eq!(rows.len(), a.len());
        add::q4_0_ordered(rows, a, y);
    }
    Ordered {
        columns: GROUP,
        begin: add::order,
        // SAFETY: `Isa::ordered` gave this out, so the processor has the features.
        add: |rows, a, y| unsafe { add(rows, a, y) },
        end: add::restore,
    }
};

/// Scaled additions that are as fast on the next simpler instruction set.
mod simpler {
    use crate::cpu::{Isa, Rows};
    use crate::quant::GgmlType;

    pub fn q4_1(rows: Rows, a: &[f32], y: &mut [f32]) {
        (Isa::Avx2.kernels(GgmlType::Q4_1).add_scaled)(rows, a, y);
    }

    pub fn q5_0(rows: Rows, a: &[f32], y: &mut [f32]) {
        (Isa::Avx2.kernels(GgmlType::Q5_0).add_scaled)(rows, a, y);
    }

    pub fn q5_1(rows: Rows, a: &[f32], y: &mut [f32]) {
        (Isa::Avx2.kernels(GgmlType::Q5_1).add_scaled)(rows, a, y);
    }

    pub fn mxfp4(rows: Rows, a: &[f32], y: &mut [f32]) {
        (Isa::Avx2.kernels(GgmlType::MXFP4).add_scaled)(rows, a, y);
    }

    pub fn iq4_nl(rows: Rows, a: &[f32], y: &mut [f32]) {
        (Isa::Avx2.kernels(GgmlType::IQ4_NL).add_scaled)(rows, a, y);
    }

    pub fn q2_k(rows: Rows, a: &[f32], y: &mut [f32]) {
        (Isa::Avx2.kernels(GgmlType::Q2_K).add_scaled)(rows, a, y);
    }

    pub fn q3_k(rows: Rows, a: &[f32], y: &mut [f32]) {
        (Isa::Avx2.kernels(GgmlType::Q3_K).add_scaled)(rows, a, y);
    }

    pub fn iq4_xs(rows: Rows, a: &[f32], y: &mut [f32]) {
        (Isa::Avx2.kernels(GgmlType::IQ4_XS).add_scaled)(rows, a, y);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn f32x16(values: &[f32; 16]) -> __m512 {
    // SAFETY: the array has 16 elements.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn i32x16(values: &[i32; 16]) -> __m512i {
    // SAFETY: the array has 16 elements.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// Indices of the 16-bit words that hold the scales of four blocks, each four times.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn scales<const BLOCK_BYTES: usize>() -> __m512i {
    let words: [i16; 32] = std::array::from_fn(|i| (i / 4 % 4 * BLOCK_BYTES / 2) as i16);
    // SAFETY: the array has 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// # Safety
/// The elements that `mask` selects must be readable at `p`. The same holds for the two below.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn read_f32(p: *const u8, mask: __mmask16) -> __m512 {
    // SAFETY: the caller's.
    unsafe { _mm512_maskz_loadu_ps(mask, p.cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn read_f16(p: *const u8, mask: __mmask16) -> __m512 {
    // SAFETY: the caller's.
    _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask, p.cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn read_bf16(p: *const u8, mask: __mmask16) -> __m512 {
    // SAFETY: the caller's.
    let words = unsafe { _mm256_maskz_loadu_epi16(mask, p.cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)))
}
