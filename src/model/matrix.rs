//! A weight matrix: a view into the file, never a copy.

use crate::cpu::kernels::{Kernels, kernels};
use crate::gguf::{Gguf, Source, TensorInfo};
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::ops::Range;

/// `[n_rows][n_cols]` weights in the file, with the kernels of their type.
pub struct Matrix {
    name: String,
    source: Source,
    data: Range<usize>,
    row_bytes: usize,
    /// Kernels of the rows' type.
    pub kernels: &'static Kernels,
    /// Outer size.
    pub n_rows: usize,
    /// Row length in elements.
    pub n_cols: usize,
}

impl Matrix {
    /// The tensor as a matrix of exactly `n_rows` x `n_cols`.
    ///
    /// # Errors
    /// When the tensor has another shape, or a type that cannot be computed with.
    pub fn new(gguf: &Gguf, tensor: &TensorInfo, n_rows: usize, n_cols: usize) -> Result<Self> {
        let name = tensor.name.clone();
        let shape = (tensor.n_cols(), tensor.n_rows());
        ensure!(
            shape == (n_cols, n_rows),
            "{name}: shape {:?}, but [{n_cols}, {n_rows}] follows from the metadata",
            tensor.dims
        );
        let kernels = kernels(tensor.dtype).with_context(|| name.clone())?;
        let row_bytes = tensor.data.len() / n_rows;
        Ok(Self { name, source: gguf.source().clone(), data: tensor.data.clone(), row_bytes, kernels, n_rows, n_cols })
    }

    /// Full name of the tensor.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type of the elements.
    pub fn dtype(&self) -> GgmlType {
        self.kernels.dtype
    }

    /// All rows, one after another.
    pub fn bytes(&self) -> &[u8] {
        &self.source[self.data.clone()]
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Bytes of the whole matrix.
    pub fn n_bytes(&self) -> usize {
        self.data.len()
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes()[row * self.row_bytes..][..self.row_bytes]
    }
}
