//! Attention of many tokens against softmax in 64 bits.

use super::gemm::Inputs;
use super::operands::Bench;
use half::f16;
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::attention_prefill::{AttendMany, attention_prefill};
use powerinfer::gpu::ops::gemm::Tokens;
use powerinfer::gpu::ops::rope::KvLayer;
use powerinfer::quant::GgmlType;
use std::ops::Range;

/// Values lie in -1 to 1, and so do results. Scores are sums of up to 256 products of 32-bit floats that reach 2: their
/// errors of about 1e-6 are errors of the weights.
const TOLERANCE: f64 = 1e-5;

/// Keys or values `[n_head_kv * n_ctx][head_dim]` as the cache holds them.
struct Plane {
    values: Vec<f32>,
    quants: Vec<u8>,
    scales: Vec<u8>,
}

impl Plane {
    /// Random ones; behind the position `n_past` what is not a number.
    fn new(bench: &mut Bench, cache: &KvLayer, n_past: usize) -> Self {
        let (d, n) = (cache.head_dim, cache.n_head_kv * cache.n_ctx * cache.head_dim);
        let mut values = bench.random.values(n);
        let stale = |i: usize| i / d % cache.n_ctx >= n_past;
        let (mut quants, mut scales) = (Vec::new(), Vec::new());
        for (b, block) in values.chunks_mut(if cache.dtype == GgmlType::Q8_0 { 32 } else { 1 }).enumerate() {
            let stale = stale(b * block.len());
            match cache.dtype {
                GgmlType::F32 => quants.extend(if stale { f32::NAN } else { block[0] }.to_le_bytes()),
                GgmlType::F16 => {
                    let half = f16::from_f32(block[0]);
                    block[0] = half.to_f32();
                    quants.extend(if stale { f16::NAN } else { half }.to_le_bytes());
                }
                _ => {
                    let scale = f16::from_f32(block[0].abs() / 127.0);
                    scales.extend(if stale { f16::NAN } else { scale }.to_le_bytes());
                    for value in block {
                        let quant = (*value * 127.0) as i8;
                        *value = f32::from(quant) * scale.to_f32();
                        quants.push(quant as u8);
                    }
                }
            }
        }
        Self { values, quants, scales }
    }

    fn row(&self, cache: &KvLayer, head: usize, position: usize) -> &[f32] {
        &self.values[(head * cache.n_ctx + position) * cache.head_dim..][..cache.head_dim]
    }
}

/// A cache on the device, and its keys and values here.
fn cache(bench: &mut Bench, mut cache: KvLayer, n_past: usize) -> (KvLayer, Plane, Plane) {
    let (k, v) = (Plane::new(bench, &cache, n_past), Plane::new(bench, &cache, n_past));
    let bytes = [&k.quants[..], &v.quants, &k.scales, &v.scales].concat();
    assert_eq!(bytes.len() as u64, cache.n_bytes().unwrap());
    cache.ptr = bench.room(bytes.len() as u64);
    bench.stream.write(cache.ptr, &bytes).unwrap();
    (cache, k, v)
}

fn expected(cache: &KvLayer, k: &Plane, v: &Plane, q: &[f32], head: usize, seen: Range<usize>) -> Vec<f64> {
    let dot = |k: &[f32]| k.iter().zip(q).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
    let scale = 1.0 / (q.len() as f64).sqrt();
    let scores: Vec<f64> = seen.clone().map(|p| dot(k.row(cache, head, p)) * scale).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; q.len()];
    for (p, weight) in seen.zip(&weights) {
        for (o, v) in out.iter_mut().zip(v.row(cache, head, p)) {
            *o += weight / total * f64::from(*v);
        }
    }
    out
}

/// Room of its own for each token's result, at multiples of 16 bytes.
fn aligned_room(bench: &mut Bench, n: usize, n_tokens: usize) -> Tokens {
    Tokens { ptr: bench.room_for((n + 4) * n_tokens), stride: n + 4 }
}

#[test]
fn every_cache_type_and_head_agrees_with_64_bits() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0] {
        for (n_tokens, first, n_head, n_head_kv, head_dim, window) in [
            (1, 0, 1, 1, 32, None),
            (2, 31, 4, 2, 64, None),
            (3, 0, 6, 2, 96, None),
            (17, 5, 8, 2, 128, None),
            (65, 40, 2, 2, 32, None),
            (5, 70, 3, 1, 256, None),
            (33, 1, 2, 1, 48, None),
            // Windows that end inside of a group of positions, at its edge, and far behind.
            (65, 40, 2, 2, 32, Some(1)),
            (65, 40, 4, 2, 64, Some(32)),
            (17, 75, 2, 1, 64, Some(45)),
            (33, 1, 2, 1, 48, Some(1000)),
        ] {
            if dtype == GgmlType::Q8_0 && head_dim % 32 != 0 {
                continue;
            }
            let what =
                format!("{dtype}, {n_tokens} from {first}, {n_head}/{n_head_kv} heads of {head_dim}, {window:?}");
            let shape = KvLayer { ptr: Ptr::NULL, dtype, n_ctx: first + n_tokens + 3, n_head_kv, head_dim };
            let (cache, k, v) = cache(&mut bench, shape, first + n_tokens);
            let q = Inputs::new(&mut bench, n_head * head_dim, n_tokens, 2.0);
            let out = aligned_room(&mut bench, n_head * head_dim, n_tokens);
            let work = AttendMany { q: q.tokens, n_head, first, n_tokens, window, out };
            attention_prefill(&bench.kernels, &bench.stream, &work, &cache).unwrap();
            let got = bench.read(out.ptr, out.stride * n_tokens);
            for (token, got) in got.chunks_exact(out.stride).enumerate() {
                let (got, behind) = got.split_at(n_head * head_dim);
                assert!(behind.iter().all(|v| v.to_bits() == u32::MAX), "{what}: stored outside");
                for (head, got) in got.chunks_exact(head_dim).enumerate() {
                    let q = &q.values[(token * n_head + head) * head_dim..][..head_dim];
                    let end = first + token + 1;
                    let seen = end.saturating_sub(window.unwrap_or(usize::MAX))..end;
                    let expected = expected(&cache, &k, &v, q, head / (n_head / n_head_kv), seen);
                    for (got, expected) in got.iter().zip(expected) {
                        let error = (f64::from(*got) - expected).abs();
                        assert!(error <= TOLERANCE, "{what}: token {token}, head {head}: {got}, not {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_token_gets_the_same_bits_whatever_comes_behind_it() {
    let Some(mut bench) = Bench::new() else { return };
    let (first, n_head, head_dim) = (20, 4, 64);
    let shape = KvLayer { ptr: Ptr::NULL, dtype: GgmlType::F16, n_ctx: 64, n_head_kv: 2, head_dim };
    // The last tokens' keys and values are not numbers.
    let (cache, ..) = cache(&mut bench, shape, first + 30);
    let q = Inputs::new(&mut bench, n_head * head_dim, 37, 1.0);
    let n = n_head * head_dim;
    let mut run = |begin: usize, n_tokens: usize, window: Option<usize>| {
        let out = aligned_room(&mut bench, n, n_tokens);
        let from = Tokens { ptr: q.tokens.columns(begin * q.tokens.stride).ptr, stride: q.tokens.stride };
        let work = AttendMany { q: from, n_head, first: first + begin, n_tokens, window, out };
        attention_prefill(&bench.kernels, &bench.stream, &work, &cache).unwrap();
        let got = bench.read(out.ptr, out.stride * n_tokens);
        got.chunks_exact(out.stride).flat_map(|row| row[..n].to_vec()).collect::<Vec<f32>>()
    };
    for window in [None, Some(9), Some(25)] {
        let all = run(0, 37, window);
        assert!(all[..30 * n].iter().all(|v| v.is_finite()));
        assert!(all[30 * n..].iter().all(|v| v.is_nan()));
        assert_eq!(run(0, 11, window), all[..11 * n]);
        assert_eq!(run(11, 19, window), all[11 * n..30 * n]);
        assert_eq!(run(7, 1, window), all[7 * n..8 * n]);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let Some(mut bench) = Bench::new() else { return };
    let shape = KvLayer { ptr: Ptr::NULL, dtype: GgmlType::F16, n_ctx: 8, n_head_kv: 2, head_dim: 32 };
    let (cache, ..) = cache(&mut bench, shape, 8);
    let q = Inputs::new(&mut bench, 128, 3, 1.0);
    let out = aligned_room(&mut bench, 128, 3);
    let work = AttendMany { q: q.tokens, n_head: 4, first: 5, n_tokens: 3, window: None, out };
    let refused =
        |work: &AttendMany, cache: &KvLayer| attention_prefill(&bench.kernels, &bench.stream, work, cache).is_err();
    assert!(!refused(&work, &cache));
    bench.stream.synchronize().unwrap();
    assert!(refused(&AttendMany { first: 6, ..work }, &cache));
    assert!(refused(&AttendMany { n_tokens: 0, ..work }, &cache));
    assert!(refused(&AttendMany { n_head: 3, ..work }, &cache));
    assert!(refused(&AttendMany { window: Some(0), ..work }, &cache));
    assert!(refused(&AttendMany { out: out.columns(1), ..work }, &cache));
    assert!(refused(&work, &KvLayer { head_dim: 264, ..cache }));
    assert!(refused(&work, &KvLayer { dtype: GgmlType::Q4_0, ..cache }));
}
