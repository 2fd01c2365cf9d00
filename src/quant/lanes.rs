//! Eight floats at a time, in plain Rust, with AVX2 and with NEON: the same bits with each, because each product and sum is
//! rounded.
#![allow(unsafe_code, reason = "intrinsics of AVX2 and NEON")]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Floats in [`Lanes`].
pub const WIDTH: usize = 8;

/// Added and taken away again, rounds floats far below 2^22 to integers, ties to even: 1.5 * 2^23. Unlike `round`, that is fast
/// on processors of any age.
pub const ROUND: f32 = 12_582_912.0;

/// Eight floats that are computed alike.
pub trait Lanes: Copy {
    /// Eight times `v`.
    fn all(v: f32) -> Self;
    /// The first eight of `x`.
    fn read(x: &[f32; WIDTH]) -> Self;
    /// The values.
    fn values(self) -> [f32; WIDTH];
    /// Sums.
    fn plus(self, other: Self) -> Self;
    /// Differences.
    fn minus(self, other: Self) -> Self;
    /// Products.
    fn times(self, other: Self) -> Self;
    /// Each value or the limit that it is beyond; `low` for what is no number.
    fn clamp(self, low: Self, high: Self) -> Self;
    /// Each value without its sign.
    fn abs(self) -> Self;
    /// The sum of all eight, in a fixed order.
    fn sum(self) -> f32;
    /// The sums of each of eight, in their order.
    fn sums(of: &[Self; WIDTH]) -> Self;
    /// Quotients.
    fn over(self, other: Self) -> Self;
    /// Where values are less than 0 those of `yes`, elsewhere those of `no`.
    fn if_negative(self, yes: Self, no: Self) -> Self;
    /// The lesser of two.
    fn min(self, other: Self) -> Self;
    /// The greater of two.
    fn max(self, other: Self) -> Self;

    /// The integers nearest to the values, between `low` and `high`, which are far below 2^22.
    #[inline(always)]
    fn nearest(self, low: f32, high: f32) -> Self {
        let round = Self::all(ROUND);
        self.clamp(Self::all(low), Self::all(high)).plus(round).minus(round)
    }
}

/// The specification.
#[cfg(any(not(target_arch = "aarch64"), test))]
#[derive(Debug, Clone, Copy)]
pub struct Plain([f32; WIDTH]);

#[cfg(any(not(target_arch = "aarch64"), test))]
impl Lanes for Plain {
    fn all(v: f32) -> Self {
        Self([v; WIDTH])
    }

    fn read(x: &[f32; WIDTH]) -> Self {
        Self(*x)
    }

    fn values(self) -> [f32; WIDTH] {
        self.0
    }

    fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }

    fn times(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }

    fn clamp(self, low: Self, high: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].max(low.0[i]).min(high.0[i])))
    }

    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    fn sums(of: &[Self; WIDTH]) -> Self {
        Self(of.map(Self::sum))
    }

    fn over(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] / other.0[i]))
    }

    fn if_negative(self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < 0.0 { yes.0[i] } else { no.0[i] }))
    }

    fn min(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].min(other.0[i])))
    }

    fn max(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].max(other.0[i])))
    }

    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// For functions that are only called where the processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub struct Avx2(__m256);

// SAFETY: here and below, values of this type are made only in functions that are called where the processor has AVX2.
#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    #[inline(always)]
    fn all(v: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(v) })
    }

    #[inline(always)]
    fn read(x: &[f32; WIDTH]) -> Self {
        Self(unsafe { _mm256_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn values(self) -> [f32; WIDTH] {
        let mut values = [0.0; WIDTH];
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), self.0) };
        values
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn clamp(self, low: Self, high: Self) -> Self {
        // The second operand is the result where the first is no number.
        Self(unsafe { _mm256_min_ps(_mm256_max_ps(self.0, low.0), high.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    fn sums(of: &[Self; WIDTH]) -> Self {
        let [a, b, c, d, e, f, g, h] = *of;
        let ab = quarters(halves(a, e), halves(b, f));
        let cd = quarters(halves(c, g), halves(d, h));
        Self(unsafe {
            _mm256_add_ps(_mm256_shuffle_ps::<0b10_00_10_00>(ab, cd), _mm256_shuffle_ps::<0b11_01_11_01>(ab, cd))
        })
    }

    #[inline(always)]
    fn over(self, other: Self) -> Self {
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn if_negative(self, yes: Self, no: Self) -> Self {
        Self(unsafe {
            let negative = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_setzero_ps());
            _mm256_blendv_ps(no.0, yes.0, negative)
        })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

/// The first four sums of two of `low`, and those of `high`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn halves(low: Avx2, high: Avx2) -> __m256d {
    unsafe {
        let first = _mm256_permute2f128_ps::<0x20>(low.0, high.0);
        let second = _mm256_permute2f128_ps::<0x31>(low.0, high.0);
        _mm256_castps_pd(_mm256_add_ps(first, second))
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn quarters(a: __m256d, b: __m256d) -> __m256 {
    unsafe {
        let (first, second) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        _mm256_add_ps(_mm256_castpd_ps(first), _mm256_castpd_ps(second))
    }
}

/// For AArch64, all of whose processors have NEON: the first four and the others.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy)]
pub struct Neon(float32x4_t, float32x4_t);

#[cfg(target_arch = "aarch64")]
impl Neon {
    /// What `of` makes of both vectors.
    #[inline(always)]
    fn each(self, other: Self, of: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self(of(self.0, other.0), of(self.1, other.1))
    }

    /// The sums of two, of which two lanes each are to be added.
    #[inline(always)]
    fn pair_sums(self, other: Self) -> float32x4_t {
        // SAFETY: here and below, all processors that are built for have NEON.
        unsafe {
            let of = |v: Self| vreinterpretq_f64_f32(vaddq_f32(v.0, v.1));
            let (a, b) = (of(self), of(other));
            vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(a, b)), vreinterpretq_f32_f64(vzip2q_f64(a, b)))
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl Lanes for Neon {
    #[inline(always)]
    fn all(v: f32) -> Self {
        let v = unsafe { vdupq_n_f32(v) };
        Self(v, v)
    }

    #[inline(always)]
    fn read(x: &[f32; WIDTH]) -> Self {
        unsafe { Self(vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(WIDTH / 2))) }
    }

    #[inline(always)]
    fn values(self) -> [f32; WIDTH] {
        let mut values = [0.0; WIDTH];
        unsafe {
            vst1q_f32(values.as_mut_ptr(), self.0);
            vst1q_f32(values.as_mut_ptr().add(WIDTH / 2), self.1);
        }
        values
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.each(other, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.each(other, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self.each(other, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    fn clamp(self, low: Self, high: Self) -> Self {
        self.max(low).min(high)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        unsafe { Self(vabsq_f32(self.0), vabsq_f32(self.1)) }
    }

    #[inline(always)]
    fn sums(of: &[Self; WIDTH]) -> Self {
        let [a, b, c, d, e, f, g, h] = *of;
        unsafe { Self(vpaddq_f32(a.pair_sums(b), c.pair_sums(d)), vpaddq_f32(e.pair_sums(f), g.pair_sums(h))) }
    }

    #[inline(always)]
    fn over(self, other: Self) -> Self {
        self.each(other, |a, b| unsafe { vdivq_f32(a, b) })
    }

    #[inline(always)]
    fn if_negative(self, yes: Self, no: Self) -> Self {
        let of = |v, yes, no| unsafe { vbslq_f32(vcltzq_f32(v), yes, no) };
        Self(of(self.0, yes.0, no.0), of(self.1, yes.1, no.1))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // As `f32::min`, the number where there is only one.
        self.each(other, |a, b| unsafe { vminnmq_f32(a, b) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.each(other, |a, b| unsafe { vmaxnmq_f32(a, b) })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let four = vaddq_f32(self.0, self.1);
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }
}
