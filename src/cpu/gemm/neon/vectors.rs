//! Loads and stores of vectors of floats.
#![allow(unsafe_code, reason = "vector loads and stores take raw pointers")]

use super::super::tile::TILE_ROWS;
use std::arch::aarch64::*;

/// Tokens whose sums the registers hold.
pub(super) const TOKENS: usize = 4;
/// Numbers of a vector.
pub(super) const LANES: usize = 4;
/// Rows whose sums the registers hold.
pub(super) const HALF: usize = TILE_ROWS / 2;

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn read(floats: &[f32; LANES]) -> float32x4_t {
    // SAFETY: four floats.
    unsafe { vld1q_f32(floats.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn write(values: float32x4_t, floats: &mut [f32; LANES]) {
    // SAFETY: four floats.
    unsafe { vst1q_f32(floats.as_mut_ptr(), values) };
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn read_words(words: &[u32; TOKENS]) -> uint32x4_t {
    // SAFETY: four words.
    unsafe { vld1q_u32(words.as_ptr()) }
}

/// Pairs of words of a quad of tokens, two tokens in each vector.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn read_pairs<const N: usize>(words: &[[u32; 2]; N], quad: usize) -> [uint32x4_t; 2] {
    let words = quad_of(words, quad).as_flattened().as_chunks().0;
    [read_words(&words[0]), read_words(&words[1])]
}

/// 16 signed bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn read_bytes(bytes: &[u8; 16]) -> int8x16_t {
    // SAFETY: 16 bytes.
    unsafe { vld1q_s8(bytes.as_ptr().cast()) }
}

/// Vector `v` of a line of floats.
#[inline(always)]
pub(super) fn vector(line: &[f32; TILE_ROWS], v: usize) -> &[f32; LANES] {
    &line.as_chunks().0[v]
}

/// The numbers of a quad of tokens.
#[inline(always)]
pub(super) fn quad_of<T, const N: usize>(numbers: &[T; N], quad: usize) -> &[T; TOKENS] {
    &numbers.as_chunks().0[quad]
}
