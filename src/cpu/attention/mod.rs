//! Attention of many queries: blocks of keys, which are read once, meet strips of queries, which lie side by side.
//!
//! Of a query `q` and the keys `k` and values `v` that it sees, block after block in the order of positions:
//!
//! ```text
//! s_i = cap(q . k_i)           m' = max(m, s_i of the block)
//! p_i = exp(s_i - m')          l' = l exp(m - m') + sum of p_i          o' = o exp(m - m') + sum of p_i v_i
//! ```
//!
//! and `o / l` at the end ("online softmax", arXiv 1805.02867; in blocks as in arXiv 2205.14135). Blocks begin at multiples of
//! [`KEYS`] positions, and every number of a query is computed in a lane of its own, in an order that depends on its position
//! and its window alone: not on the queries beside it. What it does not see counts exactly nothing, be it infinite.
//!
//! [`Kernels`] of the plain instruction set are the specification.

mod fused;
mod kernels;
#[cfg(test)]
mod tests;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tiles;

pub use kernels::Kernels;

use std::ops::Range;

/// Keys of a block: they begin at multiples of it.
pub const KEYS: usize = 64;
/// Queries of a strip.
pub const LANES: usize = 64;
/// Lanes that are computed together.
const VECTOR: usize = 16;

/// One number of each query of a strip.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; LANES]);

impl Lanes {
    /// The same number for all.
    pub const fn all(value: f32) -> Self {
        Self([value; LANES])
    }
}

/// A product of matrices, as wide as a strip: row `i` of it is the sum over `k` of `factors[i * strides.0 + k * strides.1]`
/// times `rows[k]`, in the order of `k`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// Factors.
    pub factors: &'a [f32],
    /// From row to row of the result, and from term to term of a sum.
    pub strides: (usize, usize),
    /// What is multiplied.
    pub rows: &'a [Lanes],
    /// Lanes that are wanted; those up to the next whole vector are computed, too.
    pub n_lanes: usize,
}

/// Which positions the queries of a strip see: `first..end`, none where they are equal.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// By lane.
    pub first: [u32; LANES],
    /// By lane.
    pub end: [u32; LANES],
}

/// The running softmax of a strip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Running {
    /// Largest scores so far.
    pub max: Lanes,
    /// Sums of the weights, which are relative to them.
    pub sum: Lanes,
}

/// Scores that become weights.
#[derive(Clone, Copy)]
pub struct Soften<'a> {
    /// Position of the first of them.
    pub position: u32,
    /// Where not every lane sees them all.
    pub seen: Option<&'a Seen>,
    /// Bound of scores, where there is one.
    pub cap: Option<f32>,
    /// Lanes that are wanted; those up to the next whole vector are computed, too.
    pub n_lanes: usize,
}

/// Keys and values of one head, of consecutive positions within a block.
pub struct Block<'a> {
    /// The first position.
    pub first: usize,
    /// `[n][head_dim]`.
    pub keys: &'a [f32],
    /// `[n][value_dim]`.
    pub values: &'a [f32],
    /// Whether all values are numbers; others must not be multiplied, not even by 0.
    pub finite: bool,
}

/// Up to [`LANES`] queries of one head of keys, with what they have gathered.
pub struct Strip {
    n_lanes: usize,
    seen: Seen,
    /// `[head_dim]`.
    queries: Vec<Lanes>,
    running: Running,
    /// `[value_dim]`.
    out: Vec<Lanes>,
}

impl Default for Strip {
    fn default() -> Self {
        let seen = Seen { first: [0; LANES], end: [0; LANES] };
        let running = Running { max: Lanes::all(f32::NEG_INFINITY), sum: Lanes::all(0.0) };
        Self { n_lanes: 0, seen, queries: Vec::new(), running, out: Vec::new() }
    }
}

impl Strip {
    /// Takes all queries out; those that come have `head_dim` elements, and give `value_dim`.
    pub fn clear(&mut self, head_dim: usize, value_dim: usize) {
        (self.n_lanes, self.seen) = (0, Seen { first: [0; LANES], end: [0; LANES] });
        self.queries.clear();
        self.queries.resize(head_dim, Lanes::all(0.0));
        self.out.clear();
        self.out.resize(value_dim, Lanes::all(0.0));
        self.running = Running { max: Lanes::all(f32::NEG_INFINITY), sum: Lanes::all(0.0) };
    }

    /// Adds a query, times `scale`, which sees these positions, beside the score of a sink where there is one.
    ///
    /// # Panics
    /// When there is no lane left, or the query is of another length.
    pub fn push(&mut self, query: &[f32], scale: f32, seen: Range<usize>, sink: Option<f32>) {
        let lane = self.n_lanes;
        assert!(lane < LANES && query.len() == self.queries.len(), "a query that does not fit");
        self.queries.iter_mut().zip(query).for_each(|(to, q)| to.0[lane] = q * scale);
        (self.seen.first[lane], self.seen.end[lane]) = (seen.start as u32, seen.end as u32);
        if let Some(sink) = sink {
            (self.running.max.0[lane], self.running.sum.0[lane]) = (sink, 1.0);
        }
        self.n_lanes += 1;
    }

    /// The positions that any query sees.
    pub fn seen(&self) -> Range<usize> {
        let first = self.seen.first[..self.n_lanes].iter().min();
        let end = self.seen.end[..self.n_lanes].iter().max();
        first.zip(end).map_or(0..0, |(first, end)| *first as usize..*end as usize)
    }

    /// Attends to a block, the next one in the order of positions.
    pub fn attend(&mut self, kernels: &Kernels, block: &Block, cap: Option<f32>, scores: &mut [Lanes; KEYS]) {
        let (head_dim, value_dim, n_lanes) = (self.queries.len(), self.out.len(), self.n_lanes);
        let (n, any) = (block.keys.len() / head_dim, self.seen());
        // What nobody sees is not computed; where only some do, it counts 0.
        let from = any.start.max(block.first);
        let Some(len) = any.end.min(block.first + n).checked_sub(from).filter(|len| *len > 0) else { return };
        let (at, scores) = (from - block.first, &mut scores[..len]);
        let factors = &block.keys[at * head_dim..][..len * head_dim];
        let product = Product { factors, strides: (head_dim, 1), rows: &self.queries, n_lanes };
        scores.fill(Lanes::all(0.0));
        (kernels.add)(&product, scores);
        let end = from + len;
        let lanes = self.seen.first.iter().zip(&self.seen.end).take(n_lanes);
        let all = lanes.into_iter().all(|(first, last)| *first as usize <= from && end <= *last as usize);
        let soften = Soften { position: from as u32, seen: (!all).then_some(&self.seen), cap, n_lanes };
        (kernels.soften)(&soften, scores, &mut self.running, &mut self.out);
        let factors = &block.values[at * value_dim..][..len * value_dim];
        let product = Product { factors, strides: (1, value_dim), rows: scores, n_lanes };
        let add = if block.finite { kernels.add } else { kernels.add_where };
        add(&product, &mut self.out);
    }

    /// Writes the largest score of a query, the sum of its weights, and the sum of weights times values.
    pub fn state(&self, lane: usize, out: &mut [f32]) {
        (out[0], out[1]) = (self.running.max.0[lane], self.running.sum.0[lane]);
        out[2..].iter_mut().zip(&self.out).for_each(|(out, o)| *out = o.0[lane]);
    }

    /// Writes what the queries have gathered to `[n][value_dim]`. No zero has a sign, which would tell how many were added.
    pub fn finish(&self, out: &mut [f32]) {
        for (lane, out) in out.chunks_exact_mut(self.out.len()).enumerate().take(self.n_lanes) {
            let sum = self.running.sum.0[lane];
            out.iter_mut().zip(&self.out).for_each(|(out, o)| *out = o.0[lane] / sum + 0.0);
        }
    }
}
