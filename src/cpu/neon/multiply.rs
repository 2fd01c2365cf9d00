//! How bytes are multiplied: sums of products of 128 weights with as many activations, as exact integers.
#![allow(unsafe_code, reason = "instructions that the standard library does not offer yet")]

use super::blocks::Blocks;
use super::each::each;
use super::supers::Supers;
use super::vectors::{Zip, signed};
use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

/// Elements multiplied at a time.
pub const STEP: usize = 128;

/// Weights for [`STEP`] elements.
pub trait Weights {
    /// As they are stored, vector by vector.
    type Raw: Zip;
    /// Whether they are in -32 to 31, so that the sum of eight products fits in 16 bits.
    const SMALL: bool;

    /// Their values, in -128 to 127.
    ///
    /// # Safety
    /// The processor must have NEON.
    unsafe fn unpack(raw: Self::Raw) -> [int8x16_t; 8];
}

/// Four blocks.
pub struct Four<F, const BYTES: usize>(PhantomData<F>);

impl<F: Blocks<BYTES>, const BYTES: usize> Weights for Four<F, BYTES> {
    type Raw = [F::Raw; 4];
    const SMALL: bool = F::SMALL;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack([a, b, c, d]: Self::Raw) -> [int8x16_t; 8] {
        // SAFETY: this function has NEON too.
        let [[a, b], [c, d], [e, f], [g, h]] = unsafe { [F::unpack(a), F::unpack(b), F::unpack(c), F::unpack(d)] };
        [a, b, c, d, e, f, g, h]
    }
}

/// Half a super-block.
pub struct Half<F, const BYTES: usize, const HALF: usize>(PhantomData<F>);

impl<F: Supers<BYTES>, const BYTES: usize, const HALF: usize> Weights for Half<F, BYTES, HALF> {
    type Raw = F::Raw;
    const SMALL: bool = F::SMALL;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(raw: Self::Raw) -> [int8x16_t; 8] {
        // SAFETY: this function has NEON too.
        unsafe { F::unpack::<HALF>(raw) }
    }
}

/// The sums of four vectors' lanes.
#[inline]
#[target_feature(enable = "neon")]
fn across([a, b, c, d]: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

/// Adds products of weights and activations to the four sums.
#[inline]
#[target_feature(enable = "neon")]
fn long(sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
    // Activations are never -128, so that two products fit in 16 bits.
    vpadalq_s16(sums, pairs(w, q))
}

/// Sums of two products each.
#[inline]
#[target_feature(enable = "neon")]
fn pairs(w: int8x16_t, q: int8x16_t) -> int16x8_t {
    vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(q)), w, q)
}

/// Sums for every 32 elements of small weights.
#[inline]
#[target_feature(enable = "neon")]
fn short_by_32(w: &[int8x16_t; 8], q: &[i8; STEP]) -> int32x4_t {
    let fours = [0, 2, 4, 6].map(|i| {
        let (w, next, q) = (w[i + 1], signed(q, 16 * i + 16), pairs(w[i], signed(q, 16 * i)));
        vmlal_high_s8(vmlal_s8(q, vget_low_s8(w), vget_low_s8(next)), w, next)
    });
    let [a, b] = [[fours[0], fours[1]], [fours[2], fours[3]]].map(|[a, b]| vpaddlq_s16(vpaddq_s16(a, b)));
    vpaddq_s32(a, b)
}

/// Sums for every 16 of the 64 elements from this vector on of small weights.
#[inline]
#[target_feature(enable = "neon")]
fn short_by_16(w: &[int8x16_t; 8], q: &[i8; STEP], first: usize) -> int32x4_t {
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| pairs(w[first + i], signed(q, 16 * (first + i))));
    vpaddlq_s16(vpaddq_s16(vpaddq_s16(a, b), vpaddq_s16(c, d)))
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction of this feature that only computes.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) w, in(vreg) q,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Adds the products of the matrices of two rows of eight that `w` and `q` are: the first of `w` with both of `q`, then the
/// other.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) w, in(vreg) q,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Sums of the products of `R` rows with `N` vectors. With `short` there is a shorter way for small weights.
macro_rules! row_by_row {
    ($module:ident, $features:literal, $multiply:path, short $short:literal) => {
        pub mod $module {
            use super::*;

            /// For every 32 elements.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn by_32<W: Weights, const R: usize, const N: usize>(
                raw: [W::Raw; R],
                q: [&[i8; STEP]; N],
            ) -> [[int32x4_t; N]; R] {
                let none = vdupq_n_s32(0);
                let mut all = [[none; N]; R];
                each!(R, r, {
                    // SAFETY: this function has NEON too.
                    let w = unsafe { W::unpack(raw[r]) };
                    each!(N, v, {
                        all[r][v] = if $short && W::SMALL {
                            short_by_32(&w, q[v])
                        } else {
                            let mut sums = [none; 4];
                            for i in 0..4 {
                                let half = $multiply(none, w[2 * i], signed(q[v], 32 * i));
                                sums[i] = $multiply(half, w[2 * i + 1], signed(q[v], 32 * i + 16));
                            }
                            across(sums)
                        };
                    });
                });
                all
            }

            /// For every 16 elements.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn by_16<W: Weights, const R: usize, const N: usize>(
                raw: [W::Raw; R],
                q: [&[i8; STEP]; N],
            ) -> [[[int32x4_t; 2]; N]; R] {
                let none = vdupq_n_s32(0);
                let mut all = [[[none; 2]; N]; R];
                each!(R, r, {
                    // SAFETY: this function has NEON too.
                    let w = unsafe { W::unpack(raw[r]) };
                    each!(N, v, {
                        for half in 0..2 {
                            all[r][v][half] = if $short && W::SMALL {
                                short_by_16(&w, q[v], 4 * half)
                            } else {
                                let mut sums = [none; 4];
                                for i in 0..4 {
                                    sums[i] = $multiply(none, w[4 * half + i], signed(q[v], 64 * half + 16 * i));
                                }
                                across(sums)
                            };
                        }
                    });
                });
                all
            }
        }
    };
}

row_by_row!(neon, "neon", long, short true);
row_by_row!(dotprod, "neon,dotprod", sdot, short false);

/// Two rows and two vectors at a time, where there are so many.
pub mod i8mm {
    use super::*;

    /// See [`dotprod::by_32`].
    #[inline]
    #[target_feature(enable = "neon,dotprod,i8mm")]
    pub fn by_32<W: Weights, const R: usize, const N: usize>(
        raw: [W::Raw; R],
        q: [&[i8; STEP]; N],
    ) -> [[int32x4_t; N]; R] {
        if R != 2 || !N.is_multiple_of(2) {
            return dotprod::by_32::<W, R, N>(raw, q);
        }
        let none = vdupq_n_s32(0);
        let mut all = [[none; N]; R];
        let w = Pairs::of::<W>(raw[0], raw[1]);
        for (a, b) in [(0, 1), (2, 3)].into_iter().take(N / 2) {
            let mut sums = [none; 4];
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = w.multiply(w.multiply(none, q[a], q[b], 2 * i), q[a], q[b], 2 * i + 1);
            }
            [[all[0][a], all[0][b]], [all[1][a], all[1][b]]] = transposed(sums);
        }
        all
    }

    /// See [`dotprod::by_16`].
    #[inline]
    #[target_feature(enable = "neon,dotprod,i8mm")]
    pub fn by_16<W: Weights, const R: usize, const N: usize>(
        raw: [W::Raw; R],
        q: [&[i8; STEP]; N],
    ) -> [[[int32x4_t; 2]; N]; R] {
        if R != 2 || !N.is_multiple_of(2) {
            return dotprod::by_16::<W, R, N>(raw, q);
        }
        let none = vdupq_n_s32(0);
        let mut all = [[[none; 2]; N]; R];
        let w = Pairs::of::<W>(raw[0], raw[1]);
        for (a, b) in [(0, 1), (2, 3)].into_iter().take(N / 2) {
            each!(2, half, {
                let mut sums = [none; 4];
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = w.multiply(none, q[a], q[b], 4 * half + i);
                }
                [[all[0][a][half], all[0][b][half]], [all[1][a][half], all[1][b][half]]] = transposed(sums);
            });
        }
        all
    }

    /// Weights of two rows: the lower halves of their vectors, and the upper ones.
    struct Pairs {
        low: [int8x16_t; 8],
        high: [int8x16_t; 8],
    }

    impl Pairs {
        #[inline]
        #[target_feature(enable = "neon")]
        fn of<W: Weights>(a: W::Raw, b: W::Raw) -> Self {
            // SAFETY: this function has NEON too.
            unsafe {
                let [low, high] = Zip::zip(a, b);
                Self { low: W::unpack(low), high: W::unpack(high) }
            }
        }

        /// Adds the products of vector `i` of both rows with that of `a` and `b`.
        #[inline]
        #[target_feature(enable = "neon,dotprod,i8mm")]
        fn multiply(&self, sums: int32x4_t, a: &[i8; STEP], b: &[i8; STEP], i: usize) -> int32x4_t {
            let [a, b] = [a, b].map(|q| vreinterpretq_u8_s8(signed(q, 16 * i)));
            // SAFETY: this function has NEON too.
            let [low, high] = unsafe { <uint8x16_t as Zip>::zip(a, b) }.map(|v| vreinterpretq_s8_u8(v));
            smmla(smmla(sums, self.low[i], low), self.high[i], high)
        }
    }

    /// Of vectors that have a sum for each row and vector, those of one row and vector together.
    #[inline]
    #[target_feature(enable = "neon")]
    fn transposed([a, b, c, d]: [int32x4_t; 4]) -> [[int32x4_t; 2]; 2] {
        let wide = |a, b| (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
        let even = wide(vtrn1q_s32(a, b), vtrn1q_s32(c, d));
        let odd = wide(vtrn2q_s32(a, b), vtrn2q_s32(c, d));
        [
            [vzip1q_s64(even.0, even.1), vzip1q_s64(odd.0, odd.1)].map(|v| vreinterpretq_s32_s64(v)),
            [vzip2q_s64(even.0, even.1), vzip2q_s64(odd.0, odd.1)].map(|v| vreinterpretq_s32_s64(v)),
        ]
    }
}
