//! The searches of Q4_K, Q5_K and Q6_K one element after the other: the specification that the fast ones are held against.

use super::blocks::{all_finite, extreme};
use super::k_quants::{PAIRS_BYTES, QK_K};
use half::f16;

/// Elements that share a scale and a minimum in `Q4_K` and `Q5_K`.
const SUB: usize = 32;
/// Elements that share a scale in `Q6_K`.
const SUB_6: usize = 16;
/// Scales and minima of `Q4_K` and `Q5_K` have 6 bits.
const PAIR_MAX: f32 = 63.0;
/// How often the factors of a super-block are refitted to the values chosen with the previous ones.
const REFITS: usize = 3;

/// Quantizes 256 values to a `Q4_K` block. Deterministic; an infinity or NaN makes all of it NaN.
pub fn quantize_q4_k(x: &[f32], out: &mut [u8]) {
    let block = affine_block(x, 15.0);
    write_affine_head(&block, out);
    write_halves(&block.q, &mut out[16..144]);
}

/// Quantizes 256 values to a `Q5_K` block; see [`quantize_q4_k`].
pub fn quantize_q5_k(x: &[f32], out: &mut [u8]) {
    let block = affine_block(x, 31.0);
    write_affine_head(&block, out);
    for (i, o) in out[16..48].iter_mut().enumerate() {
        *o = (0..8).fold(0, |bits, j| bits | (block.q[j][i] as u8 >> 4) << j);
    }
    write_halves(&block.q, &mut out[48..176]);
}

/// Quantizes 256 values to a `Q6_K` block; see [`quantize_q4_k`].
pub fn quantize_q6_k(x: &[f32], out: &mut [u8]) {
    let block = symmetric_block(x);
    let q = |i: usize| (block.q[i / SUB_6][i % SUB_6] + 32.0) as u8;
    for (i, o) in out[..128].iter_mut().enumerate() {
        let first = 128 * (i / 64) + i % 64;
        *o = q(first) & 0x0f | q(first + 64) << 4;
    }
    for (i, o) in out[128..192].iter_mut().enumerate() {
        let first = 128 * (i / 32) + i % 32;
        *o = (0..4).fold(0, |bits, part| bits | q(first + 32 * part) >> 4 << (2 * part));
    }
    for (o, scale) in out[192..208].iter_mut().zip(block.scale) {
        *o = scale as i8 as u8;
    }
    out[208..210].copy_from_slice(&block.d.to_le_bytes());
}

/// `x = d scale q - d_min min`, where all but the factors are small integers.
struct Affine {
    d: f16,
    d_min: f16,
    scale: [f32; QK_K / SUB],
    min: [f32; QK_K / SUB],
    q: [[f32; SUB]; QK_K / SUB],
    error: f64,
}

/// `x = d scale q`.
struct Symmetric {
    d: f16,
    scale: [f32; QK_K / SUB_6],
    q: [[f32; SUB_6]; QK_K / SUB_6],
    error: f64,
}

fn write_affine_head(block: &Affine, out: &mut [u8]) {
    out[..2].copy_from_slice(&block.d.to_le_bytes());
    out[2..4].copy_from_slice(&block.d_min.to_le_bytes());
    let pairs = &mut out[4..4 + PAIRS_BYTES];
    for k in 0..4 {
        let [scale, later_scale] = [k, k + 4].map(|k| block.scale[k] as u8);
        let [min, later_min] = [k, k + 4].map(|k| block.min[k] as u8);
        pairs[k] = scale | later_scale >> 4 << 6;
        pairs[k + 4] = min | later_min >> 4 << 6;
        pairs[k + 8] = later_scale & 0x0f | later_min << 4;
    }
}

fn write_halves(q: &[[f32; SUB]; QK_K / SUB], out: &mut [u8]) {
    for (out, pair) in out.chunks_exact_mut(SUB).zip(q.chunks_exact(2)) {
        for ((o, low), high) in out.iter_mut().zip(pair[0]).zip(pair[1]) {
            *o = low as u8 & 0x0f | (high as u8) << 4;
        }
    }
}

/// Larger weights matter more, as do their products with activations; even a zero matters a little.
fn importance<const N: usize>(x: &[f32; N]) -> [f32; N] {
    let rms = (sum::<N>(|i| x[i] * x[i]) / N as f32).sqrt();
    x.map(|v| rms + v.abs())
}

fn affine_block(x: &[f32], q_max: f32) -> Affine {
    let x = x.as_chunks::<SUB>().0;
    let w: [_; QK_K / SUB] = std::array::from_fn(|k| importance(&x[k]));
    let fits: [_; QK_K / SUB] = std::array::from_fn(|k| fit_affine(&x[k], &w[k], q_max));
    let greatest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let d = f16::from_f32(greatest(|fit| fit.0) / PAIR_MAX);
    let d_min = f16::from_f32(greatest(|fit| fit.1) / PAIR_MAX);
    if !(d.is_finite() && d_min.is_finite() && all_finite(x.as_flattened())) {
        let (scale, min, q) = ([0.0; _], [0.0; _], [[0.0; SUB]; _]);
        return Affine { d: f16::NAN, d_min: f16::NAN, scale, min, q, error: 0.0 };
    }
    let scale = fits.map(|fit| nearest(fit.0 * inverse(d.to_f32()), 0.0, PAIR_MAX));
    let min = fits.map(|fit| nearest(fit.1 * inverse(d_min.to_f32()), 0.0, PAIR_MAX));
    let mut best = with_factors(x, &w, q_max, (d, d_min), &scale, &min);
    for _ in 0..REFITS {
        let factors = refit_affine(x, &w, &best);
        let next = with_factors(x, &w, q_max, factors, &best.scale, &best.min);
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    best
}

/// The scale and the minimum, 0 or more, with which integers up to `q_max` come closest to `x`.
fn fit_affine(x: &[f32; SUB], w: &[f32; SUB], q_max: f32) -> (f32, f32) {
    let low = x.iter().fold(0.0f32, |m, v| m.min(*v));
    let range = x.iter().fold(low, |m, v| m.max(*v)) - low;
    let mut best = (range / q_max, -low);
    if range == 0.0 {
        return best;
    }
    let (sw, swx) = (sum::<SUB>(|i| w[i]), sum::<SUB>(|i| w[i] * x[i]));
    let mut best_error = f32::INFINITY;
    for step in -10..=10 {
        let per_step = (q_max + 0.1 * step as f32) / range;
        let q: [f32; SUB] = std::array::from_fn(|i| nearest((x[i] - low) * per_step, 0.0, q_max));
        let wq: [f32; SUB] = std::array::from_fn(|i| w[i] * q[i]);
        let (swq, swqq) = (sum::<SUB>(|i| wq[i]), sum::<SUB>(|i| wq[i] * q[i]));
        let swxq = sum::<SUB>(|i| wq[i] * x[i]);
        let determinant = sw * swqq - swq * swq;
        let mut scale = (sw * swxq - swx * swq) / determinant;
        let mut min = (swq * swxq - swqq * swx) / determinant;
        if min < 0.0 {
            (scale, min) = (swxq / swqq, 0.0);
        }
        let error = sum::<SUB>(|i| w[i] * square(scale * q[i] - min - x[i]));
        if error < best_error {
            (best, best_error) = ((scale, min), error);
        }
    }
    best
}

/// The best values for the given factors, with scales and minima at most 1 from the given ones.
fn with_factors(
    x: &[[f32; SUB]],
    w: &[[f32; SUB]; QK_K / SUB],
    q_max: f32,
    (d, d_min): (f16, f16),
    scale: &[f32; QK_K / SUB],
    min: &[f32; QK_K / SUB],
) -> Affine {
    let mut block = Affine { d, d_min, scale: *scale, min: *min, q: [[0.0; SUB]; _], error: 0.0 };
    for k in 0..QK_K / SUB {
        let (x, w) = (&x[k], &w[k]);
        let mut best_error = f32::INFINITY;
        for (to_scale, to_min) in NEIGHBOURS {
            let (scale, min) = (scale[k] + to_scale, min[k] + to_min);
            if scale.min(min) < 0.0 || scale.max(min) > PAIR_MAX {
                continue;
            }
            let (s, m) = (d.to_f32() * scale, d_min.to_f32() * min);
            let per_step = inverse(s);
            let q: [f32; SUB] = std::array::from_fn(|i| nearest((x[i] + m) * per_step, 0.0, q_max));
            let error = sum::<SUB>(|i| w[i] * square(s * q[i] - m - x[i]));
            if error < best_error {
                best_error = error;
                (block.scale[k], block.min[k], block.q[k]) = (scale, min, q);
            }
        }
        block.error += f64::from(best_error);
    }
    block
}

/// Steps of a scale and a minimum; no step first, so that both stay if nothing is better.
const NEIGHBOURS: [(f32, f32); 9] =
    [(0.0, 0.0), (-1.0, -1.0), (-1.0, 0.0), (-1.0, 1.0), (0.0, -1.0), (0.0, 1.0), (1.0, -1.0), (1.0, 0.0), (1.0, 1.0)];

/// The factors that best suit the scales, minima and values of `block`: least squares over all of it.
fn refit_affine(x: &[[f32; SUB]], w: &[[f32; SUB]; QK_K / SUB], block: &Affine) -> (f16, f16) {
    let (mut ss, mut sm, mut mm, mut xs, mut xm) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((x, w), (q, (scale, min))) in x.iter().zip(w).zip(block.q.iter().zip(block.scale.iter().zip(&block.min))) {
        let (scale, min) = (f64::from(*scale), f64::from(*min));
        ss += scale * scale * f64::from(sum::<SUB>(|i| w[i] * q[i] * q[i]));
        sm += scale * min * f64::from(sum::<SUB>(|i| w[i] * q[i]));
        mm += min * min * f64::from(sum::<SUB>(|i| w[i]));
        xs += scale * f64::from(sum::<SUB>(|i| w[i] * q[i] * x[i]));
        xm += min * f64::from(sum::<SUB>(|i| w[i] * x[i]));
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

fn symmetric_block(x: &[f32]) -> Symmetric {
    let x = x.as_chunks::<SUB_6>().0;
    let w: [_; QK_K / SUB_6] = std::array::from_fn(|k| importance(&x[k]));
    let fits: [_; QK_K / SUB_6] = std::array::from_fn(|k| fit_symmetric(&x[k], &w[k]));
    let d = f16::from_f32(extreme(&fits) / -128.0);
    if !(d.is_finite() && all_finite(x.as_flattened())) {
        return Symmetric { d: f16::NAN, scale: [0.0; _], q: [[0.0; SUB_6]; _], error: 0.0 };
    }
    let scale = fits.map(|fit| nearest(fit * inverse(d.to_f32()), -128.0, 127.0));
    let mut best = with_factor(x, &w, d, &scale);
    for _ in 0..REFITS {
        let (mut ss, mut xs) = (0.0, 0.0);
        for ((x, w), (q, scale)) in x.iter().zip(&w).zip(best.q.iter().zip(best.scale)) {
            ss += f64::from(scale * scale * sum::<SUB_6>(|i| w[i] * q[i] * q[i]));
            xs += f64::from(scale * sum::<SUB_6>(|i| w[i] * q[i] * x[i]));
        }
        let d = if ss > 0.0 { f16::from_f64(xs / ss) } else { break };
        let next = with_factor(x, &w, d, &best.scale);
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    best
}

/// The scale, of either sign, with which integers from -32 to 31 come closest to `x`.
fn fit_symmetric(x: &[f32; SUB_6], w: &[f32; SUB_6]) -> f32 {
    let extreme = extreme(x);
    let mut best = extreme / -32.0;
    if extreme == 0.0 {
        return best;
    }
    let mut best_gain = 0.0;
    for step in -9..=9 {
        let per_step = (32.0 + 0.1 * step as f32) / -extreme;
        let q: [f32; SUB_6] = std::array::from_fn(|i| nearest(x[i] * per_step, -32.0, 31.0));
        let wq: [f32; SUB_6] = std::array::from_fn(|i| w[i] * q[i]);
        let (swqq, swxq) = (sum::<SUB_6>(|i| wq[i] * q[i]), sum::<SUB_6>(|i| wq[i] * x[i]));
        // How much the best scale for these values, swxq / swqq, reduces the error that zeros would have.
        let gain = swxq * swxq / swqq;
        if gain > best_gain {
            (best, best_gain) = (swxq / swqq, gain);
        }
    }
    best
}

fn with_factor(x: &[[f32; SUB_6]], w: &[[f32; SUB_6]; QK_K / SUB_6], d: f16, scale: &[f32; QK_K / SUB_6]) -> Symmetric {
    let mut block = Symmetric { d, scale: *scale, q: [[0.0; SUB_6]; _], error: 0.0 };
    for k in 0..QK_K / SUB_6 {
        let (x, w) = (&x[k], &w[k]);
        let mut best_error = f32::INFINITY;
        for to_scale in [0.0, -1.0, 1.0] {
            let scale = (scale[k] + to_scale).clamp(-128.0, 127.0);
            let s = d.to_f32() * scale;
            let per_step = inverse(s);
            let q: [f32; SUB_6] = std::array::from_fn(|i| nearest(x[i] * per_step, -32.0, 31.0));
            let error = sum::<SUB_6>(|i| w[i] * square(s * q[i] - x[i]));
            if error < best_error {
                best_error = error;
                (block.scale[k], block.q[k]) = (scale, q);
            }
        }
        block.error += f64::from(best_error);
    }
    block
}

fn inverse(v: f32) -> f32 {
    if v == 0.0 { 0.0 } else { 1.0 / v }
}

fn square(v: f32) -> f32 {
    v * v
}

/// The integer nearest to `v`, between `low` and `high`, which are far below 2^22: adding 1.5 * 2^23 rounds and, unlike
/// `round`, is fast on processors of any age.
#[inline]
fn nearest(v: f32, low: f32, high: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    v.max(low).min(high) + ROUND - ROUND
}

/// Sums eight interleaved parts, which compilers vectorise.
#[inline]
fn sum<const N: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut parts = [0.0; 8];
    for i in (0..N).step_by(8) {
        for (j, part) in parts.iter_mut().enumerate() {
            *part += term(i + j);
        }
    }
    let [a, b, c, d, e, f, g, h] = parts;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
