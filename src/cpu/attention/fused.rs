//! The kernels in plain Rust, generic over whether products and sums are rounded once.

use super::{LANES, Lanes, Product, Running, Seen, Soften, VECTOR};
use crate::cpu::exp::{add_product, exp_or_zero, tanh};

/// One number of each query of a vector.
type Vector = [f32; VECTOR];

/// The first vectors of a row, as many as are needed for so many lanes.
#[inline(always)]
fn vectors(row: &Lanes, n_lanes: usize) -> &[Vector] {
    &row.0.as_chunks().0[..n_lanes.div_ceil(VECTOR)]
}

#[inline(always)]
fn vectors_mut(row: &mut Lanes, n_lanes: usize) -> &mut [Vector] {
    &mut row.0.as_chunks_mut().0[..n_lanes.div_ceil(VECTOR)]
}

/// Adds a product to `out`. With `WHERE`, 0 times anything is 0.
#[inline(always)]
pub(super) fn add<const FMA: bool, const WHERE: bool>(of: &Product, out: &mut [Lanes]) {
    for (i, out) in out.iter_mut().enumerate() {
        let out = vectors_mut(out, of.n_lanes);
        for (k, row) in of.rows.iter().enumerate() {
            let factor = of.factors[i * of.strides.0 + k * of.strides.1];
            for (out, row) in out.iter_mut().zip(vectors(row, of.n_lanes)) {
                for lane in 0..VECTOR {
                    let factor = if WHERE && row[lane] == 0.0 { 0.0 } else { factor };
                    out[lane] = add_product::<FMA>(factor, row[lane], out[lane]);
                }
            }
        }
    }
}

/// Scores become weights, relative to the largest score so far; what was gathered follows it.
#[inline(always)]
pub(super) fn soften<const FMA: bool>(of: &Soften, scores: &mut [Lanes], running: &mut Running, out: &mut [Lanes]) {
    for v in 0..of.n_lanes.div_ceil(VECTOR) {
        let old = running.max.0.as_chunks::<VECTOR>().0[v];
        let mut max = old;
        for (i, row) in scores.iter_mut().enumerate() {
            let row = &mut row.0.as_chunks_mut::<VECTOR>().0[v];
            if let Some(cap) = of.cap {
                for s in row.iter_mut() {
                    *s = cap * tanh::<FMA>(*s / cap);
                }
            }
            if let Some(seen) = of.seen {
                hide(of.position + i as u32, seen, v, row);
            }
            for lane in 0..VECTOR {
                max[lane] = if row[lane] > max[lane] { row[lane] } else { max[lane] };
            }
        }
        // Where nothing was seen yet.
        let base = max.map(|max| if max == f32::NEG_INFINITY { 0.0 } else { max });
        let mut rescale = [0.0; VECTOR];
        for lane in 0..VECTOR {
            rescale[lane] = exp_or_zero::<FMA>(old[lane] - base[lane]);
        }
        let sum = &mut running.sum.0.as_chunks_mut::<VECTOR>().0[v];
        for lane in 0..VECTOR {
            sum[lane] *= rescale[lane];
        }
        for row in scores.iter_mut() {
            let row = &mut row.0.as_chunks_mut::<VECTOR>().0[v];
            for lane in 0..VECTOR {
                row[lane] = exp_or_zero::<FMA>(row[lane] - base[lane]);
                sum[lane] += row[lane];
            }
        }
        running.max.0.as_chunks_mut::<VECTOR>().0[v] = max;
        if rescale != [1.0; VECTOR] {
            for row in out.iter_mut() {
                let row = &mut row.0.as_chunks_mut::<VECTOR>().0[v];
                for lane in 0..VECTOR {
                    row[lane] *= rescale[lane];
                }
            }
        }
    }
}

/// The scores of a position become infinitely small where it is not seen.
#[inline(always)]
fn hide(position: u32, seen: &Seen, v: usize, scores: &mut Vector) {
    const _: () = assert!(LANES.is_multiple_of(VECTOR));
    let (first, end) = (&seen.first.as_chunks::<VECTOR>().0[v], &seen.end.as_chunks::<VECTOR>().0[v]);
    for lane in 0..VECTOR {
        let sees = (first[lane] <= position) & (position < end[lane]);
        scores[lane] = if sees { scores[lane] } else { f32::NEG_INFINITY };
    }
}

/// Scores of one query become weights, relative to the largest of them and of `max`: that, and the sum of the weights.
#[inline(always)]
pub(super) fn weigh<const FMA: bool>(scale: f32, cap: Option<f32>, max: f32, scores: &mut [f32]) -> (f32, f32) {
    scores.iter_mut().for_each(|s| *s *= scale);
    if let Some(cap) = cap {
        scores.iter_mut().for_each(|s| *s = cap * tanh::<FMA>(*s / cap));
    }
    let mut largest = [max; VECTOR];
    let (vectors, rest) = scores.as_chunks::<VECTOR>();
    for vector in vectors.iter().map(|vector| &vector[..]).chain([rest]) {
        for (largest, s) in largest.iter_mut().zip(vector) {
            *largest = if s > largest { *s } else { *largest };
        }
    }
    let max = largest.into_iter().fold(max, f32::max);
    scores.iter_mut().for_each(|s| *s = exp_or_zero::<FMA>(*s - max));
    let mut sums = [0.0; VECTOR];
    let (vectors, rest) = scores.as_chunks::<VECTOR>();
    for vector in vectors.iter().map(|vector| &vector[..]).chain([rest]) {
        sums.iter_mut().zip(vector).for_each(|(sum, s)| *sum += s);
    }
    let mut n = VECTOR / 2;
    while n > 0 {
        for i in 0..n {
            sums[i] += sums[i + n];
        }
        n /= 2;
    }
    (max, sums[0])
}
