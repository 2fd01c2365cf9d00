//! How bytes are multiplied: sums of products of 128 weights with as many activations, as exact integers.
#![allow(unsafe_code, reason = "instructions that the standard library does not offer yet")]

use super::each::each;
use super::steps::{STEP, Step};
use super::vectors::{Zip, signed};
use super::weights::Weights;
use std::arch::aarch64::*;
use std::arch::asm;

/// Sums of the products of `R` rows with `N` vectors.
pub trait Multiply {
    /// Whether there is a shorter way for small weights, by [`pairs`].
    const SHORT: bool = false;

    /// Adds to each of four sums some of 16 products, whichever.
    ///
    /// # Safety
    /// The processor must have the instructions of this way to multiply.
    unsafe fn add(sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t;

    /// For every 32 elements.
    ///
    /// # Safety
    /// As for [`Multiply::add`].
    #[inline(always)]
    unsafe fn by_32<W: Weights, const R: usize, const N: usize>(
        rows: [&W::Stored; R],
        x: [Step; N],
    ) -> [[int32x4_t; N]; R] {
        // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
        unsafe {
            let none = vdupq_n_s32(0);
            let mut all = [[none; N]; R];
            each!(R, r, {
                let w = W::unpack(W::load(rows[r]));
                each!(N, v, {
                    all[r][v] = if Self::SHORT && W::SMALL {
                        short_by_32(&w, x[v].q)
                    } else {
                        let mut sums = [none; 4];
                        each!(4, i, {
                            let half = Self::add(none, w[2 * i], signed(x[v].q, 32 * i));
                            sums[i] = Self::add(half, w[2 * i + 1], signed(x[v].q, 32 * i + 16));
                        });
                        across(sums)
                    };
                });
            });
            all
        }
    }

    /// For every 16 elements.
    ///
    /// # Safety
    /// As for [`Multiply::add`].
    #[inline(always)]
    unsafe fn by_16<W: Weights, const R: usize, const N: usize>(
        rows: [&W::Stored; R],
        x: [Step; N],
    ) -> [[[int32x4_t; 2]; N]; R] {
        // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
        unsafe {
            let none = vdupq_n_s32(0);
            let mut all = [[[none; 2]; N]; R];
            each!(R, r, {
                let w = W::unpack(W::load(rows[r]));
                each!(N, v, {
                    each!(2, half, {
                        all[r][v][half] = if Self::SHORT && W::SMALL {
                            short_by_16(&w, x[v].q, 4 * half)
                        } else {
                            let mut sums = [none; 4];
                            each!(4, i, {
                                sums[i] = Self::add(none, w[4 * half + i], signed(x[v].q, 64 * half + 16 * i));
                            });
                            across(sums)
                        };
                    });
                });
            });
            all
        }
    }
}

/// The sums of four vectors' lanes.
#[inline(always)]
fn across([a, b, c, d]: [int32x4_t; 4]) -> int32x4_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe { vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)) }
}

/// Sums of two products each.
#[inline(always)]
fn pairs(w: int8x16_t, q: int8x16_t) -> int16x8_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe { vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(q)), w, q) }
}

/// Sums for every 32 elements of small weights.
#[inline(always)]
fn short_by_32(w: &[int8x16_t; 8], q: &[i8; STEP]) -> int32x4_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let mut fours = [vdupq_n_s16(0); 4];
        each!(4, i, {
            let (w, next) = (w[2 * i], w[2 * i + 1]);
            let (q, next_q) = (signed(q, 32 * i), signed(q, 32 * i + 16));
            let low = vmlal_s8(pairs(w, q), vget_low_s8(next), vget_low_s8(next_q));
            fours[i] = vmlal_high_s8(low, next, next_q);
        });
        let [a, b, c, d] = fours;
        vpaddq_s32(vpaddlq_s16(vpaddq_s16(a, b)), vpaddlq_s16(vpaddq_s16(c, d)))
    }
}

/// Sums for every 16 of the 64 elements from this vector on of small weights.
#[inline(always)]
fn short_by_16(w: &[int8x16_t; 8], q: &[i8; STEP], first: usize) -> int32x4_t {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let mut twos = [vdupq_n_s16(0); 4];
        each!(4, i, {
            twos[i] = pairs(w[first + i], signed(q, 16 * (first + i)));
        });
        let [a, b, c, d] = twos;
        vpaddlq_s16(vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)))
    }
}

/// With NEON alone.
pub struct Neon;

impl Multiply for Neon {
    const SHORT: bool = true;

    #[inline(always)]
    unsafe fn add(sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
        // Activations are never -128, so that two products fit in 16 bits.
        // SAFETY: every AArch64 processor has NEON.
        unsafe { vpadalq_s16(sums, pairs(w, q)) }
    }
}

/// With dot products.
pub struct DotProd;

impl Multiply for DotProd {
    #[inline(always)]
    unsafe fn add(mut sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
        // SAFETY: an instruction that only computes, and the processor has it, as the caller has made sure.
        unsafe {
            asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) sums, in(vreg) w, in(vreg) q, options(pure, nomem, nostack, preserves_flags));
        }
        sums
    }
}

/// With products of matrices, where there are two rows and two vectors; otherwise with dot products.
pub struct I8mm;

impl Multiply for I8mm {
    #[inline(always)]
    unsafe fn add(sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
        // SAFETY: the caller has made sure of dot products too.
        unsafe { DotProd::add(sums, w, q) }
    }

    #[inline(always)]
    unsafe fn by_32<W: Weights, const R: usize, const N: usize>(
        rows: [&W::Stored; R],
        x: [Step; N],
    ) -> [[int32x4_t; N]; R] {
        // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
        unsafe {
            if R != 2 || !N.is_multiple_of(2) {
                return DotProd::by_32::<W, R, N>(rows, x);
            }
            let none = vdupq_n_s32(0);
            let mut all = [[none; N]; R];
            let w = Pairs::of::<W>(rows[0], rows[1]);
            each!(N / 2, pair, {
                let (a, b) = (2 * pair, 2 * pair + 1);
                let mut sums = [none; 4];
                each!(4, i, {
                    let first = w.multiply(none, x[a].q, x[b].q, 2 * i);
                    sums[i] = w.multiply(first, x[a].q, x[b].q, 2 * i + 1);
                });
                [[all[0][a], all[0][b]], [all[1][a], all[1][b]]] = transposed(sums);
            });
            all
        }
    }

    #[inline(always)]
    unsafe fn by_16<W: Weights, const R: usize, const N: usize>(
        rows: [&W::Stored; R],
        x: [Step; N],
    ) -> [[[int32x4_t; 2]; N]; R] {
        // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
        unsafe {
            if R != 2 || !N.is_multiple_of(2) {
                return DotProd::by_16::<W, R, N>(rows, x);
            }
            let none = vdupq_n_s32(0);
            let mut all = [[[none; 2]; N]; R];
            let w = Pairs::of::<W>(rows[0], rows[1]);
            each!(N / 2, pair, {
                let (a, b) = (2 * pair, 2 * pair + 1);
                each!(2, half, {
                    let mut sums = [none; 4];
                    each!(4, i, {
                        sums[i] = w.multiply(none, x[a].q, x[b].q, 4 * half + i);
                    });
                    [[all[0][a][half], all[0][b][half]], [all[1][a][half], all[1][b][half]]] = transposed(sums);
                });
            });
            all
        }
    }
}

/// Weights of two rows: the lower halves of their vectors, and the upper ones.
struct Pairs {
    low: [int8x16_t; 8],
    high: [int8x16_t; 8],
}

impl Pairs {
    #[inline(always)]
    fn of<W: Weights>(a: &W::Stored, b: &W::Stored) -> Self {
        let [low, high] = Zip::zip(W::load(a), W::load(b));
        Self { low: W::unpack(low), high: W::unpack(high) }
    }

    /// Adds the products of vector `i` of both rows with that of `a` and `b`.
    ///
    /// # Safety
    /// As for [`smmla`].
    #[inline(always)]
    unsafe fn multiply(&self, sums: int32x4_t, a: &[i8; STEP], b: &[i8; STEP], i: usize) -> int32x4_t {
        // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
        unsafe {
            let (a, b) = (vreinterpretq_u8_s8(signed(a, 16 * i)), vreinterpretq_u8_s8(signed(b, 16 * i)));
            let [low, high] = Zip::zip(a, b);
            smmla(smmla(sums, self.low[i], vreinterpretq_s8_u8(low)), self.high[i], vreinterpretq_s8_u8(high))
        }
    }
}

/// Adds the products of the matrices of two rows of eight that `w` and `q` are: the first of `w` with both of `q`, then the
/// other.
///
/// # Safety
/// The processor must have products of matrices (`FEAT_I8MM`).
#[inline(always)]
pub unsafe fn smmla(mut sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction that only computes, and the processor has it, as the caller has made sure.
    unsafe {
        asm!(".arch_extension i8mm", "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums, in(vreg) w, in(vreg) q, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Of vectors that have a sum for each row and vector, those of one row and vector together.
#[inline(always)]
fn transposed([a, b, c, d]: [int32x4_t; 4]) -> [[int32x4_t; 2]; 2] {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let wide = |a, b| (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
        let even = wide(vtrn1q_s32(a, b), vtrn1q_s32(c, d));
        let odd = wide(vtrn2q_s32(a, b), vtrn2q_s32(c, d));
        [
            [vzip1q_s64(even.0, even.1), vzip1q_s64(odd.0, odd.1)].map(|v| vreinterpretq_s32_s64(v)),
            [vzip2q_s64(even.0, even.1), vzip2q_s64(odd.0, odd.1)].map(|v| vreinterpretq_s32_s64(v)),
        ]
    }
}
