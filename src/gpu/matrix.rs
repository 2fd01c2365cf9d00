//! Matrices on the card, in the layout that the kernels read.

use super::memory::Ptr;
use super::ops::norm::Acts;
use crate::placement::budget::ALIGN;
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use anyhow::{Context, Result, bail, ensure};

/// Where the bytes of a type's blocks go: the quants of all blocks of a matrix first, then the scales of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planes {
    /// Suffix of the names of the type's kernels.
    pub name: &'static str,
    /// Bytes of a block in the first plane: all of them for the types that stay as they are in the file.
    pub quants: usize,
    /// Bytes of a block in the second plane: its scale, and what else lies beside it in the file.
    pub scales: usize,
}

/// The layout of `dtype` on the card; it has as many bytes as in the file.
///
/// # Errors
/// When there are no kernels for the type.
pub fn planes(dtype: GgmlType) -> Result<Planes> {
    let (name, scales) = match dtype {
        GgmlType::F32 => ("f32", 0),
        GgmlType::F16 => ("f16", 0),
        GgmlType::BF16 => ("bf16", 0),
        GgmlType::Q8_0 => ("q8_0", 2),
        GgmlType::Q4_0 => ("q4_0", 2),
        GgmlType::Q5_0 => ("q5_0", 6),
        GgmlType::Q5_1 => ("q5_1", 8),
        GgmlType::IQ4_NL => ("iq4_nl", 2),
        GgmlType::Q4_K => ("q4_k", 0),
        GgmlType::Q5_K => ("q5_k", 0),
        GgmlType::Q6_K => ("q6_k", 2),
        other => {
            bail!(
                "type {other} has no kernels for the graphics card; F32, F16, BF16, Q8_0, Q4_0, Q5_0, Q5_1, IQ4_NL, \
                 Q4_K, Q5_K and Q6_K do"
            )
        }
    };
    Ok(Planes { name, quants: dtype.block_bytes() - scales, scales })
}

/// Whether kernels for this type of weights read activations as floats, not quantized.
pub fn takes_floats(dtype: GgmlType) -> bool {
    dtype.block_len() == 1
}

/// A matrix `[n_stored][n_cols]` in memory of the card, which it does not own.
#[derive(Debug, Clone, Copy)]
pub struct DeviceMatrix {
    ptr: Ptr,
    dtype: GgmlType,
    n_stored: usize,
    n_cols: usize,
    planes: Planes,
}

impl DeviceMatrix {
    /// Bytes of a matrix: as many as it has in the file.
    ///
    /// # Errors
    /// When there are no kernels for the type, or rows are not whole blocks of 32 (256 for the K types).
    pub fn bytes(dtype: GgmlType, n_stored: usize, n_cols: usize) -> Result<u64> {
        planes(dtype)?;
        let row = dtype.row_bytes(n_cols).filter(|_| n_cols.is_multiple_of(QK) && n_cols > 0);
        let row = row.with_context(|| format!("{dtype} rows of {n_cols} elements are not whole blocks"))?;
        let bytes = row.checked_mul(n_stored).with_context(|| format!("{n_stored} rows of {row} bytes"))?;
        Ok(bytes as u64)
    }

    /// The matrix at `ptr`, where [`DeviceMatrix::bytes`] are allocated. It holds whatever was uploaded there.
    ///
    /// # Errors
    /// As [`DeviceMatrix::bytes`]; when `ptr` is not a multiple of 256.
    pub fn at(ptr: Ptr, dtype: GgmlType, n_stored: usize, n_cols: usize) -> Result<Self> {
        Self::bytes(dtype, n_stored, n_cols)?;
        ensure!(ptr.0.is_multiple_of(ALIGN), "a matrix at {ptr}, which is not a multiple of {ALIGN}");
        ensure!(i32::try_from(n_stored.max(n_cols)).is_ok(), "a matrix of {n_stored} rows of {n_cols} elements");
        Ok(Self { ptr, dtype, n_stored, n_cols, planes: planes(dtype)? })
    }

    /// Where it begins.
    pub fn ptr(&self) -> Ptr {
        self.ptr
    }

    /// Type of the weights.
    pub fn dtype(&self) -> GgmlType {
        self.dtype
    }

    /// Rows there is room for.
    pub fn n_stored(&self) -> usize {
        self.n_stored
    }

    /// Elements of a row.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// How its blocks are stored.
    pub(super) fn planes(&self) -> Planes {
        self.planes
    }

    /// Suffix of the names of its kernels.
    pub fn kernel(&self) -> &'static str {
        self.planes.name
    }

    /// Bytes of a row in the file.
    pub fn row_bytes(&self) -> usize {
        self.blocks_per_row() * self.dtype.block_bytes()
    }

    /// The form of `x`, a vector of `n_cols`, that kernels for this type read.
    ///
    /// # Errors
    /// When it is not there.
    pub fn input(&self, x: Acts) -> Result<Ptr> {
        let form = if takes_floats(self.dtype) { x.f32 } else { x.x8 };
        ensure!(!form.is_null(), "no activations in the form for {}", self.dtype);
        Ok(form)
    }

    fn blocks_per_row(&self) -> usize {
        self.n_cols / self.dtype.block_len()
    }

    /// Where the quants of row `row` belong, and where its scales.
    pub(super) fn places(&self, row: usize) -> (Ptr, Ptr) {
        let Planes { quants, scales, .. } = self.planes;
        let (block, n_blocks) = ((row * self.blocks_per_row()) as u64, (self.n_stored * self.blocks_per_row()) as u64);
        let second = self.ptr.offset(n_blocks * quants as u64);
        (self.ptr.offset(block * quants as u64), second.offset(block * scales as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_takes_as_many_bytes_as_in_the_file() {
        for (dtype, n_cols) in [
            (GgmlType::F16, 96),
            (GgmlType::Q4_0, 96),
            (GgmlType::Q5_0, 96),
            (GgmlType::Q5_1, 96),
            (GgmlType::Q4_K, 512),
            (GgmlType::Q6_K, 512),
        ] {
            let bytes = DeviceMatrix::bytes(dtype, 7, n_cols).unwrap();
            assert_eq!(bytes, 7 * dtype.row_bytes(n_cols).unwrap() as u64);
            let matrix = DeviceMatrix::at(Ptr(512), dtype, 7, n_cols).unwrap();
            let (quants, scales) = matrix.places(7);
            // After the last row, the first plane ends where the second begins, and the second ends with the matrix.
            assert_eq!(quants, matrix.places(0).1);
            assert_eq!(scales, Ptr(512 + bytes));
        }
    }

    #[test]
    fn what_the_kernels_cannot_read_is_refused() {
        assert!(DeviceMatrix::at(Ptr(256), GgmlType::Q4_0, 3, 48).is_err());
        assert!(DeviceMatrix::at(Ptr(256), GgmlType::F32, 3, 40).is_err());
        assert!(DeviceMatrix::at(Ptr(256), GgmlType::Q6_K, 3, 128).is_err());
        assert!(DeviceMatrix::at(Ptr(128), GgmlType::Q4_0, 3, 64).is_err());
        assert!(DeviceMatrix::at(Ptr(256), GgmlType::Q3_K, 3, 256).unwrap_err().to_string().contains("Q3_K"));
        assert!(DeviceMatrix::at(Ptr(256), GgmlType::F16, usize::MAX, 64).is_err());
    }
}
