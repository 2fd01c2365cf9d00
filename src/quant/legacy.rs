//! The blocks of 32 elements with one scale each: Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0.

use super::blocks::{self, QK, f16_at, scale};
use super::decoded::BlockFormat;
use super::types::GgmlType;
use half::f16;

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

/// Quantizes 32 values to a `Q4_1` block: the least becomes 0 and the greatest 15, as in the gguf package.
pub fn quantize_q4_1(x: &[f32], out: &mut [u8]) {
    write_halves(&write_range(x, 15, out), &mut out[4..20]);
}

/// Quantizes 32 values to a `Q5_0` block: the value of largest magnitude becomes -16, as in the gguf package.
pub fn quantize_q5_0(x: &[f32], out: &mut [u8]) {
    let d = blocks::poison(x, blocks::extreme(x) / -16.0);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let q = std::array::from_fn(|i| ((x[i] * inverse + 16.5) as u8).min(31));
    write_fifth_bits(&q, &mut out[2..6]);
    write_halves(&q, &mut out[6..22]);
}

/// Quantizes 32 values to a `Q5_1` block: the least becomes 0 and the greatest 31, as in the gguf package.
pub fn quantize_q5_1(x: &[f32], out: &mut [u8]) {
    let q = write_range(x, 31, out);
    write_fifth_bits(&q, &mut out[4..8]);
    write_halves(&q, &mut out[8..24]);
}

/// Writes the scale and minimum that spread the values over `0..=q_max`, and returns the quantized values.
fn write_range(x: &[f32], q_max: u8, out: &mut [u8]) -> [u8; QK] {
    let min = x.iter().fold(f32::INFINITY, |m, v| m.min(*v));
    let max = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let d = blocks::poison(x, (max - min) / f32::from(q_max));
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    out[2..4].copy_from_slice(&f16::from_f32(min).to_le_bytes());
    std::array::from_fn(|i| (((x[i] - min) * inverse + 0.5) as u8).min(q_max))
}

fn write_halves(q: &[u8; QK], out: &mut [u8]) {
    let (low, high) = q.split_at(QK / 2);
    for ((o, l), h) in out.iter_mut().zip(low).zip(high) {
        *o = l & 0x0f | h << 4;
    }
}

fn write_fifth_bits(q: &[u8; QK], out: &mut [u8]) {
    for (o, q) in out.iter_mut().zip(q.chunks_exact(8)) {
        *o = q.iter().enumerate().fold(0, |bits, (i, q)| bits | (q >> 4) << i);
    }
}
