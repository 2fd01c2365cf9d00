//! Writes the super-blocks of Q2_K to Q6_K and IQ4_XS, and the blocks of IQ4_NL.
#![allow(unsafe_code, reason = "functions compiled for AVX2 or NEON are called where the processor has it")]

use super::blocks::QK;
use super::grid::{Integers, Levels};
use super::k_affine::{Affine, AffineRange, affine_block};
use super::k_quants::{PAIRS_BYTES, QK_K};
use super::k_symmetric::{lone_block, symmetric_block};
#[cfg(target_arch = "x86_64")]
use super::lanes::Avx2;
#[cfg(target_arch = "aarch64")]
use super::lanes::Neon;
#[cfg(not(target_arch = "aarch64"))]
use super::lanes::Plain;
use super::lanes::{Lanes, WIDTH};

const Q2_K: AffineRange = AffineRange { q_max: 3.0, pair_max: 15.0 };
const Q4_K: AffineRange = AffineRange { q_max: 15.0, pair_max: 63.0 };
const Q5_K: AffineRange = AffineRange { q_max: 31.0, pair_max: 63.0 };

/// `$name`, which writes whole blocks of `$len` elements and `$bytes` bytes with `$block`: compiled for AVX2 or NEON,
/// where the processor has it, and for all others. All give the same bytes. `given` says how much each element counts.
macro_rules! quantizer {
    ($(#[$doc:meta])* $name:ident, $block:ident, $len:expr, $bytes:expr) => {
        $(#[$doc])*
        pub fn $name(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
            #[inline(always)]
            fn blocks<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
                let blocks = x.chunks_exact($len).zip(out.chunks_exact_mut($bytes));
                for (i, (x, out)) in blocks.enumerate() {
                    let given = match given {
                        Some(given) => Some(&given[i * $len..][..$len]),
                        None => None,
                    };
                    $block::<V>(x, given, out);
                }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn with_avx2(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
                blocks::<Avx2>(x, given, out);
            }
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                return unsafe { with_avx2(x, given, out) };
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            fn with_neon(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
                blocks::<Neon>(x, given, out);
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: all processors that are built for have NEON.
            unsafe {
                with_neon(x, given, out);
            }
            #[cfg(not(target_arch = "aarch64"))]
            blocks::<Plain>(x, given, out);
        }
    };
}

quantizer! {
    /// Quantizes whole super-blocks to `Q2_K`; see [`quantize_q4_k`].
    quantize_q2_k, q2_k, QK_K, 84
}

quantizer! {
    /// Quantizes whole super-blocks to `Q3_K`; see [`quantize_q4_k`].
    quantize_q3_k, q3_k, QK_K, 110
}

quantizer! {
    /// Quantizes whole blocks to `Q4_0` by a search; see [`quantize_q4_k`]. Without weights, ggml's way is the usual one.
    quantize_q4_0, q4_0, QK, 18
}

quantizer! {
    /// Quantizes whole blocks to `Q5_0` by a search; see [`quantize_q4_0`].
    quantize_q5_0, q5_0, QK, 22
}

quantizer! {
    /// Quantizes whole blocks to `IQ4_NL`; see [`quantize_q4_k`].
    quantize_iq4_nl, iq4_nl, QK, 18
}

quantizer! {
    /// Quantizes whole super-blocks to `IQ4_XS`; see [`quantize_q4_k`].
    quantize_iq4_xs, iq4_xs, QK_K, 136
}

quantizer! {
    /// Quantizes whole super-blocks to `Q4_K`. Deterministic; an infinity or NaN makes all of its block NaN. Where it is given how much
    /// each element counts, 0 or more, errors are small where that is much.
    quantize_q4_k, q4_k, QK_K, 144
}

quantizer! {
    /// Quantizes whole super-blocks to `Q5_K`; see [`quantize_q4_k`].
    quantize_q5_k, q5_k, QK_K, 176
}

quantizer! {
    /// Quantizes whole super-blocks to `Q6_K`; see [`quantize_q4_k`].
    quantize_q6_k, q6_k, QK_K, 210
}

#[inline(always)]
pub(super) fn q2_k<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let block = affine_block::<V, 2, 16>(x, given, Q2_K);
    for (o, (scale, min)) in out[..16].iter_mut().zip(block.scale.iter().zip(block.min)) {
        *o = *scale as u8 | (min as u8) << 4;
    }
    write_pairs_of_bits(&bytes(block.q, 0.0), &mut out[16..80]);
    out[80..82].copy_from_slice(&block.d.to_le_bytes());
    out[82..84].copy_from_slice(&block.d_min.to_le_bytes());
}

#[inline(always)]
pub(super) fn q3_k<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let block = symmetric_block::<V, Integers<4>, 2, 16>(x, given, 32.0);
    let q = bytes(block.q, 4.0);
    write_bit_planes(&q, 2, &mut out[..32]);
    write_pairs_of_bits(&q, &mut out[32..96]);
    let scale = block.scale.map(|scale| (scale + 32.0) as u8);
    let packed = &mut out[96..108];
    for k in 0..8 {
        packed[k] = scale[k] & 0x0f | scale[k + 8] << 4;
    }
    for k in 0..4 {
        packed[8 + k] = (0..4).fold(0, |bits, part| bits | scale[k + 4 * part] >> 4 << (2 * part));
    }
    out[108..110].copy_from_slice(&block.d.to_le_bytes());
}

#[inline(always)]
pub(super) fn iq4_xs<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let block = symmetric_block::<V, Levels, 4, 8>(x, given, 32.0);
    out[..2].copy_from_slice(&block.d.to_le_bytes());
    let scale = block.scale.map(|scale| (scale + 32.0) as u8);
    let high = (0..8).fold(0, |bits, k| bits | u16::from(scale[k] >> 4) << (2 * k));
    out[2..4].copy_from_slice(&high.to_le_bytes());
    for k in 0..4 {
        out[4 + k] = scale[2 * k] & 0x0f | scale[2 * k + 1] << 4;
    }
    for (out, q) in out[8..136].chunks_exact_mut(16).zip(block.q) {
        write_levels(q, out);
    }
}

#[inline(always)]
pub(super) fn iq4_nl<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let (d, q) = lone_block::<V, Levels, 4>(x, given);
    out[..2].copy_from_slice(&d.to_le_bytes());
    write_levels(q, &mut out[2..18]);
}

#[inline(always)]
pub(super) fn q4_0<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let (d, q) = lone_block::<V, Integers<8>, 4>(x, given);
    out[..2].copy_from_slice(&d.to_le_bytes());
    write_nibbles(&bytes([q], 8.0), &mut out[2..18]);
}

#[inline(always)]
pub(super) fn q5_0<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let (d, q) = lone_block::<V, Integers<16>, 4>(x, given);
    out[..2].copy_from_slice(&d.to_le_bytes());
    let q: [u8; QK] = bytes([q], 16.0);
    let fifth = (0..QK).fold(0, |bits, i| bits | u32::from(q[i] >> 4) << i);
    out[2..6].copy_from_slice(&fifth.to_le_bytes());
    write_nibbles(&q, &mut out[6..22]);
}

/// The low halves of the first 16 values, and beside them those of the others.
#[inline(always)]
fn write_nibbles(q: &[u8; QK], out: &mut [u8]) {
    for (i, o) in out.iter_mut().enumerate() {
        *o = q[i] & 0x0f | q[i + QK / 2] << 4;
    }
}

#[inline(always)]
fn write_levels<V: Lanes>(q: [V; 4], out: &mut [u8]) {
    let q: [u8; QK] = bytes([q], 128.0);
    write_nibbles(&q.map(|level| Levels::INDEX[usize::from(level)]), out);
}

#[inline(always)]
pub(super) fn q4_k<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let block = affine_block::<V, 4, 8>(x, given, Q4_K);
    write_head(&block, out);
    write_halves(&bytes(block.q, 0.0), &mut out[16..144]);
}

#[inline(always)]
pub(super) fn q5_k<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let block = affine_block::<V, 4, 8>(x, given, Q5_K);
    write_head(&block, out);
    let q = bytes(block.q, 0.0);
    write_bit_planes(&q, 4, &mut out[16..48]);
    write_halves(&q, &mut out[48..176]);
}

#[inline(always)]
pub(super) fn q6_k<V: Lanes>(x: &[f32], given: Option<&[f32]>, out: &mut [u8]) {
    let block = symmetric_block::<V, Integers<32>, 2, 16>(x, given, 128.0);
    let q = bytes(block.q, 32.0);
    for (i, o) in out[..128].iter_mut().enumerate() {
        let first = 128 * (i / 64) + i % 64;
        *o = q[first] & 0x0f | q[first + 64] << 4;
    }
    let high = q.map(|q: u8| q >> 4);
    write_pairs_of_bits(&high, &mut out[128..192]);
    for (o, scale) in out[192..208].iter_mut().zip(block.scale) {
        *o = scale as i8 as u8;
    }
    out[208..210].copy_from_slice(&block.d.to_le_bytes());
}

/// The values, raised by `offset`.
#[inline(always)]
fn bytes<V: Lanes, const L: usize, const N: usize, const LEN: usize>(q: [[V; L]; N], offset: f32) -> [u8; LEN] {
    const { assert!(LEN == L * N * WIDTH) };
    let mut bytes = [0; LEN];
    for (bytes, q) in bytes.as_chunks_mut::<WIDTH>().0.iter_mut().zip(q.as_flattened()) {
        let q = q.plus(V::all(offset)).values();
        *bytes = q.map(|q| q as u8);
    }
    bytes
}

#[inline(always)]
fn write_head<V>(block: &Affine<V, 4, 8>, out: &mut [u8]) {
    out[..2].copy_from_slice(&block.d.to_le_bytes());
    out[2..4].copy_from_slice(&block.d_min.to_le_bytes());
    let pairs = &mut out[4..4 + PAIRS_BYTES];
    for k in 0..4 {
        let [scale, later_scale] = [k, k + 4].map(|k| block.scale[k] as u8);
        let [min, later_min] = [k, k + 4].map(|k| block.min[k] as u8);
        pairs[k] = scale | later_scale >> 4 << 6;
        pairs[k + 4] = min | later_min >> 4 << 6;
        pairs[k + 8] = later_scale & 0x0f | later_min << 4;
    }
}

/// Of each 64 values, those in the order of the low halves, then of the high halves.
#[inline(always)]
fn write_halves(q: &[u8; QK_K], out: &mut [u8]) {
    for (out, q) in out.chunks_exact_mut(32).zip(q.chunks_exact(64)) {
        for (i, o) in out.iter_mut().enumerate() {
            *o = q[i] & 0x0f | q[i + 32] << 4;
        }
    }
}

/// Of each 128 values, four pairs of bits in a byte, lowest first.
#[inline(always)]
fn write_pairs_of_bits(q: &[u8; QK_K], out: &mut [u8]) {
    for (out, q) in out.chunks_exact_mut(32).zip(q.chunks_exact(128)) {
        for (i, o) in out.iter_mut().enumerate() {
            *o = q[i] & 3 | (q[i + 32] & 3) << 2 | (q[i + 64] & 3) << 4 | (q[i + 96] & 3) << 6;
        }
    }
}

/// Bit `from` of value `32 j + i` becomes bit `j` of byte `i`.
#[inline(always)]
fn write_bit_planes(q: &[u8; QK_K], from: usize, out: &mut [u8]) {
    for (i, o) in out.iter_mut().enumerate() {
        *o = (0..8).fold(0, |bits, j| bits | (q[32 * j + i] >> from & 1) << j);
    }
}
