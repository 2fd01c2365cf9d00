//! Weights as the file will hold them.

use crate::quant::GgmlType;
use crate::quant::convert::{Dequantize, Quantize, dequantizer, quantizer};
use anyhow::{Context, Result};

/// Writes rows of some length in some type, and reads them back.
pub(super) struct Rounding {
    quantize: Quantize,
    dequantize: Dequantize,
    row: usize,
    row_bytes: usize,
}

impl Rounding {
    /// For rows of `row` elements.
    ///
    /// # Errors
    /// When the type cannot be written, or a row is not a whole number of its blocks.
    pub fn new(dtype: GgmlType, row: usize) -> Result<Self> {
        let row_bytes = dtype
            .row_bytes(row)
            .filter(|b| *b > 0)
            .with_context(|| format!("rows of {row} are not whole blocks of {dtype} (of {})", dtype.block_len()))?;
        Ok(Self { quantize: quantizer(dtype)?, dequantize: dequantizer(dtype)?, row, row_bytes })
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Writes to `out` what storing `weights`, which are whole rows, and reading them back gives.
    pub fn round(&self, weights: &[f32], out: &mut [f32]) {
        let mut bytes = vec![0; self.row_bytes];
        for (w, o) in weights.chunks_exact(self.row).zip(out.chunks_exact_mut(self.row)) {
            (self.quantize)(w, &mut bytes);
            (self.dequantize)(&bytes, o);
        }
    }
}
