//! Rotary embedding, and storing keys and values in the cache.

use super::norm;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::model::{NormKind, RopeKind, Temperature};
use crate::placement::budget::aligned;
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use anyhow::{Result, bail, ensure};

/// Threads of a block, one warp per head.
const THREADS: u32 = 128;
const HEADS_OF_BLOCK: usize = 4;
/// Elements of the longest head.
pub const MAX_HEAD_DIM: usize = 256;

/// The keys and values of one layer on the card; `kernels/kv.cuh` has the layout.
#[derive(Debug, Clone, Copy)]
pub struct KvLayer {
    /// Where it begins, that of the first sequence where there are several: a multiple of 16. Others follow, each at a multiple
    /// of 256 bytes.
    pub ptr: Ptr,
    /// `F32`, `F16` or `Q8_0`.
    pub dtype: GgmlType,
    /// Positions.
    pub n_ctx: usize,
    /// Heads of keys and values.
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl KvLayer {
    /// Its bytes: as many as rows of its type would have.
    ///
    /// # Errors
    /// When heads are too long, not multiples of 16, or not whole blocks of the type.
    pub fn n_bytes(&self) -> Result<u64> {
        self.code()?;
        let row = self.dtype.row_bytes(self.head_dim).unwrap_or_default();
        Ok(2 * (self.n_head_kv * self.n_ctx) as u64 * row as u64)
    }

    /// That of sequence number `sequence`.
    ///
    /// # Errors
    /// As [`KvLayer::n_bytes`].
    pub fn of_sequence(&self, sequence: usize) -> Result<Self> {
        Ok(Self { ptr: self.ptr.offset(sequence as u64 * aligned(self.n_bytes()?)), ..*self })
    }

    /// The kernels' code for its type.
    pub(super) fn code(&self) -> Result<i32> {
        let (code, step) = match self.dtype {
            GgmlType::F32 => (0, QK / 2),
            GgmlType::F16 => (1, QK / 2),
            GgmlType::Q8_0 => (8, QK),
            other => bail!("a KV cache of {other} on the card; f16, q8_0 and f32 are possible"),
        };
        let (d, dtype) = (self.head_dim, self.dtype);
        let fits = d > 0 && d <= MAX_HEAD_DIM && d.is_multiple_of(step);
        ensure!(fits, "heads of {d} with a cache of {dtype}: multiples of {step} up to {MAX_HEAD_DIM} fit on the card");
        Ok(code)
    }
}

/// A rotary embedding, with its frequencies on the card.
#[derive(Debug, Clone, Copy)]
pub struct Rope {
    /// Pairing of elements.
    pub kind: RopeKind,
    /// Elements of each head that are rotated.
    pub n_dims: usize,
    /// `[n_dims / 2]`: radians per position.
    pub frequencies: Ptr,
    /// What is rotated is multiplied by this, too.
    pub magnitude: f32,
}

/// What is done to queries and keys before they are rotated.
#[derive(Debug, Clone, Copy)]
pub struct Prepare {
    /// Norm of each head of queries, or [`Ptr::NULL`]: `[head_dim]`.
    pub q_norm: Ptr,
    /// The same for keys.
    pub k_norm: Ptr,
    /// What both divide by.
    pub norm: NormKind,
    /// Added to the mean square.
    pub eps: f32,
    /// What queries are multiplied by.
    pub q_scale: f32,
    /// What they are multiplied by beside that, by their position.
    pub temperature: Option<Temperature>,
}

impl Prepare {
    /// Nothing.
    pub const NOTHING: Self =
        Self { q_norm: Ptr::NULL, k_norm: Ptr::NULL, norm: NormKind::Rms, eps: 0.0, q_scale: 1.0, temperature: None };
}

/// What [`rope_store`] works on.
#[derive(Debug, Clone, Copy)]
pub struct RopeStore {
    /// `[n_tokens][n_head][head_dim]`, rotated in place.
    pub q: Ptr,
    /// `[n_tokens][n_head_kv][head_dim]`.
    pub k: Ptr,
    /// `[n_tokens][n_head_kv][head_dim]`.
    pub v: Ptr,
    /// Heads of queries.
    pub n_head: usize,
    /// Number of tokens.
    pub n_tokens: usize,
    /// State of the tokens, which has their positions and sequences, or [`Ptr::NULL`] for positions 0, 1, 2 and so on of the
    /// sequence whose cache is given.
    pub token: Ptr,
    /// Added to these positions.
    pub first: usize,
    /// What comes before the rotation.
    pub prepare: Prepare,
}

/// Enqueues what comes before the rotation of queries and keys, the rotation, and stores keys and values at their positions.
///
/// # Errors
/// When the sizes are not possible on the card; when the tokens do not fit in the cache, as far as that is known here;
/// when the card has failed.
pub fn rope_store(kernels: &Kernels, stream: &Stream, work: &RopeStore, rope: &Rope, cache: &KvLayer) -> Result<()> {
    let kv_type = cache.code()?;
    let (n_head, n_tokens, head_dim) = (work.n_head, work.n_tokens, cache.head_dim);
    ensure!(rope.n_dims <= head_dim && rope.n_dims.is_multiple_of(2), "{} of {head_dim} rotated", rope.n_dims);
    let end = work.first + n_tokens;
    ensure!(end <= cache.n_ctx, "{end} tokens in a cache of {}", cache.n_ctx);
    let kind = match rope.kind {
        RopeKind::None => 0,
        RopeKind::Interleaved => 1,
        RopeKind::Halves => 2,
    };
    let args = Args::new().ptr(work.q).ptr(work.k).ptr(work.v).ptr(rope.frequencies).ptr(cache.ptr).ptr(work.token);
    let args = args.n(work.first).n(n_head).n(cache.n_head_kv).n(head_dim).n(rope.n_dims).i32(kind).i32(kv_type);
    let heads = n_head + 2 * cache.n_head_kv;
    let grid = [u32::try_from(heads.div_ceil(HEADS_OF_BLOCK))?, u32::try_from(n_tokens)?, 1];
    let Prepare { q_norm, k_norm, norm: kind_of_norm, eps, q_scale, temperature } = work.prepare;
    let Temperature { scale, n_ctx: period } = temperature.unwrap_or(Temperature { scale: 0.0, n_ctx: 1 });
    ensure!(period > 0, "a temperature that grows every 0 tokens");
    // A period beyond all positions is as good as any other such.
    let period = period.min(i32::MAX as usize);
    let args = args.n(cache.n_ctx).ptr(q_norm).ptr(k_norm).i32(norm::code(kind_of_norm)).f32(eps);
    let args = args.f32(q_scale).f32(scale).n(period).f32(rope.magnitude);
    kernels.launch(stream, "rope_store", grid, [THREADS, 1, 1], args)
}
