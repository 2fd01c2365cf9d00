//! Keys and values of the tokens seen so far.

use crate::model::Config;
use anyhow::{Result, bail, ensure};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::str::FromStr;

/// Type of the cached numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats: half the memory.
    F16,
}

impl FromStr for KvType {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            _ => bail!("KV cache type \"{name}\" is not known; f16 and f32 are"),
        }
    }
}

enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Store {
    /// `None` when the system has not that much memory. Asked first, because a zeroed vector, whose pages cost nothing
    /// until they are used, cannot be asked for in a way that may fail.
    fn new(kind: KvType, n: usize) -> Option<Self> {
        match kind {
            KvType::F32 => Vec::<f32>::new().try_reserve_exact(n).ok().map(|()| Self::F32(vec![0.0; n])),
            KvType::F16 => Vec::<f16>::new().try_reserve_exact(n).ok().map(|()| Self::F16(vec![f16::ZERO; n])),
        }
    }

    fn write(&mut self, at: usize, values: &[f32]) {
        match self {
            Self::F32(data) => data[at..][..values.len()].copy_from_slice(values),
            Self::F16(data) => data[at..][..values.len()].convert_from_f32_slice(values),
        }
    }

    fn read(&self, at: usize, out: &mut [f32]) {
        match self {
            Self::F32(data) => out.copy_from_slice(&data[at..][..out.len()]),
            Self::F16(data) => data[at..][..out.len()].convert_to_f32_slice(out),
        }
    }
}

/// `[n_layer][n_head_kv][n_ctx][head_dim]` keys, and as many values.
pub struct KvCache {
    n_ctx: usize,
    n_head_kv: usize,
    head_dim: usize,
    n_past: usize,
    keys: Store,
    values: Store,
}

impl KvCache {
    /// An empty cache for `n_ctx` tokens.
    ///
    /// # Errors
    /// When `n_ctx` is 0 or the size overflows.
    pub fn new(config: &Config, n_ctx: usize, kind: KvType) -> Result<Self> {
        ensure!(n_ctx > 0, "a context of 0 tokens");
        let per_token = config.n_layer * config.n_head_kv * config.head_dim;
        let stores = per_token.checked_mul(n_ctx).and_then(|n| Some((Store::new(kind, n)?, Store::new(kind, n)?)));
        let Some((keys, values)) = stores else { bail!("-c {n_ctx}: the KV cache does not fit in memory; lower it") };
        Ok(Self { n_ctx, n_head_kv: config.n_head_kv, head_dim: config.head_dim, n_past: 0, keys, values })
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

    fn at(&self, layer: usize, head: usize, position: usize) -> usize {
        ((layer * self.n_head_kv + head) * self.n_ctx + position) * self.head_dim
    }

    /// Stores `[n_head_kv][head_dim]` keys and values of one token.
    pub(super) fn store(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        for head in 0..self.n_head_kv {
            let (at, part) = (self.at(layer, head, position), head * self.head_dim..(head + 1) * self.head_dim);
            self.keys.write(at, &k[part.clone()]);
            self.values.write(at, &v[part]);
        }
    }

    /// Reads the first `k.len() / head_dim` positions of one head.
    pub(super) fn read(&self, layer: usize, head: usize, k: &mut [f32], v: &mut [f32]) {
        let at = self.at(layer, head, 0);
        self.keys.read(at, k);
        self.values.read(at, v);
    }
}
