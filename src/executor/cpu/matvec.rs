//! Vectors times rows of matrices, divided among the threads by rows: each row is read once, for all vectors.

use super::active::{Active, Wanted, WantedBy, within};
use super::compute::Compute;
use crate::cpu::pool::{Region, Work};
use crate::cpu::{ActRow, Activations, Isa, Which};
use crate::model::{Activation, Matrix, Part};
use std::sync::Arc;

/// Products of one or a few vectors of activations with rows of matrices. What a vector gives does not depend on the
/// others.
#[derive(Default)]
pub(super) struct MatVec {
    region: Region<ProductWork>,
}

/// What a product needs; owned, because a thread that was held up may look at it after the others have gone on.
#[derive(Default)]
struct ProductWork {
    isa: Option<Isa>,
    x: Activations,
    parts: Vec<Matrix>,
    /// A range is of all parts taken together, all else of the first part.
    wanted: Wanted,
    /// Added before the activation, by row of the matrix.
    bias: Option<Arc<[f32]>>,
    activation: Option<Activation>,
}

/// Chunks per thread: enough that a thread that starts late or is slow takes fewer.
const CHUNKS_PER_THREAD: usize = 8;
/// Bytes of weights in a chunk at the least, so that claiming it costs little.
const CHUNK_BYTES: usize = 16 << 10;
/// Rows that meet all vectors before the next ones are read, at the most.
const MOST_ROWS: usize = 64;
/// Bytes of them: they should stay in the first cache.
const BLOCK_BYTES: usize = 16 << 10;

fn chunk_rows(n_rows: usize, row_bytes: usize, n_threads: usize) -> usize {
    let at_least = CHUNK_BYTES.div_ceil(row_bytes.max(1));
    n_rows.div_ceil(n_threads * CHUNKS_PER_THREAD).max(at_least).next_multiple_of(4)
}

/// Rows that meet all vectors before the next ones are read.
fn block_rows(row_bytes: usize) -> usize {
    (BLOCK_BYTES / row_bytes.max(1)).next_multiple_of(4).clamp(4, MOST_ROWS)
}

impl MatVec {
    /// All rows of `parts`, which have the same number of columns, one part after another, with every vector:
    /// `[n_rows][n_tokens]`.
    pub fn all(&mut self, cx: Compute, x: &Activations, parts: &[&Matrix]) -> &[f32] {
        let n_rows = parts.iter().map(|m| m.n_rows).sum();
        self.run(cx, x, n_rows, parts, None, |work| {
            work.bias = None;
            work.wanted.all(Which::Range { first: 0, len: n_rows });
        })
    }

    /// Rows of one matrix with every vector: `[rows][n_tokens]`.
    pub fn rows(&mut self, cx: Compute, x: &Activations, matrix: &Matrix, which: Which) -> &[f32] {
        self.run(cx, x, which.len(), &[matrix], None, |work| {
            work.bias = None;
            work.wanted.all(which);
        })
    }

    /// Rows of one part with every vector and its bias, where there is one; `activation` is applied to each product where
    /// there is one: `[rows][n_tokens]`.
    pub fn some(
        &mut self,
        cx: Compute,
        x: &Activations,
        part: &Part,
        which: Which,
        activation: Option<Activation>,
    ) -> &[f32] {
        self.run(cx, x, which.len(), &[part.matrix()], activation, |work| {
            work.bias.clone_from(&part.bias);
            work.wanted.all(which);
        })
    }

    /// The rows that each vector wants, as [`MatVec::some`]: `[union][n_tokens]`, where what a vector does not want has
    /// no meaning.
    pub fn each(
        &mut self,
        cx: Compute,
        x: &Activations,
        part: &Part,
        active: &Active,
        activation: Option<Activation>,
    ) -> &[f32] {
        if active.n_tokens() == 1 {
            return self.some(cx, x, part, Which::List(active.rows()), activation);
        }
        self.run(cx, x, active.union().len(), &[part.matrix()], activation, |work| {
            work.bias.clone_from(&part.bias);
            work.wanted.each(active);
        })
    }

    fn run(
        &mut self,
        cx: Compute,
        x: &Activations,
        n_rows: usize,
        parts: &[&Matrix],
        activation: Option<Activation>,
        prepare: impl FnOnce(&mut ProductWork),
    ) -> &[f32] {
        let n = x.n_tokens();
        let chunk = chunk_rows(n_rows, parts[0].row_bytes(), cx.pool.n_threads());
        cx.pool.run(&mut self.region, n_rows * n, chunk * n, |work: &mut ProductWork| {
            work.isa = Some(cx.isa);
            work.x.copy_from(x);
            work.parts.clear();
            work.parts.extend(parts.iter().map(|m| (*m).clone()));
            work.activation = activation;
            prepare(work);
        })
    }
}

impl ProductWork {
    /// `which` rows of `matrix` with every vector.
    fn times(&self, isa: Isa, matrix: &Matrix, which: Which, out: &mut [f32]) {
        let (n, dot) = (self.x.n_tokens(), isa.kernels(matrix.dtype()).dot);
        if n == 1 {
            return dot(matrix.which(which), self.x.row(0), out);
        }
        let block = block_rows(matrix.row_bytes());
        for (i, out) in out.chunks_mut(block * n).enumerate() {
            let rows = matrix.which(which.part(i * block, out.len() / n));
            for token in 0..n {
                scattered(|y| dot(rows, self.x.row(token), y), rows.len(), |row, value| out[row * n + token] = value);
            }
        }
    }

    /// The rows of `union` with those vectors that want them.
    fn times_each(&self, isa: Isa, matrix: &Matrix, each: &Active, union: &[u32], out: &mut [f32]) {
        let (n, dot) = (self.x.n_tokens(), isa.kernels(matrix.dtype()).dot);
        let block = block_rows(matrix.row_bytes());
        out.fill(0.0);
        for (rows, out) in union.chunks(block).zip(out.chunks_mut(block * n)) {
            for token in 0..n {
                let own = each.of(token);
                let own = &own[within(own, rows)];
                if own.is_empty() {
                    continue;
                }
                let x: ActRow = self.x.row(token);
                let mut at = 0;
                scattered(
                    |y| dot(matrix.which(Which::List(own)), x, y),
                    own.len(),
                    |i, value| {
                        while rows[at] != own[i] {
                            at += 1;
                        }
                        out[at * n + token] = value;
                    },
                );
            }
        }
    }
}

/// Has `compute` fill in `n` values, at most [`MOST_ROWS`], and gives each with its number to `put`.
fn scattered(compute: impl FnOnce(&mut [f32]), n: usize, mut put: impl FnMut(usize, f32)) {
    let mut values = [0.0; MOST_ROWS];
    let values = &mut values[..n];
    compute(values);
    values.iter().enumerate().for_each(|(i, value)| put(i, *value));
}

impl Work for ProductWork {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let Some(isa) = self.isa else { return };
        let n = self.x.n_tokens();
        let (first, n_rows) = (start / n, out.len() / n);
        let numbers = match self.wanted.get() {
            WantedBy::Each(each) => {
                let union = &each.union()[first..first + n_rows];
                self.times_each(isa, &self.parts[0], each, union, out);
                Which::List(union)
            }
            WantedBy::All(which @ Which::List(_)) => {
                let which = which.part(first, n_rows);
                self.times(isa, &self.parts[0], which, out);
                which
            }
            WantedBy::All(Which::Range { first: begins, .. }) => {
                // Row `at` of the parts taken together, and where the current part begins among them.
                let (mut at, mut begin, mut done) = (begins + first, 0, 0);
                for matrix in &self.parts {
                    let end = begin + matrix.n_rows;
                    let len = (n_rows - done).min(end.saturating_sub(at));
                    if len > 0 {
                        let products = &mut out[done * n..(done + len) * n];
                        self.times(isa, matrix, Which::Range { first: at - begin, len }, products);
                        (at, done) = (at + len, done + len);
                    }
                    begin = end;
                }
                Which::Range { first: begins + first, len: n_rows }
            }
        };
        if let Some(bias) = &self.bias {
            for (out, row) in out.chunks_exact_mut(n).zip(numbers.iter()) {
                out.iter_mut().for_each(|o| *o += bias[row]);
            }
        }
        if let Some(activation) = self.activation {
            out.iter_mut().for_each(|o| *o = activation.apply(*o));
        }
    }
}

/// Calls `f` with each of `values` and what `products` (`[n_rows][n_tokens]`) has of its row and `token`.
pub(super) fn of_token(products: &[f32], token: usize, n_tokens: usize, values: &mut [f32], f: impl Fn(&mut f32, f32)) {
    if n_tokens == 1 {
        return values.iter_mut().zip(products).for_each(|(value, product)| f(value, *product));
    }
    let products = products.iter().skip(token).step_by(n_tokens);
    values.iter_mut().zip(products).for_each(|(value, product)| f(value, *product));
}

/// `to` becomes `[n_tokens][n_rows]` of what is `[n_rows][n_tokens]`.
pub(super) fn untangle(products: &[f32], n_tokens: usize, to: &mut Vec<f32>) {
    to.clear();
    if n_tokens == 1 {
        return to.extend_from_slice(products);
    }
    for token in 0..n_tokens {
        to.extend(products.iter().skip(token).step_by(n_tokens));
    }
}
