//! The blocks of 32 elements with one scale each: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.

use super::blocks::{QK, f16_at, scale};
use super::decoded::BlockFormat;
use super::types::GgmlType;

/// See [`super::blocks::Q4_0_BYTES`].
pub static Q4_0: BlockFormat =
    BlockFormat { dtype: GgmlType::Q4_0, sub_len: QK, offset: 8, has_min: false, decode: decode_q4_0 };

/// 20 bytes: F16 scale, F16 value of `q = 0`, then nibbles as in `Q4_0` (`block_q4_1` of `ggml-common.h`).
pub static Q4_1: BlockFormat =
    BlockFormat { dtype: GgmlType::Q4_1, sub_len: QK, offset: 0, has_min: true, decode: decode_q4_1 };

/// 22 bytes: F16 scale, the fifth bits of the 32 elements (bit `i % 8` of byte `i / 8`), then nibbles as in `Q4_0`
/// (`block_q5_0` of `ggml-common.h`).
pub static Q5_0: BlockFormat =
    BlockFormat { dtype: GgmlType::Q5_0, sub_len: QK, offset: 16, has_min: false, decode: decode_q5_0 };

/// 24 bytes: F16 scale, F16 value of `q = 0`, fifth bits and nibbles as in `Q5_0` (`block_q5_1` of `ggml-common.h`).
pub static Q5_1: BlockFormat =
    BlockFormat { dtype: GgmlType::Q5_1, sub_len: QK, offset: 0, has_min: true, decode: decode_q5_1 };

/// See [`super::blocks::Q8_0_BYTES`].
pub static Q8_0: BlockFormat =
    BlockFormat { dtype: GgmlType::Q8_0, sub_len: QK, offset: 128, has_min: false, decode: decode_q8_0 };

fn decode_q4_0(block: &[u8], q: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
    scales[0] = scale(block);
    nibbles(&block[2..18], q);
}

fn decode_q4_1(block: &[u8], q: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
    scales[0] = scale(block);
    mins[0] = -f16_at(block, 2);
    nibbles(&block[4..20], q);
}

fn decode_q5_0(block: &[u8], q: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
    scales[0] = scale(block);
    nibbles(&block[6..22], q);
    add_fifth_bits(&block[2..6], q);
}

fn decode_q5_1(block: &[u8], q: &mut [u8], scales: &mut [f32], mins: &mut [f32]) {
    scales[0] = scale(block);
    mins[0] = -f16_at(block, 2);
    nibbles(&block[8..24], q);
    add_fifth_bits(&block[4..8], q);
}

fn decode_q8_0(block: &[u8], q: &mut [u8], scales: &mut [f32], _: &mut [f32]) {
    scales[0] = scale(block);
    for (q, b) in q[..QK].iter_mut().zip(&block[2..34]) {
        *q = b ^ 0x80;
    }
}

/// The low halves of 16 bytes, then their high halves.
fn nibbles(bytes: &[u8], q: &mut [u8]) {
    let (low, high) = q[..QK].split_at_mut(QK / 2);
    for ((l, h), b) in low.iter_mut().zip(high).zip(&bytes[..QK / 2]) {
        *l = b & 0x0f;
        *h = b >> 4;
    }
}

fn add_fifth_bits(bytes: &[u8], q: &mut [u8]) {
    for (q, byte) in q[..QK].chunks_exact_mut(8).zip(&bytes[..QK / 8]) {
        for (i, q) in q.iter_mut().enumerate() {
            *q |= u8::from(byte & (1 << i) != 0) << 4;
        }
    }
}
