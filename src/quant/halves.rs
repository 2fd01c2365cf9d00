//! Floats of 16 bits on AArch64, all of whose processors convert them.
#![allow(unsafe_code, reason = "intrinsics of NEON, and loads that take raw pointers")]

use std::arch::aarch64::*;

/// Numbers of a vector.
const LANES: usize = 4;

/// Reads floats of 16 bits.
///
/// # Panics
/// When the lengths do not match.
pub fn to_floats(row: &[u8], out: &mut [f32]) {
    #[target_feature(enable = "neon")]
    fn read(row: &[u8], out: &mut [f32]) {
        assert!(row.len() == 2 * out.len());
        let (vectors, rest) = out.as_chunks_mut::<LANES>();
        let (stored, stored_rest) = row.as_chunks::<{ 2 * LANES }>();
        for (out, stored) in vectors.iter_mut().zip(stored) {
            // SAFETY: 8 bytes are read, and four floats written.
            unsafe { vst1q_f32(out.as_mut_ptr(), four(vld1_u8(stored.as_ptr()))) };
        }
        for (out, stored) in rest.iter_mut().zip(stored_rest.as_chunks().0) {
            *out = one(*stored);
        }
    }
    // SAFETY: all processors that are built for have NEON.
    unsafe { read(row, out) }
}

/// Reads one.
#[inline(always)]
pub fn one(stored: [u8; 2]) -> f32 {
    // SAFETY: as above.
    unsafe { vgetq_lane_f32::<0>(four(vreinterpret_u8_u16(vdup_n_u16(u16::from_le_bytes(stored))))) }
}

#[inline]
#[target_feature(enable = "neon")]
fn four(stored: uint8x8_t) -> float32x4_t {
    vcvt_f32_f16(vreinterpret_f16_u8(stored))
}
