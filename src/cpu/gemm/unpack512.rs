//! Unpacking weights with AVX-512: to tiles (rows block by block, then 16 x 16 words transposed) or to rows of floats.
//!
//! Every function here has `#[target_feature]`; [`super::rows_times`] and [`super::sparse::add_rows`], the only ways
//! in, have asserted that the processor has these features.
#![allow(unsafe_code, reason = "vector loads take raw pointers, and features are checked at run time")]

use super::tile::{Floats, Line, TILE_ROWS, TileLines, WORD};
use super::unpack_k;
use crate::cpu::Rows;
use crate::quant::blocks::QK;
use crate::quant::decoded::BlockFormat;
use crate::quant::{GgmlType, iq4, mxfp4};
use std::arch::x86_64::*;

/// Columns unpacked at a time.
const STEP: usize = 512;
/// The most sub-blocks that these can have.
const STEP_SUBS: usize = STEP / 16;

/// Some columns of the rows of a tile, row after row.
struct Stage {
    q: [Line<[u8; STEP]>; TILE_ROWS],
    scales: [Line<[f32; STEP_SUBS]>; TILE_ROWS],
    mins: [Line<[f32; STEP_SUBS]>; TILE_ROWS],
}

/// Unpacks `n_cols` columns of up to 16 rows.
pub(super) fn blocks(format: &BlockFormat, rows: Rows, n_cols: usize, to: TileLines) {
    // SAFETY: the processor has the features, see the head of the file.
    unsafe { unpack(format, rows, n_cols, to) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn unpack(format: &BlockFormat, rows: Rows, n_cols: usize, to: TileLines) {
    let TileLines { bytes, scales, mins } = to;
    let zeros = Line([0.0; STEP_SUBS]);
    let mut stage = Stage { q: [Line([0; STEP]); TILE_ROWS], scales: [zeros; TILE_ROWS], mins: [zeros; TILE_ROWS] };
    let lines = |cols: usize| cols.div_ceil(TILE_ROWS) * TILE_ROWS;
    for start in (0..n_cols).step_by(STEP) {
        let cols = STEP.min(n_cols - start);
        let n_sub = cols / format.sub_len;
        let at = super::bytes(format.dtype, start);
        let piece = rows.piece(at, super::bytes(format.dtype, cols));
        for r in 0..rows.len() {
            let (q, scales, mins) = (&mut stage.q[r].0, &mut stage.scales[r].0, &mut stage.mins[r].0);
            read(format, piece.get(r), &mut q[..cols], &mut scales[..n_sub], &mut mins[..n_sub]);
        }
        let (word, sub) = (start / WORD, start / format.sub_len);
        for (i, bytes) in bytes[word..word + lines(cols / WORD)].as_chunks_mut().0.iter_mut().enumerate() {
            // SAFETY: 64 bytes of each row of the stage.
            let rows = std::array::from_fn(|r| unsafe { _mm512_load_si512(stage.q[r].0.as_ptr().add(64 * i).cast()) });
            store(turned(rows), bytes);
        }
        let turn = |from: &[Line<[f32; STEP_SUBS]>; TILE_ROWS], to: &mut [Floats]| {
            for (i, to) in to[sub..sub + lines(n_sub)].as_chunks_mut().0.iter_mut().enumerate() {
                // SAFETY: 64 bytes of each row of the stage.
                let rows = std::array::from_fn(|r| unsafe { _mm512_load_si512(from[r].0.as_ptr().add(16 * i).cast()) });
                store(turned(rows), to);
            }
        };
        turn(&stage.scales, scales);
        if format.has_min {
            turn(&stage.mins, mins);
        }
    }
}

/// Unpacks the blocks of (a piece of) a row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn read(format: &BlockFormat, row: &[u8], q: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
    match format.dtype {
        GgmlType::Q4_0 => with_heads::<18>(row, q, scales, mins, |block| nibbles(&block[2..])),
        GgmlType::Q4_1 => with_heads::<20>(row, q, scales, mins, |block| nibbles(&block[4..])),
        GgmlType::Q5_0 => with_heads::<22>(row, q, scales, mins, |block| fifth_bits(&block[2..], nibbles(&block[6..]))),
        GgmlType::Q5_1 => with_heads::<24>(row, q, scales, mins, |block| fifth_bits(&block[4..], nibbles(&block[8..]))),
        GgmlType::Q8_0 => with_heads::<34>(row, q, scales, mins, |block| raised(&block[2..])),
        GgmlType::IQ4_NL => with_heads::<18>(row, q, scales, mins, |block| levels(&iq4::LEVELS, nibbles(&block[2..]))),
        GgmlType::MXFP4 => mxfp4(row, q, scales),
        GgmlType::Q2_K => unpack_k::q2_k(row, q, scales, mins),
        GgmlType::Q3_K => unpack_k::q3_k(row, q, scales, mins),
        GgmlType::Q4_K => unpack_k::q4_k(row, q, scales, mins),
        GgmlType::Q5_K => unpack_k::q5_k(row, q, scales, mins),
        GgmlType::Q6_K => unpack_k::q6_k(row, q, scales, mins),
        GgmlType::IQ4_XS => unpack_k::iq4_xs(row, q, scales, mins),
        _ => by_block(format, row, q, scales, mins),
    }
}

/// A block at a time, in plain Rust.
fn by_block(format: &BlockFormat, row: &[u8], q: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
    let n_sub = format.n_sub();
    let blocks = row.chunks_exact(format.dtype.block_bytes()).zip(q.chunks_exact_mut(format.dtype.block_len()));
    let subs = scales.chunks_exact_mut(n_sub).zip(mins.chunks_exact_mut(n_sub));
    for ((block, q), (scales, mins)) in blocks.zip(subs) {
        (format.decode)(block, q, scales, mins);
    }
}

/// Blocks of MXFP4.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn mxfp4(row: &[u8], q: &mut [u8], scales: &mut [f32]) {
    let blocks = row.as_chunks::<{ mxfp4::BYTES }>().0.iter().zip(q.as_chunks_mut::<QK>().0);
    for ((block, q), scale) in blocks.zip(scales) {
        *scale = mxfp4::scale(block[0]);
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), levels(&mxfp4::LEVELS, nibbles(&block[1..]))) };
    }
}

/// Blocks of 32 elements that begin with an F16 scale and perhaps the F16 value of `q = 0`, the negated minimum.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn with_heads<const BYTES: usize>(
    row: &[u8],
    q: &mut [u8],
    scales: &mut [f32],
    mins: &mut [f32],
    values: impl Fn(&[u8; BYTES]) -> __m256i,
) {
    let (blocks, q) = (row.as_chunks::<BYTES>().0, q.as_chunks_mut::<QK>().0);
    for (block, q) in blocks.iter().zip(q) {
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), values(block)) };
    }
    let numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let offsets = _mm512_mullo_epi32(numbers, _mm512_set1_epi32(BYTES as i32));
    for ((blocks, scales), mins) in blocks.chunks(16).zip(scales.chunks_mut(16)).zip(mins.chunks_mut(16)) {
        assert!(blocks.len() == scales.len() && blocks.len() == mins.len());
        let present = ((1u32 << blocks.len()) - 1) as __mmask16;
        // SAFETY: the first four bytes of the blocks that are there, and as many floats.
        unsafe {
            let none = _mm512_setzero_si512();
            let heads = _mm512_mask_i32gather_epi32::<1>(none, present, offsets, blocks.as_ptr().cast());
            let scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(heads));
            let zero = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(heads)));
            _mm512_mask_storeu_ps(scales.as_mut_ptr(), present, scale);
            _mm512_mask_storeu_ps(mins.as_mut_ptr(), present, _mm512_xor_ps(zero, _mm512_set1_ps(-0.0)));
        }
    }
}

/// The low halves of 16 bytes, then their high halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn nibbles(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..16];
    // SAFETY: 16 bytes.
    let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(bytes), _mm_srli_epi16::<4>(bytes));
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// Adds 16 wherever one of the 32 bits is set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn fifth_bits(bytes: &[u8], q: __m256i) -> __m256i {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    _mm256_or_si256(q, _mm256_maskz_set1_epi8(bits, 16))
}

/// 32 signed bytes, raised by 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn raised(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..QK];
    // SAFETY: 32 bytes.
    let bytes = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    _mm256_xor_si256(bytes, _mm256_set1_epi8(-128))
}

/// The levels that the half-bytes stand for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn levels(levels: &[u8; 16], q: __m256i) -> __m256i {
    // SAFETY: 16 bytes.
    let levels = unsafe { _mm_loadu_si128(levels.as_ptr().cast()) };
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), q)
}

/// Reads floats of a type with half as many bits.
pub(super) fn halves_to_floats(dtype: GgmlType, row: &[u8], out: &mut [f32]) {
    assert!(row.len() == super::bytes(dtype, out.len()) && dtype.block_bytes() == 2);
    // SAFETY: the processor has the features, see the head of the file.
    unsafe { widened(dtype == GgmlType::F16, row, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn widened(f16: bool, row: &[u8], out: &mut [f32]) {
    for (out, row) in out.chunks_mut(16).zip(row.chunks(32)) {
        let mask = ((1u32 << out.len()) - 1) as __mmask16;
        // SAFETY: the mask leaves out what is beyond the end of both, whose lengths agree.
        unsafe {
            let words = _mm256_maskz_loadu_epi16(mask, row.as_ptr().cast());
            let shifted = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)));
            let values = if f16 { _mm512_cvtph_ps(words) } else { shifted };
            _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, values);
        }
    }
}

/// Converts the blocks of (a piece of) a row to floats, with the same bits as `quant::decoded::dequantize`.
pub(super) fn to_floats(format: &BlockFormat, row: &[u8], out: &mut [f32]) {
    assert_eq!(row.len(), super::bytes(format.dtype, out.len()));
    // SAFETY: the processor has the features, see the head of the file.
    unsafe { scaled(format, row, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn scaled(format: &BlockFormat, row: &[u8], out: &mut [f32]) {
    let (mut q, mut scales, mut mins) = (Line([0; STEP]), Line([0.0; STEP_SUBS]), Line([0.0; STEP_SUBS]));
    let offset = _mm512_set1_epi32(i32::from(format.offset));
    let steps = row.chunks(super::bytes(format.dtype, STEP)).zip(out.chunks_mut(STEP));
    for (row, out) in steps {
        let n_sub = out.len() / format.sub_len;
        read(format, row, &mut q.0[..out.len()], &mut scales.0[..n_sub], &mut mins.0[..n_sub]);
        for (i, (out, q)) in out.as_chunks_mut::<16>().0.iter_mut().zip(q.0.as_chunks::<16>().0).enumerate() {
            let sub = if format.sub_len == 16 { i } else { i / 2 };
            // SAFETY: 16 bytes and 16 floats.
            unsafe {
                let q = _mm512_cvtepu8_epi32(_mm_loadu_si128(q.as_ptr().cast()));
                let q = _mm512_cvtepi32_ps(_mm512_sub_epi32(q, offset));
                let values = _mm512_mul_ps(q, _mm512_set1_ps(scales.0[sub]));
                let lowered = _mm512_sub_ps(values, _mm512_set1_ps(mins.0[sub]));
                _mm512_storeu_ps(out.as_mut_ptr(), if format.has_min { lowered } else { values });
            }
        }
    }
}

/// Reads `n_cols` columns of up to 16 rows of floats, `[n_cols][16]`; `to` has room for a multiple of 16 lines.
pub(super) fn floats(dtype: GgmlType, rows: Rows, n_cols: usize, to: &mut [Floats]) {
    assert!(rows.bytes() == super::bytes(dtype, n_cols) && rows.len() <= TILE_ROWS);
    assert!(to.len() >= n_cols.next_multiple_of(TILE_ROWS));
    // SAFETY: the processor has the features, see the head of the file.
    unsafe {
        match dtype {
            GgmlType::F16 => turn_f16(rows, n_cols, to),
            GgmlType::BF16 => turn_bf16(rows, n_cols, to),
            _ => turn_f32(rows, n_cols, to),
        }
    }
}

/// Transposes rows of floats that `$read` loads 16 at a time; its mask says how many there are.
macro_rules! floats {
    ($name:ident, $bytes:literal, $read:expr) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
        fn $name(rows: Rows, n_cols: usize, to: &mut [Floats]) {
            let mut words = [_mm512_setzero_si512(); TILE_ROWS];
            for (i, to) in to[..n_cols.next_multiple_of(16)].as_chunks_mut().0.iter_mut().enumerate() {
                let mask = ((1u32 << (n_cols - 16 * i).min(16)) - 1) as __mmask16;
                for (r, words) in words[..rows.len()].iter_mut().enumerate() {
                    // SAFETY: the mask leaves out what is beyond the row's `n_cols` elements.
                    *words = unsafe { $read(rows.get(r).as_ptr().add(16 * i * $bytes), mask) };
                }
                store(turned(words), to);
            }
        }
    };
}

floats!(turn_f32, 4, |p: *const u8, mask| _mm512_maskz_loadu_epi32(mask, p.cast()));
floats!(turn_f16, 2, |p: *const u8, mask| {
    _mm512_castps_si512(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p.cast())))
});
floats!(turn_bf16, 2, |p: *const u8, mask| {
    _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p.cast())))
});

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn store<T>(values: [__m512i; 16], lines: &mut [Line<T>; 16]) {
    const { assert!(size_of::<Line<T>>() == 64) };
    for (line, value) in lines.iter_mut().zip(values) {
        // SAFETY: a line of 64 bytes, aligned as such, for which any bytes are valid: floats or bytes.
        unsafe { _mm512_store_si512(std::ptr::from_mut(line).cast(), value) };
    }
}

/// 16 x 16 words, transposed.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn turned(rows: [__m512i; 16]) -> [__m512i; 16] {
    // Within 128-bit quarters: 2 x 2 words, then 2 x 2 pairs of words.
    let mut pairs = rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = pairs;
    for i in 0..4 {
        for j in 0..2 {
            let (a, b) = (pairs[4 * i + j], pairs[4 * i + 2 + j]);
            fours[4 * i + 2 * j] = _mm512_unpacklo_epi64(a, b);
            fours[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    // Now quarter q of fours[4 i + c] holds column 4 q + c of the rows 4 i to 4 i + 3; the quarters are transposed.
    let mut columns = fours;
    for c in 0..4 {
        let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (de_even, de_odd) = (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xdd>(d, e));
        columns[c] = _mm512_shuffle_i32x4::<0x88>(ab_even, de_even);
        columns[8 + c] = _mm512_shuffle_i32x4::<0xdd>(ab_even, de_even);
        columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(ab_odd, de_odd);
        columns[12 + c] = _mm512_shuffle_i32x4::<0xdd>(ab_odd, de_odd);
    }
    columns
}
