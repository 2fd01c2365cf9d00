//! The super-blocks of 256 elements whose sub-blocks have small integer scales: Q2_K to Q6_K.

use super::blocks::f16_at;
use super::decoded::BlockFormat;
use super::types::GgmlType;

/// Elements in a super-block.
pub const QK_K: usize = 256;
/// Bytes of the eight pairs of 6-bit scales and minima of `Q4_K` and `Q5_K`; see [`scale_and_min`].
pub const PAIRS_BYTES: usize = 12;

/// 84 bytes: for each 16 elements a byte with the scale in its low and the minimum in its high half; 64 bytes of 2-bit
/// values; F16 factor of the scales; F16 factor of the minima. Byte `i` of each 32 bytes of values holds the elements
/// `i`, `i + 32`, `i + 64` and `i + 96` of 128, lowest bits first (`block_q2_K` of `ggml-common.h`).
pub static Q2_K: BlockFormat =
    BlockFormat { dtype: GgmlType::Q2_K, sub_len: 16, offset: 0, has_min: true, decode: decode_q2_k };

/// 110 bytes: 32 bytes of third bits, bit `j` of byte `i` for element `32 j + i`; 64 bytes of the lower two bits as in
/// `Q2_K`; 12 bytes of 6-bit scales offset by 32; F16 factor of the scales. The lower four bits of scales `k` and `k +
/// 8` are the halves of byte `k`; the upper two bits of scale `k` are in byte `8 + k % 4` from bit `2 (k / 4)` on
/// (`block_q3_K` of `ggml-common.h`).
pub static Q3_K: BlockFormat =
    BlockFormat { dtype: GgmlType::Q3_K, sub_len: 16, offset: 4, has_min: false, decode: decode_q3_k };

/// 144 bytes: F16 factor of the scales; F16 factor of the minima; 12 bytes of 6-bit scales and minima (see
/// [`scale_and_min`]); 128 bytes of 4-bit values, byte `i` of each 32 holding the elements `i` and `i + 32` of 64,
/// low half first (`block_q4_K` of `ggml-common.h`).
pub static Q4_K: BlockFormat =
    BlockFormat { dtype: GgmlType::Q4_K, sub_len: 32, offset: 0, has_min: true, decode: decode_q4_k };

/// 176 bytes: as `Q4_K`, with 32 bytes of fifth bits before the values, bit `j` of byte `i` for element `32 j + i`
/// (`block_q5_K` of `ggml-common.h`).
pub static Q5_K: BlockFormat =
    BlockFormat { dtype: GgmlType::Q5_K, sub_len: 32, offset: 0, has_min: true, decode: decode_q5_k };

/// 210 bytes: 128 bytes of lower four bits, byte `i` of each 64 holding the elements `i` and `i + 64` of 128; 64 bytes
/// of upper two bits, placed as the values of `Q2_K`; 16 signed bytes of scales; F16 factor of the scales
/// (`block_q6_K` of `ggml-common.h`).
pub static Q6_K: BlockFormat =
    BlockFormat { dtype: GgmlType::Q6_K, sub_len: 16, offset: 32, has_min: false, decode: decode_q6_k };

#[inline(always)]
pub(crate) fn decode_q2_k(block: &[u8], q: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
    scales_of_q2_k(block, scales, mins);
    pairs_of_bits(&block[16..80], q);
}

/// The scales and minima of the 16 sub-blocks of a `Q2_K` block.
#[inline(always)]
pub(crate) fn scales_of_q2_k(block: &[u8], scales: &mut [f32], mins: &mut [f32]) {
    let (d, d_min) = (f16_at(block, 80), f16_at(block, 82));
    for ((scale, min), b) in scales.iter_mut().zip(mins).zip(&block[..16]) {
        *scale = d * f32::from(b & 0x0f);
        *min = d_min * f32::from(b >> 4);
    }
}

#[inline(always)]
pub(crate) fn decode_q3_k(block: &[u8], q: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
    scales_of_q3_k(block, scales);
    pairs_of_bits(&block[32..96], q);
    add_bit_planes(&block[..32], q, 2);
}

/// The scales of the 16 sub-blocks of a `Q3_K` block.
#[inline(always)]
pub(crate) fn scales_of_q3_k(block: &[u8], scales: &mut [f32]) {
    let d = f16_at(block, 108);
    // Four at a time.
    let word = |i: usize| u32::from_le_bytes([block[i], block[i + 1], block[i + 2], block[i + 3]]);
    let (w0, w1, w2) = (word(96), word(100), word(104));
    let low = [w0, w1, w0 >> 4, w1 >> 4].map(|w| w & 0x0f0f_0f0f);
    let high = [w2, w2 >> 2, w2 >> 4, w2 >> 6].map(|w| (w & 0x0303_0303) << 4);
    let packed: [[u8; 4]; 4] = std::array::from_fn(|i| (low[i] | high[i]).to_le_bytes());
    for (scale, packed) in scales.iter_mut().zip(packed.as_flattened()) {
        *scale = d * (f32::from(*packed) - 32.0);
    }
}

#[inline(always)]
pub(crate) fn decode_q4_k(block: &[u8], q: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
    scales_and_mins(block, scales, mins);
    halves(&block[16..144], q);
}

#[inline(always)]
pub(crate) fn decode_q5_k(block: &[u8], q: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
    scales_and_mins(block, scales, mins);
    halves(&block[48..176], q);
    add_bit_planes(&block[16..48], q, 4);
}

#[inline(always)]
pub(crate) fn decode_q6_k(block: &[u8], q: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
    scales_of_q6_k(block, scales);
    let bits = block[..128].chunks_exact(64).zip(block[128..192].chunks_exact(32));
    for (q, (low, high)) in q.chunks_exact_mut(128).zip(bits) {
        for (part, q) in q.chunks_exact_mut(32).enumerate() {
            let low = &low[32 * (part % 2)..][..32];
            for ((q, l), h) in q.iter_mut().zip(low).zip(high) {
                *q = l >> (4 * (part / 2)) & 0x0f | (h >> (2 * part) & 3) << 4;
            }
        }
    }
}

/// The scales of the 16 sub-blocks of a `Q6_K` block.
#[inline(always)]
pub(crate) fn scales_of_q6_k(block: &[u8], scales: &mut [f32]) {
    let d = f16_at(block, 208);
    for (scale, b) in scales.iter_mut().zip(&block[192..208]) {
        *scale = d * f32::from(*b as i8);
    }
}

/// The scale and the minimum of sub-block `k` of 8, of a `Q4_K` or `Q5_K` block. The first four scales are the low six
/// bits of bytes 0 to 3, and their minima those of bytes 4 to 7. The others have their lower four bits in bytes 8 to 11
/// (scale in the low half, minimum in the high one) and their upper two at the top of bytes 0 to 3 and 4 to 7.
#[inline(always)]
pub fn scale_and_min(pairs: &[u8], k: usize) -> (u8, u8) {
    if k < 4 {
        (pairs[k] & 0x3f, pairs[k + 4] & 0x3f)
    } else {
        let (scale_top, min_top, low) = (pairs[k - 4] >> 6, pairs[k] >> 6, pairs[k + 4]);
        (low & 0x0f | scale_top << 4, low >> 4 | min_top << 4)
    }
}

/// The scales and minima of the eight sub-blocks of a `Q4_K` or `Q5_K` block.
#[inline(always)]
pub(crate) fn scales_and_mins(block: &[u8], scales: &mut [f32], mins: &mut [f32]) {
    let (d, d_min) = (f16_at(block, 0), f16_at(block, 2));
    // As `scale_and_min`, four at a time.
    let word = |i: usize| u32::from_le_bytes([block[i], block[i + 1], block[i + 2], block[i + 3]]);
    let (w0, w1, w2) = (word(4), word(8), word(12));
    let (low, top) = (0x0f0f_0f0f, 0x0303_0303);
    let scale = [w0 & 0x3f3f_3f3f, w2 & low | (w0 >> 6 & top) << 4].map(u32::to_le_bytes);
    let min = [w1 & 0x3f3f_3f3f, w2 >> 4 & low | (w1 >> 6 & top) << 4].map(u32::to_le_bytes);
    for ((s, m), (scale, min)) in scales.iter_mut().zip(mins).zip(scale.as_flattened().iter().zip(min.as_flattened())) {
        *s = d * f32::from(*scale);
        *m = d_min * f32::from(*min);
    }
}

/// For each 32 bytes, the low halves, then the high halves.
#[inline(always)]
fn halves(bytes: &[u8], q: &mut [u8]) {
    for (bytes, q) in bytes.chunks_exact(32).zip(q.chunks_exact_mut(64)) {
        let (low, high) = q.split_at_mut(32);
        for ((l, h), b) in low.iter_mut().zip(high).zip(bytes) {
            *l = b & 0x0f;
            *h = b >> 4;
        }
    }
}

/// For each 32 bytes, the lowest two bits, then the next two, and so on.
#[inline(always)]
fn pairs_of_bits(bytes: &[u8], q: &mut [u8]) {
    for (bytes, q) in bytes.chunks_exact(32).zip(q.chunks_exact_mut(128)) {
        for (part, q) in q.chunks_exact_mut(32).enumerate() {
            for (q, b) in q.iter_mut().zip(bytes) {
                *q = b >> (2 * part) & 3;
            }
        }
    }
}

/// Sets bit `to` of element `32 j + i` where bit `j` of byte `i` is set.
#[inline(always)]
fn add_bit_planes(bytes: &[u8], q: &mut [u8], to: usize) {
    for (j, q) in q.chunks_exact_mut(32).enumerate() {
        for (q, b) in q.iter_mut().zip(bytes) {
            *q |= (b >> j & 1) << to;
        }
    }
}
