//! MXFP4: floats of 4 bits with an exponent for each 32 (OCP Microscaling Formats, version 1.0).

use super::blocks::QK;
use super::decoded::BlockFormat;
use super::types::GgmlType;

/// Twice the values of the 16 floats (E2M1: a sign, two bits of exponent, one of mantissa), each raised by [`OFFSET`].
pub const LEVELS: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
/// See [`LEVELS`].
pub const OFFSET: u8 = 12;
/// Bytes of a block: the exponent, then 16 bytes as in `Q4_0`.
pub const BYTES: usize = 1 + QK / 2;

/// [`BYTES`] bytes (`block_mxfp4` of `ggml-common.h`).
pub static MXFP4: BlockFormat =
    BlockFormat { dtype: GgmlType::MXFP4, sub_len: QK, offset: OFFSET, has_min: false, decode };

fn decode(block: &[u8], q: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
    scales[0] = scale(block[0]);
    let (low, high) = q.split_at_mut(QK / 2);
    for ((l, h), b) in low.iter_mut().zip(high).zip(&block[1..]) {
        *l = LEVELS[usize::from(b & 0x0f)];
        *h = LEVELS[usize::from(b >> 4)];
    }
}

/// Half of 2 to the power of `exponent - 127`, as [`LEVELS`] are doubled. The 255 that stands for no number in the standard is a
/// power like the others, as ggml has it.
#[inline]
pub fn scale(exponent: u8) -> f32 {
    match exponent {
        // Below the smallest normal number.
        0 => f32::from_bits(0x0020_0000),
        1 => f32::from_bits(0x0040_0000),
        n => f32::from_bits(u32::from(n - 1) << 23),
    }
}
