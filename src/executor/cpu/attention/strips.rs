//! Attention of the tokens of a prompt: strips of queries over blocks of keys.

use super::scratch::Spare;
use super::{Layer, Query};
use crate::cpu::attention::{Kernels, LANES};
use crate::executor::cpu::compute::Compute;
use crate::model::KvType;
use std::ops::Range;

/// Bytes of queries and of what they gather in a piece of work: with a block of keys and values they fit in a second-level
/// cache of 1 MiB. More of them read keys less often.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces per thread where there are enough tokens: those with short pasts take less time.
const PIECES_PER_THREAD: usize = 8;

/// Some tokens of one sequence, and the head of keys that their queries meet.
struct Piece {
    tokens: Range<usize>,
    head: usize,
}

/// Attention of many tokens, with the memory that it keeps from call to call.
#[derive(Default)]
pub(super) struct Strips {
    pieces: Vec<Piece>,
    ends: Vec<usize>,
    by_piece: Vec<f32>,
    spare: Spare,
}

impl Strips {
    /// As `Attention::of`. What a token gets depends on its position and what it sees, not on the tokens beside it.
    pub fn of<'k>(
        &mut self,
        cx: Compute,
        layer: &Layer,
        q: &[f32],
        query: &(impl Fn(usize) -> Query<'k> + Sync),
        out: &mut [f32],
    ) {
        let Layer { config, number, sinks } = *layer;
        let (n_head, n_head_kv, head_dim, value_dim) =
            (config.n_head, config.n_head_kv, config.head_dim, config.value_dim);
        let n_tokens = q.len() / (n_head * head_dim);
        let group = n_head / n_head_kv;
        self.cut(cx.pool.n_threads(), n_tokens, n_head_kv, (group, head_dim + value_dim), query);
        let width = group * value_dim;
        self.ends.clear();
        self.ends.extend(self.pieces.iter().scan(0, |end, piece| {
            *end += piece.tokens.len() * width;
            Some(*end)
        }));
        let Self { pieces, ends, by_piece, spare } = self;
        by_piece.resize(n_tokens * n_head * value_dim, 0.0);
        let (kernels, scale, cap) = (Kernels::of(cx.isa), config.attention_scale, config.caps.scores);
        let KvType { k, v } = query(0).kv.kind();
        let (Some(keys), Some(values)) = (kernels.reader(k), kernels.reader(v)) else { return };
        let read = [keys, values];
        cx.pool.fill_cut(by_piece, ends, |i, out| {
            let Piece { tokens, head } = &pieces[i];
            let heads = head * group..(head + 1) * group;
            let queries = tokens.clone().flat_map(|token| heads.clone().map(move |head| (token, head)));
            spare.with(|scratch| {
                scratch.take((tokens.len() * group).div_ceil(LANES), (head_dim, value_dim));
                for (row, (token, head)) in queries.enumerate() {
                    let Query { kv, position } = query(token);
                    let q = &q[(token * n_head + head) * head_dim..][..head_dim];
                    let sink = sinks.map(|sinks| sinks[head]);
                    scratch.strips[row / LANES].push(q, scale, kv.seen(number, position), sink);
                }
                let cache = query(tokens.start).kv.of_head(number, *head);
                scratch.attend(kernels, &cache, read, cap, (head_dim, value_dim));
                for (strip, out) in scratch.strips.iter().zip(out.chunks_mut(LANES * value_dim)) {
                    strip.finish(out);
                }
            });
        });
        let mut rest = &by_piece[..];
        for Piece { tokens, head } in &*pieces {
            for token in tokens.clone() {
                let (row, others) = rest.split_at(width);
                out[token * n_head * value_dim + head * width..][..width].copy_from_slice(row);
                rest = others;
            }
        }
    }

    /// Cuts tokens and heads into pieces, the last tokens first: they see most.
    fn cut<'k>(
        &mut self,
        n_threads: usize,
        n_tokens: usize,
        n_head_kv: usize,
        (group, width): (usize, usize),
        query: &impl Fn(usize) -> Query<'k>,
    ) {
        let most = (PIECE_BYTES / (width * size_of::<f32>())).max(LANES);
        let even = (n_tokens * n_head_kv * group).div_ceil(n_threads * PIECES_PER_THREAD).max(LANES);
        // Whole strips, as far as tokens allow.
        let rows = most.min(even) / LANES * LANES;
        let len = (rows / group).max(1);
        self.pieces.clear();
        let mut end = n_tokens;
        while end > 0 {
            let last = query(end - 1);
            let goes_on = |start: usize| {
                let Query { kv, position } = query(start);
                std::ptr::eq(kv, last.kv) && position + (end - 1 - start) == last.position
            };
            let start = (end.saturating_sub(len)..end - 1).rev().take_while(|start| goes_on(*start)).last();
            let tokens = start.unwrap_or(end - 1)..end;
            end = tokens.start;
            self.pieces.extend((0..n_head_kv).map(|head| Piece { tokens: tokens.clone(), head }));
        }
    }
}

#[cfg(test)]
mod tests;
