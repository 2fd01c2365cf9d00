//! Unpacking blocks of 32 elements, with the bits that `quant::legacy`, `quant::iq4` and `quant::mxfp4` give them.

use super::super::tile::TileLines;
use super::turn::{ROWS, store};
use super::values::{flip, halves, levels, load, rows_of};
use super::vectors::{read, write};
use crate::cpu::Rows;
use crate::quant::blocks::QK;
use crate::quant::{iq4, mxfp4};
use std::arch::aarch64::*;

/// Lines of a block.
const LINES: usize = QK / 4;

/// `$name` unpacks blocks of `$bytes` bytes: `$values` gives the elements of one, `$scales` and `$mins` a number of each of four.
macro_rules! blocks {
    ($name:ident, $bytes:expr, $values:expr, $scales:expr $(, $mins:expr)?) => {
        #[target_feature(enable = "neon")]
        pub(super) fn $name<const PAIRS: bool>(rows: Rows, to: TileLines) {
            let lines = to.bytes.as_chunks_mut::<4>().0.as_chunks_mut::<{ LINES / 4 }>().0;
            for first in (0..rows.len()).step_by(ROWS) {
                let rows = rows_of::<{ $bytes }>(rows, first);
                for i in 0..rows[0].len() {
                    let blocks = [&rows[0][i], &rows[1][i], &rows[2][i], &rows[3][i]];
                    let [a, b, c, d] = [$values(blocks[0]), $values(blocks[1]), $values(blocks[2]), $values(blocks[3])];
                    let [low, high] = &mut lines[i];
                    store::<PAIRS>([a[0], b[0], c[0], d[0]], first, low);
                    store::<PAIRS>([a[1], b[1], c[1], d[1]], first, high);
                    write($scales(blocks), &mut to.scales[i].0.as_chunks_mut().0[first / ROWS]);
                    $(write($mins(blocks), &mut to.mins[i].0.as_chunks_mut().0[first / ROWS]);)?
                }
            }
        }
    };
}

blocks!(q4_0, 18, |b: &[u8; 18]| halves(load(&b[2..])), |b| f16s::<18>(b, 0));
blocks!(q4_1, 20, |b: &[u8; 20]| halves(load(&b[4..])), |b| f16s::<20>(b, 0), |b| vnegq_f32(f16s::<20>(b, 2)));
blocks!(q5_0, 22, |b: &[u8; 22]| fifth_bits(&b[2..], halves(load(&b[6..]))), |b| f16s::<22>(b, 0));
blocks!(q5_1, 24, |b: &[u8; 24]| fifth_bits(&b[4..], halves(load(&b[8..]))), |b| f16s::<24>(b, 0), |b| vnegq_f32(
    f16s::<24>(b, 2)
));
// Their bytes are signed as they stand.
blocks!(q8_0, 34, |b: &[u8; 34]| [load(&b[2..]), load(&b[18..])], |b| f16s::<34>(b, 0));
blocks!(iq4_nl, 18, |b: &[u8; 18]| levels(flip(load(&iq4::LEVELS)), load(&b[2..])), |b| f16s::<18>(b, 0));
blocks!(
    mxfp4,
    mxfp4::BYTES,
    |b: &[u8; mxfp4::BYTES]| levels(load(&mxfp4::LEVELS), load(&b[1..])),
    |b: [&[u8; mxfp4::BYTES]; ROWS]| read(&b.map(|block| mxfp4::scale(block[0])))
);

/// The floats of 16 bits at `at` of four blocks.
#[inline]
#[target_feature(enable = "neon")]
fn f16s<const BYTES: usize>(blocks: [&[u8; BYTES]; ROWS], at: usize) -> float32x4_t {
    let [a, b, c, d] = blocks.map(|block| u64::from(u16::from_le_bytes([block[at], block[at + 1]])));
    vcvt_f32_f16(vreinterpret_f16_u64(vcreate_u64(a | b << 16 | c << 32 | d << 48)))
}

/// Adds 16 to values whose bit in the first four bytes is set.
#[inline]
#[target_feature(enable = "neon")]
fn fifth_bits(bits: &[u8], values: [uint8x16_t; 2]) -> [uint8x16_t; 2] {
    let bits = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]])));
    let single = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let of = |value, first: u8| {
        let spread = vcombine_u8(vdup_n_u8(first), vdup_n_u8(first + 1));
        let set = vtstq_u8(vqtbl1q_u8(bits, spread), single);
        vorrq_u8(value, vandq_u8(set, vdupq_n_u8(16)))
    };
    [of(values[0], 0), of(values[1], 2)]
}
