//! A weight matrix: a view into the file, never a copy.

use crate::cpu::{Rows, Which, check_supported};
use crate::gguf::{Gguf, Source, TensorInfo};
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::ops::Range;
use std::sync::Arc;

/// `[n_rows][n_cols]` weights in the file. Cloning is cheap and never copies them.
#[derive(Clone)]
pub struct Matrix {
    name: Arc<str>,
    source: Source,
    data: Range<usize>,
    row_bytes: usize,
    dtype: GgmlType,
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
        check_supported(tensor.dtype).with_context(|| name.clone())?;
        let row_bytes = tensor.data.len() / n_rows;
        let (source, data) = (gguf.source_of(tensor).clone(), tensor.data.clone());
        Ok(Self { name: name.into(), source, data, row_bytes, dtype: tensor.dtype, n_rows, n_cols })
    }

    /// The `len` rows from `first` on, as a matrix.
    ///
    /// # Panics
    /// When they are not all there.
    pub fn slice(&self, first: usize, len: usize) -> Self {
        assert!(first + len <= self.n_rows, "{}: rows {first} to {first} + {len} of {}", self.name, self.n_rows);
        let start = self.data.start + first * self.row_bytes;
        Self { data: start..start + len * self.row_bytes, n_rows: len, ..self.clone() }
    }

    /// Full name of the tensor.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Type of the elements.
    pub fn dtype(&self) -> GgmlType {
        self.dtype
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

    /// Has the system read all of it soon, where it is in a mapped file.
    pub fn will_need(&self) {
        self.source.will_need(self.data.clone());
    }

    /// `len` rows from `first` on.
    pub fn rows(&self, first: usize, len: usize) -> Rows<'_> {
        Rows::range(self.bytes(), self.row_bytes, first, len)
    }

    /// The rows that `which` names.
    pub fn which<'a>(&'a self, which: Which<'a>) -> Rows<'a> {
        Rows::of(self.bytes(), self.row_bytes, which)
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes()[row * self.row_bytes..][..self.row_bytes]
    }
}
