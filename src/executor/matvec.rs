//! One vector times rows of matrices, divided among the threads.

use crate::cpu::pool::{Pool, Region, Work};
use crate::cpu::{Activations, Isa};
use crate::model::{Activation, Matrix};
use std::ops::Range;

/// Which rows of a matrix are wanted.
pub(super) enum Wanted<'a> {
    /// Consecutive ones.
    Range(Range<usize>),
    /// These.
    List(&'a [u32]),
}

/// Products of one vector of activations with rows of matrices.
#[derive(Default)]
pub(super) struct MatVec {
    region: Region<Products>,
}

/// What a product needs; owned, because a thread that was held up may look at it after everybody else has gone on.
#[derive(Default)]
struct Products {
    isa: Option<Isa>,
    x: Activations,
    parts: Vec<Matrix>,
    /// Rows of the first part, where not all rows of all parts are wanted.
    first: usize,
    list: Vec<u32>,
    listed: bool,
    activation: Option<Activation>,
}

/// Chunks per thread: enough that a thread that starts late or is slow takes fewer.
const CHUNKS_PER_THREAD: usize = 8;
/// Bytes of weights in a chunk at the least, so that claiming it costs little.
const CHUNK_BYTES: usize = 16 << 10;

fn chunk_rows(n_rows: usize, row_bytes: usize, n_threads: usize) -> usize {
    let at_least = CHUNK_BYTES.div_ceil(row_bytes.max(1));
    n_rows.div_ceil(n_threads * CHUNKS_PER_THREAD).max(at_least).next_multiple_of(4)
}

impl MatVec {
    /// All rows of `parts`, which have the same number of columns, one part after another.
    pub fn all(&mut self, pool: &Pool, isa: Isa, x: &Activations, parts: &[&Matrix]) -> &[f32] {
        let n_rows = parts.iter().map(|m| m.n_rows).sum();
        let chunk = chunk_rows(n_rows, parts[0].row_bytes(), pool.n_threads());
        pool.run(&mut self.region, n_rows, chunk, |work: &mut Products| {
            work.set(isa, x, parts);
            (work.first, work.listed, work.activation) = (0, false, None);
        })
    }

    /// The wanted rows of one matrix; `activation` is applied to each product where there is one.
    pub fn some(
        &mut self,
        pool: &Pool,
        isa: Isa,
        x: &Activations,
        matrix: &Matrix,
        wanted: &Wanted,
        activation: Option<Activation>,
    ) -> &[f32] {
        let n_rows = match wanted {
            Wanted::Range(range) => range.len(),
            Wanted::List(list) => list.len(),
        };
        let chunk = chunk_rows(n_rows, matrix.row_bytes(), pool.n_threads());
        pool.run(&mut self.region, n_rows, chunk, |work: &mut Products| {
            work.set(isa, x, &[matrix]);
            work.activation = activation;
            work.list.clear();
            match wanted {
                Wanted::Range(range) => (work.first, work.listed) = (range.start, false),
                Wanted::List(list) => {
                    work.listed = true;
                    work.list.extend_from_slice(list);
                }
            }
        })
    }
}

impl Products {
    fn set(&mut self, isa: Isa, x: &Activations, parts: &[&Matrix]) {
        self.isa = Some(isa);
        self.x.copy_from(x);
        self.parts.clear();
        self.parts.extend(parts.iter().map(|m| (*m).clone()));
    }
}

impl Work for Products {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let Some(isa) = self.isa else { return };
        let x = self.x.row(0);
        if self.listed {
            let matrix = &self.parts[0];
            (isa.kernels(matrix.dtype()).dot)(matrix.rows_in(&self.list).part(start, out.len()), x, out);
        } else {
            // Row `at` of the parts taken together, and where the current part begins among them.
            let (mut at, mut begin, mut done) = (self.first + start, 0, 0);
            for matrix in &self.parts {
                let end = begin + matrix.n_rows;
                let len = (out.len() - done).min(end.saturating_sub(at));
                if len > 0 {
                    let products = &mut out[done..done + len];
                    (isa.kernels(matrix.dtype()).dot)(matrix.rows(at - begin, len), x, products);
                    (at, done) = (at + len, done + len);
                }
                begin = end;
            }
        }
        if let Some(activation) = self.activation {
            out.iter_mut().for_each(|o| *o = activation.apply(*o));
        }
    }
}
