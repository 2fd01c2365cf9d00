//! The search for the scales of a super-block whose values are `d scale q`.

use super::blocks::{all_finite, extreme};
use super::grid::Grid;
use super::lanes::{Lanes, WIDTH};
use super::search::{REFITS, importance, inverse, nearest, read};
use half::f16;
use std::cmp::Ordering;

/// A super-block of `N` sub-blocks of `8 L` elements: `x = d scale q`, where the scales are small integers and the values are of a
/// grid.
pub struct Symmetric<V, const L: usize, const N: usize> {
    /// Factor of the scales.
    pub d: f16,
    /// Scale of each sub-block.
    pub scale: [f32; N],
    /// The values.
    pub q: [[V; L]; N],
    error: f64,
}

/// The block with the least weighted squared error that a bounded search finds, with `n_scales` negative scales and one less that
/// are positive. Something infinite or no number among `x` makes the factor NaN.
#[inline(always)]
pub fn symmetric_block<V: Lanes, G: Grid, const L: usize, const N: usize>(
    x: &[f32],
    given: Option<&[f32]>,
    n_scales: f32,
) -> Symmetric<V, L, N> {
    let finite = all_finite(x);
    let values = x;
    let x = read::<V, L, N>(x);
    let w = importance::<V, L, N>(&x, given);
    let mut fits = [0.0; N];
    for k in 0..N {
        fits[k] = fit::<V, G, L>(&values[k * L * WIDTH..][..L * WIDTH], &x[k], &w[k]);
    }
    let d = f16::from_f32(extreme(&fits) / -n_scales);
    if !(d.is_finite() && finite) {
        return Symmetric { d: f16::NAN, scale: [0.0; N], q: [[V::all(0.0); L]; N], error: 0.0 };
    }
    let scale = fits.map(|fit| nearest(fit * inverse(d.to_f32()), -n_scales, n_scales - 1.0));
    let mut best = with_factor::<V, G, L, N>(&x, &w, n_scales, d, &scale);
    for _ in 0..REFITS {
        let (mut ss, mut xs) = (0.0, 0.0);
        for k in 0..N {
            let (swqq, swqx) = products(&x[k], &w[k], &best.q[k]);
            let scale = best.scale[k];
            ss += f64::from(scale * scale * swqq.sum());
            xs += f64::from(scale * swqx.sum());
        }
        let d = if ss > 0.0 { f16::from_f64(xs / ss) } else { break };
        let next = with_factor::<V, G, L, N>(&x, &w, n_scales, d, &best.scale);
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    best
}

/// A block of `8 L` elements with one scale, which is not a small integer: the scale and the values.
#[inline(always)]
pub fn lone_block<V: Lanes, G: Grid, const L: usize>(x: &[f32], given: Option<&[f32]>) -> (f16, [V; L]) {
    let finite = all_finite(x);
    let values = x;
    let x = read::<V, L, 1>(x);
    let w = importance::<V, L, 1>(&x, given);
    let d = f16::from_f32(fit::<V, G, L>(values, &x[0], &w[0]));
    if !(d.is_finite() && finite) {
        return (f16::NAN, [V::all(0.0); L]);
    }
    let mut best = with_scale::<V, G, L>(&x[0], &w[0], d);
    let mut best_d = d;
    for _ in 0..REFITS {
        let (swqq, swqx) = products(&x[0], &w[0], &best.1);
        let d = f16::from_f32(swqx.sum() / swqq.sum());
        let next = with_scale::<V, G, L>(&x[0], &w[0], d);
        // Also where the scale is no number.
        if next.0.partial_cmp(&best.0) != Some(Ordering::Less) {
            break;
        }
        (best, best_d) = (next, d);
    }
    (best_d, best.1)
}

/// The best values for a scale, after their error.
#[inline(always)]
fn with_scale<V: Lanes, G: Grid, const L: usize>(x: &[V; L], w: &[V; L], d: f16) -> (f32, [V; L]) {
    let d = d.to_f32();
    let q = closest::<V, G, L>(x, inverse(d));
    (squared_error(x, w, &q, d), q)
}

#[inline(always)]
fn squared_error<V: Lanes, const L: usize>(x: &[V; L], w: &[V; L], q: &[V; L], scale: f32) -> f32 {
    let mut error = V::all(0.0);
    for i in 0..L {
        let off = V::all(scale).times(q[i]).minus(x[i]);
        error = error.plus(w[i].times(off.times(off)));
    }
    error.sum()
}

/// The scale, of either sign, with which values of the grid come closest to `x`.
#[inline(always)]
fn fit<V: Lanes, G: Grid, const L: usize>(values: &[f32], x: &[V; L], w: &[V; L]) -> f32 {
    let extreme = extreme(values);
    let mut best = extreme / -G::EXTREME;
    if extreme == 0.0 {
        return best;
    }
    let mut best_gain = 0.0;
    for first in STEPS.step_by(WIDTH) {
        let mut per_step = [0.0; WIDTH];
        for (per_step, step) in per_step.iter_mut().zip(first..) {
            *per_step = G::EXTREME + G::STEP * step as f32;
        }
        let per_step = V::read(&per_step).over(V::all(-extreme)).values();
        let [mut swqq, mut swqx] = [[V::all(0.0); WIDTH]; 2];
        for s in 0..WIDTH {
            (swqq[s], swqx[s]) = products(x, w, &closest::<V, G, L>(x, per_step[s]));
        }
        let (swqq, swqx) = (V::sums(&swqq), V::sums(&swqx));
        // How much the best scale for these values, swqx / swqq, reduces the error that zeros would have.
        let gain = swqx.times(swqx).over(swqq).values();
        let scale = swqx.over(swqq).values();
        for (s, _) in (first..=*STEPS.end()).take(WIDTH).enumerate() {
            if gain[s] > best_gain {
                (best, best_gain) = (scale[s], gain[s]);
            }
        }
    }
    best
}

/// Steps by which the value of largest magnitude is stretched.
const STEPS: std::ops::RangeInclusive<i32> = -9..=9;

/// The sums of `w q q` and `w q x`, by lane.
#[inline(always)]
fn products<V: Lanes, const L: usize>(x: &[V; L], w: &[V; L], q: &[V; L]) -> (V, V) {
    let [mut swqq, mut swqx] = [V::all(0.0); 2];
    for i in 0..L {
        let wq = w[i].times(q[i]);
        swqq = swqq.plus(wq.times(q[i]));
        swqx = swqx.plus(wq.times(x[i]));
    }
    (swqq, swqx)
}

/// The values that come closest to `x` with a scale of 1 / `per_step`.
#[inline(always)]
fn closest<V: Lanes, G: Grid, const L: usize>(x: &[V; L], per_step: f32) -> [V; L] {
    let mut q = *x;
    for q in &mut q {
        *q = G::closest(q.times(V::all(per_step)));
    }
    q
}

/// The best values for the given factor, with scales at most 1 from the given ones.
#[inline(always)]
fn with_factor<V: Lanes, G: Grid, const L: usize, const N: usize>(
    x: &[[V; L]; N],
    w: &[[V; L]; N],
    n_scales: f32,
    d: f16,
    scale: &[f32; N],
) -> Symmetric<V, L, N> {
    let mut block = Symmetric { d, scale: *scale, q: [[V::all(0.0); L]; N], error: 0.0 };
    let d = d.to_f32();
    for k in 0..N {
        let (x, w) = (&x[k], &w[k]);
        let mut best_error = f32::INFINITY;
        for to_scale in [0.0, -1.0, 1.0] {
            let scale = (scale[k] + to_scale).clamp(-n_scales, n_scales - 1.0);
            let s = d * scale;
            let q = closest::<V, G, L>(x, inverse(s));
            let error = squared_error(x, w, &q, s);
            if error < best_error {
                best_error = error;
                (block.scale[k], block.q[k]) = (scale, q);
            }
        }
        block.error += f64::from(best_error);
    }
    block
}
