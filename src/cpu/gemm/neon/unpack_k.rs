//! Unpacking super-blocks, with the bits that `quant::k_quants` and `quant::iq4` give them.

use super::super::tile::{Floats, TileLines};
use super::turn::{ROWS, store, store_floats};
use super::values::{flip, halves, levels, load, rows_of};
use super::vectors::read;
use crate::cpu::Rows;
use crate::quant::iq4;
use crate::quant::k_quants::{QK_K, scales_and_mins, scales_of_q2_k, scales_of_q3_k, scales_of_q6_k};
use std::arch::aarch64::*;

/// Quarters of a super-block, of 64 elements each.
const QUARTERS: usize = 4;
/// Squares of lines of a quarter.
const SQUARES: usize = QK_K / QUARTERS / 16;

/// Elements of a quarter.
type Values = [uint8x16_t; SQUARES];

/// `$name` unpacks super-blocks of `$bytes` bytes and `$subs` sub-blocks: `$values` gives the elements of a quarter, `$scales` the
/// scales and minima of a block.
macro_rules! blocks {
    ($name:ident, $bytes:literal, $subs:literal, $values:path, $scales:expr, $has_min:literal) => {
        #[target_feature(enable = "neon")]
        pub(super) fn $name<const PAIRS: bool>(rows: Rows, to: TileLines) {
            let lines = to.bytes.as_chunks_mut::<4>().0.as_chunks_mut::<SQUARES>().0.as_chunks_mut::<QUARTERS>().0;
            let scales = to.scales.as_chunks_mut::<4>().0.as_chunks_mut::<{ $subs / 4 }>().0;
            let mins = to.mins.as_chunks_mut::<4>().0.as_chunks_mut::<{ $subs / 4 }>().0;
            for first in (0..rows.len()).step_by(ROWS) {
                let rows = rows_of::<$bytes>(rows, first);
                for i in 0..rows[0].len() {
                    let blocks = [&rows[0][i], &rows[1][i], &rows[2][i], &rows[3][i]];
                    for (quarter, lines) in lines[i].iter_mut().enumerate() {
                        let [a, b, c, d] = [
                            $values(blocks[0], quarter),
                            $values(blocks[1], quarter),
                            $values(blocks[2], quarter),
                            $values(blocks[3], quarter),
                        ];
                        for (k, lines) in lines.iter_mut().enumerate() {
                            store::<PAIRS>([a[k], b[k], c[k], d[k]], first, lines);
                        }
                    }
                    let mut of = [[[0.0; $subs]; ROWS]; 2];
                    let [of_scales, of_mins] = &mut of;
                    for ((block, scales), mins) in blocks.into_iter().zip(of_scales).zip(of_mins) {
                        $scales(block, scales, mins);
                    }
                    store_lines(&of[0], first, &mut scales[i]);
                    if $has_min {
                        store_lines(&of[1], first, &mut mins[i]);
                    }
                }
            }
        }
    };
}

blocks!(q2_k, 84, 16, q2_k_values, |b: &[u8; 84], s: &mut _, m: &mut _| scales_of_q2_k(b, s, m), true);
blocks!(q3_k, 110, 16, q3_k_values, |b: &[u8; 110], s: &mut _, _| scales_of_q3_k(b, s), false);
blocks!(q4_k, 144, 8, q4_k_values, |b: &[u8; 144], s: &mut _, m: &mut _| scales_and_mins(b, s, m), true);
blocks!(q5_k, 176, 8, q5_k_values, |b: &[u8; 176], s: &mut _, m: &mut _| scales_and_mins(b, s, m), true);
blocks!(q6_k, 210, 16, q6_k_values, |b: &[u8; 210], s: &mut _, _| scales_of_q6_k(b, s), false);
blocks!(iq4_xs, 136, 8, iq4_xs_values, |b: &[u8; 136], s: &mut _, _| iq4::scales_of_iq4_xs(b, s), false);

/// Writes a number of each sub-block of four rows from `first` on.
#[inline]
#[target_feature(enable = "neon")]
fn store_lines<const N: usize>(numbers: &[[f32; N]; ROWS], first: usize, lines: &mut [[Floats; 4]]) {
    let [a, b, c, d] = numbers.each_ref().map(|row| row.as_chunks().0);
    for (k, lines) in lines.iter_mut().enumerate() {
        store_floats([read(&a[k]), read(&b[k]), read(&c[k]), read(&d[k])], first, lines);
    }
}

/// Bytes shifted to the right.
#[inline]
#[target_feature(enable = "neon")]
fn shifted(bytes: uint8x16_t, by: usize) -> uint8x16_t {
    vshlq_u8(bytes, vdupq_n_s8(-(by as i8)))
}

/// Bit `from` of each byte becomes bit `to`.
#[inline]
#[target_feature(enable = "neon")]
fn moved_bit(bytes: uint8x16_t, from: usize, to: usize) -> uint8x16_t {
    vandq_u8(vshlq_u8(bytes, vdupq_n_s8(to as i8 - from as i8)), vdupq_n_u8(1 << to))
}

/// Of 64 bytes with four pairs of bits each, those of a quarter of the block.
#[inline]
#[target_feature(enable = "neon")]
fn pairs_of_bits(bytes: &[u8], quarter: usize) -> Values {
    let bytes = &bytes[quarter / 2 * 32..];
    let [a, b] = [load(bytes), load(&bytes[16..])];
    let (low, three) = (quarter % 2 * 4, vdupq_n_u8(3));
    [
        vandq_u8(shifted(a, low), three),
        vandq_u8(shifted(b, low), three),
        vandq_u8(shifted(a, low + 2), three),
        vandq_u8(shifted(b, low + 2), three),
    ]
}

/// Adds to the values of a quarter the bits that 32 bytes have for them.
#[inline]
#[target_feature(enable = "neon")]
fn with_bits(values: Values, planes: &[u8], quarter: usize, to: usize) -> Values {
    let [a, b] = [load(planes), load(&planes[16..])];
    let [p, q, r, s] = values;
    [
        vorrq_u8(p, moved_bit(a, 2 * quarter, to)),
        vorrq_u8(q, moved_bit(b, 2 * quarter, to)),
        vorrq_u8(r, moved_bit(a, 2 * quarter + 1, to)),
        vorrq_u8(s, moved_bit(b, 2 * quarter + 1, to)),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
fn q2_k_values(block: &[u8; 84], quarter: usize) -> Values {
    pairs_of_bits(&block[16..80], quarter)
}

#[inline]
#[target_feature(enable = "neon")]
fn q3_k_values(block: &[u8; 110], quarter: usize) -> Values {
    with_bits(pairs_of_bits(&block[32..96], quarter), &block[..32], quarter, 2)
}

/// The low halves of run number `quarter` of 32 bytes, then the high ones.
#[inline]
#[target_feature(enable = "neon")]
fn half_bytes(bytes: &[u8], quarter: usize) -> Values {
    let bytes = &bytes[quarter * 32..];
    let ([a_low, a_high], [b_low, b_high]) = (halves(load(bytes)), halves(load(&bytes[16..])));
    [a_low, b_low, a_high, b_high]
}

#[inline]
#[target_feature(enable = "neon")]
fn q4_k_values(block: &[u8; 144], quarter: usize) -> Values {
    half_bytes(&block[16..], quarter)
}

#[inline]
#[target_feature(enable = "neon")]
fn q5_k_values(block: &[u8; 176], quarter: usize) -> Values {
    with_bits(half_bytes(&block[48..], quarter), &block[16..48], quarter, 4)
}

#[inline]
#[target_feature(enable = "neon")]
fn q6_k_values(block: &[u8; 210], quarter: usize) -> Values {
    let low = &block[quarter / 2 * 64..];
    let by = quarter % 2 * 4;
    let low_half = |bytes| vandq_u8(shifted(bytes, by), vdupq_n_u8(15));
    let [p, q, r, s] = pairs_of_bits(&block[128..192], quarter);
    [
        vorrq_u8(low_half(load(low)), vshlq_n_u8::<4>(p)),
        vorrq_u8(low_half(load(&low[16..])), vshlq_n_u8::<4>(q)),
        vorrq_u8(low_half(load(&low[32..])), vshlq_n_u8::<4>(r)),
        vorrq_u8(low_half(load(&low[48..])), vshlq_n_u8::<4>(s)),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
fn iq4_xs_values(block: &[u8; 136], quarter: usize) -> Values {
    let (bytes, table) = (&block[8 + quarter * 32..], flip(load(&iq4::LEVELS)));
    let ([a, b], [c, d]) = (levels(table, load(bytes)), levels(table, load(&bytes[16..])));
    [a, b, c, d]
}
