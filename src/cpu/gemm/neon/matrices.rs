//! Products with blocks by 8-bit products of matrices: 8 rows and 4 tokens at a time, in squares of two rows and two tokens.
#![allow(unsafe_code, reason = "vector loads take raw pointers")]

use super::super::packed::TokenPiece;
use super::super::tile::{TILE_ROWS, Tile};
use super::subs::Subs;
use super::vectors::{HALF, LANES, TOKENS, quad_of, read, read_bytes, read_pairs, vector, write};
use crate::cpu::neon::smmla;
use crate::quant::decoded::BlockFormat;
use std::arch::aarch64::*;

/// Pairs of rows and of tokens.
const ROW_PAIRS: usize = HALF / 2;
const TOKEN_PAIRS: usize = TOKENS / 2;

/// Of two rows and two tokens: the first row's numbers, then the second's.
type Squares<T> = [[T; TOKEN_PAIRS]; ROW_PAIRS];

/// Two numbers, twice.
#[inline]
#[target_feature(enable = "neon")]
fn twice<T: Copy>(pair: &[T; 2]) -> int64x2_t {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: 8 bytes, which need not be aligned.
    unsafe { vld1q_dup_s64(pair.as_ptr().cast()) }
}

/// The sums of 8 rows and 4 tokens.
#[inline]
#[target_feature(enable = "neon")]
fn load(sums: &[[f32; TILE_ROWS]; TOKENS], half: usize) -> Squares<float32x4_t> {
    let mut squares = [[vdupq_n_f32(0.0); TOKEN_PAIRS]; ROW_PAIRS];
    for pair in 0..TOKEN_PAIRS {
        for v in 0..HALF / LANES {
            let [a, b] = [0, 1].map(|t| read(vector(&sums[2 * pair + t], half * HALF / LANES + v)));
            squares[2 * v][pair] = vzip1q_f32(a, b);
            squares[2 * v + 1][pair] = vzip2q_f32(a, b);
        }
    }
    squares
}

#[inline]
#[target_feature(enable = "neon")]
fn store(squares: Squares<float32x4_t>, sums: &mut [[f32; TILE_ROWS]; TOKENS], half: usize) {
    for pair in 0..TOKEN_PAIRS {
        for v in 0..HALF / LANES {
            let (first, last) = (squares[2 * v][pair], squares[2 * v + 1][pair]);
            let at = half * HALF / LANES + v;
            write(vuzp1q_f32(first, last), &mut sums[2 * pair].as_chunks_mut().0[at]);
            write(vuzp2q_f32(first, last), &mut sums[2 * pair + 1].as_chunks_mut().0[at]);
        }
    }
}

/// A number of each of 8 rows, twice, in pairs of rows.
#[inline]
#[target_feature(enable = "neon")]
fn of_rows(line: &[f32; TILE_ROWS], half: usize) -> [float32x4_t; ROW_PAIRS] {
    let [a, b] = [0, 1].map(|v| read(vector(line, half * HALF / LANES + v)));
    [vzip1q_f32(a, a), vzip2q_f32(a, a), vzip1q_f32(b, b), vzip2q_f32(b, b)]
}

/// A number of each of 4 tokens, in pairs of tokens, twice.
#[inline]
#[target_feature(enable = "neon")]
fn of_tokens(numbers: &[f32; TOKENS]) -> [float32x4_t; TOKEN_PAIRS] {
    let pairs = numbers.as_chunks().0;
    [vreinterpretq_f32_s64(twice(&pairs[0])), vreinterpretq_f32_s64(twice(&pairs[1]))]
}

/// Adds the products of a tile with `N` tokens to `sums`. With `START` they begin where the offset of the weights wants it.
#[target_feature(enable = "neon,i8mm")]
pub(super) fn times<const N: usize, const WORDS: usize, const MIN: bool, const START: bool>(
    format: &BlockFormat,
    tile: &Tile,
    x: &TokenPiece,
    sums: &mut [[f32; TILE_ROWS]],
) {
    assert!(sums.len() == N);
    let subs = Subs::<N, WORDS>::of(format, tile, x);
    for (quad, sums) in sums.as_chunks_mut::<TOKENS>().0.iter_mut().enumerate() {
        const { assert!(TILE_ROWS == 2 * HALF) };
        // SAFETY: this function has the feature.
        unsafe {
            of_half::<N, WORDS, 0, MIN, START>(subs, quad, sums);
            of_half::<N, WORDS, 1, MIN, START>(subs, quad, sums);
        }
    }
}

/// The same for a half of the rows and four tokens. Its number is a constant: with a variable, the compiler would compute most
/// addresses anew in every step.
///
/// # Safety
/// As for [`smmla`].
#[inline(always)]
unsafe fn of_half<const N: usize, const WORDS: usize, const PART: usize, const MIN: bool, const START: bool>(
    subs: Subs<N, WORDS>,
    quad: usize,
    sums: &mut [[f32; TILE_ROWS]; TOKENS],
) {
    // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
    unsafe {
        let mut all = load(sums, PART);
        for i in 0..subs.len() {
            let mut products = [[vdupq_n_s32(0); TOKEN_PAIRS]; ROW_PAIRS];
            if START {
                let start = quad_of(&subs.start[i], quad).as_chunks().0;
                for pair in 0..TOKEN_PAIRS {
                    let start = vreinterpretq_s32_s64(twice(&start[pair]));
                    products.iter_mut().for_each(|products| products[pair] = start);
                }
            }
            for (lines, words) in subs.bytes[i].as_chunks::<2>().0.iter().zip(subs.words(i)) {
                let x = read_pairs(words, quad);
                for (products, w) in products.iter_mut().zip(lines[PART].0.as_chunks().0) {
                    let w = read_bytes(w);
                    for pair in 0..TOKEN_PAIRS {
                        products[pair] = smmla(products[pair], w, vreinterpretq_s8_u32(x[pair]));
                    }
                }
            }
            let (scales, d) = (of_rows(&subs.scales[i].0, PART), of_tokens(quad_of(subs.d(i), quad)));
            for row in 0..ROW_PAIRS {
                for pair in 0..TOKEN_PAIRS {
                    let scale = vmulq_f32(scales[row], d[pair]);
                    let products = vcvtq_f32_s32(products[row][pair]);
                    all[row][pair] = vfmaq_f32(all[row][pair], products, scale);
                }
            }
            if MIN {
                let (mins, ds) = (of_rows(&subs.mins[i].0, PART), of_tokens(quad_of(&subs.ds[i], quad)));
                for row in 0..ROW_PAIRS {
                    for pair in 0..TOKEN_PAIRS {
                        all[row][pair] = vfmsq_f32(all[row][pair], mins[row], ds[pair]);
                    }
                }
            }
        }
        store(all, sums, PART);
    }
}
