//! Adding up what neurons give where `down` is stored by columns: products with its rows, divided among the threads.

use super::compute::Compute;
use super::matvec::{MOST_ROWS, block_rows, chunk_bytes, chunks};
use crate::cpu::pool::{Region, Work};
use crate::cpu::several::{CHOICE, Vectors};
use crate::cpu::{Activations, Isa};
use crate::model::Matrix;

/// `y += down . h` for one matrix after another, for one or a few tokens. Every element belongs to one chunk, which adds
/// the matrices in order: so neither threads nor other tokens change a bit of it.
#[derive(Default)]
pub(super) struct ColumnSum {
    region: Region<Terms>,
}

/// One matrix, and the tokens to which its products are added.
#[derive(Clone, Copy)]
pub(super) struct AddedColumns<'a> {
    /// `[n_out][n_ff]`.
    pub down: &'a Matrix,
    /// `[tokens][n_ff]`.
    pub h: &'a Activations,
    /// Numbers of the tokens, rising.
    pub tokens: &'a [u32],
}

#[derive(Default)]
struct Terms {
    isa: Option<Isa>,
    /// Of which the first `n` are of this run; the others keep their memory.
    terms: Vec<Term>,
    n: usize,
    n_tokens: usize,
    y: Vec<f32>,
}

#[derive(Default)]
struct Term {
    down: Option<Matrix>,
    h: Activations,
    tokens: Vec<u32>,
}

impl ColumnSum {
    /// Adds to `y` (`[n_tokens][n_out]`) the products of `all`, one after another.
    pub fn add<'a>(
        &mut self,
        cx: Compute,
        all: impl Iterator<Item = AddedColumns<'a>> + Clone,
        n_out: usize,
        y: &mut [f32],
    ) {
        let n = y.len() / n_out;
        let row_bytes: usize = all.clone().map(|added| added.down.row_bytes()).sum();
        let bytes = chunk_bytes(row_bytes * n_out, cx.pool.n_threads());
        let cut = chunks(n_out, row_bytes, bytes).map(|rows| rows * n);
        let sum = cx.pool.run_cut(&mut self.region, cut, |work: &mut Terms| {
            (work.isa, work.n_tokens, work.n) = (Some(cx.isa), n, 0);
            for added in all {
                if work.terms.len() == work.n {
                    work.terms.push(Term::default());
                }
                let term = &mut work.terms[work.n];
                term.down = Some(added.down.clone());
                term.h.copy_from(added.h);
                term.tokens.clear();
                term.tokens.extend_from_slice(added.tokens);
                work.n += 1;
            }
            work.y.clear();
            work.y.extend_from_slice(y);
        });
        if n == 1 {
            return y.copy_from_slice(sum);
        }
        for (token, y) in y.chunks_exact_mut(n_out).enumerate() {
            y.iter_mut().zip(sum.iter().skip(token).step_by(n)).for_each(|(y, sum)| *y = *sum);
        }
    }
}

impl Work for Terms {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let Some(isa) = self.isa else { return };
        let n = self.n_tokens;
        let (first, n_out) = (start / n, self.y.len() / n);
        for (token, y) in self.y.chunks_exact(n_out).enumerate() {
            let out = out.iter_mut().skip(token).step_by(n);
            out.zip(&y[first..]).for_each(|(out, y)| *out = *y);
        }
        for term in &self.terms[..self.n] {
            let Some(down) = &term.down else { continue };
            let kernels = isa.kernels(down.dtype());
            let (rows, block) = (down.rows(first, out.len() / n), block_rows(down.row_bytes()));
            let mut products = [0.0; MOST_ROWS * CHOICE];
            for (h, tokens) in term.tokens.chunks(CHOICE).enumerate() {
                let x = Vectors::of(tokens.len(), |token| term.h.row(h * CHOICE + token));
                for (i, out) in out.chunks_mut(block * n).enumerate() {
                    let range = i * block..i * block + out.len() / n;
                    let products = &mut products[..range.len() * tokens.len()];
                    kernels.dots(rows, range, &x, products, tokens.len());
                    for (out, products) in out.chunks_exact_mut(n).zip(products.chunks_exact(tokens.len())) {
                        tokens.iter().zip(products).for_each(|(token, product)| out[*token as usize] += product);
                    }
                }
            }
        }
    }
}
