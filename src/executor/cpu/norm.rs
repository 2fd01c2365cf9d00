//! Normalisation of the residual stream.

use crate::model::{NormKind, Part};

/// Normalises each of the `[n_tokens][n]` vectors of `x` into `out`. Sums run in 64 bits, as ggml's do.
pub(super) fn normalize(kind: NormKind, eps: f32, norm: &Part, x: &[f32], out: &mut [f32]) {
    let weight = norm.vector();
    let n = weight.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
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
    fn rms_divides_by_the_root_mean_square() {
        let rms = 12.5f32.sqrt();
        assert_eq!(run(NormKind::Rms, None), [3.0 / rms, 8.0 / rms, 1.0, -2.0]);
    }

    #[test]
    fn layer_removes_the_mean_and_adds_the_bias() {
        assert_eq!(run(NormKind::Layer, Some(vec![0.5, 0.0])), [-0.5, 2.0, 1.5, -2.0]);
    }
}
