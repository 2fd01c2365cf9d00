//! Adding up the output vectors of neurons, divided among the threads by columns.

use super::active::{Active, Wanted, WantedBy, within};
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
    down: Option<Down>,
    neurons: Wanted,
    n_tokens: usize,
    h: Vec<f32>,
    y: Vec<f32>,
}

/// Columns of a chunk are a multiple of this: whole blocks of every type, whole vectors of every kernel.
const GRAIN: usize = 256;
/// Neurons that are added to all tokens before the next ones are read: what a thread has of them should stay in its
/// caches.
const BLOCK: usize = 16;

impl NeuronSum {
    /// Adds to `y` (`[n_tokens][n_embd]`) neurons of `down`, which is stored by rows, each times its `h`.
    pub fn add(&mut self, cx: Compute, down: &Down, added: Neurons, h: &[f32], y: &mut [f32]) {
        let (_, n_embd) = down.shape();
        let n = y.len() / n_embd;
        let chunk = n_embd.div_ceil(cx.pool.n_threads()).next_multiple_of(GRAIN);
        let sum = cx.pool.run(&mut self.region, y.len(), chunk * n, |work: &mut Terms| {
            (work.isa, work.n_tokens) = (Some(cx.isa), n);
            work.down = Some(down.clone());
            match added {
                Neurons::All(which) => work.neurons.all(which),
                Neurons::Each(active) if n == 1 => work.neurons.all(Which::List(active.rows())),
                Neurons::Each(active) => work.neurons.each(active),
            }
            work.h.clear();
            work.h.extend_from_slice(h);
            work.y.clear();
            work.y.extend_from_slice(y);
        });
        if n == 1 {
            return y.copy_from_slice(sum);
        }
        for (i, sum) in sum.chunks(chunk * n).enumerate() {
            let width = sum.len() / n;
            for (token, sum) in sum.chunks_exact(width).enumerate() {
                y[token * n_embd + i * chunk..][..width].copy_from_slice(sum);
            }
        }
    }
}

impl Terms {
    /// The same neurons for every token, some at a time.
    fn add_all(&self, isa: Isa, down: &Down, which: Which, first: usize, out: &mut [f32]) {
        let width = out.len() / self.n_tokens;
        let block = if self.n_tokens == 1 { which.len().max(1) } else { BLOCK };
        for start in (0..which.len()).step_by(block) {
            let len = block.min(which.len() - start);
            for (out, h) in out.chunks_exact_mut(width).zip(self.h.chunks_exact(which.len())) {
                add_columns(isa, down, which.part(start, len), &h[start..start + len], first, out);
            }
        }
    }

    fn add_each(&self, isa: Isa, down: &Down, each: &Active, first: usize, out: &mut [f32]) {
        let width = out.len() / self.n_tokens;
        for block in each.union().chunks(BLOCK) {
            for (token, out) in out.chunks_exact_mut(width).enumerate() {
                let (own, range) = (each.of(token), each.range(token));
                let these = within(own, block);
                let h = &self.h[range][these.clone()];
                add_columns(isa, down, Which::List(&own[these]), h, first, out);
            }
        }
    }
}

impl Work for Terms {
    fn compute(&self, start: usize, out: &mut [f32]) {
        let (Some(isa), Some(down)) = (self.isa, &self.down) else { return };
        let (first, width) = (start / self.n_tokens, out.len() / self.n_tokens);
        let n_embd = self.y.len() / self.n_tokens;
        for (out, y) in out.chunks_exact_mut(width).zip(self.y.chunks_exact(n_embd)) {
            out.copy_from_slice(&y[first..first + width]);
        }
        match self.neurons.get() {
            WantedBy::All(which) => self.add_all(isa, down, which, first, out),
            WantedBy::Each(each) => self.add_each(isa, down, each, first, out),
        }
    }
}

/// Adds to `y`, the columns from `first` on, what neurons of `down`, stored by rows, have there, each times its `h`, in
/// rising order.
pub(super) fn add_columns(isa: Isa, down: &Down, which: Which, h: &[f32], first: usize, y: &mut [f32]) {
    match down {
        Down::Lossless(down) => down.add(isa, which, h, first, y),
        Down::Rows(down) | Down::Columns(down) => {
            let dtype = down.dtype();
            let bytes = |columns: usize| columns / dtype.block_len() * dtype.block_bytes();
            (isa.kernels(dtype).add_scaled)(down.which(which).piece(bytes(first), bytes(y.len())), h, y);
        }
    }
}
