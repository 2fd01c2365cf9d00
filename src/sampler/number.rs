//! Random numbers, exponentials and logarithms that are the same on every platform.
//!
//! `f64::exp` and `f64::ln` come from the platform's libm and may differ in their last bit. What is here uses only operations that
//! IEEE 754 fixes, so that a seed means the same tokens everywhere.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use std::f64::consts::SQRT_2;

// ln 2 in two parts (fdlibm's e_exp.c): a whole number times the first is exact.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// Uniform in 0..1, from the upper 53 bits of one draw.
pub fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    const STEPS: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;
    (rng.next_u64() >> (u64::BITS - f64::MANTISSA_DIGITS)) as f64 / STEPS
}

/// e^x for x <= 0, within a few units in the last place; 0 where the result would be subnormal.
pub fn exp_of_nonpositive(x: f64) -> f64 {
    const TAYLOR_DEGREE: i32 = 13;
    if x < -708.0 {
        return 0.0;
    }
    let k = (x * std::f64::consts::LOG2_E).round();
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let mantissa = (1..=TAYLOR_DEGREE).rev().fold(1.0, |tail, n| 1.0 + tail * r / f64::from(n));
    let power_of_two = f64::from_bits(((k as i64 + 1023) as u64) << 52);
    mantissa * power_of_two
}

/// The natural logarithm, within a few units in the last place; -inf of 0, NaN of what is negative.
pub fn ln(x: f64) -> f64 {
    const TERMS: i32 = 12;
    if x <= 0.0 || !x.is_finite() {
        return if x == 0.0 {
            f64::NEG_INFINITY
        } else if x > 0.0 {
            x
        } else {
            f64::NAN
        };
    }
    // Subnormal numbers have no exponent of their own.
    let (x, shifted) = if x < f64::MIN_POSITIVE { (x * (1u64 << 54) as f64, 54) } else { (x, 0) };
    let bits = x.to_bits();
    let mut k = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > SQRT_2 {
        mantissa /= 2.0;
        k += 1;
    }
    let k = f64::from(k - shifted);
    // ln m = 2 artanh s, whose series is s + s^3/3 + s^5/5 ...
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..TERMS).rev().fold(0.0, |tail, n| 1.0 / f64::from(2 * n + 1) + tail * s * s);
    k * LN_2_HIGH + (2.0 * s * series + k * LN_2_LOW)
}

/// `base` to the power of `exponent`, for a positive base; infinite where that is too large, 0 where too small.
pub fn power(base: f64, exponent: f64) -> f64 {
    let x = exponent * ln(base);
    if x > 0.0 { 1.0 / exp_of_nonpositive(-x) } else { exp_of_nonpositive(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_libm() {
        for i in 0..70_800 {
            let x = -f64::from(i) / 100.0;
            let (ours, libm) = (exp_of_nonpositive(x), x.exp());
            assert!((ours - libm).abs() <= 4.0 * f64::EPSILON * libm, "{x}: {ours} {libm}");
        }
        assert_eq!(exp_of_nonpositive(0.0), 1.0);
        assert_eq!(exp_of_nonpositive(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn ln_agrees_with_libm() {
        let numbers = (1..5000).flat_map(|i| [f64::from(i) / 1000.0, f64::from(i) * 1e300, 1e-310 / f64::from(i)]);
        for x in numbers {
            let (ours, libm) = (ln(x), x.ln());
            assert!((ours - libm).abs() <= 4.0 * f64::EPSILON * libm.abs().max(f64::EPSILON), "{x}: {ours} {libm}");
        }
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert_eq!(ln(f64::INFINITY), f64::INFINITY);
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan());
    }

    #[test]
    fn powers_agree_with_libm() {
        for (base, exponent) in [(0.3, 2.5), (2.0, 10.0), (32000.0, -0.7), (1.75, 100.0), (0.5, 0.0)] {
            let (ours, libm) = (power(base, exponent), f64::powf(base, exponent));
            assert!((ours - libm).abs() <= 1e-12 * libm, "{base}^{exponent}: {ours} {libm}");
        }
        assert_eq!(power(10.0, 1000.0), f64::INFINITY);
        assert_eq!(power(10.0, -1000.0), 0.0);
    }
}
