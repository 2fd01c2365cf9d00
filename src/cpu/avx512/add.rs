//! Scaled additions: `y += a * row`, several rows at a time so that `y` is loaded and stored less often.
//!
//! Every element of `y` gets one fused multiply-add per row, in the order of the rows, however they are grouped.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::super::activations::GROUP;
use super::super::row_group::{AT_ONCE, RowGroup};
use super::super::rows::Rows;
use super::dot::half_bytes;
use crate::quant::blocks::{Q4_0_BYTES, Q8_0_BYTES, QK};
use std::arch::x86_64::*;

/// Blocks whose scales are read together.
const SCALES: usize = 16;

/// Nothing of a row whose factor is 0: 0 times anything is 0.
#[inline]
pub(super) fn keep(group: &RowGroup) -> [__mmask16; AT_ONCE] {
    group.a.map(|a| if a == 0.0 { 0 } else { !0 })
}

/// The scales of the (at most [`SCALES`]) blocks of each row from `offset` on, times the row's factor.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn scales<const BLOCK_BYTES: usize>(group: &RowGroup, offset: usize) -> [[f32; SCALES]; AT_ONCE] {
    let n = ((group.rows[0].len() - offset) / BLOCK_BYTES).min(SCALES);
    let present = ((1u32 << n) - 1) as __mmask16;
    let numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let offsets = _mm512_mullo_epi32(numbers, _mm512_set1_epi32(BLOCK_BYTES as i32));
    let keep = keep(group);
    let mut scales = [[0.0; SCALES]; AT_ONCE];
    for r in 0..AT_ONCE {
        // SAFETY: the first four bytes of the blocks that are present lie in the row.
        unsafe {
            let at = group.rows[r].as_ptr().add(offset).cast();
            let words = _mm512_mask_i32gather_epi32::<1>(_mm512_setzero_si512(), present, offsets, at);
            let d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
            let scaled = _mm512_maskz_mul_ps(keep[r], d, _mm512_set1_ps(group.a[r]));
            _mm512_storeu_ps(scales[r].as_mut_ptr(), scaled);
        }
    }
    scales
}

macro_rules! floats {
    ($name:ident, $bytes:literal, $read:expr) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        pub(super) fn $name(rows: Rows, a: &[f32], y: &mut [f32]) {
            assert_eq!(rows.bytes(), y.len() * $bytes);
            for start in (0..a.len()).step_by(AT_ONCE) {
                let group = RowGroup::new(rows, a, start);
                let keep = keep(&group);
                for i in (0..y.len()).step_by(16) {
                    let mask = if y.len() - i >= 16 { !0 } else { (1 << (y.len() - i)) - 1 };
                    if (i * $bytes).is_multiple_of(64) {
                        group.fetch(i * $bytes);
                    }
                    // SAFETY: the mask leaves out what is beyond the end of y and of the rows, whose lengths agree.
                    unsafe {
                        let mut sum = _mm512_maskz_loadu_ps(mask, y.as_ptr().add(i));
                        for r in 0..AT_ONCE {
                            let w = $read(group.rows[r].as_ptr().add(i * $bytes), mask & keep[r]);
                            sum = _mm512_fmadd_ps(w, _mm512_set1_ps(group.a[r]), sum);
                        }
                        _mm512_mask_storeu_ps(y.as_mut_ptr().add(i), mask, sum);
                    }
                }
            }
        }
    };
}

floats!(f32, 4, super::read_f32);
floats!(f16, 2, super::read_f16);
floats!(bf16, 2, super::read_bf16);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn q8_0(rows: Rows, a: &[f32], y: &mut [f32]) {
    let (y, rest) = y.as_chunks_mut::<QK>();
    assert!(rest.is_empty() && rows.bytes() == y.len() * Q8_0_BYTES);
    for start in (0..a.len()).step_by(AT_ONCE) {
        let group = RowGroup::new(rows, a, start);
        for (i, y) in y.chunks_mut(SCALES).enumerate() {
            let offset = i * SCALES * Q8_0_BYTES;
            let scales = scales::<Q8_0_BYTES>(&group, offset);
            for (b, y) in y.iter_mut().enumerate() {
                let at = offset + b * Q8_0_BYTES;
                if b % 2 == 0 {
                    group.fetch(at);
                }
                // SAFETY: a block of y has 32 elements, one of a row 32 bytes behind its scale.
                unsafe {
                    let mut sums = [_mm512_loadu_ps(y.as_ptr()), _mm512_loadu_ps(y.as_ptr().add(16))];
                    for (row, scales) in group.rows.iter().zip(&scales) {
                        let scale = _mm512_set1_ps(scales[b]);
                        for (half, sum) in sums.iter_mut().enumerate() {
                            let q = _mm_loadu_si128(row.as_ptr().add(at + 2 + 16 * half).cast());
                            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), scale, *sum);
                        }
                    }
                    _mm512_storeu_ps(y.as_mut_ptr(), sums[0]);
                    _mm512_storeu_ps(y.as_mut_ptr().add(16), sums[1]);
                }
            }
        }
    }
}

/// Where element `i` of 128 stands in the order that results from shifting the 32-bit words of four blocks' half-bytes
/// by 0, 4 ... 28 bits, 16 words at a time.
const fn place(i: usize) -> usize {
    let (block, in_block) = (i / QK, i % QK);
    let (byte, high) = (in_block % 16, in_block / 16);
    (byte % 4 * 2 + high) * 16 + block * 4 + byte / 4
}

/// Brings groups of sums into the order of the words.
pub(super) fn order(y: &mut [f32]) {
    for y in y.as_chunks_mut::<GROUP>().0 {
        let own = *y;
        own.iter().enumerate().for_each(|(i, own)| y[place(i)] = *own);
    }
}

/// Brings them back into that of the columns.
pub(super) fn restore(y: &mut [f32]) {
    for y in y.as_chunks_mut::<GROUP>().0 {
        let own = *y;
        y.iter_mut().enumerate().for_each(|(i, y)| *y = own[place(i)]);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn q4_0(rows: Rows, a: &[f32], y: &mut [f32]) {
    /// Groups of columns whose sums are kept in the order of the words.
    const PIECE: usize = 32;
    assert!(y.len().is_multiple_of(QK) && rows.bytes() == y.len() / QK * Q4_0_BYTES);
    let mut sums = [0.0; PIECE * GROUP];
    for (i, y) in y.chunks_mut(PIECE * GROUP).enumerate() {
        let sums = &mut sums[..y.len().next_multiple_of(GROUP)];
        sums[..y.len()].copy_from_slice(y);
        order(sums);
        let rows = rows.piece(i * PIECE * GROUP / QK * Q4_0_BYTES, y.len() / QK * Q4_0_BYTES);
        add_ordered(rows, a, sums);
        restore(sums);
        y.copy_from_slice(&sums[..y.len()]);
    }
}

/// The same to sums in the order of the words, whole groups of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
pub(super) fn q4_0_ordered(rows: Rows, a: &[f32], y: &mut [f32]) {
    assert!(y.len().is_multiple_of(GROUP) && rows.bytes() == y.len() / QK * Q4_0_BYTES);
    add_ordered(rows, a, y);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn add_ordered(rows: Rows, a: &[f32], y: &mut [f32]) {
    let sums = y.as_chunks_mut().0;
    for start in (0..a.len()).step_by(AT_ONCE) {
        q4_0_group(&RowGroup::new(rows, a, start), sums);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn q4_0_group(group: &RowGroup, sums: &mut [[f32; GROUP]]) {
    const BYTES: usize = GROUP / QK * Q4_0_BYTES;
    let values: [f32; 16] = std::array::from_fn(|i| i as f32 - 8.0);
    let values = super::f32x16(&values);
    let scale_words = super::scales::<Q4_0_BYTES>();
    let (keep, len) = (keep(group), group.rows[0].len());
    for (i, sums) in sums.iter_mut().enumerate() {
        let at = i * BYTES;
        group.fetch(at);
        let mut words = [_mm512_setzero_si512(); AT_ONCE];
        let mut scale = [_mm512_setzero_ps(); AT_ONCE];
        for r in 0..AT_ONCE {
            let row = group.rows[r];
            let mut padded = [0; BYTES];
            let blocks = if at + BYTES <= len {
                &row[at..at + BYTES]
            } else {
                padded[..len - at].copy_from_slice(&row[at..]);
                &padded[..]
            };
            words[r] = half_bytes::<Q4_0_BYTES>(blocks);
            // SAFETY: four blocks are longer than 64 bytes, and the scale of the last one lies within them.
            let head = unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) };
            let d = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(scale_words, head)));
            scale[r] = _mm512_maskz_mul_ps(keep[r], d, _mm512_set1_ps(group.a[r]));
        }
        for sum in sums.as_chunks_mut::<16>().0 {
            let mut total = super::f32x16(sum);
            for r in 0..AT_ONCE {
                // Only the low four bits of each index count.
                total = _mm512_fmadd_ps(_mm512_permutexvar_ps(words[r], values), scale[r], total);
                words[r] = _mm512_srli_epi32::<4>(words[r]);
            }
            // SAFETY: the array has 16 elements.
            unsafe { _mm512_storeu_ps(sum.as_mut_ptr(), total) };
        }
    }
}
