//! Attention of one token or a few: spans of positions, each of which any thread may do.

use super::scratch::Spare;
use super::{Layer, Query};
use crate::cpu::attention::{Kernels as Softmax, LANES};
use crate::cpu::pool::{Region, Work};
use crate::cpu::{ActRow, Activations, Kernels};
use crate::executor::cpu::compute::Compute;
use crate::executor::kv_cache::{HeadCache, Loan};
use std::ops::Range;

/// Positions whose scores are held at a time. Blocks begin at multiples of it.
const BLOCK: usize = 128;
/// Positions of a span, whole blocks: what a token gets is put together from its spans in their order, however many threads do
/// them.
const SPAN: usize = 4 * BLOCK;
/// Chunks per thread, as for other products of a token.
const CHUNKS_PER_THREAD: usize = 8;
/// Bytes of keys and values that a head meets in a chunk at the least, so that claiming it costs little.
const CHUNK_BYTES: usize = 16 << 10;
/// Query heads of one head of keys from which on they meet it side by side. A strip of few costs as much as about three alone.
const SIDE_BY_SIDE: usize = 4;
/// The largest score and the sum of weights, before what a head has gathered.
const STATE: usize = 2;

/// A token, a head of keys, and the positions of a span that the token sees.
#[derive(Debug, Clone, PartialEq)]
struct Piece {
    token: usize,
    head: usize,
    positions: Range<usize>,
    /// Of those that the loans are of.
    run: usize,
}

/// What spans need; owned, because a thread that was held up may look at it after the others have gone on.
#[derive(Default)]
struct SpanWork {
    kernels: Option<([&'static Kernels; 2], &'static Softmax)>,
    queries: Activations,
    pieces: Vec<Piece>,
    loans: Vec<Loan>,
    sinks: Vec<f32>,
    /// Positions that the first span of each token begins at.
    firsts: Vec<usize>,
    n_head: usize,
    group: usize,
    head_dim: usize,
    value_dim: usize,
    scale: f32,
    cap: Option<f32>,
    spare: Spare,
}

/// Attention of a few tokens, with the memory that it keeps from call to call.
#[derive(Default)]
pub(super) struct Spans {
    region: Region<SpanWork>,
    pieces: Vec<Piece>,
    /// Tokens of one sequence, one behind the other.
    runs: Vec<Range<usize>>,
    chunks: Vec<usize>,
    /// By token and head: the largest score and the sum of weights so far.
    states: Vec<[f32; STATE]>,
}

impl Spans {
    /// As `Attention::of`: each token gets the bits that it gets alone.
    pub fn of<'k>(
        &mut self,
        cx: Compute,
        layer: &Layer,
        q: &[f32],
        query: &impl Fn(usize) -> Query<'k>,
        out: &mut [f32],
    ) {
        let Layer { config, number, sinks } = *layer;
        let (n_head, head_dim, value_dim) = (config.n_head, config.head_dim, config.value_dim);
        let (n_tokens, group) = (q.len() / (n_head * head_dim), n_head / config.n_head_kv);
        let width = group * (value_dim + STATE);
        let kind = query(0).kv.kind();
        self.cut(n_tokens, config.n_head_kv, |token| {
            let Query { kv, position } = query(token);
            (std::ptr::from_ref(kv), kv.seen(number, position))
        });
        let row_bytes = kind.row_bytes(head_dim, value_dim);
        self.divide(cx.pool.n_threads(), CHUNK_BYTES.div_ceil(row_bytes), width);
        let Self { region, pieces, runs, chunks, states } = self;
        let parts = cx.pool.run_cut(region, chunks.iter().copied(), |work| {
            let kernels = [kind.k, kind.v].map(|dtype| cx.isa.kernels(dtype));
            work.kernels = Some((kernels, Softmax::of(cx.isa)));
            work.queries.load(q, head_dim, [kernels[0].act]);
            work.pieces.clone_from(pieces);
            work.loans.clear();
            work.loans.extend(runs.iter().map(|run| {
                let (first, last) = (query(run.start), query(run.end - 1));
                let (first, last) = (first.kv.seen(number, first.position), last.kv.seen(number, last.position));
                query(run.start).kv.lend(number, first.start..last.end)
            }));
            work.sinks.clear();
            work.sinks.extend(sinks.into_iter().flatten());
            work.firsts.clear();
            work.firsts.extend((0..n_tokens).map(|token| {
                let Query { kv, position } = query(token);
                kv.seen(number, position).start
            }));
            (work.n_head, work.group) = (n_head, group);
            (work.head_dim, work.value_dim) = (head_dim, value_dim);
            if group >= SIDE_BY_SIDE {
                work.spare.reserve(cx.pool.n_threads(), n_tokens * group, (head_dim, value_dim));
            }
            (work.scale, work.cap) = (config.attention_scale, config.caps.scores);
        });
        states.clear();
        states.resize(n_tokens * n_head, [f32::NEG_INFINITY, 0.0]);
        for (Piece { token, head, .. }, part) in pieces.iter().zip(parts.chunks_exact(width)) {
            for (i, part) in part.chunks_exact(value_dim + STATE).enumerate() {
                let at = token * n_head + head * group + i;
                join(part, &mut states[at], &mut out[at * value_dim..][..value_dim]);
            }
        }
        for ([_, sum], out) in states.iter().zip(out.chunks_exact_mut(value_dim)) {
            out.iter_mut().for_each(|o| *o /= sum);
        }
    }

    /// Cuts tokens, heads and positions into pieces; those that meet the same keys lie side by side.
    fn cut<T: PartialEq>(&mut self, n_tokens: usize, n_head_kv: usize, seen: impl Fn(usize) -> (T, Range<usize>)) {
        self.runs.clear();
        for token in 0..n_tokens {
            match self.runs.last_mut() {
                Some(run) if goes_on(&seen(run.end - 1), &seen(token)) => run.end += 1,
                _ => self.runs.push(token..token + 1),
            }
        }
        self.pieces.clear();
        for (i, run) in self.runs.iter().enumerate() {
            let (first, end) = (seen(run.start).1.start, seen(run.end - 1).1.end);
            for head in 0..n_head_kv {
                for span in (first / SPAN * SPAN..end).step_by(SPAN) {
                    for token in run.clone() {
                        let seen = seen(token).1;
                        let positions = seen.start.max(span)..seen.end.min(span + SPAN);
                        if !positions.is_empty() {
                            self.pieces.push(Piece { token, head, positions, run: i });
                        }
                    }
                }
            }
        }
    }

    /// Divides the pieces, of `width` results each, among chunks of about as many positions, which are no fewer than `least`.
    fn divide(&mut self, n_threads: usize, least: usize, width: usize) {
        let all: usize = self.pieces.iter().map(|piece| piece.positions.len()).sum();
        let most = all.div_ceil(n_threads * CHUNKS_PER_THREAD).max(least);
        self.chunks.clear();
        let (mut n, mut n_positions) = (0, 0);
        for piece in &self.pieces {
            (n, n_positions) = (n + 1, n_positions + piece.positions.len());
            if n_positions >= most {
                self.chunks.push(n * width);
                (n, n_positions) = (0, 0);
            }
        }
        if n > 0 {
            self.chunks.push(n * width);
        }
    }
}

/// Whether one token comes behind another one of the same sequence.
fn goes_on<T: PartialEq>((kv, seen): &(T, Range<usize>), (next_kv, next): &(T, Range<usize>)) -> bool {
    kv == next_kv && seen.end + 1 == next.end
}

/// Adds what a span gave to what those before it gave.
fn join(part: &[f32], state: &mut [f32; STATE], out: &mut [f32]) {
    let ([max, sum], gathered) = ([part[0], part[1]], &part[STATE..]);
    if state[1] == 0.0 {
        *state = [max, sum];
        out.copy_from_slice(gathered);
        return;
    }
    let larger = state[0].max(max);
    let (old, new) = ((state[0] - larger).exp(), (max - larger).exp());
    *state = [larger, state[1] * old + sum * new];
    out.iter_mut().zip(gathered).for_each(|(out, o)| *out = *out * old + o * new);
}

impl Work for SpanWork {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let width = self.group * (self.value_dim + STATE);
        let first = start / width;
        let mut pieces = &self.pieces[first..first + out.len() / width];
        let mut rest = out;
        while let Some(piece) = pieces.first() {
            let span = piece.positions.start / SPAN;
            let is_like =
                |other: &&Piece| (other.run, other.head, other.positions.start / SPAN) == (piece.run, piece.head, span);
            let n = pieces.iter().take_while(is_like).count();
            let (own, others) = rest.split_at_mut(n * width);
            // Where it was called in, nobody waits for the result.
            let Some(reader) = self.loans[piece.run].begin() else { return };
            self.span(&pieces[..n], &reader.of_head(piece.head), own);
            (pieces, rest) = (&pieces[n..], others);
        }
    }
}

impl SpanWork {
    /// Pieces that meet the same keys. How they do depends on the model only.
    fn span(&self, pieces: &[Piece], cache: &HeadCache, out: &mut [f32]) {
        if self.group >= SIDE_BY_SIDE {
            self.side_by_side(pieces, cache, out);
        } else {
            self.one_by_one(pieces, cache, out);
        }
    }

    /// The score of the sink that comes before all others, in the first span of a token.
    fn sink(&self, piece: &Piece, i: usize) -> Option<f32> {
        let is_first = piece.positions.start == self.firsts[piece.token];
        self.sinks.get(piece.head * self.group + i).copied().filter(|_| is_first)
    }

    fn side_by_side(&self, pieces: &[Piece], cache: &HeadCache, out: &mut [f32]) {
        let Some((kernels, softmax)) = self.kernels else { return };
        let [Some(keys), Some(values)] = kernels.map(|kernels| softmax.reader(kernels.dtype)) else { return };
        let read = [keys, values];
        let (widths, group) = ((self.head_dim, self.value_dim), self.group);
        self.spare.with(|scratch| {
            scratch.take((pieces.len() * group).div_ceil(LANES), widths);
            let queries = pieces.iter().flat_map(|piece| (0..group).map(move |i| (piece, i)));
            for (row, (piece, i)) in queries.enumerate() {
                let q = self.queries.row(piece.token * self.n_head + piece.head * group + i).f32;
                scratch.strips[row / LANES].push(q, self.scale, piece.positions.clone(), self.sink(piece, i));
            }
            scratch.attend(softmax, cache, read, self.cap, widths);
            for (row, out) in out.chunks_exact_mut(self.value_dim + STATE).enumerate() {
                scratch.strips[row / LANES].state(row % LANES, out);
            }
        });
    }

    fn one_by_one(&self, pieces: &[Piece], cache: &HeadCache, out: &mut [f32]) {
        let Some((kernels, softmax)) = self.kernels else { return };
        let width = self.value_dim + STATE;
        for (piece, out) in pieces.iter().zip(out.chunks_exact_mut(self.group * width)) {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                out.fill(0.0);
                out[0] = f32::NEG_INFINITY;
                if let Some(sink) = self.sink(piece, i) {
                    (out[0], out[1]) = (sink, 1.0);
                }
            }
        }
        let (from, to) = pieces
            .iter()
            .fold((usize::MAX, 0), |(from, to), piece| (from.min(piece.positions.start), to.max(piece.positions.end)));
        for block in (from / BLOCK * BLOCK..to).step_by(BLOCK) {
            for (piece, out) in pieces.iter().zip(out.chunks_exact_mut(self.group * width)) {
                let positions = piece.positions.start.max(block)..piece.positions.end.min(block + BLOCK);
                if positions.is_empty() {
                    continue;
                }
                for (i, out) in out.chunks_exact_mut(width).enumerate() {
                    let q = self.queries.row(piece.token * self.n_head + piece.head * self.group + i);
                    attend((kernels, softmax), q, cache, positions.clone(), (self.scale, self.cap), out);
                }
            }
        }
    }
}

/// Attends to some positions, no more than a block: `state` is the largest score so far, the sum of weights, which are
/// relative to it ("online softmax", arXiv 1805.02867), and the sum of weights times values.
fn attend(
    ([of_keys, of_values], softmax): ([&Kernels; 2], &Softmax),
    q: ActRow,
    cache: &HeadCache,
    positions: Range<usize>,
    (scale, cap): (f32, Option<f32>),
    state: &mut [f32],
) {
    let (state, out) = state.split_at_mut(STATE);
    let mut scores = [0.0; BLOCK];
    let scores = &mut scores[..positions.len()];
    for stretch in cache.stretches(positions.clone()) {
        let own = stretch.start - positions.start..stretch.end - positions.start;
        (of_keys.dot)(cache.keys(&stretch), q, &mut scores[own]);
    }
    let (max, sum) = (softmax.weigh)(scale, cap, state[0], scores);
    if max > state[0] {
        let rescale = (state[0] - max).exp();
        state[1] *= rescale;
        out.iter_mut().for_each(|o| *o *= rescale);
    }
    (state[0], state[1]) = (max, state[1] + sum);
    for stretch in cache.stretches(positions.clone()) {
        let own = stretch.start - positions.start..stretch.end - positions.start;
        (of_values.add_scaled)(cache.values(&stretch), &scores[own], out);
    }
}

#[cfg(test)]
mod tests;
