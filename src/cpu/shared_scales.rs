//! Scaled addition of rows whose quants and scales lie apart, as in a lossless variant.

use super::isa::Isa;
use crate::quant::blocks::QK;
use crate::quant::convert;

/// How the quants of a row are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quants {
    /// Signed bytes, as in `Q8_0`.
    Bytes,
    /// Half-bytes offset by 8: the first 16 of each 32 in the low halves of 16 bytes, as in `Q4_0`.
    HalfBytes,
}

impl Quants {
    /// Bytes of `n` quants, a multiple of 32.
    pub fn n_bytes(self, n: usize) -> usize {
        match self {
            Self::Bytes => n,
            Self::HalfBytes => n / 2,
        }
    }
}

/// Elements added at a time.
const STEP: usize = 2 * QK;

/// `y[j] += a * (scale[j] * q[j])`, where 0 times anything is 0. `scales` are F16; `y.len()` is a multiple of 32.
pub fn add_scaled(isa: Isa, quants: Quants, q: &[u8], scales: &[u8], a: f32, y: &mut [f32]) {
    if a == 0.0 {
        return;
    }
    assert!(q.len() == quants.n_bytes(y.len()) && scales.len() == 2 * y.len() && y.len().is_multiple_of(QK));
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2 {
        return super::avx2::add_shared_scales(isa, quants, q, scales, a, y);
    }
    let _ = isa;
    add(quants, q, scales, a, y);
}

/// [`add_scaled`], inlined so that the compiler vectorises it with the caller's features.
#[inline(always)]
pub(super) fn add(quants: Quants, q: &[u8], scales: &[u8], a: f32, y: &mut [f32]) {
    let mut scale = [0.0; STEP];
    for ((y, scales), q) in y.chunks_mut(STEP).zip(scales.chunks(2 * STEP)).zip(q.chunks(quants.n_bytes(STEP))) {
        convert::from_f16(scales, &mut scale[..y.len()]);
        match quants {
            Quants::Bytes => {
                for ((y, s), q) in y.iter_mut().zip(&scale).zip(q) {
                    *y += a * (s * f32::from(*q as i8));
                }
            }
            Quants::HalfBytes => {
                let blocks = y.as_chunks_mut::<QK>().0.iter_mut().zip(scale.as_chunks::<QK>().0);
                for ((y, s), q) in blocks.zip(q.as_chunks::<{ QK / 2 }>().0) {
                    let (y_low, y_high) = y.split_at_mut(QK / 2);
                    let (s_low, s_high) = s.split_at(QK / 2);
                    for ((y, s), q) in y_low.iter_mut().zip(s_low).zip(q) {
                        *y += a * (s * f32::from((q & 15) as i8 - 8));
                    }
                    for ((y, s), q) in y_high.iter_mut().zip(s_high).zip(q) {
                        *y += a * (s * f32::from((q >> 4) as i8 - 8));
                    }
                }
            }
        }
    }
}
