//! Dot products of rows of blocks with some vectors.
//!
//! Each has four sums, one for every fourth block, whatever it is computed with: so that its bits do not depend on that.

#![allow(unsafe_code, reason = "what reads a type needs NEON")]

use super::super::activations::{ActRow, SUPER};
use super::super::padded::padded;
use super::blocks::Blocks;
use super::multiply::{self, Four, Half, STEP};
use super::supers::{Scales, Supers};
use super::vectors::{f16x4, sums};
use super::{fetch_all, four};
use crate::quant::blocks::QK;
use std::arch::aarch64::*;

/// Blocks in a step.
const BLOCKS: usize = STEP / QK;

/// Activations of a step.
#[derive(Clone, Copy)]
struct Step<'a> {
    q: &'a [i8; STEP],
    d: &'a [f32; BLOCKS],
    ds: &'a [f32; BLOCKS],
}

/// Activations of some steps.
#[derive(Clone, Copy)]
struct Steps<'a> {
    q: &'a [[i8; STEP]],
    d: &'a [[f32; BLOCKS]],
    ds: &'a [[f32; BLOCKS]],
}

impl<'a> Steps<'a> {
    /// The whole steps among these.
    fn new(q: &'a [i8], d: &'a [f32], ds: &'a [f32]) -> Self {
        Self { q: q.as_chunks().0, d: d.as_chunks().0, ds: ds.as_chunks().0 }
    }

    #[inline(always)]
    fn first(self, n: usize) -> Self {
        Self { q: &self.q[..n], d: &self.d[..n], ds: &self.ds[..n] }
    }

    #[inline(always)]
    fn get(self, i: usize) -> Step<'a> {
        Step { q: &self.q[i], d: &self.d[i], ds: &self.ds[i] }
    }
}

macro_rules! dots {
    ($module:ident, $features:literal $(, $row_of_blocks:ident, $row_of_supers:ident)?) => {
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
                let rows = rows.map(|row| row.as_chunks::<BYTES>().0);
                let n = rows[0].len();
                for row in rows {
                    assert_eq!(row.len(), n);
                }
                for x in x {
                    assert!(x.d.len() == n && x.ds.len() == n && x.q.len() == n * QK);
                }
                // What is left over behind the steps, padded with zeros.
                let mut rest = ([[[0; BYTES]; BLOCKS]; R], [[0; STEP]; N], [[0.0; BLOCKS]; N], [[0.0; BLOCKS]; N]);
                if n % BLOCKS > 0 {
                    rest.0 = rows.map(|row| padded(row.as_chunks::<BLOCKS>().1));
                    rest.1 = x.map(|x| padded(x.q.as_chunks::<STEP>().1));
                    rest.2 = x.map(|x| padded(x.d.as_chunks::<BLOCKS>().1));
                    rest.3 = x.map(|x| padded(x.ds.as_chunks::<BLOCKS>().1));
                }
                let whole = (
                    rows.map(|row| row.as_chunks::<BLOCKS>().0),
                    std::array::from_fn(|v| Steps::new(x[v].q, x[v].d, x[v].ds)),
                    n / BLOCKS,
                );
                let last = (
                    rest.0.each_ref().map(|row| std::slice::from_ref(row)),
                    std::array::from_fn(|v| Steps::new(&rest.1[v], &rest.2[v], &rest.3[v])),
                    usize::from(n % BLOCKS > 0),
                );
                let mut all = [[vdupq_n_f32(0.0); N]; R];
                // Together, so that a step stands in the code once, where its sums stay in registers.
                for (rows, x, n) in [whole, last] {
                    let rows = rows.map(|row| &row[..n]);
                    let x: [Steps; N] = x.map(|x| x.first(n));
                    for i in 0..n {
                        fetch_all(ahead, i * BLOCKS * BYTES, BLOCKS * BYTES);
                        step::<F, BYTES, R, N>(&mut all, rows.map(|row| &row[i]), x.map(|x| x.get(i)));
                    }
                }
                all.map(|of_row| of_row.map(|sums| vaddvq_f32(sums)))
            }

            $(/// The same for a single row.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn $row_of_blocks<F: Blocks<BYTES>, const BYTES: usize, const N: usize>(
                row: &[u8],
                ahead: &[u8],
                x: [&ActRow; N],
            ) -> [f32; N] {
                let [products] = blocks::<F, BYTES, 1, N>([row], [ahead], x);
                products
            })?

            #[inline]
            #[target_feature(enable = $features)]
            fn step<F: Blocks<BYTES>, const BYTES: usize, const R: usize, const N: usize>(
                all: &mut [[float32x4_t; N]; R],
                blocks: [&[[u8; BYTES]; BLOCKS]; R],
                x: [Step; N],
            ) {
                // SAFETY: this function has NEON too.
                let raw = blocks.map(|blocks| blocks.each_ref().map(|block| unsafe { F::load(block) }));
                let products = multiply::$module::by_32::<Four<F, BYTES>, R, N>(raw, x.map(|x| x.q));
                for r in 0..R {
                    // SAFETY: this function has NEON too.
                    let scales = unsafe { F::scales(blocks[r]) };
                    for v in 0..N {
                        let scales = vmulq_f32(scales, four(x[v].d));
                        all[r][v] = vfmaq_f32(all[r][v], sums(products[r][v], F::FRACTION), scales);
                    }
                    if F::HAS_MIN {
                        let minima = f16x4(blocks[r], 2);
                        for v in 0..N {
                            all[r][v] = vfmaq_f32(all[r][v], minima, four(x[v].ds));
                        }
                    }
                }
            }

            /// Products of `R` rows of super-blocks.
            #[inline]
            #[target_feature(enable = $features)]
            pub fn supers<F: Supers<BYTES>, const BYTES: usize, const R: usize, const N: usize>(
                rows: [&[u8]; R],
                ahead: [&[u8]; R],
                x: [&ActRow; N],
            ) -> [[f32; N]; R] {
                let rows = rows.map(|row| row.as_chunks::<BYTES>().0);
                let n = rows[0].len();
                for row in rows {
                    assert_eq!(row.len(), n);
                }
                for x in x {
                    assert!(x.q.len() == n * SUPER);
                }
                let rows = rows.map(|row| &row[..n]);
                let steps = x.map(|x| Steps::new(x.q, x.d, x.ds).first(2 * n));
                let by_16 = x.map(|x| if has_sums::<F, BYTES>() { &x.supers.sums[..n] } else { &[] });
                let mut all = [[vdupq_n_f32(0.0); N]; R];
                for i in 0..n {
                    fetch_all(ahead, i * BYTES, BYTES);
                    let blocks = rows.map(|row| &row[i]);
                    // SAFETY: this function has NEON too.
                    let scales = blocks.map(|block| unsafe { F::scales(block) });
                    half::<F, BYTES, 0, R, N>(&mut all, blocks, &scales, steps.map(|x| x.get(2 * i)));
                    half::<F, BYTES, 1, R, N>(&mut all, blocks, &scales, steps.map(|x| x.get(2 * i + 1)));
                    if has_sums::<F, BYTES>() {
                        for r in 0..R {
                            for v in 0..N {
                                for (minima, sums) in scales[r].minima.iter().zip(by_16[v][i].as_chunks().0) {
                                    all[r][v] = vfmaq_f32(all[r][v], *minima, four(sums));
                                }
                            }
                        }
                    }
                }
                all.map(|of_row| of_row.map(|sums| vaddvq_f32(sums)))
            }

            $(/// The same for a single row.
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

            #[inline]
            #[target_feature(enable = $features)]
            fn half<F: Supers<BYTES>, const BYTES: usize, const HALF: usize, const R: usize, const N: usize>(
                all: &mut [[float32x4_t; N]; R],
                blocks: [&[u8; BYTES]; R],
                scales: &[Scales; R],
                x: [Step; N],
            ) {
                // SAFETY: this function has NEON too.
                let raw = blocks.map(|block| unsafe { F::load::<HALF>(block) });
                let q = x.map(|x| x.q);
                let mut products = [[vdupq_n_s32(0); N]; R];
                if F::PER_SCALE == QK {
                    products = multiply::$module::by_32::<Half<F, BYTES, HALF>, R, N>(raw, q);
                    for r in 0..R {
                        for v in 0..N {
                            products[r][v] = vmulq_s32(products[r][v], scales[r].scales[HALF]);
                        }
                    }
                } else {
                    let by_16 = multiply::$module::by_16::<Half<F, BYTES, HALF>, R, N>(raw, q);
                    for r in 0..R {
                        let [s, t] = [scales[r].scales[2 * HALF], scales[r].scales[2 * HALF + 1]];
                        for v in 0..N {
                            let [a, b] = by_16[r][v];
                            products[r][v] = vpaddq_s32(vmulq_s32(a, s), vmulq_s32(b, t));
                        }
                    }
                }
                for r in 0..R {
                    for v in 0..N {
                        let factors = vmulq_n_f32(four(x[v].d), scales[r].d);
                        all[r][v] = vfmaq_f32(all[r][v], sums(products[r][v], F::FRACTION), factors);
                        if F::HAS_MIN && F::PER_SCALE == QK {
                            all[r][v] = vfmsq_f32(all[r][v], scales[r].minima[HALF], four(x[v].ds));
                        }
                    }
                }
            }
        }
    };
}

/// Whether minima meet sums of 16 activations.
const fn has_sums<F: Supers<BYTES>, const BYTES: usize>() -> bool {
    F::HAS_MIN && F::PER_SCALE < QK
}

dots!(neon, "neon", row_of_blocks, row_of_supers);
dots!(dotprod, "neon,dotprod", row_of_blocks, row_of_supers);
dots!(i8mm, "neon,dotprod,i8mm");
