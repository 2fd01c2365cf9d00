//! A random matrix here and on the card, and what plain Rust makes of it.

use super::memory::Memory;
use super::random::Random;
use crate::cpu::{Activations, Isa, Rows};
use crate::gpu::DeviceMatrix;
use crate::gpu::matrix::planes;
use crate::gpu::ops::repack::repack;
use crate::quant::GgmlType;
use crate::quant::convert::{self, Dequantize};
use anyhow::Result;
use half::f16;

/// Every type that has kernels.
pub const TYPES: [GgmlType; 11] = [
    GgmlType::F32,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q8_0,
    GgmlType::Q4_0,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::IQ4_NL,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
];

/// Of the sum of the products' sizes. Integer sums are exact; what remains is the rounding of a few dozen additions per
/// thread on the card, of up to some thousand in plain Rust's 16 sums, each 6e-8 of what has been added up.
pub const DOT_TOLERANCE: f32 = 2e-6;
/// Of the sum of the contributions' sizes in a column: each is rounded once, and so is every one of the additions, which
/// are some dozens in a row on the card and in plain Rust as many as there are neurons.
pub const SUM_TOLERANCE: f32 = 4e-6;

/// A matrix on the card, and its bytes as they are in a file.
pub struct Weights {
    /// On the card.
    pub matrix: DeviceMatrix,
    /// In a file.
    pub bytes: Vec<u8>,
    read: Dequantize,
}

impl Weights {
    /// `matrix` is `bytes` on the card.
    ///
    /// # Errors
    /// When their type cannot be read.
    pub fn new(matrix: DeviceMatrix, bytes: Vec<u8>) -> Result<Self> {
        Ok(Self { read: convert::dequantizer(matrix.dtype())?, matrix, bytes })
    }

    /// Random ones.
    pub(super) fn random(m: &mut Memory, dtype: GgmlType, n_rows: usize, n_cols: usize) -> Result<Self> {
        let mut bytes = vec![0; DeviceMatrix::bytes(dtype, n_rows, n_cols)? as usize];
        fill(&mut bytes, dtype, n_rows * n_cols, &mut m.random)?;
        let ptr = if planes(dtype)?.scales == 0 { m.put(&bytes)? } else { m.room(bytes.len() as u64)? };
        let matrix = DeviceMatrix::at(ptr, dtype, n_rows, n_cols)?;
        if matrix.planes().scales > 0 {
            let packed = m.put(&bytes)?;
            let (quants, scales) = matrix.places(0);
            let n_blocks = bytes.len() / dtype.block_bytes();
            repack(&m.kernels, &m.stream, dtype, quants, scales, packed, n_blocks)?;
        }
        Self::new(matrix, bytes)
    }

    fn row_bytes(&self) -> usize {
        self.matrix.row_bytes()
    }

    /// The row as floats.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.matrix.n_cols()];
        (self.read)(&self.bytes[row * self.row_bytes()..][..self.row_bytes()], &mut values);
        values
    }

    /// What plain Rust gives for the row.
    pub fn dot(&self, row: usize, x: &Activations) -> f32 {
        let mut out = [0.0];
        let rows = Rows::range(&self.bytes, self.row_bytes(), row, 1);
        (Isa::Plain.kernels(self.matrix.dtype()).dot)(rows, x.row(0), &mut out);
        out[0]
    }

    /// The size of the largest weight of the row. Minima count by themselves, as they are added by themselves.
    pub fn largest(&self, row: usize) -> f32 {
        self.row(row).iter().fold(0.0, |m, w| m.max(w.abs()))
    }

    /// The sum of the sizes of the products of the row: what rounding is relative to.
    pub fn dot_size(&self, row: usize, x: &[f32]) -> f32 {
        let largest = self.largest(row);
        x.iter().map(|x| largest * x.abs()).sum()
    }

    /// `sum of h[i] * row[rows[i]]` by plain Rust.
    pub fn sum(&self, rows: &[u32], h: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; self.matrix.n_cols()];
        let rows = Rows::list(&self.bytes, self.row_bytes(), rows);
        (Isa::Plain.kernels(self.matrix.dtype()).add_scaled)(rows, h, &mut y);
        y
    }
}

/// Makes `n` random weights: of types with blocks any bytes, but for scales that keep weights below about 1.
fn fill(bytes: &mut [u8], dtype: GgmlType, n: usize, random: &mut Random) -> Result<()> {
    // Where a block has its scales, and the largest of them.
    let (places, most): (&[usize], f32) = match dtype {
        GgmlType::Q8_0 | GgmlType::IQ4_NL => (&[0], 1.0 / 127.0),
        GgmlType::Q4_0 => (&[0], 1.0 / 8.0),
        GgmlType::Q5_0 => (&[0], 1.0 / 16.0),
        // Times a quant of 5 bits, and the value of 0.
        GgmlType::Q5_1 => (&[0, 2], 1.0 / 32.0),
        // Times a scale of 6 bits and a quant of 4 or 5, less as much.
        GgmlType::Q4_K => (&[0, 2], 1.0 / 1024.0),
        GgmlType::Q5_K => (&[0, 2], 1.0 / 2048.0),
        // Times a scale of 8 bits and a quant of 6.
        GgmlType::Q6_K => (&[208], 1.0 / 4096.0),
        _ => {
            convert::quantizer(dtype)?(&random.values(n), bytes);
            return Ok(());
        }
    };
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        block.iter_mut().for_each(|b| *b = random.next() as u8);
        for place in places {
            let scale = f16::from_f32(most * (1.0 - 0.5 * random.value().abs()));
            block[*place..place + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    Ok(())
}
