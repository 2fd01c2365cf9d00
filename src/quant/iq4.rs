//! The types whose 4-bit values are indices into a table of 16 unevenly spaced levels: IQ4_NL and IQ4_XS.

use super::blocks::{QK, f16_at};
use super::decoded::BlockFormat;
use super::types::GgmlType;

/// The levels (`kvalues_iq4nl` of `ggml-common.h`), each raised by 128.
pub const LEVELS: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// 18 bytes: F16 scale, then nibbles as in `Q4_0` (`block_iq4_nl` of `ggml-common.h`).
pub static IQ4_NL: BlockFormat =
    BlockFormat { dtype: GgmlType::IQ4_NL, sub_len: QK, offset: 128, has_min: false, decode: decode_iq4_nl };

/// 136 bytes: F16 factor of the scales; the upper two bits of the 6-bit scales of eight sub-blocks, lowest first, in 16
/// bits; their lower four bits, low half first, in 4 bytes; then 16 bytes of nibbles as in `Q4_0` for each sub-block.
/// The scales are offset by 32 (`block_iq4_xs` of `ggml-common.h`).
pub static IQ4_XS: BlockFormat =
    BlockFormat { dtype: GgmlType::IQ4_XS, sub_len: QK, offset: 128, has_min: false, decode: decode_iq4_xs };

fn decode_iq4_nl(block: &[u8], q: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
    scales[0] = f16_at(block, 0);
    levels(&block[2..18], q);
}

fn decode_iq4_xs(block: &[u8], q: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
    scales_of_iq4_xs(block, scales);
    levels(&block[8..136], q);
}

/// The scales of the eight sub-blocks of an `IQ4_XS` block.
#[inline(always)]
pub fn scales_of_iq4_xs(block: &[u8], scales: &mut [f32]) {
    let d = f16_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (k, scale) in scales.iter_mut().enumerate() {
        let low = block[4 + k / 2] >> (4 * (k % 2)) & 0x0f;
        let high = (high >> (2 * k) & 3) as u8;
        *scale = d * (f32::from(low | high << 4) - 32.0);
    }
}

/// For each 16 bytes, the levels of their low halves, then those of their high halves.
fn levels(bytes: &[u8], q: &mut [u8]) {
    for (bytes, q) in bytes.chunks_exact(QK / 2).zip(q.chunks_exact_mut(QK)) {
        let (low, high) = q.split_at_mut(QK / 2);
        for ((l, h), b) in low.iter_mut().zip(high).zip(bytes) {
            *l = LEVELS[usize::from(b & 0x0f)];
            *h = LEVELS[usize::from(b >> 4)];
        }
    }
}
