//! A matrix of a predictor, as it is stored.

use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result};

/// A matrix as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Type of the elements.
    pub dtype: GgmlType,
    /// Outer size.
    pub n_rows: usize,
    /// Row length in elements.
    pub n_cols: usize,
    /// All rows, one after another.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// Stores `values` (`[n_rows][n_cols]`) as `dtype`.
    ///
    /// # Errors
    /// When rows are not whole blocks or the type cannot be written.
    pub(super) fn new(values: &[f32], n_cols: usize, dtype: GgmlType) -> Result<Self> {
        let row_bytes =
            dtype.row_bytes(n_cols).with_context(|| format!("rows of {n_cols} are not whole {dtype} blocks"))?;
        let n_rows = values.len() / n_cols;
        let mut bytes = vec![0; n_rows * row_bytes];
        convert::quantizer(dtype)?(values, &mut bytes);
        Ok(Self { dtype, n_rows, n_cols, bytes })
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.bytes.len() / self.n_rows.max(1)
    }

    /// The values: `[n_rows][n_cols]`.
    ///
    /// # Errors
    /// When the type cannot be read.
    pub fn values(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.n_rows * self.n_cols];
        convert::dequantizer(self.dtype)?(&self.bytes, &mut values);
        Ok(values)
    }
}
