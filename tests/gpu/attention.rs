//! Attention over the cache.

use super::card::{Card, assert_close};
use super::support::Random;
use powerinfer::cpu::{ActKind, Activations};
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::attention::{Attend, attention, attention_scratch};
use powerinfer::gpu::ops::norm::{Acts, x8_bytes};
use powerinfer::gpu::ops::rope::KvLayer;
use powerinfer::gpu::ops::token::TOKEN_BYTES;
use powerinfer::gpu::self_test::cache::{filled, row_of, values_of};
use powerinfer::quant::GgmlType;
use std::ops::Range;

/// Results are averages of values below 1: what the rounding of scores (below 16) does to their exponentials, and sums
/// of a few hundred of them.
const TOLERANCE: f64 = 64.0 * f32::EPSILON as f64;

/// A cache of random rows: its bytes.
fn random_cache(random: &mut Random, cache: &KvLayer) -> Vec<u8> {
    filled(cache, |n| random.values(n))
}

fn reference(cache: &KvLayer, bytes: &[u8], q: &[f32], n_head: usize, seen: Range<usize>) -> Vec<f64> {
    let d = cache.head_dim;
    let group = n_head / cache.n_head_kv;
    let mut out = Vec::new();
    for (h, q) in q.chunks_exact(d).enumerate() {
        // The CPU quantizes the query for a quantized cache, and so does the kernel.
        let mut acts = Activations::default();
        acts.load(q, d, (cache.dtype == GgmlType::Q8_0).then_some(ActKind::Q8));
        let row = acts.row(0);
        let query = |i: usize| match cache.dtype {
            GgmlType::Q8_0 => f64::from(row.q[i]) * f64::from(row.d[i / 32]),
            _ => f64::from(q[i]),
        };
        let of = |plane, position| values_of(cache.dtype, d, &row_of(cache, bytes, plane, h / group, position));
        let score = |k: &[f32]| (0..d).map(|i| f64::from(k[i]) * query(i)).sum::<f64>() / (d as f64).sqrt();
        let scores: Vec<f64> = seen.clone().map(|p| score(&of(0, p))).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let mut sums = vec![0.0; d];
        for (p, w) in seen.clone().zip(&weights) {
            sums.iter_mut().zip(of(1, p)).for_each(|(s, v)| *s += w * f64::from(v));
        }
        out.extend(sums.iter().map(|s| s / weights.iter().sum::<f64>()));
    }
    out
}

fn check(card: &Card, random: &mut Random, n_head: usize, mut cache: KvLayer, positions: &[usize]) {
    let (d, n) = (cache.head_dim, n_head * cache.head_dim);
    let bytes = random_cache(random, &cache);
    let memory = card.put(&bytes);
    cache.ptr = memory.ptr();
    assert_eq!(cache.n_bytes().unwrap(), bytes.len() as u64);
    let scratch = card.zeros(attention_scratch(n_head, &cache).unwrap());
    // All of them, and some.
    let mut cases: Vec<(usize, Option<usize>)> = positions.iter().map(|position| (*position, None)).collect();
    cases.extend(positions.iter().map(|position| (*position, Some(1 + random.below(*position + 2)))));
    for (position, window) in &cases {
        let shape = format!("{n_head}/{} heads of {d}, {}", cache.n_head_kv, cache.dtype);
        let what = format!("{shape}, position {position}, window {window:?}");
        let seen = (position + 1).saturating_sub(window.unwrap_or(usize::MAX))..position + 1;
        // Scores of a few units, so that some positions matter more than others.
        let q: Vec<f32> = random.values(n).iter().map(|v| v * 4.0).collect();
        let mut state = vec![0u32; TOKEN_BYTES as usize / 4];
        (state[1], state[4]) = (*position as u32, *position as u32);
        let (q_on_card, state) = (card.put(&q), card.put(&state));
        let (out, again, x8) = (card.room::<f32>(n), card.room::<f32>(n), card.room::<u8>(x8_bytes(n) as usize));
        let x8_wanted = if d.is_multiple_of(32) { x8.ptr() } else { Ptr::NULL };
        for out in [Acts { f32: out.ptr(), x8: x8_wanted }, Acts { f32: again.ptr(), x8: Ptr::NULL }] {
            let (q, window) = (q_on_card.ptr(), *window);
            let work = Attend { q, n_head, n_tokens: 1, token: state.ptr(), window, scratch: scratch.ptr(), out };
            attention(card.kernels, &card.stream, &work, &cache).unwrap();
        }
        let got = card.get::<f32>(out.ptr(), n);
        assert_close(&got, &reference(&cache, &bytes, &q, n_head, seen), TOLERANCE, &what);
        assert_eq!(got, card.get::<f32>(again.ptr(), n), "{what}: another time");
        if !x8_wanted.is_null() {
            card.assert_quantized(x8_wanted, &got, n);
        }
    }
}

fn cache(dtype: GgmlType, n_ctx: usize, n_head_kv: usize, head_dim: usize) -> KvLayer {
    KvLayer { ptr: Ptr::NULL, dtype, n_ctx, n_head_kv, head_dim }
}

#[test]
fn heads_attend_to_all_positions_up_to_their_own() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for dtype in [GgmlType::F16, GgmlType::Q8_0, GgmlType::F32] {
        for (n_head, n_head_kv, head_dim) in [(4, 4, 32), (4, 2, 64), (3, 1, 128), (7, 1, 96), (2, 1, 256), (10, 1, 64)]
        {
            let n_ctx = 129 + random.below(300);
            let positions = [0, 1, 63, 64, 128, random.below(n_ctx), n_ctx - 1];
            check(&card, &mut random, n_head, cache(dtype, n_ctx, n_head_kv, head_dim), &positions);
        }
    }
    for dtype in [GgmlType::F16, GgmlType::F32] {
        check(&card, &mut random, 4, cache(dtype, 131, 2, 80), &[0, 40, 130]);
        check(&card, &mut random, 4, cache(dtype, 70, 4, 16), &[0, 69]);
    }
}

#[test]
fn more_positions_than_all_blocks_have_at_least_are_divided_evenly() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    // 512 blocks for 128 heads: four for each, whatever the context.
    let n_ctx = 64 * 4 * 3 + 5;
    check(&card, &mut random, 128, cache(GgmlType::F16, n_ctx, 128, 16), &[64 * 4, n_ctx - 1]);
}

#[test]
fn a_key_that_is_no_number_is_not_hidden() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    for (dtype, n_ctx) in [(GgmlType::F16, 40), (GgmlType::F16, 200), (GgmlType::Q8_0, 200)] {
        let mut layer = cache(dtype, n_ctx, 1, 32);
        let mut bytes = random_cache(&mut random, &layer);
        let at = match dtype {
            GgmlType::F16 => 2 * (32 * (n_ctx / 2) + 5),
            _ => 2 * n_ctx * 32 + n_ctx / 2 * 2,
        };
        bytes[at..at + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
        let memory = card.put(&bytes);
        layer.ptr = memory.ptr();
        let scratch = card.zeros(attention_scratch(1, &layer).unwrap());
        let (q, out) = (card.put(&random.values(32)), card.room::<f32>(32));
        for (position, broken) in [(n_ctx / 2 - 1, false), (n_ctx / 2, true), (n_ctx - 1, true)] {
            let mut state = vec![0u32; TOKEN_BYTES as usize / 4];
            (state[1], state[4]) = (position as u32, position as u32);
            let (state, acts) = (card.put(&state), Acts { f32: out.ptr(), x8: Ptr::NULL });
            let (token, scratch) = (state.ptr(), scratch.ptr());
            let work = Attend { q: q.ptr(), n_head: 1, n_tokens: 1, token, window: None, scratch, out: acts };
            attention(card.kernels, &card.stream, &work, &layer).unwrap();
            let got = card.get::<f32>(out.ptr(), 32);
            assert!(got.iter().all(|v| v.is_nan() == broken), "{dtype} {n_ctx} {position}: {got:?}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let f16 = |n_head_kv, head_dim| cache(GgmlType::F16, 16, n_head_kv, head_dim);
    assert!(attention_scratch(3, &f16(2, 64)).is_err());
    assert!(attention_scratch(4, &f16(0, 64)).is_err());
    assert!(attention_scratch(4, &f16(2, 288)).is_err());
    assert!(attention_scratch(4, &f16(2, 64)).is_ok());
}
