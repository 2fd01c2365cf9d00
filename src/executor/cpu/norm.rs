//! Normalisation of the residual stream.

use crate::model::{NormKind, Part};

/// Normalises each of the `[n_tokens][n]` vectors of `x` into `out`, where `n` is the length of the norm.
pub(super) fn normalize(kind: NormKind, eps: f32, norm: &Part, x: &[f32], out: &mut [f32]) {
    normalize_pieces(kind, eps, norm, norm.vector().len(), x, out);
}

/// Normalises each piece of `n` elements of `x` into `out`. The norm has weights for one piece, or for several that follow
/// each other. Sums run in 64 bits, as ggml's do.
pub(super) fn normalize_pieces(kind: NormKind, eps: f32, norm: &Part, n: usize, x: &[f32], out: &mut [f32]) {
    let weights = norm.vector().chunks_exact(n).cycle();
    for ((x, out), weight) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)).zip(weights) {
        let mean = match kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => sum(x, |v| v) / n as f64,
        };
        let square = sum(x, |v| (v - mean) * (v - mean)) / n as f64;
        let (mean, scale) = (mean as f32, 1.0 / (square as f32 + eps).sqrt());
        for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
            *o = (v - mean) * scale * w;
        }
        if let Some(bias) = &norm.bias {
            out.iter_mut().zip(&**bias).for_each(|(o, b)| *o += b);
        }
    }
}

/// Sum of `f` over `x`, in interleaved partial sums: one after another they would wait for each other.
fn sum(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for (sum, v) in sums.iter_mut().zip(chunk) {
            *sum += f(f64::from(*v));
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|v| f(f64::from(*v))).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, Role, Tensor};

    fn run(kind: NormKind, bias: Option<Vec<f32>>) -> Vec<f32> {
        let (tensor, bias) = (Tensor::Vector(vec![1.0, 2.0]), bias.map(Into::into));
        let norm = Part { role: Role::AttnNorm, tensor, bias, access: Access::Whole };
        let mut out = vec![0.0; 4];
        normalize(kind, 0.0, &norm, &[3.0, 4.0, 1.0, -1.0], &mut out);
        out
    }

    #[test]
    fn pieces_have_weights_of_their_own() {
        let (tensor, bias) = (Tensor::Vector(vec![1.0, 2.0, -1.0, 3.0]), None);
        let norm = Part { role: Role::AttnQNorm, tensor, bias, access: Access::Whole };
        let mut out = vec![0.0; 8];
        let x = [5.0, 7.0, 7.0, 5.0, 0.0, -2.0, -2.0, 0.0];
        normalize_pieces(NormKind::Layer, 0.0, &norm, 2, &x, &mut out);
        assert_eq!(out, [-1.0, 2.0, -1.0, -3.0, 1.0, -2.0, 1.0, 3.0]);
    }

    #[test]
    fn rms_divides_by_the_root_mean_square() {
        let rms = 12.5f32.sqrt();
        assert_eq!(run(NormKind::Rms, None), [3.0 / rms, 8.0 / rms, 1.0, -2.0]);
    }

    #[test]
    fn layer_removes_the_mean_and_adds_the_bias() {
        assert_eq!(run(NormKind::Layer, Some(vec![0.5, 0.0])), [-0.5, 2.0, 1.5, -2.0]);
    }
}
