//! Dot products of rows of blocks with some vectors.
//!
//! Each has four sums, one for every fourth block, whatever it is computed with: so that its bits do not depend on that.

#![allow(unsafe_code, reason = "features are checked at run time")]

use super::super::activations::{ActRow, SUPER};
use super::super::padded::padded;
use super::blocks::Blocks;
use super::each::{each, of_each};
use super::multiply::{DotProd, I8mm, Multiply, Neon};
use super::steps::{BLOCKS, Rest, Step, Steps};
use super::supers::{Scales, Supers};
use super::vectors::{f16x4, sums};
use super::weights::{Four, Half};
use super::{fetch_all, four};
use crate::quant::blocks::QK;
use std::arch::aarch64::*;

/// The ways into this file, compiled with what they multiply with.
macro_rules! dots {
    ($module:ident, $features:literal, $how:ident $(, $row_of_blocks:ident, $row_of_supers:ident)?) => {
        pub mod $module {
            use super::*;

            /// Products of `R` rows of blocks of 32 elements.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn blocks<F: Blocks<BYTES>, const BYTES: usize, const R: usize, const N: usize>(
                rows: [&[u8]; R],
                ahead: [&[u8]; R],
                x: [&ActRow; N],
            ) -> [[f32; N]; R] {
                // SAFETY: this function has the features.
                unsafe { of_blocks::<$how, F, BYTES, R, N>(rows, ahead, x) }
            }

            /// Products of `R` rows of super-blocks.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn supers<F: Supers<BYTES>, const BYTES: usize, const R: usize, const N: usize>(
                rows: [&[u8]; R],
                ahead: [&[u8]; R],
                x: [&ActRow; N],
            ) -> [[f32; N]; R] {
                // SAFETY: this function has the features.
                unsafe { of_supers::<$how, F, BYTES, R, N>(rows, ahead, x) }
            }

            $(/// The same for a single row of blocks.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn $row_of_blocks<F: Blocks<BYTES>, const BYTES: usize, const N: usize>(
                row: &[u8],
                ahead: &[u8],
                x: [&ActRow; N],
            ) -> [f32; N] {
                let [products] = blocks::<F, BYTES, 1, N>([row], [ahead], x);
                products
            }

            /// The same for a single row of super-blocks.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn $row_of_supers<F: Supers<BYTES>, const BYTES: usize, const N: usize>(
                row: &[u8],
                ahead: &[u8],
                x: [&ActRow; N],
            ) -> [f32; N] {
                let [products] = supers::<F, BYTES, 1, N>([row], [ahead], x);
                products
            })?
        }
    };
}

dots!(neon, "neon", Neon, row_of_blocks, row_of_supers);
dots!(dotprod, "neon,dotprod", DotProd, row_of_blocks, row_of_supers);
dots!(i8mm, "neon,dotprod,i8mm", I8mm);

/// Rows as blocks, all as many, and how many.
#[inline(always)]
fn blocks_of<const BYTES: usize, const R: usize>(rows: [&[u8]; R]) -> ([&[[u8; BYTES]]; R], usize) {
    let rows = rows.map(|row| row.as_chunks::<BYTES>().0);
    let n = rows[0].len();
    for row in rows {
        assert_eq!(row.len(), n);
    }
    (rows.map(|row| &row[..n]), n)
}

/// # Safety
/// The processor must have what `M` multiplies with.
#[inline(always)]
unsafe fn of_blocks<M: Multiply, F: Blocks<BYTES>, const BYTES: usize, const R: usize, const N: usize>(
    rows: [&[u8]; R],
    ahead: [&[u8]; R],
    x: [&ActRow; N],
) -> [[f32; N]; R] {
    let (rows, n) = blocks_of::<BYTES, R>(rows);
    for x in x {
        assert!(x.d.len() == n && x.ds.len() == n && x.q.len() == n * QK);
    }
    let mut rest = ([[[0; BYTES]; BLOCKS]; R], [Rest::NONE; N]);
    if n % BLOCKS > 0 {
        rest = (rows.map(|row| padded(row.as_chunks::<BLOCKS>().1)), x.map(Rest::of));
    }
    let whole = (rows.map(|row| row.as_chunks::<BLOCKS>().0), x.map(Steps::whole), n / BLOCKS);
    let last = (
        rest.0.each_ref().map(std::slice::from_ref),
        rest.1.each_ref().map(|rest| rest.step()),
        usize::from(n % BLOCKS > 0),
    );
    // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
    unsafe {
        let mut all = [[vdupq_n_f32(0.0); N]; R];
        // Together, so that a step stands in the code once, where its sums stay in registers.
        for (rows, x, n) in [whole, last] {
            let (rows, x) = (rows.map(|row| &row[..n]), x.map(|x| x.first(n)));
            for i in 0..n {
                fetch_all(ahead, i * BLOCKS * BYTES, BLOCKS * BYTES);
                step::<M, F, BYTES, R, N>(&mut all, of_each(&rows, i), Steps::get(&x, i));
            }
        }
        totals(all)
    }
}

/// The sums of vectors' lanes.
#[inline(always)]
fn totals<const R: usize, const N: usize>(all: [[float32x4_t; N]; R]) -> [[f32; N]; R] {
    let mut totals = [[0.0; N]; R];
    each!(R, r, {
        each!(N, v, {
            // SAFETY: every AArch64 processor has NEON.
            totals[r][v] = unsafe { vaddvq_f32(all[r][v]) };
        });
    });
    totals
}

/// # Safety
/// As for [`of_blocks`].
#[inline(always)]
unsafe fn step<M: Multiply, F: Blocks<BYTES>, const BYTES: usize, const R: usize, const N: usize>(
    all: &mut [[float32x4_t; N]; R],
    blocks: [&[[u8; BYTES]; BLOCKS]; R],
    x: [Step; N],
) {
    // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
    unsafe {
        let products = M::by_32::<Four<F, BYTES>, R, N>(blocks, x);
        each!(R, r, {
            let scales = F::scales(blocks[r]);
            each!(N, v, {
                let scales = vmulq_f32(scales, four(x[v].d));
                all[r][v] = vfmaq_f32(all[r][v], sums(products[r][v], F::FRACTION), scales);
            });
            if F::HAS_MIN {
                let minima = f16x4(blocks[r], 2);
                each!(N, v, {
                    all[r][v] = vfmaq_f32(all[r][v], minima, four(x[v].ds));
                });
            }
        });
    }
}

/// # Safety
/// The processor must have what `M` multiplies with.
#[inline(always)]
unsafe fn of_supers<M: Multiply, F: Supers<BYTES>, const BYTES: usize, const R: usize, const N: usize>(
    rows: [&[u8]; R],
    ahead: [&[u8]; R],
    x: [&ActRow; N],
) -> [[f32; N]; R] {
    let (rows, n) = blocks_of::<BYTES, R>(rows);
    for x in x {
        assert!(x.q.len() == n * SUPER);
    }
    let steps = x.map(|x| Steps::whole(x).first(2 * n));
    let by_16 = x.map(|x| if has_sums::<F, BYTES>() { &x.supers.sums[..n] } else { &[] });
    // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
    unsafe {
        let mut all = [[vdupq_n_f32(0.0); N]; R];
        for i in 0..n {
            fetch_all(ahead, i * BYTES, BYTES);
            let blocks = of_each(&rows, i);
            let mut scales = [Scales::none(); R];
            each!(R, r, { scales[r] = F::scales(blocks[r]) });
            half::<M, F, BYTES, 0, R, N>(&mut all, blocks, &scales, Steps::get(&steps, 2 * i));
            half::<M, F, BYTES, 1, R, N>(&mut all, blocks, &scales, Steps::get(&steps, 2 * i + 1));
            if has_sums::<F, BYTES>() {
                let by_16 = of_each(&by_16, i);
                each!(R, r, {
                    each!(N, v, {
                        let sums = by_16[v].as_chunks().0;
                        each!(4, k, {
                            all[r][v] = vfmaq_f32(all[r][v], scales[r].minima[k], four(&sums[k]));
                        });
                    });
                });
            }
        }
        totals(all)
    }
}

/// Whether minima meet sums of 16 activations.
const fn has_sums<F: Supers<BYTES>, const BYTES: usize>() -> bool {
    F::HAS_MIN && F::PER_SCALE < QK
}

/// # Safety
/// As for [`of_supers`].
#[inline(always)]
unsafe fn half<M: Multiply, F: Supers<BYTES>, const BYTES: usize, const HALF: usize, const R: usize, const N: usize>(
    all: &mut [[float32x4_t; N]; R],
    blocks: [&[u8; BYTES]; R],
    scales: &[Scales; R],
    x: [Step; N],
) {
    // SAFETY: every AArch64 processor has NEON, and of the rest the caller has made sure.
    unsafe {
        let mut products = [[vdupq_n_s32(0); N]; R];
        if F::PER_SCALE == QK {
            let by_32 = M::by_32::<Half<F, BYTES, HALF>, R, N>(blocks, x);
            each!(R, r, {
                each!(N, v, {
                    products[r][v] = vmulq_s32(by_32[r][v], scales[r].scales[HALF]);
                });
            });
        } else {
            let by_16 = M::by_16::<Half<F, BYTES, HALF>, R, N>(blocks, x);
            each!(R, r, {
                let [s, t] = [scales[r].scales[2 * HALF], scales[r].scales[2 * HALF + 1]];
                each!(N, v, {
                    let [a, b] = by_16[r][v];
                    products[r][v] = vpaddq_s32(vmulq_s32(a, s), vmulq_s32(b, t));
                });
            });
        }
        each!(R, r, {
            each!(N, v, {
                let factors = vmulq_n_f32(four(x[v].d), scales[r].d);
                all[r][v] = vfmaq_f32(all[r][v], sums(products[r][v], F::FRACTION), factors);
                if F::HAS_MIN && F::PER_SCALE == QK {
                    all[r][v] = vfmsq_f32(all[r][v], scales[r].minima[HALF], four(x[v].ds));
                }
            });
        });
    }
}
