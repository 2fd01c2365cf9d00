//! Normalisation of the residual stream.

use crate::model::{Norm, NormKind};

/// Normalises each of the `[n_tokens][n_embd]` vectors of `x` into `out`. Sums run in 64 bits, as ggml's do.
pub(super) fn normalize(kind: NormKind, eps: f32, norm: &Norm, x: &[f32], out: &mut [f32]) {
    let n = norm.weight.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let mean = match kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => x.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64,
        };
        let square = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n as f64;
        let (mean, scale) = (mean as f32, 1.0 / (square as f32 + eps).sqrt());
        for ((o, v), w) in out.iter_mut().zip(x).zip(&norm.weight) {
            *o = (v - mean) * scale * w;
        }
        if let Some(bias) = &norm.bias {
            out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: NormKind, bias: Option<Vec<f32>>) -> Vec<f32> {
        let norm = Norm { weight: vec![1.0, 2.0], bias };
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
