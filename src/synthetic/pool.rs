//! Rows that are used again and again: they are quantized only once, and make no difference to speed.

use super::kind::Kind;
use super::random::{Stream, hash};
use crate::parallel;
use crate::quant::GgmlType;
use crate::quant::convert::quantizer;
use anyhow::{Context, Result};
use std::sync::Arc;

/// Different rows of a pool; their negatives are in it too, so that its mean is zero.
pub(super) const POOL_ROWS: usize = 2048;

/// A row of a pool: twice its number, plus 1 for its negative. Rows are taken in random order, and only again once all
/// have been.
pub(super) fn choose([seed, kind, layer, row]: [u64; 4]) -> u16 {
    const N: u64 = 2 * POOL_ROWS as u64;
    let h = hash([seed, kind, layer, row / N]);
    // Odd factors and right shifts with exclusive or are invertible, so no row is taken twice.
    let round = |x: u64, h: u64| {
        let x = x.wrapping_mul(h | 1).wrapping_add(h >> 12) % N;
        x ^ (x >> 6)
    };
    (0..3).fold(row % N, |x, i| round(x, h >> (16 * i))) as u16
}

/// Values with a sum of squares of `square`, the first `n_constant` 0.
pub(super) fn pool_row(key: [u64; 4], n_constant: usize, square: f64, row: &mut [f32]) {
    let mut stream = Stream::new(key);
    let (constant, data) = row.split_at_mut(n_constant);
    constant.fill(0.0);
    data.iter_mut().for_each(|v| *v = stream.normal());
    scale_to(square, data);
}

/// Gives values a sum of squares of `square`.
pub(super) fn scale_to(square: f64, values: &mut [f32]) {
    let sum: f32 = values.iter().map(|v| v * v).sum();
    let scale = (square / f64::from(sum)).sqrt() as f32;
    values.iter_mut().for_each(|v| *v *= scale);
}

/// What rows of a pool are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rows {
    /// Of their random numbers.
    pub kind: Kind,
    /// What they are quantized to.
    pub dtype: GgmlType,
    /// Their length.
    pub n_cols: usize,
    /// Elements at the beginning that are 0.
    pub n_constant: usize,
    /// Sum of squares.
    pub square: f64,
}

/// A pool.
pub(super) struct Pool {
    bytes: Vec<u8>,
    row_bytes: usize,
}

impl Pool {
    fn new(seed: u64, rows: Rows) -> Result<Self> {
        let Rows { kind, dtype, n_cols, n_constant, square } = rows;
        let quantize = quantizer(dtype)?;
        let row_bytes = dtype.row_bytes(n_cols).context("rows are not whole blocks")?;
        let mut bytes = vec![0; 2 * POOL_ROWS * row_bytes];
        parallel::each(bytes.chunks_exact_mut(2 * row_bytes), |i, out| {
            let mut row = vec![0.0; n_cols];
            pool_row([seed, kind as u64, 0, i as u64], n_constant, square, &mut row);
            let (positive, negative) = out.split_at_mut(row_bytes);
            quantize(&row, positive);
            row.iter_mut().for_each(|v| *v = -*v);
            quantize(&row, negative);
        });
        Ok(Self { bytes, row_bytes })
    }

    pub fn row(&self, chosen: u16) -> &[u8] {
        &self.bytes[usize::from(chosen) * self.row_bytes..][..self.row_bytes]
    }
}

/// A pool of floats, transposed: `[n_cols][POOL_ROWS]`. In a plain file's blocks neurons lie side by side.
pub(super) type Columns = Vec<f32>;

fn columns(seed: u64, rows: Rows) -> Columns {
    let Rows { kind, n_cols, n_constant, square, .. } = rows;
    let mut floats = vec![0.0; POOL_ROWS * n_cols];
    parallel::each(floats.chunks_exact_mut(n_cols), |i, row| {
        pool_row([seed, kind as u64, 0, i as u64], n_constant, square, row);
    });
    let mut columns = vec![0.0; floats.len()];
    parallel::each(columns.chunks_exact_mut(POOL_ROWS), |c, column| {
        column.iter_mut().enumerate().for_each(|(i, v)| *v = floats[i * n_cols + c]);
    });
    columns
}

/// The pools of a model, each made when it is first needed.
#[derive(Default)]
pub(super) struct Pools {
    pools: Vec<(Rows, Arc<Pool>)>,
    columns: Vec<(Rows, Arc<Columns>)>,
}

impl Pools {
    /// The pool of such rows.
    ///
    /// # Errors
    /// When the type cannot be written or rows are not whole blocks.
    pub fn rows(&mut self, seed: u64, rows: Rows) -> Result<Arc<Pool>> {
        if let Some((_, pool)) = self.pools.iter().find(|(of, _)| *of == rows) {
            return Ok(Arc::clone(pool));
        }
        let pool = Arc::new(Pool::new(seed, rows)?);
        self.pools.push((rows, Arc::clone(&pool)));
        Ok(pool)
    }

    /// The same rows as columns of floats.
    pub fn columns(&mut self, seed: u64, rows: Rows) -> Arc<Columns> {
        if let Some((_, columns)) = self.columns.iter().find(|(of, _)| *of == rows) {
            return Arc::clone(columns);
        }
        let columns = Arc::new(columns(seed, rows));
        self.columns.push((rows, Arc::clone(&columns)));
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_a_pool_is_taken_before_one_is_taken_again() {
        for layer in 0..3 {
            let mut seen = vec![0; 2 * POOL_ROWS];
            (0..4 * POOL_ROWS as u64).for_each(|row| seen[usize::from(choose([7, 1, layer, row]))] += 1);
            assert!(seen.iter().all(|n| *n == 2));
        }
    }

    #[test]
    fn rows_are_as_long_as_they_should_be_and_have_nothing_on_the_constant() {
        let mut row = vec![1.0; 256];
        pool_row([1, 2, 3, 4], 32, 5.0, &mut row);
        assert_eq!(row[..32], [0.0; 32]);
        let square: f32 = row.iter().map(|v| v * v).sum();
        assert!((square - 5.0).abs() < 1e-4, "{square}");
    }
}
