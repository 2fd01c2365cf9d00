//! The search for the scales and minima of a super-block whose values are `d scale q - d_min min`.

use super::blocks::all_finite;
use super::k_quants::QK_K;
use super::lanes::{Lanes, WIDTH};
use super::search::{REFITS, dot, importance, inverse, nearest, read};
use half::f16;

/// What the integers of a type may be.
#[derive(Debug, Clone, Copy)]
pub struct AffineRange {
    /// The greatest value.
    pub q_max: f32,
    /// The greatest scale and minimum of a sub-block.
    pub pair_max: f32,
}

/// A super-block of `N` sub-blocks of `8 L` elements: `x = d scale q - d_min min`, where all but the factors are small integers.
pub struct Affine<V, const L: usize, const N: usize> {
    /// Factor of the scales.
    pub d: f16,
    /// Factor of the minima.
    pub d_min: f16,
    /// Scale of each sub-block.
    pub scale: [f32; N],
    /// Minimum of each sub-block.
    pub min: [f32; N],
    /// The values.
    pub q: [[V; L]; N],
    error: f64,
}

/// The block with the least weighted squared error that a bounded search finds. Something infinite or no number among `x` makes
/// the factors NaN.
#[inline(always)]
pub fn affine_block<V: Lanes, const L: usize, const N: usize>(
    x: &[f32],
    given: Option<&[f32]>,
    range: AffineRange,
) -> Affine<V, L, N> {
    const { assert!(L * N * WIDTH == QK_K) };
    let finite = all_finite(x);
    let x = read::<V, L, N>(x);
    let w = importance(&x, given);
    let mut fits = [(0.0, 0.0); N];
    for k in 0..N {
        fits[k] = fit(&x[k], &w[k], range.q_max);
    }
    let greatest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let d = f16::from_f32(greatest(|fit| fit.0) / range.pair_max);
    let d_min = f16::from_f32(greatest(|fit| fit.1) / range.pair_max);
    if !(d.is_finite() && d_min.is_finite() && finite) {
        let (scale, min, q) = ([0.0; N], [0.0; N], [[V::all(0.0); L]; N]);
        return Affine { d: f16::NAN, d_min: f16::NAN, scale, min, q, error: 0.0 };
    }
    let scale = fits.map(|fit| nearest(fit.0 * inverse(d.to_f32()), 0.0, range.pair_max));
    let min = fits.map(|fit| nearest(fit.1 * inverse(d_min.to_f32()), 0.0, range.pair_max));
    let mut best = with_factors(&x, &w, range, (d, d_min), &scale, &min);
    for _ in 0..REFITS {
        let factors = refit(&x, &w, &best);
        let next = with_factors(&x, &w, range, factors, &best.scale, &best.min);
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    best
}

/// The scale and the minimum, 0 or more, with which integers up to `q_max` come closest to `x`.
#[inline(always)]
fn fit<V: Lanes, const L: usize>(x: &[V; L], w: &[V; L], q_max: f32) -> (f32, f32) {
    let (mut least, mut greatest) = (V::all(0.0), x[0]);
    for x in x {
        least = least.min(*x);
        greatest = greatest.max(*x);
    }
    let low = least.values().into_iter().fold(0.0, f32::min);
    let range = greatest.values().into_iter().fold(low, f32::max) - low;
    let mut best = (range / q_max, -low);
    if range == 0.0 {
        return best;
    }
    let mut above = *x;
    let mut sum_w = V::all(0.0);
    for i in 0..L {
        above[i] = x[i].minus(V::all(low));
        sum_w = sum_w.plus(w[i]);
    }
    let (sw, swx) = (sum_w.sum(), dot(w, x));
    let mut best_error = f32::INFINITY;
    for first in STEPS.step_by(AT_ONCE) {
        let mut per_step = [0.0; WIDTH];
        for (per_step, step) in per_step.iter_mut().zip(first..) {
            *per_step = q_max + 0.1 * step as f32;
        }
        let per_step = V::read(&per_step).over(V::all(range)).values();
        let mut q = [*x; AT_ONCE];
        let [mut swq, mut swqq, mut swqx, mut errors] = [[V::all(0.0); WIDTH]; 4];
        for s in 0..AT_ONCE {
            for i in 0..L {
                q[s][i] = above[i].times(V::all(per_step[s])).nearest(0.0, q_max);
                let wq = w[i].times(q[s][i]);
                swq[s] = swq[s].plus(wq);
                swqq[s] = swqq[s].plus(wq.times(q[s][i]));
                swqx[s] = swqx[s].plus(wq.times(x[i]));
            }
        }
        let (sw, swx, swq, swqq, swqx) = (V::all(sw), V::all(swx), V::sums(&swq), V::sums(&swqq), V::sums(&swqx));
        let determinant = sw.times(swqq).minus(swq.times(swq));
        let scale = sw.times(swqx).minus(swx.times(swq)).over(determinant);
        let min = swq.times(swqx).minus(swqq.times(swx)).over(determinant);
        let scale = min.if_negative(swqx.over(swqq), scale).values();
        let min = min.if_negative(V::all(0.0), min).values();
        for s in 0..AT_ONCE {
            errors[s] = squared_errors(x, w, &q[s], scale[s], min[s]);
        }
        let errors = V::sums(&errors).values();
        for s in 0..AT_ONCE {
            if errors[s] < best_error {
                (best, best_error) = ((scale[s], min[s]), errors[s]);
            }
        }
    }
    best
}

/// Steps of 0.1, by which the greatest value is stretched.
const STEPS: std::ops::RangeInclusive<i32> = -10..=10;
/// Steps that are tried at the same time.
const AT_ONCE: usize = 7;

#[inline(always)]
fn squared_errors<V: Lanes, const L: usize>(x: &[V; L], w: &[V; L], q: &[V; L], scale: f32, min: f32) -> V {
    let (scale, min) = (V::all(scale), V::all(min));
    let mut error = V::all(0.0);
    for i in 0..L {
        let off = scale.times(q[i]).minus(min).minus(x[i]);
        error = error.plus(w[i].times(off.times(off)));
    }
    error
}

/// Steps of a scale and a minimum.
const NEIGHBOURS: [(f32, f32); WIDTH] =
    [(-1.0, -1.0), (-1.0, 0.0), (-1.0, 1.0), (0.0, -1.0), (0.0, 1.0), (1.0, -1.0), (1.0, 0.0), (1.0, 1.0)];

/// The best values for the given factors, with scales and minima at most 1 from the given ones.
#[inline(always)]
fn with_factors<V: Lanes, const L: usize, const N: usize>(
    x: &[[V; L]; N],
    w: &[[V; L]; N],
    range: AffineRange,
    (d, d_min): (f16, f16),
    scale: &[f32; N],
    min: &[f32; N],
) -> Affine<V, L, N> {
    let mut block = Affine { d, d_min, scale: *scale, min: *min, q: [[V::all(0.0); L]; N], error: 0.0 };
    let (d, d_min) = (d.to_f32(), d_min.to_f32());
    for k in 0..N {
        let (x, w) = (&x[k], &w[k]);
        let (s, m) = (d * scale[k], d_min * min[k]);
        // Factors may be no numbers where least squares divide by next to nothing.
        let mut best_error = f32::INFINITY.min(squared_errors(x, w, &closest(x, s, m, range.q_max), s, m).sum());
        let mut errors = [V::all(0.0); WIDTH];
        for (error, (to_scale, to_min)) in errors.iter_mut().zip(NEIGHBOURS) {
            let (s, m) = (d * (scale[k] + to_scale), d_min * (min[k] + to_min));
            *error = squared_errors(x, w, &closest(x, s, m, range.q_max), s, m);
        }
        for (error, (to_scale, to_min)) in V::sums(&errors).values().into_iter().zip(NEIGHBOURS) {
            let (scale, min) = (scale[k] + to_scale, min[k] + to_min);
            let possible = scale.min(min) >= 0.0 && scale.max(min) <= range.pair_max;
            if possible && error < best_error {
                best_error = error;
                (block.scale[k], block.min[k]) = (scale, min);
            }
        }
        block.q[k] = closest(x, d * block.scale[k], d_min * block.min[k], range.q_max);
        block.error += f64::from(best_error);
    }
    block
}

/// The integers that come closest to `x` with this scale and minimum.
#[inline(always)]
fn closest<V: Lanes, const L: usize>(x: &[V; L], scale: f32, min: f32, q_max: f32) -> [V; L] {
    let (per_step, min) = (V::all(inverse(scale)), V::all(min));
    let mut q = *x;
    for q in &mut q {
        *q = q.plus(min).times(per_step).nearest(0.0, q_max);
    }
    q
}

/// The factors that best suit the scales, minima and values of `block`: least squares over all of it.
#[inline(always)]
fn refit<V: Lanes, const L: usize, const N: usize>(
    x: &[[V; L]; N],
    w: &[[V; L]; N],
    block: &Affine<V, L, N>,
) -> (f16, f16) {
    let (mut ss, mut sm, mut mm, mut xs, mut xm) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for k in 0..N {
        let [mut sw, mut swq, mut swqq, mut swqx] = [V::all(0.0); 4];
        for i in 0..L {
            let (x, w, q) = (x[k][i], w[k][i], block.q[k][i]);
            let wq = w.times(q);
            sw = sw.plus(w);
            swq = swq.plus(wq);
            swqq = swqq.plus(wq.times(q));
            swqx = swqx.plus(wq.times(x));
        }
        let (scale, min) = (f64::from(block.scale[k]), f64::from(block.min[k]));
        ss += scale * scale * f64::from(swqq.sum());
        sm += scale * min * f64::from(swq.sum());
        mm += min * min * f64::from(sw.sum());
        xs += scale * f64::from(swqx.sum());
        xm += min * f64::from(dot(&w[k], &x[k]));
    }
    let determinant = ss * mm - sm * sm;
    if determinant > 0.0 {
        let (d, d_min) = ((xs * mm - xm * sm) / determinant, (xs * sm - xm * ss) / determinant);
        (f16::from_f64(d), f16::from_f64(d_min))
    } else if ss > 0.0 {
        (f16::from_f64(xs / ss), block.d_min)
    } else {
        (block.d, block.d_min)
    }
}
