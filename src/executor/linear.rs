//! Matrix times activations, for one token or many.

use crate::cpu::Pool;
use crate::cpu::activations::{ActKind, Activations};
use crate::cpu::scalar;
use crate::model::{Linear, Matrix};
use crate::quant::convert;

/// Rows of a weight matrix that one thread takes at the least.
const ROW_GRAIN: usize = 16;

/// `[n_tokens][n_cols]` activations times `[n_rows][n_cols]` weights: `out` becomes `[n_tokens][n_rows]`.
///
/// Each weight row is read once for all tokens. Every element is the same dot product for any number of tokens, so
/// prefill and decode agree bit for bit. `scratch` is kept for its memory only.
pub(super) fn matmul(pool: &Pool, w: &Matrix, x: &Activations, scratch: &mut Vec<f32>, out: &mut Vec<f32>) {
    let (n_tokens, n_rows) = (x.n_tokens(), w.n_rows);
    out.resize(n_tokens * n_rows, 0.0);
    let dot = w.kernels.dot;
    if n_tokens == 1 {
        pool.fill(out, ROW_GRAIN, |start, piece| {
            for (i, o) in piece.iter_mut().enumerate() {
                *o = dot(w.row(start + i), x.row(0));
            }
        });
        return;
    }
    // A type without a reader is refused when the matrix is loaded.
    let convert = convert::dequantizer(w.dtype()).ok().filter(|_| w.kernels.act == ActKind::F32);
    scratch.resize(n_tokens * n_rows, 0.0);
    pool.fill(scratch, ROW_GRAIN * n_tokens, |start, piece| {
        let mut values = vec![0.0; w.n_cols];
        for (i, out) in piece.chunks_exact_mut(n_tokens).enumerate() {
            let row = w.row(start / n_tokens + i);
            match convert {
                Some(convert) => {
                    convert(row, &mut values);
                    out.iter_mut().enumerate().for_each(|(t, o)| *o = scalar::dot(&values, x.row(t).f32));
                }
                None => out.iter_mut().enumerate().for_each(|(t, o)| *o = dot(row, x.row(t))),
            }
        }
    });
    for (t, out) in out.chunks_exact_mut(n_rows).enumerate() {
        out.iter_mut().enumerate().for_each(|(r, o)| *o = scratch[r * n_tokens + t]);
    }
}

/// [`matmul`] and the bias, where there is one.
pub(super) fn linear(pool: &Pool, w: &Linear, x: &Activations, scratch: &mut Vec<f32>, out: &mut Vec<f32>) {
    matmul(pool, &w.weight, x, scratch, out);
    if let Some(bias) = &w.bias {
        for out in out.chunks_exact_mut(bias.len()) {
            out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
        }
    }
}
