//! Adding up the output vectors of neurons, divided among the threads by columns.

use super::active::{Active, Wanted, WantedBy, within};
use super::columns::Columns;
use super::compute::Compute;
use crate::cpu::pool::{Region, Work};
use crate::cpu::{Isa, Which};
use crate::model::Down;

/// `y += h[i] * row[i]` for neurons in rising order, for one or a few tokens. Every column belongs to one chunk, which
/// adds in that order: so neither threads, nor neurons that are left out because their factor is 0, nor other tokens
/// change a bit of it.
#[derive(Default)]
pub(super) struct NeuronSum {
    region: Region<Terms>,
}

/// Neurons of one `down`, stored by rows, and the tokens to which they are added.
#[derive(Clone, Copy)]
pub(super) struct Added<'a> {
    pub down: &'a Down,
    pub neurons: Neurons<'a>,
    /// What each is multiplied with.
    pub h: &'a [f32],
    /// Numbers of the tokens, rising.
    pub tokens: &'a [u32],
}

/// Which neurons are added.
#[derive(Clone, Copy)]
pub(super) enum Neurons<'a> {
    /// These, for every token: `h` is `[n_tokens][which]`.
    All(Which<'a>),
    /// For each token its own: `h` is in the order of [`Active::rows`].
    Each(&'a Active),
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
    down: Option<Down>,
    neurons: Wanted,
    h: Vec<f32>,
    tokens: Vec<u32>,
}

/// Columns of a chunk are a multiple of this, or of the blocks of a type whose blocks are longer: whole vectors of every
/// kernel.
const GRAIN: usize = 128;
/// Columns of a chunk at the least, so that claiming it costs little.
const LEAST: usize = 256;
/// Neurons that are added to all tokens before the next ones are read: what a thread has of them should stay in its
/// caches.
const BLOCK: usize = 64;

impl NeuronSum {
    /// Adds to `y` (`[n_tokens][width]`) the neurons of `all`, one after another, each times its `h`.
    pub fn add<'a>(&mut self, cx: Compute, all: impl Iterator<Item = Added<'a>> + Clone, width: usize, y: &mut [f32]) {
        let n = y.len() / width;
        let grain = all.clone().map(|added| added.down.dtype().block_len()).fold(GRAIN, usize::max);
        let chunk = width.div_ceil(cx.pool.n_threads()).max(LEAST).next_multiple_of(grain);
        let sum = cx.pool.run(&mut self.region, y.len(), chunk * n, |work: &mut Terms| {
            (work.isa, work.n_tokens, work.n) = (Some(cx.isa), n, 0);
            for added in all {
                if work.terms.len() == work.n {
                    work.terms.push(Term::default());
                }
                work.terms[work.n].take(&added);
                work.n += 1;
            }
            work.y.clear();
            work.y.extend_from_slice(y);
        });
        if n == 1 {
            return y.copy_from_slice(sum);
        }
        for (i, sum) in sum.chunks(chunk * n).enumerate() {
            let columns = sum.len() / n;
            for (token, sum) in sum.chunks_exact(columns).enumerate() {
                y[token * width + i * chunk..][..columns].copy_from_slice(sum);
            }
        }
    }
}

impl Term {
    fn take(&mut self, added: &Added) {
        self.down = Some(added.down.clone());
        match added.neurons {
            Neurons::All(which) => self.neurons.all(which),
            Neurons::Each(active) if active.n_tokens() == 1 => self.neurons.all(Which::List(active.rows())),
            Neurons::Each(active) => self.neurons.each(active),
        }
        self.h.clear();
        self.h.extend_from_slice(added.h);
        self.tokens.clear();
        self.tokens.extend_from_slice(added.tokens);
    }

    /// The same neurons for every token, some at a time.
    fn add_all(&self, columns: &Columns, which: Which, out: &mut [f32]) {
        let block = if self.tokens.len() == 1 { which.len().max(1) } else { BLOCK };
        for start in (0..which.len()).step_by(block) {
            let len = block.min(which.len() - start);
            for (token, h) in self.tokens.iter().zip(self.h.chunks_exact(which.len())) {
                columns.add(which.part(start, len), &h[start..start + len], columns.of(*token, out));
            }
        }
    }

    /// For each token its own, those among some of the union at a time.
    fn add_each(&self, columns: &Columns, each: &Active, out: &mut [f32]) {
        let (union, n) = (each.union(), self.tokens.len());
        for (start, block) in union.chunks(BLOCK).enumerate().map(|(i, block)| (i * BLOCK, block)) {
            let next = &union[start + block.len()..union.len().min(start + block.len() + BLOCK)];
            for (i, token) in self.tokens.iter().enumerate() {
                columns.fetch(&next[next.len() * i / n..next.len() * (i + 1) / n]);
                let (own, range) = (each.of(i), each.range(i));
                let these = within(own, block);
                let h = &self.h[range][these.clone()];
                columns.add(Which::List(&own[these]), h, columns.of(*token, out));
            }
        }
    }
}

impl Work for Terms {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let Some(isa) = self.isa else { return };
        let columns = (start / self.n_tokens, out.len() / self.n_tokens);
        let (first, width) = columns;
        for (out, y) in out.chunks_exact_mut(width).zip(self.y.chunks_exact(self.y.len() / self.n_tokens)) {
            out.copy_from_slice(&y[first..first + width]);
        }
        for term in &self.terms[..self.n] {
            let Some(down) = &term.down else { continue };
            let columns = Columns::new(isa, down, first, width, term.tokens.len());
            columns.begin(&term.tokens, out);
            match term.neurons.get() {
                WantedBy::All(which) => term.add_all(&columns, which, out),
                WantedBy::Each(each) => term.add_each(&columns, each, out),
            }
            columns.end(&term.tokens, out);
        }
    }
}
