//! Floats become bytes, a block at a time.
#![allow(unsafe_code, reason = "intrinsics of NEON, and loads and stores that take raw pointers")]

use crate::quant::blocks::QK;

/// Neighbours that are summed.
const SUM_LEN: usize = 4;
/// Adding 1.5 * 2^23 rounds to an integer, half to even, which the low bits then hold.
const ROUND: f32 = 12_582_912.0;

/// Writes `x` times `inverse`, rounded half to even, and the negated sum of every four of them. Products go from -127 to 127;
/// what is no number becomes 0.
#[inline]
pub(super) fn round(x: &[f32; QK], inverse: f32, q: &mut [i8; QK], neg_sums: &mut [i32; QK / SUM_LEN]) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: all processors that are built for have NEON.
    unsafe {
        round_neon(x, inverse, q, neg_sums);
    }
    #[cfg(not(target_arch = "aarch64"))]
    round_plain(x, inverse, q, neg_sums);
}

#[cfg(any(not(target_arch = "aarch64"), test))]
#[inline]
fn round_plain(x: &[f32; QK], inverse: f32, q: &mut [i8; QK], neg_sums: &mut [i32; QK / SUM_LEN]) {
    for (q, x) in q.iter_mut().zip(x) {
        let rounded = x * inverse + ROUND;
        *q = if rounded.is_nan() { 0 } else { rounded.to_bits() as i8 };
    }
    for (sum, q) in neg_sums.iter_mut().zip(q.as_chunks::<SUM_LEN>().0) {
        *sum = -q.iter().map(|q| i32::from(*q)).sum::<i32>();
    }
}

/// A compiler makes 32 branches of the plain one.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
fn round_neon(x: &[f32; QK], inverse: f32, q: &mut [i8; QK], neg_sums: &mut [i32; QK / SUM_LEN]) {
    use std::arch::aarch64::*;
    let round = vdupq_n_f32(ROUND);
    let read = |x: &[f32; 4]| {
        // SAFETY: four floats.
        let rounded = vaddq_f32(vmulq_n_f32(unsafe { vld1q_f32(x.as_ptr()) }, inverse), round);
        vreinterpretq_u16_u32(vandq_u32(vreinterpretq_u32_f32(rounded), vceqq_f32(rounded, rounded)))
    };
    let halves = q.as_chunks_mut::<16>().0.iter_mut().zip(neg_sums.as_chunks_mut::<4>().0);
    for ((q, neg_sums), x) in halves.zip(x.as_chunks::<4>().0.as_chunks::<4>().0) {
        let low = vuzp1q_u16(read(&x[0]), read(&x[1]));
        let high = vuzp1q_u16(read(&x[2]), read(&x[3]));
        let bytes = vreinterpretq_s8_u8(vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)));
        // SAFETY: 16 bytes, and four sums.
        unsafe {
            vst1q_s8(q.as_mut_ptr(), bytes);
            vst1q_s32(neg_sums.as_mut_ptr(), vnegq_s32(vpaddlq_s16(vpaddlq_s8(bytes))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::noise;

    #[test]
    fn bytes_and_sums_are_those_of_the_plain_rounding() {
        let mut x: [f32; QK] = std::array::from_fn(|i| i as f32 - 15.5);
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7fc0_0081), -0.0, 126.5, -126.5, 1e-40];
        for seed in 0..50 {
            let (mut got, mut wanted) = ([1; QK], [2; QK]);
            let (mut sums, mut wanted_sums) = ([3; QK / SUM_LEN], [4; QK / SUM_LEN]);
            for inverse in [1.0, 0.5, 0.0, 126.9] {
                round(&x, inverse, &mut got, &mut sums);
                round_plain(&x, inverse, &mut wanted, &mut wanted_sums);
                assert_eq!((got, sums), (wanted, wanted_sums), "{x:?} times {inverse}");
            }
            x.copy_from_slice(&noise(QK, seed));
            x[seed as usize % QK] = odd[seed as usize % odd.len()];
        }
    }
}
