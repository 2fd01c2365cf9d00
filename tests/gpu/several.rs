//! Kernels that take several tokens at once: each token gets the bits that it gets alone.

use super::card::Card;
use super::operands::{Bench, TYPES};
use super::support::Random;
use powerinfer::gpu::matrix::takes_floats;
use powerinfer::gpu::ops::attention::{Attend, attention, attention_scratch};
use powerinfer::gpu::ops::down::{self, Factors, Together, down_of};
use powerinfer::gpu::ops::ffn::{List, gate_up, gate_up_of, up, up_of};
use powerinfer::gpu::ops::matvec::{Rows, matvec, matvec_of};
use powerinfer::gpu::ops::norm::{Acts, quantize, x8_bytes};
use powerinfer::gpu::ops::rope::{KvLayer, Prepare, Rope, RopeStore, rope_store};
use powerinfer::gpu::ops::select::{HotAndCold, HotList, select_hot, select_hot_of};
use powerinfer::gpu::ops::several::Several;
use powerinfer::gpu::ops::token::TOKEN_BYTES;
use powerinfer::gpu::{DeviceBuffer, Ptr};
use powerinfer::model::{Activation, RopeKind};
use powerinfer::quant::GgmlType;

const FLOAT: usize = size_of::<f32>();

/// Widths that leave threads idle and ranges of a warp unfinished, and one of which several warps share a row.
fn widths(dtype: GgmlType) -> &'static [usize] {
    if dtype.block_len() == 256 { &[256, 768, 4096] } else { &[64, 448, 4096] }
}

/// Inputs of `n_tokens` tokens, in the form for `dtype` only.
fn inputs(bench: &mut Bench, dtype: GgmlType, n: usize, n_tokens: usize) -> Acts {
    let x = bench.random.values(n_tokens * n);
    let f32 = bench.floats(&x);
    if takes_floats(dtype) {
        return Acts { f32, x8: Ptr::NULL };
    }
    let x8 = bench.room(n_tokens as u64 * x8_bytes(n));
    quantize(&bench.kernels, &bench.stream, f32, n, n_tokens, x8).unwrap();
    Acts { f32: Ptr::NULL, x8 }
}

fn of_token(all: Acts, token: usize, n: usize) -> Acts {
    let at = |ptr: Ptr, bytes: u64| if ptr.is_null() { ptr } else { ptr.offset(token as u64 * bytes) };
    Acts { f32: at(all.f32, (n * FLOAT) as u64), x8: at(all.x8, x8_bytes(n)) }
}

fn at(ptr: Ptr, floats: usize) -> Ptr {
    ptr.offset((floats * FLOAT) as u64)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn products_of_several_vectors_are_those_of_each() {
    let Some(mut bench) = Bench::new() else { return };
    for dtype in TYPES {
        for &n in widths(dtype) {
            bench.clear();
            let (a, b) = (bench.weights(dtype, 37, n), bench.weights(dtype, 9, n));
            let bias = bench.random.values(30);
            let bias = bench.floats(&bias);
            for n_tokens in [2, 3, 8] {
                let x = inputs(&mut bench, dtype, n, n_tokens);
                let (stride, relu) = (53, Some(Activation::Silu));
                let [alone, together] = [(); 2].map(|()| bench.room_for(n_tokens * stride));
                let parts = |y: Ptr| {
                    let part = Rows { first: 3, n_rows: 30, bias, stride, ..Rows::all(&a.matrix, y) };
                    [part, Rows { stride, ..Rows::all(&b.matrix, at(y, 31)) }]
                };
                for token in 0..n_tokens {
                    let (y, x) = (at(alone, token * stride), of_token(x, token, n));
                    matvec(&bench.kernels, &bench.stream, &parts(y), x, relu).unwrap();
                }
                matvec_of(&bench.kernels, &bench.stream, &parts(together), x, n_tokens, relu).unwrap();
                let [alone, together] = [alone, together].map(|y| bits(&bench.read(y, n_tokens * stride)));
                assert_eq!(together, alone, "{dtype} of {n}, {n_tokens} tokens");
            }
        }
    }
    let w = bench.weights(GgmlType::Q4_0, 3, 96);
    let (x, y) = (inputs(&mut bench, GgmlType::Q4_0, 96, 2), bench.room_for(6));
    let error = matvec_of(&bench.kernels, &bench.stream, &[Rows::all(&w.matrix, y)], x, 2, None).unwrap_err();
    assert!(error.to_string().contains("multiples of 64"), "{error}");
}

/// Gates that fire for some tokens, for all, for none.
fn gates(random: &mut Random, n_tokens: usize, n_ff: usize) -> Vec<f32> {
    let values = random.values(n_tokens * n_ff);
    values.iter().enumerate().map(|(i, v)| if [0, 3, 4].contains(&(i % 7)) { *v } else { 0.0 }).collect()
}

#[test]
fn neurons_of_several_tokens_are_those_of_each() {
    let Some(mut bench) = Bench::new() else { return };
    const N_FF: usize = 75;
    for dtype in TYPES {
        for &n in widths(dtype) {
            bench.clear();
            let (gate, w, output) =
                (bench.weights(dtype, N_FF, n), bench.weights(dtype, N_FF + 3, n), bench.weights(dtype, N_FF, n));
            let scratch_bytes = down::scratch_bytes(dtype, n).unwrap();
            for n_tokens in [2, 8] {
                let what = format!("{dtype} of {n}, {n_tokens} tokens");
                let x = inputs(&mut bench, dtype, n, n_tokens);
                let act = gates(&mut bench.random, n_tokens, N_FF);
                let [alone, together] = [(); 2].map(|()| bench.floats(&act));
                let of = Several { n_tokens, acts: N_FF, counts: 2, lists: 0 };
                let [list, n_listed, counts] = [N_FF, 1, 2 * n_tokens].map(|n| bench.room_for(n));
                let slots = HotAndCold { n_hot: N_FF, n_ff: N_FF, counts };
                let hot = HotList { list, n: n_listed };
                let (kernels, stream) = (bench.kernels.clone(), &bench.stream);
                select_hot_of(&kernels, stream, together, false, slots, &hot, of).unwrap();
                let listed = List { slots: list, count: n_listed, n: N_FF };
                let relu = Activation::Relu;
                up_of(&kernels, stream, &w.matrix, Ptr::NULL, &listed, together, x, relu, together, of).unwrap();
                let sums = Together { n_tokens, factors: N_FF, scratch_bytes };
                let [y, y_alone] = [(); 2].map(|()| bench.room_for(n_tokens * n));
                let scratch = bench.room(n_tokens as u64 * scratch_bytes);
                let [list, n_listed, count] = [N_FF, 1, 2].map(|n| bench.room_for(n));
                let stream = &bench.stream;
                stream.fill(scratch, 0, n_tokens as u64 * scratch_bytes).unwrap();
                let factors = |h: Ptr| Factors { h, n: N_FF, all: false };
                down_of(&kernels, stream, &output.matrix, &factors(together), y, scratch, sums).unwrap();
                let counted = bench.stream.read_vec::<u32>(counts, 2 * n_tokens).unwrap();
                for token in 0..n_tokens {
                    let (h, x) = (at(alone, token * N_FF), of_token(x, token, n));
                    let slots = HotAndCold { counts: count, ..slots };
                    select_hot(&kernels, stream, h, false, slots, &HotList { list, n: n_listed }).unwrap();
                    assert_eq!(stream.read_vec::<u32>(count, 1).unwrap()[0], counted[2 * token], "{what}");
                    let listed = List { slots: list, count: n_listed, n: N_FF };
                    up(&kernels, stream, &w.matrix, Ptr::NULL, &listed, h, x, relu, h).unwrap();
                    let y = at(y_alone, token * n);
                    down::down(&kernels, stream, &output.matrix, &factors(h), y, scratch).unwrap();
                }
                let read = |ptr: Ptr, n: usize| bits(&bench.read(ptr, n));
                assert_eq!(read(together, n_tokens * N_FF), read(alone, n_tokens * N_FF), "{what}");
                assert_eq!(read(y, n_tokens * n), read(y_alone, n_tokens * n), "{what}: sums");

                for activation in [Activation::Relu, Activation::Silu] {
                    for token in 0..n_tokens {
                        let (h, x) = (at(alone, token * N_FF), of_token(x, token, n));
                        gate_up(&kernels, stream, &gate.matrix, &w.matrix, N_FF, x, activation, h).unwrap();
                    }
                    gate_up_of(&kernels, stream, &gate.matrix, &w.matrix, N_FF, x, activation, together, of).unwrap();
                    assert_eq!(read(together, n_tokens * N_FF), read(alone, n_tokens * N_FF), "{what}, {activation:?}");
                }
            }
        }
    }
}

/// State of tokens at these positions of these sequences.
fn state(card: &Card, places: &[(usize, usize)]) -> DeviceBuffer {
    let mut state = vec![0u32; TOKEN_BYTES as usize / FLOAT];
    state[1] = places[0].0 as u32;
    for (i, (position, sequence)) in places.iter().enumerate() {
        (state[4 + i], state[12 + i]) = (*position as u32, *sequence as u32);
    }
    card.put(&state)
}

#[test]
fn tokens_of_several_sequences_store_in_their_own_and_attend_to_it() {
    let Some(card) = Card::open() else { return };
    let (kernels, stream) = (card.kernels, &card.stream);
    const N_HEAD: usize = 4;
    // Two of one sequence behind each other, one of another, one at the beginning of a third.
    let places = [(299, 2), (300, 2), (70, 0), (0, 1)];
    for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0] {
        let mut random = Random::anew();
        let d = 32;
        let mut cache = KvLayer { ptr: Ptr::NULL, dtype, n_ctx: 301, n_head_kv: 2, head_dim: d };
        let each = cache.n_bytes().unwrap().next_multiple_of(256) as usize;
        // What was there before: zeros are numbers of any type.
        let [alone_memory, together_memory] = [(); 2].map(|()| card.zeros(3 * each as u64));
        let (n_q, n_kv, n) = (N_HEAD * d, 2 * d, places.len());
        let [q, k, v] = [n_q, n_kv, n_kv].map(|width| random.values(n * width));
        let frequencies = card.put(&random.values(d / 2));
        let rope = Rope { kind: RopeKind::Halves, n_dims: d, frequencies: frequencies.ptr(), magnitude: 1.0 };
        let n_scratch = attention_scratch(N_HEAD, &cache).unwrap();
        let scratch = card.zeros(n as u64 * n_scratch);
        let mut run = |memory: &DeviceBuffer, places: &[(usize, usize)], first: usize| {
            cache.ptr = memory.ptr();
            let n = places.len();
            let [q, k, v] = [(&q, n_q), (&k, n_kv), (&v, n_kv)]
                .map(|(values, width)| card.put(&values[first * width..(first + n) * width]));
            let state = state(&card, places);
            let prepare = Prepare::NOTHING;
            let (token, n_head) = (state.ptr(), N_HEAD);
            let stored =
                RopeStore { q: q.ptr(), k: k.ptr(), v: v.ptr(), n_head, n_tokens: n, token, first: 0, prepare };
            rope_store(kernels, stream, &stored, &rope, &cache).unwrap();
            let (out, x8) = (card.room::<f32>(n * n_q), card.room::<u8>(n * x8_bytes(n_q) as usize));
            let acts = Acts { f32: out.ptr(), x8: x8.ptr() };
            let (q, scratch) = (q.ptr(), scratch.ptr());
            let work = Attend { q, n_head, n_tokens: n, token, window: None, scratch, out: acts };
            attention(kernels, stream, &work, &cache).unwrap();
            (bits(&card.get::<f32>(out.ptr(), n * n_q)), card.get::<u8>(x8.ptr(), n * x8_bytes(n_q) as usize))
        };
        let together = run(&together_memory, &places, 0);
        let mut alone = (Vec::new(), Vec::new());
        for (i, place) in places.iter().enumerate() {
            let (out, x8) = run(&alone_memory, &[*place], i);
            alone.0.extend(out);
            alone.1.extend(x8);
        }
        assert_eq!(together, alone, "{dtype}");
        let memory = |buffer: &DeviceBuffer| card.get::<u8>(buffer.ptr(), 3 * each);
        assert!(memory(&together_memory) == memory(&alone_memory), "{dtype}: what is stored");
    }
}
