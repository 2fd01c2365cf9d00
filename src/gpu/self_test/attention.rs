//! Rotation into the cache, and attention over it, of a token and of many.

use super::Test;
use super::cache::{filled, row_of, values_of};
use super::memory::{Memory, SLACK, near};
use crate::cpu::{ActKind, Activations};
use crate::gpu::Ptr;
use crate::gpu::mailbox::MAX_TOKENS;
use crate::gpu::ops::attention::{Attend, attention, attention_scratch};
use crate::gpu::ops::attention_prefill::{AttendMany, attention_prefill};
use crate::gpu::ops::gemm::Tokens;
use crate::gpu::ops::norm::{Acts, x8_bytes};
use crate::gpu::ops::rope::{KvLayer, Prepare, Rope, RopeStore, rope_store};
use crate::gpu::ops::token::TOKEN_BYTES;
use crate::model::{NormKind, RopeKind, Temperature};
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use anyhow::Result;
use std::ops::Range;

const TYPES: [(GgmlType, &str); 3] = [(GgmlType::F32, "f32"), (GgmlType::F16, "f16"), (GgmlType::Q8_0, "q8_0")];
/// Rotated values: sine and cosine within 2 units in the last place, products and a sum rounded.
const ROTATED: f64 = 8.0 * f32::EPSILON as f64;
/// Results are averages of values below 1: what the rounding of scores (below 16) does to their exponentials, and sums
/// of a few hundred of them.
const ATTENDED: f64 = 64.0 * f32::EPSILON as f64;
/// The same where scores are sums of up to 256 products in another order.
const ATTENDED_MANY: f64 = 1e-5;

pub(super) fn all(test: &mut Test) -> Result<()> {
    test.of("rope_store", |m| {
        for (dtype, _) in TYPES {
            for kind in [RopeKind::Interleaved, RopeKind::Halves] {
                m.clear();
                for prepared in [None, Some(NormKind::Rms), Some(NormKind::Layer)] {
                    rotated(m, dtype, kind, prepared)?;
                }
            }
        }
        Ok(())
    })?;
    for (dtype, name) in TYPES {
        // 32-bit floats are for comparison: their query heads share nothing.
        let groups: &[usize] = if dtype == GgmlType::F32 { &[1] } else { &[1, 2, 4, 8] };
        for group in groups {
            test.of(&format!("attention_{name}_g{group}"), |m| {
                attended(m, dtype, *group, None)?;
                attended(m, dtype, *group, Some(70))
            })?;
        }
        for (most, head_dim) in [(64, 64), (128, 96), (256, 160)] {
            test.of(&format!("attention_prefill_{name}_{most}"), |m| {
                attended_by_many(m, dtype, head_dim, None)?;
                attended_by_many(m, dtype, head_dim, Some(13))
            })?;
        }
    }
    Ok(())
}

/// The state of a token at `position`, on the card.
fn token_at(m: &mut Memory, position: usize) -> Result<Ptr> {
    let mut state = vec![0u32; TOKEN_BYTES as usize / size_of::<u32>()];
    state[1] = position as u32;
    // Of this token and of those behind it, which are of one sequence.
    (0..MAX_TOKENS).for_each(|t| state[4 + t] = (position + t) as u32);
    m.put(&state)
}

/// `x`, a head, at `position`.
fn rotate(x: &[f32], kind: RopeKind, frequencies: &[f32], position: usize, magnitude: f32) -> Vec<f64> {
    let mut out: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
    for (i, f) in frequencies.iter().enumerate() {
        let (a, b) = match kind {
            RopeKind::None => return out,
            RopeKind::Interleaved => (2 * i, 2 * i + 1),
            RopeKind::Halves => (i, i + frequencies.len()),
        };
        let (sin, cos) = f64::from(position as f32 * f).sin_cos();
        let (sin, cos) = (sin * f64::from(magnitude), cos * f64::from(magnitude));
        (out[a], out[b]) = (out[a] * cos - out[b] * sin, out[a] * sin + out[b] * cos);
    }
    out
}

/// `x`, a head of queries or keys, before it is rotated: normalised and scaled.
fn prepared(x: &[f32], prepare: &Prepare, weight: &[f32], scale: f64) -> Vec<f32> {
    let (n, eps) = (x.len() as f64, f64::from(prepare.eps));
    let mean = match prepare.norm {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().map(|v| f64::from(*v)).sum::<f64>() / n,
    };
    let square = x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let of = |(v, w): (&f32, &f32)| ((f64::from(*v) - mean) / (square + eps).sqrt() * f64::from(*w) * scale) as f32;
    x.iter().zip(weight).map(of).collect()
}

/// With a norm of heads also a scale of queries, a temperature and a magnitude.
fn rotated(m: &mut Memory, dtype: GgmlType, kind: RopeKind, norm: Option<NormKind>) -> Result<()> {
    const N_HEAD: usize = 5;
    const N_TOKENS: usize = 2;
    const POSITION: usize = 700;
    const N_DIMS: usize = 64;
    let mut cache = KvLayer { ptr: Ptr::NULL, dtype, n_ctx: POSITION + N_TOKENS + 1, n_head_kv: 1, head_dim: 96 };
    let d = cache.head_dim;
    let bytes = cache.n_bytes()? as usize;
    cache.ptr = m.room(bytes as u64)?;
    let frequencies: Vec<f32> = (0..N_DIMS / 2).map(|i| 10000f32.powf(-2.0 * i as f32 / N_DIMS as f32)).collect();
    let (q, k, v) =
        (m.random.values(N_TOKENS * N_HEAD * d), m.random.values(N_TOKENS * d), m.random.values(N_TOKENS * d));
    let work = RopeStore {
        q: m.put(&q)?,
        k: m.put(&k)?,
        v: m.put(&v)?,
        n_head: N_HEAD,
        n_tokens: N_TOKENS,
        token: token_at(m, POSITION)?,
        first: 0,
        prepare: Prepare::NOTHING,
    };
    let [q_weight, k_weight] = std::array::from_fn(|_| m.random.values(d));
    let temperature = Temperature { scale: 0.5, n_ctx: 100 };
    let (work, magnitude) = match norm {
        None => (work, 1.0),
        Some(norm) => {
            let (q_norm, k_norm) = (m.put(&q_weight)?, m.put(&k_weight)?);
            let prepare = Prepare { q_norm, k_norm, norm, eps: 0.02, q_scale: 0.25, temperature: Some(temperature) };
            (RopeStore { prepare, ..work }, 1.5)
        }
    };
    let rope = Rope { kind, n_dims: N_DIMS, frequencies: m.put(&frequencies)?, magnitude };
    // What the rotation gets, and how large that may be.
    let before = |x: &[f32], weight: &[f32], scale: f64| match norm {
        None => x.to_vec(),
        Some(_) => prepared(x, &work.prepare, weight, scale),
    };
    let largest = if norm.is_some() { 4.0 } else { 1.0 };
    rope_store(&m.kernels, &m.stream, &work, &rope, &cache)?;
    let (got, written) = (m.get::<f32>(work.q, q.len())?, m.get::<u8>(cache.ptr, bytes)?);
    for t in 0..N_TOKENS {
        let position = POSITION + t;
        for h in 0..N_HEAD {
            let at = (t * N_HEAD + h) * d..(t * N_HEAD + h + 1) * d;
            let scale = f64::from(work.prepare.q_scale) * f64::from(temperature.at(position));
            let expected = rotate(&before(&q[at.clone()], &q_weight, scale), kind, &frequencies, position, magnitude);
            near("query", &got[at], expected, |_| SLACK * ROTATED * largest)?;
        }
        let at = t * d..(t + 1) * d;
        let stored = |plane| values_of(dtype, d, &row_of(&cache, &written, plane, 0, position));
        let step = match dtype {
            GgmlType::F32 => SLACK * ROTATED * largest,
            // A unit in the last place of values below 2, and of a scale: a step.
            GgmlType::F16 => largest / 1024.0,
            _ => 1.5 * largest / 127.0,
        };
        near("value", &stored(1), v[at.clone()].iter().map(|v| f64::from(*v)), |_| step)?;
        let key = before(&k[at], &k_weight, 1.0);
        near("key", &stored(0), rotate(&key, kind, &frequencies, position, magnitude), |_| step)?;
    }
    Ok(())
}

/// A cache of random keys and values, and its bytes.
fn random_cache(m: &mut Memory, dtype: GgmlType, n_ctx: usize, head_dim: usize) -> Result<(KvLayer, Vec<u8>)> {
    let mut cache = KvLayer { ptr: Ptr::NULL, dtype, n_ctx, n_head_kv: 2, head_dim };
    let bytes = filled(&cache, |n| m.random.values(n));
    cache.ptr = m.put(&bytes)?;
    Ok((cache, bytes))
}

/// Attention of a query head over the keys and values of the head `kv_head` at the positions `seen`.
fn reference(cache: &KvLayer, bytes: &[u8], q: &[f64], kv_head: usize, seen: Range<usize>) -> Vec<f64> {
    let d = cache.head_dim;
    let of = |plane, position| values_of(cache.dtype, d, &row_of(cache, bytes, plane, kv_head, position));
    let dot = |k: &[f32]| k.iter().zip(q).map(|(k, q)| f64::from(*k) * q).sum::<f64>();
    let scores: Vec<f64> = seen.clone().map(|p| dot(&of(0, p)) / (d as f64).sqrt()).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; d];
    for (p, weight) in seen.zip(&weights) {
        out.iter_mut().zip(of(1, p)).for_each(|(o, v)| *o += weight / total * f64::from(v));
    }
    out
}

/// The positions that a token at `position` sees.
fn seen(position: usize, window: Option<usize>) -> Range<usize> {
    (position + 1).saturating_sub(window.unwrap_or(usize::MAX))..position + 1
}

/// Attention of one token, `group` query heads for each of two heads of keys.
fn attended(m: &mut Memory, dtype: GgmlType, group: usize, window: Option<usize>) -> Result<()> {
    const POSITION: usize = 150;
    let n_head = 2 * group;
    let (cache, bytes) = random_cache(m, dtype, POSITION + 20, 64)?;
    let (d, n) = (cache.head_dim, n_head * cache.head_dim);
    let scratch = m.zeros(attention_scratch(n_head, &cache)?)?;
    // Scores of a few units, so that some positions matter more than others.
    let q: Vec<f32> = m.random.values(n).iter().map(|v| v * 4.0).collect();
    let out = Acts { f32: m.room_of::<f32>(n)?, x8: m.room(x8_bytes(n))? };
    let token = token_at(m, POSITION)?;
    let work = Attend { q: m.put(&q)?, n_head, n_tokens: 1, token, window, scratch, out };
    attention(&m.kernels, &m.stream, &work, &cache)?;
    let got = m.get::<f32>(out.f32, n)?;
    // For a quantized cache the query is quantized, too.
    let mut acts = Activations::default();
    acts.load(&q, n, (dtype == GgmlType::Q8_0).then_some(ActKind::Q8));
    let row = acts.row(0);
    let query = |i: usize| match dtype {
        GgmlType::Q8_0 => f64::from(row.q[i]) * f64::from(row.d[i / QK]),
        _ => f64::from(q[i]),
    };
    let query: Vec<f64> = (0..n).map(query).collect();
    let heads = query.chunks_exact(d).enumerate();
    let expected = heads.flat_map(|(h, q)| reference(&cache, &bytes, q, h / group, seen(POSITION, window)));
    near("value", &got, expected, |_| SLACK * ATTENDED)?;
    m.check_quantized(out.x8, &got)
}

/// Attention of a few tokens, two query heads for each of two heads of keys.
fn attended_by_many(m: &mut Memory, dtype: GgmlType, head_dim: usize, window: Option<usize>) -> Result<()> {
    const FIRST: usize = 37;
    const N_TOKENS: usize = 19;
    const N_HEAD: usize = 4;
    let (cache, bytes) = random_cache(m, dtype, FIRST + N_TOKENS + 3, head_dim)?;
    let n = N_HEAD * head_dim;
    let q = m.random.values(N_TOKENS * n);
    let out = Tokens { ptr: m.room_of::<f32>(N_TOKENS * n)?, stride: n };
    let from = Tokens { ptr: m.put(&q)?, stride: n };
    let work = AttendMany { q: from, n_head: N_HEAD, first: FIRST, n_tokens: N_TOKENS, window, out };
    attention_prefill(&m.kernels, &m.stream, &work, &cache)?;
    let got = m.get::<f32>(out.ptr, N_TOKENS * n)?;
    let heads = q.chunks_exact(head_dim).enumerate();
    let expected = heads.flat_map(|(i, q)| {
        let q: Vec<f64> = q.iter().map(|v| f64::from(*v)).collect();
        reference(&cache, &bytes, &q, i % N_HEAD / 2, seen(FIRST + i / N_HEAD, window))
    });
    near("value", &got, expected, |_| SLACK * ATTENDED_MANY)
}
