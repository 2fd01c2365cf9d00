//! What the searches for scales of super-blocks share. No closure computes with [`Lanes`]: it would not be compiled for AVX2.

use super::lanes::{Lanes, ROUND, WIDTH};

/// How often the factors of a super-block are refitted to the values chosen with the previous ones.
pub const REFITS: usize = 3;

/// Sub-blocks of `8 L` elements.
#[inline(always)]
pub fn read<V: Lanes, const L: usize, const N: usize>(x: &[f32]) -> [[V; L]; N] {
    let (x, _) = x.as_chunks::<WIDTH>();
    let mut read = [[V::all(0.0); L]; N];
    for k in 0..N {
        for i in 0..L {
            read[k][i] = V::read(&x[k * L + i]);
        }
    }
    read
}

/// How much the error of each element counts. Larger weights matter more, as do their products with activations; even a zero
/// matters a little. Where it is `given` how much each column counts, that is a factor of it.
#[inline(always)]
pub fn importance<V: Lanes, const L: usize, const N: usize>(x: &[[V; L]; N], given: Option<&[f32]>) -> [[V; L]; N] {
    let mut w = *x;
    for w in &mut w {
        let mut squares = V::all(0.0);
        for x in &*w {
            squares = squares.plus(x.times(*x));
        }
        let rms = V::all((squares.sum() / (L * WIDTH) as f32).sqrt());
        for w in w {
            *w = rms.plus(w.abs());
        }
    }
    if let Some(given) = given {
        let given = read::<V, L, N>(given);
        for k in 0..N {
            for i in 0..L {
                w[k][i] = w[k][i].times(given[k][i]);
            }
        }
    }
    w
}

/// The sum of all elements of `a b`, in a fixed order.
#[inline(always)]
pub fn dot<V: Lanes, const L: usize>(a: &[V; L], b: &[V; L]) -> f32 {
    let mut sum = V::all(0.0);
    for i in 0..L {
        sum = sum.plus(a[i].times(b[i]));
    }
    sum.sum()
}

/// 1 / `v`, or 0 for 0.
#[inline(always)]
pub fn inverse(v: f32) -> f32 {
    if v == 0.0 { 0.0 } else { 1.0 / v }
}

/// See [`Lanes::nearest`].
#[inline(always)]
pub fn nearest(v: f32, low: f32, high: f32) -> f32 {
    v.max(low).min(high) + ROUND - ROUND
}
