//! Agreement of signs: how many elements of two vectors have the same sign, by exclusive or and a bit count.
#![allow(unsafe_code, reason = "a function for processors that count bits; called after asking whether this one does")]

/// Elements in a word.
const WORD: usize = 64;

/// Bytes of the signs of `n` elements; `n` is a multiple of 8.
pub const fn sign_bytes(n: usize) -> usize {
    n / 8
}

/// The signs of `x`: bit `j % 64` of word `j / 64` is set where element `j` is negative. The rest of the last word
/// is 0.
pub fn pack(x: &[f32], bits: &mut Vec<u64>) {
    bits.clear();
    bits.extend(x.chunks(WORD).map(|x| x.iter().rev().fold(0, |word, x| word << 1 | u64::from(x.is_sign_negative()))));
}

/// For each of consecutive `rows` of `row_bytes` signs (bit `j % 8` of byte `j / 8` is set where element `j` is
/// negative), the number of elements with the sign of `x` minus the number with the other sign.
pub fn agreement(rows: &[u8], row_bytes: usize, x: &[u64], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512vpopcntdq") && is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the features, as just asked.
        unsafe { agreement_vpopcnt(rows, row_bytes, x, out) };
        return;
    } else if is_x86_feature_detected!("popcnt") {
        // SAFETY: as above.
        unsafe { agreement_popcnt(rows, row_bytes, x, out) };
        return;
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: all processors that are built for have NEON.
    unsafe {
        agreement_cnt(rows, row_bytes, x, out);
    }
    #[cfg(not(target_arch = "aarch64"))]
    agreement_plain(rows, row_bytes, x, out);
}

#[cfg(any(not(target_arch = "aarch64"), test))]
#[inline(always)]
fn agreement_plain(rows: &[u8], row_bytes: usize, x: &[u64], out: &mut [f32]) {
    let n = (row_bytes * 8) as f32;
    for (row, out) in rows.chunks_exact(row_bytes).zip(out) {
        *out = n - 2.0 * differences(row, x) as f32;
    }
}

/// How many signs of a row or of its end differ from those of `x`.
#[inline(always)]
fn differences(row: &[u8], x: &[u64]) -> u32 {
    let (words, rest) = row.as_chunks::<8>();
    let mut differ: u32 = words.iter().zip(x).map(|(w, x)| (u64::from_le_bytes(*w) ^ x).count_ones()).sum();
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        differ += (u64::from_le_bytes(last) ^ x[words.len()]).count_ones();
    }
    differ
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
fn agreement_vpopcnt(rows: &[u8], row_bytes: usize, x: &[u64], out: &mut [f32]) {
    agreement_plain(rows, row_bytes, x, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn agreement_popcnt(rows: &[u8], row_bytes: usize, x: &[u64], out: &mut [f32]) {
    agreement_plain(rows, row_bytes, x, out);
}

/// Counts in bytes, and adds those up when they could overflow.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn agreement_cnt(rows: &[u8], row_bytes: usize, x: &[u64], out: &mut [f32]) {
    use std::arch::aarch64::*;
    /// Vectors whose counts, up to 8 of each byte, fit in a byte.
    const VECTORS: usize = u8::MAX as usize / 8;
    let n = (row_bytes * 8) as f32;
    let pairs = x.as_chunks::<2>().0;
    for (row, out) in rows.chunks_exact(row_bytes).zip(out) {
        let (vectors, rest) = row.as_chunks::<16>();
        let mut sums = vdupq_n_u32(0);
        for (vectors, x) in vectors.chunks(VECTORS).zip(pairs.chunks(VECTORS)) {
            let mut counts = vdupq_n_u8(0);
            for (signs, x) in vectors.iter().zip(x) {
                // SAFETY: 16 bytes each.
                let (signs, x) = unsafe { (vld1q_u8(signs.as_ptr()), vld1q_u64(x.as_ptr())) };
                counts = vaddq_u8(counts, vcntq_u8(veorq_u8(signs, vreinterpretq_u8_u64(x))));
            }
            sums = vpadalq_u16(sums, vpaddlq_u8(counts));
        }
        let differ = vaddvq_u32(sums) + differences(rest, x.get(2 * vectors.len()..).unwrap_or_default());
        *out = n - 2.0 * differ as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::noise;

    #[test]
    fn agreement_is_that_of_a_count_element_by_element() {
        for n in [8, 64, 72, 200, 512, 4096, 8264] {
            let (x, w) = (noise(n, 3), noise(5 * n, 4));
            let bytes =
                |w: &[f32]| w.chunks(8).map(|w| w.iter().rev().fold(0, |b, w| b << 1 | u8::from(*w < 0.0))).collect();
            let rows: Vec<u8> = w.chunks(n).flat_map(|w| -> Vec<u8> { bytes(w) }).collect();
            let mut bits = Vec::new();
            pack(&x, &mut bits);
            let (mut got, mut plain) = ([0.0; 5], [0.0; 5]);
            agreement(&rows, sign_bytes(n), &bits, &mut got);
            agreement_plain(&rows, sign_bytes(n), &bits, &mut plain);
            let same =
                |w: &[f32]| w.iter().zip(&x).map(|(w, x)| if (*w < 0.0) == (*x < 0.0) { 1.0 } else { -1.0 }).sum();
            let expected: Vec<f32> = w.chunks(n).map(same).collect();
            assert_eq!((got.to_vec(), plain.to_vec()), (expected.clone(), expected), "{n}");
            // As many differences as there can be, and none.
            let opposite: Vec<u8> = bits.iter().flat_map(|word| (!word).to_le_bytes()).take(sign_bytes(n)).collect();
            let own: Vec<u8> = opposite.iter().map(|byte| !byte).collect();
            agreement(&[opposite, own].concat(), sign_bytes(n), &bits, &mut got[..2]);
            assert_eq!(got[..2], [-(n as f32), n as f32], "{n}");
        }
    }
}
