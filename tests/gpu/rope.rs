//! Rotary embedding and the write into the cache.

use super::card::{Card, assert_close};
use super::support::Random;
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::rope::{KvLayer, Prepare, Rope, RopeStore, rope_store};
use powerinfer::gpu::ops::token::TOKEN_BYTES;
use powerinfer::gpu::self_test::cache::{row_of, stored, values_of};
use powerinfer::model::RopeKind;
use powerinfer::quant::GgmlType;
use powerinfer::quant::blocks::QK;

/// Rotated values: sine and cosine within 2 units in the last place, products and a sum rounded.
const TOLERANCE: f64 = 8.0 * f32::EPSILON as f64;

fn rotated(x: &[f32], kind: RopeKind, frequencies: &[f32], position: usize) -> Vec<f64> {
    let mut out: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
    for (i, f) in frequencies.iter().enumerate() {
        let (a, b) = match kind {
            RopeKind::None => return out,
            RopeKind::Interleaved => (2 * i, 2 * i + 1),
            RopeKind::Halves => (i, i + frequencies.len()),
        };
        let (sin, cos) = f64::from(position as f32 * f).sin_cos();
        (out[a], out[b]) = (out[a] * cos - out[b] * sin, out[a] * sin + out[b] * cos);
    }
    out
}

struct Case {
    heads: (usize, usize),
    head_dim: usize,
    n_dims: usize,
    n_ctx: usize,
    first: usize,
    n_tokens: usize,
}

fn check(card: &Card, random: &mut Random, case: &Case, kind: RopeKind, dtype: GgmlType, by_token: bool) {
    let Case { heads: (n_head, n_head_kv), head_dim, n_dims, n_ctx, first, n_tokens } = *case;
    let what = format!("{n_head}/{n_head_kv} heads of {head_dim}, {kind:?}, {dtype}, position {first}");
    let frequencies: Vec<f32> = (0..n_dims / 2).map(|i| 10000f32.powf(-2.0 * i as f32 / n_dims as f32)).collect();
    let q = random.values(n_tokens * n_head * head_dim);
    let mut v = random.values(n_tokens * n_head_kv * head_dim);
    let k = random.values(v.len());
    if dtype == GgmlType::Q8_0 {
        // Blocks that are all zero, tiny, not finite, and between steps.
        v[..QK].fill(0.0);
        if v.len() >= 4 * QK {
            v[QK..2 * QK].iter_mut().for_each(|v| *v *= 1e-42);
            v[3 * QK - 1] = f32::INFINITY;
            // Half way between two steps of 1.
            v[3 * QK..4 * QK].iter_mut().enumerate().for_each(|(i, v)| *v = i as f32 - 15.5);
            v[4 * QK - 1] = 127.0;
        }
    }
    let mut cache = KvLayer { ptr: Ptr::NULL, dtype, n_ctx, n_head_kv, head_dim };
    let bytes = cache.n_bytes().unwrap();
    let memory = card.room::<u8>(bytes as usize);
    cache.ptr = memory.ptr();
    let mut state = vec![0u32; TOKEN_BYTES as usize / 4];
    state[1] = first as u32;
    (0..n_tokens).for_each(|t| state[4 + t] = (first + t) as u32);
    let (state, rest) = if by_token { (card.put(&state), 0) } else { (card.put::<u32>(&[]), first) };
    let on_card = [&q, &k, &v, &frequencies].map(|x| card.put(x));
    let [q_ptr, k_ptr, v_ptr, f_ptr] = [0, 1, 2, 3].map(|i| on_card[i].ptr());
    let prepare = Prepare::NOTHING;
    let work = RopeStore { q: q_ptr, k: k_ptr, v: v_ptr, n_head, n_tokens, token: state.ptr(), first: rest, prepare };
    let rope = Rope { kind, n_dims, frequencies: f_ptr, magnitude: 1.0 };
    rope_store(card.kernels, &card.stream, &work, &rope, &cache).unwrap();

    let got_q = card.get::<f32>(q_ptr, q.len());
    let written = card.get::<u8>(cache.ptr, bytes as usize);
    for t in 0..n_tokens {
        for h in 0..n_head {
            let at = (t * n_head + h) * head_dim..(t * n_head + h + 1) * head_dim;
            let expected = rotated(&q[at.clone()], kind, &frequencies, first + t);
            assert_close(&got_q[at], &expected, TOLERANCE, &what);
        }
        for h in 0..n_head_kv {
            let at = (t * n_head_kv + h) * head_dim..(t * n_head_kv + h + 1) * head_dim;
            let values = row_of(&cache, &written, 1, h, first + t);
            // A scale that is no number may have any bits.
            let same = values == stored(dtype, &v[at.clone()]) || v[at.clone()].iter().any(|v| !v.is_finite());
            assert!(same, "{what}: value of head {h}");
            if dtype == GgmlType::Q8_0 && !v[at.clone()].iter().all(|v| v.is_finite()) {
                assert!(values_of(dtype, head_dim, &values).iter().any(|v| v.is_nan()));
            }
            let key = values_of(dtype, head_dim, &row_of(&cache, &written, 0, h, first + t));
            let step = match dtype {
                GgmlType::F32 => TOLERANCE,
                // Half a unit in the last place of values below 2, and of a scale: half a step.
                GgmlType::F16 => 0.51 / 1024.0,
                _ => 0.52 * 1.5 / 127.0,
            };
            assert_close(&key, &rotated(&k[at], kind, &frequencies, first + t), step, &what);
        }
    }
    // No other row was touched.
    let row_bytes = bytes as usize / (2 * n_head_kv * n_ctx);
    let untouched = written.iter().filter(|b| **b == 0xff).count();
    assert!(untouched >= (n_ctx - n_tokens) * n_head_kv * 2 * row_bytes, "{what}");
}

#[test]
fn heads_are_rotated_and_stored_at_their_positions() {
    let Some(card) = Card::open() else { return };
    let mut random = Random::anew();
    let case =
        |heads, head_dim, n_dims, n_ctx, first, n_tokens| Case { heads, head_dim, n_dims, n_ctx, first, n_tokens };
    for kind in [RopeKind::Interleaved, RopeKind::Halves, RopeKind::None] {
        for dtype in [GgmlType::F16, GgmlType::Q8_0, GgmlType::F32] {
            for by_token in [false, true] {
                for case in [
                    case((1, 1), 32, 32, 1, 0, 1),
                    case((4, 2), 64, 32, 9, 8, 1),
                    case((5, 1), 128, 128, 7, 3, 4),
                    case((2, 2), 256, 256, 3, 0, 3),
                    case((3, 3), 96, 96, 5, 2, 1),
                    // Angles where a short reduction loses all digits.
                    case((1, 1), 32, 32, 131_072, 131_071, 1),
                ] {
                    check(&card, &mut random, &case, kind, dtype, by_token);
                }
                if dtype != GgmlType::Q8_0 {
                    check(&card, &mut random, &case((3, 1), 80, 20, 11, 10, 1), kind, dtype, by_token);
                }
            }
        }
    }
}

#[test]
fn caches_that_do_not_fit_are_refused() {
    let cache = |dtype, head_dim| KvLayer { ptr: Ptr::NULL, dtype, n_ctx: 8, n_head_kv: 3, head_dim };
    assert_eq!(cache(GgmlType::F16, 80).n_bytes().unwrap(), 2 * 8 * 3 * 160);
    assert_eq!(cache(GgmlType::Q8_0, 96).n_bytes().unwrap(), 2 * 8 * 3 * 3 * 34);
    for (dtype, head_dim) in [(GgmlType::Q8_0, 80), (GgmlType::F16, 40), (GgmlType::F16, 288), (GgmlType::Q4_0, 64)] {
        assert!(cache(dtype, head_dim).n_bytes().is_err(), "{dtype} {head_dim}");
    }
}
