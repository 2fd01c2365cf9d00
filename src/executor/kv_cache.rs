//! Keys and values of the tokens seen so far.

use crate::cpu::Rows;
use crate::model::{Layer, Model};
use crate::quant::GgmlType;
use crate::quant::convert::{Quantize, quantizer};
use anyhow::{Result, bail, ensure};
use std::str::FromStr;

/// Type of the cached numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats: half the memory.
    F16,
    /// Bytes with a scale per 32: about a quarter.
    Q8_0,
}

impl KvType {
    /// The tensor type as which the numbers are stored.
    pub fn dtype(self) -> GgmlType {
        match self {
            Self::F32 => GgmlType::F32,
            Self::F16 => GgmlType::F16,
            Self::Q8_0 => GgmlType::Q8_0,
        }
    }
}

impl FromStr for KvType {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "q8_0" => Ok(Self::Q8_0),
            _ => bail!("KV cache type \"{name}\" is not known; f16, q8_0 and f32 are"),
        }
    }
}

/// `[layers with attention][n_head_kv][n_ctx][head_dim]` keys, and as many values.
pub(super) struct KvCache {
    n_ctx: usize,
    n_head_kv: usize,
    head_dim: usize,
    n_past: usize,
    dtype: GgmlType,
    write: Quantize,
    /// Bytes of one head's keys, or values, of one token.
    row_bytes: usize,
    /// By layer: its number among those with attention.
    places: Vec<usize>,
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// Zeros, or `None` when the system has not that much memory. Asked first, because a zeroed vector, whose pages cost
/// nothing until they are used, cannot be asked for in a way that may fail.
fn zeros(n: usize) -> Option<Vec<u8>> {
    Vec::<u8>::new().try_reserve_exact(n).ok().map(|()| vec![0; n])
}

impl KvCache {
    /// An empty cache for `n_ctx` tokens of `model`.
    ///
    /// # Errors
    /// When `n_ctx` is 0, the size overflows, or heads are not whole blocks of the type.
    pub fn new(model: &Model, n_ctx: usize, kind: KvType) -> Result<Self> {
        ensure!(n_ctx > 0, "a context of 0 tokens");
        let (config, layers) = (&model.config, &model.weights.layers);
        let (head_dim, dtype) = (config.head_dim, kind.dtype());
        let Some(row_bytes) = dtype.row_bytes(head_dim) else {
            bail!("--cache-type {dtype}: heads of {head_dim} are not whole blocks of {}; take f16", dtype.block_len())
        };
        let before = |layer: usize| layers[..layer].iter().filter(|l| l.has_attention()).count();
        let places: Vec<usize> = (0..layers.len()).map(before).collect();
        let n_layer = layers.iter().filter(|l| Layer::has_attention(l)).count();
        let per_token = n_layer * config.n_head_kv * row_bytes;
        let stores = per_token.checked_mul(n_ctx).and_then(|n| Some((zeros(n)?, zeros(n)?)));
        let Some((keys, values)) = stores else { bail!("-c {n_ctx}: the KV cache does not fit in memory; lower it") };
        let write = quantizer(dtype)?;
        let n_head_kv = config.n_head_kv;
        Ok(Self { n_ctx, n_head_kv, head_dim, n_past: 0, dtype, write, row_bytes, places, keys, values })
    }

    /// Whether it is laid out as `other`.
    pub fn is_like(&self, other: &Self) -> bool {
        let layout = |c: &Self| (c.n_ctx, c.n_head_kv, c.head_dim, c.dtype, c.keys.len());
        layout(self) == layout(other) && self.places == other.places
    }

    /// Type of the cached numbers.
    pub fn dtype(&self) -> GgmlType {
        self.dtype
    }

    /// Bytes of the whole cache.
    pub fn n_bytes(&self) -> usize {
        self.keys.len() + self.values.len()
    }

    /// Tokens that fit.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Tokens that are in.
    pub fn n_past(&self) -> usize {
        self.n_past
    }

    /// Forgets everything after the first `n_past` tokens.
    pub fn truncate(&mut self, n_past: usize) {
        self.n_past = self.n_past.min(n_past);
    }

    pub(super) fn advance(&mut self, n_tokens: usize) {
        self.n_past += n_tokens;
    }

    /// First byte of a head in a layer.
    fn head(&self, layer: usize, head: usize) -> usize {
        (self.places[layer] * self.n_head_kv + head) * self.n_ctx * self.row_bytes
    }

    /// Stores `[n_head_kv][head_dim]` keys and values of one token.
    pub(super) fn store(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        let heads = k.chunks_exact(self.head_dim).zip(v.chunks_exact(self.head_dim));
        for (head, (k, v)) in heads.enumerate() {
            let at = self.head(layer, head) + position * self.row_bytes;
            (self.write)(k, &mut self.keys[at..at + self.row_bytes]);
            (self.write)(v, &mut self.values[at..at + self.row_bytes]);
        }
    }

    /// Keys and values of the first `n` positions of one head.
    pub(super) fn rows(&self, layer: usize, head: usize, n: usize) -> (Rows<'_>, Rows<'_>) {
        let from = self.head(layer, head);
        let bytes = from..from + n * self.row_bytes;
        let rows = |data| Rows::range(data, self.row_bytes, 0, n);
        (rows(&self.keys[bytes.clone()]), rows(&self.values[bytes]))
    }
}
