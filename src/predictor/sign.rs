//! The predictor that needs no training: how many signs of a neuron's weights agree with those of the input.

use super::tensor::Tensor;
use crate::parallel;
use crate::quant::GgmlType;
use anyhow::{Result, ensure};

/// Signs of the mask matrix (`[n_ff][n_embd]`).
///
/// # Errors
/// When rows are not whole bytes.
pub(super) fn signs(mask: &[f32], n_embd: usize) -> Result<Tensor> {
    ensure!(n_embd.is_multiple_of(8), "rows of {n_embd} signs are not whole bytes");
    let n_rows = mask.len() / n_embd;
    Ok(Tensor { dtype: GgmlType::I8, n_rows, n_cols: n_embd / 8, bytes: bits(mask) })
}

/// Bit `j % 8` of byte `j / 8` is set where value `j` is negative.
fn bits(values: &[f32]) -> Vec<u8> {
    let byte = |values: &[f32]| values.iter().rev().fold(0, |byte, v| byte << 1 | u8::from(*v < 0.0));
    let bytes = |values: &[f32]| values.chunks(8).map(byte).collect::<Vec<u8>>();
    parallel::map(values.chunks(1 << 15), |_, values| bytes(values)).concat()
}

/// `n_embd - 2 * (signs that differ)` for the tokens of `x` (`[n][n_embd]`): `[n][n_ff]`.
pub(super) fn scores(signs: &Tensor, x: &[f32], n: usize) -> Vec<f32> {
    let (width, n_embd) = (signs.n_cols, signs.n_cols * 8);
    let words = |bytes: &[u8]| -> Vec<u64> {
        bytes
            .chunks(width)
            .flat_map(|row| {
                row.chunks(8).map(|b| {
                    let mut word = [0; 8];
                    word[..b.len()].copy_from_slice(b);
                    u64::from_le_bytes(word)
                })
            })
            .collect()
    };
    let (rows, tokens) = (words(&signs.bytes), words(&bits(x)));
    let per_row = width.div_ceil(8);
    let mut out = vec![0.0; n * signs.n_rows];
    parallel::each(out.chunks_mut(signs.n_rows).zip(tokens.chunks(per_row)), |_, (out, token)| {
        for (o, row) in out.iter_mut().zip(rows.chunks_exact(per_row)) {
            let differ: u32 = row.iter().zip(token).map(|(a, b)| (a ^ b).count_ones()).sum();
            *o = n_embd as f32 - 2.0 * differ as f32;
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_product_of_signs() {
        let n_embd = 40;
        let value = |i: usize| if i.wrapping_mul(2_654_435_761) >> 7 & 1 == 0 { 0.5 } else { -2.0f32 };
        let mask: Vec<f32> = (0..3 * n_embd).map(value).collect();
        let x: Vec<f32> = (500..500 + 2 * n_embd).map(value).collect();
        let tensor = signs(&mask, n_embd).unwrap();
        let scores = scores(&tensor, &x, 2);
        for (i, score) in scores.iter().enumerate() {
            let (x, w) = (&x[i / 3 * n_embd..][..n_embd], &mask[i % 3 * n_embd..][..n_embd]);
            let expected: f32 = x.iter().zip(w).map(|(x, w)| x.signum() * w.signum()).sum();
            assert_eq!(*score, expected);
        }
        assert_eq!(tensor.bytes[0] & 1, u8::from(mask[0] < 0.0));
        assert_eq!(tensor.bytes[1] >> 3 & 1, u8::from(mask[11] < 0.0));
    }
}
