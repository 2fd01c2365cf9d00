//! One unpacked form for the blocks of all quantized types, shared by dot products, matrix products and conversion.

use super::types::GgmlType;
use super::{iq4, k_quants, legacy, mxfp4};

/// Elements in the longest block.
pub const MAX_BLOCK_LEN: usize = 256;
/// The most sub-blocks in a block.
pub const MAX_SUB_BLOCKS: usize = 16;

/// How the blocks of one quantized type unpack. Element `i` of a block is, in exactly this order of operations,
/// `scale[i / sub_len] * (q[i] - offset) - min[i / sub_len]`.
pub struct BlockFormat {
    /// The type whose blocks these are.
    pub dtype: GgmlType,
    /// Elements that share a scale and a minimum: 16 or 32.
    pub sub_len: usize,
    /// How much `q` exceeds the value it stands for; 0 for the types with minima.
    pub offset: u8,
    /// Whether anything is subtracted; the minima of the other types are zeros.
    pub has_min: bool,
    /// Unpacks one block (`block_bytes` long) to `q` (`block_len` values, in the order of the elements), `scale` and
    /// `min` (`n_sub` each). `min` is left as it is unless `has_min`.
    pub decode: Decode,
}

/// See [`BlockFormat::decode`].
pub type Decode = fn(block: &[u8], q: &mut [u8], scale: &mut [f32], min: &mut [f32]);

impl BlockFormat {
    /// Sub-blocks in a block.
    pub fn n_sub(&self) -> usize {
        self.dtype.block_len() / self.sub_len
    }
}

/// How the blocks of `dtype` unpack; `None` for types that are not quantized or not supported.
pub fn block_format(dtype: GgmlType) -> Option<&'static BlockFormat> {
    FORMATS.into_iter().find(|format| format.dtype == dtype)
}

static FORMATS: [&BlockFormat; 13] = [
    &legacy::Q4_0,
    &legacy::Q4_1,
    &legacy::Q5_0,
    &legacy::Q5_1,
    &legacy::Q8_0,
    &k_quants::Q2_K,
    &k_quants::Q3_K,
    &k_quants::Q4_K,
    &k_quants::Q5_K,
    &k_quants::Q6_K,
    &iq4::IQ4_NL,
    &iq4::IQ4_XS,
    &mxfp4::MXFP4,
];

/// Room for one block of any type, unpacked; what lies beyond its `block_len` and `n_sub` is unspecified.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// One unsigned value for each element.
    pub q: [u8; MAX_BLOCK_LEN],
    /// One scale for each sub-block.
    pub scale: [f32; MAX_SUB_BLOCKS],
    /// What is subtracted, for each sub-block: zeros if the type has no minima.
    pub min: [f32; MAX_SUB_BLOCKS],
}

impl Default for Decoded {
    fn default() -> Self {
        Self { q: [0; MAX_BLOCK_LEN], scale: [0.0; MAX_SUB_BLOCKS], min: [0.0; MAX_SUB_BLOCKS] }
    }
}

impl Decoded {
    /// Unpacks a block. One `Decoded` may serve blocks of several types in turn.
    pub fn read(&mut self, format: &BlockFormat, block: &[u8]) {
        let n_sub = format.n_sub();
        if !format.has_min {
            self.min[..n_sub].fill(0.0);
        }
        let q = &mut self.q[..format.dtype.block_len()];
        (format.decode)(block, q, &mut self.scale[..n_sub], &mut self.min[..n_sub]);
    }
}

/// Reads whole blocks of `format` to floats, one for each element.
pub fn dequantize(format: &BlockFormat, row: &[u8], out: &mut [f32]) {
    let mut decoded = Decoded::default();
    let offset = f32::from(format.offset);
    let blocks = row.chunks_exact(format.dtype.block_bytes());
    for (block, out) in blocks.zip(out.chunks_exact_mut(format.dtype.block_len())) {
        decoded.read(format, block);
        let subs = out.chunks_exact_mut(format.sub_len).zip(decoded.q.chunks_exact(format.sub_len));
        for ((out, q), (scale, min)) in subs.zip(decoded.scale.iter().zip(&decoded.min)) {
            for (o, q) in out.iter_mut().zip(q) {
                *o = scale * (f32::from(*q) - offset) - min;
            }
        }
    }
}
