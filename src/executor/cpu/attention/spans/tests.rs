//! Spans against attention in 64 bits, and every token in company against itself alone.

use super::super::testing::{CASE, Case, Made, bits};
use super::*;
use crate::cpu::Isa;
use crate::executor::kv_cache::testing::OneHead;
use crate::quant::GgmlType;

/// `[tokens][group][value_dim]`.
fn spans(made: &Made, isa: Isa, tokens: Range<usize>) -> Vec<f32> {
    let Case { dtype, head_dim, value_dim, group, cap, .. } = made.case;
    let mut all = Spans::default();
    all.cut(tokens.len(), 1, |token| (0, made.seen(tokens.start + token)));
    let kernels = isa.kernels(dtype);
    let mut work = SpanWork { kernels: Some(([kernels; 2], Softmax::of(isa))), ..SpanWork::default() };
    let q = &made.q[tokens.start * group * head_dim..tokens.end * group * head_dim];
    work.queries.load(q, head_dim, [kernels.act]);
    work.sinks.extend((0..group).filter_map(|head| made.sink(head)));
    work.firsts.extend(tokens.clone().map(|token| made.seen(token).start));
    (work.n_head, work.group, work.head_dim, work.value_dim) = (group, group, head_dim, value_dim);
    (work.scale, work.cap) = (made.scale(), cap);
    let row_bytes = |width: usize| dtype.row_bytes(width).unwrap();
    let held = OneHead::of(&made.keys.0, &made.values.0, row_bytes(head_dim), row_bytes(value_dim));
    let width = group * (value_dim + STATE);
    let mut states = vec![[f32::NEG_INFINITY, 0.0]; tokens.len() * group];
    let mut out = vec![f32::NAN; tokens.len() * group * value_dim];
    for pieces in all.pieces.chunk_by(|a, b| a.positions.start / SPAN == b.positions.start / SPAN) {
        let mut parts = vec![f32::NAN; pieces.len() * width];
        work.span(pieces, &held.head(), &mut parts);
        for (piece, part) in pieces.iter().zip(parts.chunks_exact(width)) {
            for (i, part) in part.chunks_exact(value_dim + STATE).enumerate() {
                let at = piece.token * group + i;
                join(part, &mut states[at], &mut out[at * value_dim..][..value_dim]);
            }
        }
    }
    for ([_, sum], out) in states.iter().zip(out.chunks_exact_mut(value_dim)) {
        out.iter_mut().for_each(|o| *o /= sum);
    }
    out
}

fn holds(case: Case, tolerance: f64) {
    let made = Made::new(case);
    let naive = made.naive();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let alone: Vec<f32> = (0..case.n).flat_map(|token| spans(&made, isa, token..token + 1)).collect();
        for (i, (got, exact)) in alone.iter().zip(&naive).enumerate() {
            assert!((f64::from(*got) - exact).abs() < tolerance, "{isa}, {case:?}: {i} is {got}, not {exact}");
        }
        for len in [2, 5, case.n] {
            let several = (0..case.n).step_by(len).map(|start| start..case.n.min(start + len));
            let several: Vec<f32> = several.flat_map(|tokens| spans(&made, isa, tokens)).collect();
            assert!(bits(&alone) == bits(&several), "{isa}, {case:?}: {len} at once give other bits");
        }
    }
}

#[test]
fn positions_of_several_spans_give_one_softmax() {
    for past in [0, 1, BLOCK - 1, SPAN - 2, SPAN, 2 * SPAN + 77] {
        for (window, sinks) in [(usize::MAX, false), (usize::MAX, true), (7, true), (BLOCK, false), (SPAN + 3, true)] {
            let cap = (past % 2 == 1).then_some(1.5);
            holds(
                Case { past, window, sinks, cap, n: 7, n_rows: 4 * SPAN, group: 3, dtype: GgmlType::F32, ..CASE },
                1e-5,
            );
        }
    }
}

#[test]
fn caches_and_heads_of_every_kind() {
    // Queries become bytes where keys are.
    for (dtype, tolerance) in [(GgmlType::F16, 1e-5), (GgmlType::BF16, 1e-5), (GgmlType::Q8_0, 0.05)] {
        for (head_dim, value_dim, group) in [(32, 64, 1), (64, 32, 4), (96, 96, 7)] {
            holds(
                Case { dtype, head_dim, value_dim, group, past: SPAN - 3, n: 6, n_rows: 2 * SPAN, ..CASE },
                tolerance,
            );
        }
    }
}

#[test]
fn rows_that_were_given_to_later_positions() {
    for (window, n) in [(1, 5), (30, 7), (BLOCK + 1, 6)] {
        holds(Case { past: SPAN + 60, window, n, n_rows: window - 1 + n, dtype: GgmlType::F32, ..CASE }, 1e-5);
    }
}

#[test]
fn the_division_is_that_of_positions_and_not_of_threads() {
    let mut spans = Spans::default();
    let seen = |token: usize| (token / 3, 500 + 10 * (token / 3)..1500 + token);
    spans.cut(6, 2, seen);
    assert_eq!(spans.runs, [0..3, 3..6]);
    let one = spans.pieces.clone();
    for n_threads in [1, 2, 7, 100] {
        spans.cut(6, 2, seen);
        spans.divide(n_threads, 100, 10);
        assert_eq!(spans.pieces, one);
        assert_eq!(spans.chunks.iter().sum::<usize>(), 10 * one.len());
        assert!(spans.chunks.len() <= (n_threads * CHUNKS_PER_THREAD).min(one.len()), "{n_threads}");
    }
    for (token, head) in (0..6).flat_map(|token| (0..2).map(move |head| (token, head))) {
        let own: Vec<_> = one.iter().filter(|piece| (piece.token, piece.head) == (token, head)).collect();
        assert!(own.windows(2).all(|pair| pair[0].positions.end == pair[1].positions.start));
        assert_eq!(own[0].positions.start..own[own.len() - 1].positions.end, seen(token).1);
    }
}
