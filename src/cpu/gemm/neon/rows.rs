//! Products with blocks by vectors of rows: half a tile (8 rows) and 4 tokens at a time.
#![allow(unsafe_code, reason = "dot products have an instruction, but no function yet")]

use super::super::packed::TokenPiece;
use super::super::tile::{Bytes, TILE_ROWS, Tile};
use super::subs::Subs;
use super::vectors::{HALF, LANES, TOKENS, quad_of, read, read_bytes, read_pairs, vector, write};
use crate::quant::decoded::BlockFormat;
use std::arch::aarch64::*;
use std::arch::asm;

/// Vectors of a half.
const VECTORS: usize = HALF / LANES;

/// Of each token the products with 8 rows.
type Products = [[int32x4_t; VECTORS]; TOKENS];

/// The even words of four tokens, each in a whole vector, and the odd ones.
#[inline]
#[target_feature(enable = "neon")]
fn by_token([a, b]: [uint32x4_t; 2]) -> [[int8x16_t; TOKENS]; 2] {
    [
        [
            vreinterpretq_s8_u32(vdupq_laneq_u32::<0>(a)),
            vreinterpretq_s8_u32(vdupq_laneq_u32::<2>(a)),
            vreinterpretq_s8_u32(vdupq_laneq_u32::<0>(b)),
            vreinterpretq_s8_u32(vdupq_laneq_u32::<2>(b)),
        ],
        [
            vreinterpretq_s8_u32(vdupq_laneq_u32::<1>(a)),
            vreinterpretq_s8_u32(vdupq_laneq_u32::<3>(a)),
            vreinterpretq_s8_u32(vdupq_laneq_u32::<1>(b)),
            vreinterpretq_s8_u32(vdupq_laneq_u32::<3>(b)),
        ],
    ]
}

/// `$name` adds the products of a tile with `N` tokens to `sums`. `$products` gives the integers of a sub-block from the lines of
/// a half and the words of four tokens. With `START` they begin where the offset of the weights wants it.
macro_rules! blocks {
    ($(#[$doc:meta])* $name:ident, $features:literal, $products:ident) => {
        $(#[$doc])*
        #[target_feature(enable = $features)]
        pub(super) fn $name<const N: usize, const WORDS: usize, const MIN: bool, const START: bool>(
            format: &BlockFormat,
            tile: &Tile,
            x: &TokenPiece,
            sums: &mut [[f32; TILE_ROWS]],
        ) {
            assert!(sums.len() == N);
            let subs = Subs::<N, WORDS>::of(format, tile, x);
            for (quad, sums) in sums.as_chunks_mut::<TOKENS>().0.iter_mut().enumerate() {
                for half in 0..TILE_ROWS / HALF {
                    let mut all = [[vdupq_n_f32(0.0); VECTORS]; TOKENS];
                    for t in 0..TOKENS {
                        for v in 0..VECTORS {
                            all[t][v] = read(vector(&sums[t], half * VECTORS + v));
                        }
                    }
                    for i in 0..subs.len() {
                        let mut start = [vdupq_n_s32(0); TOKENS];
                        if START {
                            let numbers = quad_of(&subs.start[i], quad);
                            for t in 0..TOKENS {
                                start[t] = vdupq_n_s32(numbers[t]);
                            }
                        }
                        let products = $products::<N, WORDS>(&subs.bytes[i], subs.words(i), (quad, half), start);
                        let d = read(quad_of(subs.d(i), quad));
                        for v in 0..VECTORS {
                            let scale = read(vector(&subs.scales[i].0, half * VECTORS + v));
                            let scale = [
                                vmulq_laneq_f32::<0>(scale, d),
                                vmulq_laneq_f32::<1>(scale, d),
                                vmulq_laneq_f32::<2>(scale, d),
                                vmulq_laneq_f32::<3>(scale, d),
                            ];
                            for t in 0..TOKENS {
                                all[t][v] = vfmaq_f32(all[t][v], vcvtq_f32_s32(products[t][v]), scale[t]);
                            }
                        }
                        if MIN {
                            let ds = read(quad_of(&subs.ds[i], quad));
                            for v in 0..VECTORS {
                                let min = read(vector(&subs.mins[i].0, half * VECTORS + v));
                                all[0][v] = vfmsq_laneq_f32::<0>(all[0][v], min, ds);
                                all[1][v] = vfmsq_laneq_f32::<1>(all[1][v], min, ds);
                                all[2][v] = vfmsq_laneq_f32::<2>(all[2][v], min, ds);
                                all[3][v] = vfmsq_laneq_f32::<3>(all[3][v], min, ds);
                            }
                        }
                    }
                    for t in 0..TOKENS {
                        for v in 0..VECTORS {
                            write(all[t][v], &mut sums[t].as_chunks_mut().0[half * VECTORS + v]);
                        }
                    }
                }
            }
        }
    };
}

blocks! {
    /// With dot products.
    dots, "neon,dotprod", dot_products
}
blocks! {
    /// Of bytes up to 63, whose products with the activations of a sub-block fit in 16 bits, four of each sum apart.
    small, "neon", small_products
}
blocks! {
    /// Of any signed bytes.
    large, "neon", large_products
}

/// The bytes of a half of a line, in vectors of four rows.
#[inline]
#[target_feature(enable = "neon")]
fn of_half(line: &Bytes, half: usize) -> [int8x16_t; VECTORS] {
    let vectors = &line.0.as_chunks::<{ HALF * 4 }>().0[half].as_chunks().0;
    [read_bytes(&vectors[0]), read_bytes(&vectors[1])]
}

/// Adds to each lane the dot product of its four bytes and those of one lane of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dots<const LANE: usize>(mut sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the processor has this instruction, which changes its first operand only.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_products<const N: usize, const WORDS: usize>(
    bytes: &[Bytes; WORDS],
    words: &[[[u32; 2]; N]],
    (quad, half): (usize, usize),
    start: [int32x4_t; TOKENS],
) -> Products {
    let mut products = start.map(|start| [start; VECTORS]);
    for (w, x) in bytes.as_chunks::<2>().0.iter().zip(words) {
        let [a, b] = read_pairs(x, quad);
        let (a, b) = (vreinterpretq_s8_u32(a), vreinterpretq_s8_u32(b));
        let w = [of_half(&w[0], half), of_half(&w[1], half)];
        for v in 0..VECTORS {
            products[0][v] = add_dots::<0>(products[0][v], w[0][v], a);
            products[1][v] = add_dots::<2>(products[1][v], w[0][v], a);
            products[2][v] = add_dots::<0>(products[2][v], w[0][v], b);
            products[3][v] = add_dots::<2>(products[3][v], w[0][v], b);
        }
        for v in 0..VECTORS {
            products[0][v] = add_dots::<1>(products[0][v], w[1][v], a);
            products[1][v] = add_dots::<3>(products[1][v], w[1][v], a);
            products[2][v] = add_dots::<1>(products[2][v], w[1][v], b);
            products[3][v] = add_dots::<3>(products[3][v], w[1][v], b);
        }
    }
    products
}

/// The sums of four numbers side by side, of four rows.
#[inline]
#[target_feature(enable = "neon")]
fn row_sums(first: int16x8_t, last: int16x8_t) -> int32x4_t {
    vpaddq_s32(vpaddlq_s16(first), vpaddlq_s16(last))
}

/// The sum of up to `WORDS` products is at most 32 * 31 * 127 / 4, or with four words 4 * 63 * 127: less than 2^15.
#[inline]
#[target_feature(enable = "neon")]
fn small_products<const N: usize, const WORDS: usize>(
    bytes: &[Bytes; WORDS],
    words: &[[[u32; 2]; N]],
    (quad, half): (usize, usize),
    start: [int32x4_t; TOKENS],
) -> Products {
    let mut sums = [[vdupq_n_s16(0); 2 * VECTORS]; TOKENS];
    for (w, x) in bytes.as_chunks::<2>().0.iter().zip(words) {
        for (w, x) in w.iter().zip(by_token(read_pairs(x, quad))) {
            let w = of_half(w, half);
            for t in 0..TOKENS {
                for v in 0..VECTORS {
                    sums[t][2 * v] = vmlal_s8(sums[t][2 * v], vget_low_s8(w[v]), vget_low_s8(x[t]));
                    sums[t][2 * v + 1] = vmlal_high_s8(sums[t][2 * v + 1], w[v], x[t]);
                }
            }
        }
    }
    let mut products = start.map(|start| [start; VECTORS]);
    for t in 0..TOKENS {
        for v in 0..VECTORS {
            products[t][v] = vaddq_s32(products[t][v], row_sums(sums[t][2 * v], sums[t][2 * v + 1]));
        }
    }
    products
}

/// The sum of two products, at most 2 * 128 * 127, fits in 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn large_products<const N: usize, const WORDS: usize>(
    bytes: &[Bytes; WORDS],
    words: &[[[u32; 2]; N]],
    (quad, half): (usize, usize),
    start: [int32x4_t; TOKENS],
) -> Products {
    let mut sums = [[vdupq_n_s32(0); 2 * VECTORS]; TOKENS];
    for (w, x) in bytes.as_chunks::<2>().0.iter().zip(words) {
        let w = [of_half(&w[0], half), of_half(&w[1], half)];
        let [even, odd] = by_token(read_pairs(x, quad));
        for t in 0..TOKENS {
            let x = [even[t], odd[t]];
            for v in 0..VECTORS {
                let low = vmull_s8(vget_low_s8(w[0][v]), vget_low_s8(x[0]));
                let low = vmlal_s8(low, vget_low_s8(w[1][v]), vget_low_s8(x[1]));
                let high = vmlal_high_s8(vmull_high_s8(w[0][v], x[0]), w[1][v], x[1]);
                sums[t][2 * v] = vpadalq_s16(sums[t][2 * v], low);
                sums[t][2 * v + 1] = vpadalq_s16(sums[t][2 * v + 1], high);
            }
        }
    }
    let mut products = start.map(|start| [start; VECTORS]);
    for t in 0..TOKENS {
        for v in 0..VECTORS {
            products[t][v] = vaddq_s32(products[t][v], vpaddq_s32(sums[t][2 * v], sums[t][2 * v + 1]));
        }
    }
    products
}
