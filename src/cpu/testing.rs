//! Random operands for the tests of kernels.

use super::activations::{ActKind, ActRow};
use crate::quant::blocks::QK;
use crate::quant::{GgmlType, convert};

/// `n` values in -1 to 1.
pub fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Rows of random bytes with sane scales, which hold every pattern of quants, -128 among them.
pub fn random_rows(dtype: GgmlType, n: usize, n_rows: usize, seed: u32) -> Vec<u8> {
    let bytes = dtype.row_bytes(n).unwrap() * n_rows;
    let mut values = noise(bytes, seed);
    let mut row: Vec<u8> = values.drain(..).map(|v| (v * 127.5 + 127.5) as u8).collect();
    let mut decoded = vec![0.0; n * n_rows];
    // Scales that would make weights too large or not finite are replaced, block by block.
    for block in row.chunks_mut(dtype.block_bytes()) {
        let out = &mut decoded[..dtype.block_len()];
        for patch in 0u8..=255 {
            convert::dequantizer(dtype).unwrap()(block, out);
            if out.iter().all(|w| w.abs() < 1e4) {
                break;
            }
            block.iter_mut().for_each(|b| *b &= !(0x40 | patch & 0xc0));
        }
    }
    row
}

/// A row of `dtype` made from `x`, or a random one of that length where `dtype` cannot be written, and its values.
pub fn stored(dtype: GgmlType, x: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut row = random_rows(dtype, x.len(), 1, x.len() as u32);
    if let Ok(quantize) = convert::quantizer(dtype) {
        quantize(x, &mut row);
    }
    let mut values = vec![0.0; x.len()];
    convert::dequantizer(dtype).unwrap()(&row, &mut values);
    (row, values)
}

/// The values of `x` as a kernel of this kind sees them.
pub fn x_seen(kind: ActKind, x: ActRow) -> Vec<f32> {
    match kind {
        ActKind::F32 => x.f32.to_vec(),
        ActKind::Q8 | ActKind::Q8Halves | ActKind::Q8Supers => {
            x.q.iter().enumerate().map(|(i, q)| f32::from(*q) * x.d[i / QK]).collect()
        }
    }
}
