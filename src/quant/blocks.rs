//! The blocks of quantized types, read from and written to raw bytes.

use half::f16;

/// Elements in a block of the 32-element types.
pub const QK: usize = 32;
/// Bytes of a `Q8_0` block: an F16 scale, then 32 signed bytes.
pub const Q8_0_BYTES: usize = 2 + QK;
/// Bytes of a `Q4_0` block: an F16 scale, then 16 bytes; byte `i` holds element `i` in its low and element `i + 16`
/// in its high half, each offset by 8.
pub const Q4_0_BYTES: usize = 2 + QK / 2;

const _: () = assert!(Q8_0_BYTES == 34 && Q4_0_BYTES == 18);

/// The scale of a block that begins with one.
#[inline]
pub fn scale(block: &[u8]) -> f32 {
    f16_at(block, 0)
}

/// The F16 value whose bytes begin at `at`, converted without a call that checks for processor features.
#[inline(always)]
pub fn f16_at(block: &[u8], at: usize) -> f32 {
    #[cfg(target_arch = "aarch64")]
    return super::halves::one([block[at], block[at + 1]]);
    #[cfg(not(target_arch = "aarch64"))]
    from_half(u16::from_le_bytes([block[at], block[at + 1]]))
}

#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
fn from_half(half: u16) -> f32 {
    /// 2^112: the difference between the exponent biases of F32 and F16.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let half = u32::from(half);
    let (sign, rest) = ((half & 0x8000) << 16, (half & 0x7fff) << 13);
    let not_finite = if half & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits((f32::from_bits(rest) * REBIAS).to_bits() | not_finite | sign)
}

/// The 32 signed values of a `Q8_0` block, without their scale.
#[inline]
pub fn q8_0_values(block: &[u8], out: &mut [i8; QK]) {
    for (o, b) in out.iter_mut().zip(&block[2..Q8_0_BYTES]) {
        *o = *b as i8;
    }
}

/// The 32 signed values (-8 to 7) of a `Q4_0` block, without their scale.
#[inline]
pub fn q4_0_values(block: &[u8], out: &mut [i8; QK]) {
    let (low, high) = out.split_at_mut(QK / 2);
    for ((l, h), b) in low.iter_mut().zip(high).zip(&block[2..Q4_0_BYTES]) {
        *l = (b & 0x0f) as i8 - 8;
        *h = (b >> 4) as i8 - 8;
    }
}

/// Quantizes 32 values to a `Q8_0` block: scale `max|x| / 127`, values rounded half away from zero, as ggml's
/// reference quantizer does.
pub fn quantize_q8_0(x: &[f32], out: &mut [u8]) {
    let max = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let d = poison(x, max / 127.0);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (o, v) in out[2..Q8_0_BYTES].iter_mut().zip(x) {
        *o = (v * inverse).round() as i8 as u8;
    }
}

/// Quantizes 32 values to a `Q4_0` block: the value of largest magnitude becomes -8, as in ggml's reference quantizer;
/// product and sum are rounded separately, as in the `gguf` package (compilers fuse them in ggml, which changes one
/// value in ten million).
pub fn quantize_q4_0(x: &[f32], out: &mut [u8]) {
    let d = poison(x, extreme(x) / -8.0);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let nibble = |v: f32| ((v * inverse + 8.5) as u8).min(15);
    for i in 0..QK / 2 {
        out[2 + i] = nibble(x[i]) | nibble(x[i + QK / 2]) << 4;
    }
}

/// The value of largest magnitude; the first if there are several.
#[inline]
pub fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |extreme: f32, v| if v.abs() > extreme.abs() { *v } else { extreme })
}

/// The scale `d`, or NaN if something in `x` is not finite, which comparing and rounding would hide.
#[inline]
pub fn poison(x: &[f32], d: f32) -> f32 {
    if all_finite(x) { d } else { f32::NAN }
}

/// Whether all of `x` is finite.
#[inline]
pub fn all_finite(x: &[f32]) -> bool {
    x.iter().fold(true, |all, v| all & v.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_read() {
        for bits in 0..=u16::MAX {
            let (got, expected) = (f16_at(&bits.to_le_bytes(), 0), f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{bits:#x}: {got}");
        }
    }
}
