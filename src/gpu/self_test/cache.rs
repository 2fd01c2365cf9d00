//! Keys and values as they lie in a cache on the card (`kernels/kv.cuh`).

use crate::gpu::ops::rope::KvLayer;
use crate::quant::GgmlType;
use crate::quant::blocks::{Q8_0_BYTES, QK, quantize_q8_0};
use half::f16;

/// A row of the keys (`plane` 0) or values (1) of a cache: its floats or quants, then its scales, as bytes.
pub fn row_of(cache: &KvLayer, bytes: &[u8], plane: usize, head: usize, position: usize) -> Vec<u8> {
    let (n_rows, d) = (cache.n_head_kv * cache.n_ctx, cache.head_dim);
    let row = head * cache.n_ctx + position;
    let size = match cache.dtype {
        GgmlType::F32 => 4 * d,
        GgmlType::F16 => 2 * d,
        _ => d,
    };
    let mut found = bytes[(plane * n_rows + row) * size..][..size].to_vec();
    if cache.dtype == GgmlType::Q8_0 {
        let scales = d / QK * 2;
        found.extend(&bytes[2 * n_rows * d + (plane * n_rows + row) * scales..][..scales]);
    }
    found
}

/// The values of such a row.
pub fn values_of(dtype: GgmlType, head_dim: usize, row: &[u8]) -> Vec<f32> {
    let half = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
    match dtype {
        GgmlType::F32 => row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        GgmlType::F16 => row.chunks_exact(2).map(half).collect(),
        _ => (0..head_dim).map(|i| f32::from(row[i] as i8) * half(&row[head_dim + i / QK * 2..])).collect(),
    }
}

/// What `values` become as a row of a cache of `dtype`.
pub fn stored(dtype: GgmlType, values: &[f32]) -> Vec<u8> {
    match dtype {
        GgmlType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        GgmlType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        _ => {
            let (mut quants, mut scales) = (Vec::new(), Vec::new());
            for block in values.chunks_exact(QK) {
                let mut bytes = [0; Q8_0_BYTES];
                quantize_q8_0(block, &mut bytes);
                quants.extend(&bytes[2..]);
                scales.extend(&bytes[..2]);
            }
            [quants, scales].concat()
        }
    }
}

/// A cache of the rows that `values` gives, keys first: its bytes.
pub fn filled(cache: &KvLayer, mut values: impl FnMut(usize) -> Vec<f32>) -> Vec<u8> {
    let d = cache.head_dim;
    let (mut bytes, mut scales) = (Vec::new(), Vec::new());
    for _ in 0..2 * cache.n_head_kv * cache.n_ctx {
        let row = stored(cache.dtype, &values(d));
        let quants = if cache.dtype == GgmlType::Q8_0 { d } else { row.len() };
        bytes.extend(&row[..quants]);
        scales.extend(&row[quants..]);
    }
    [bytes, scales].concat()
}
