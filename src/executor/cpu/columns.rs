//! Columns of neurons' output vectors, for one or several tokens.

use crate::cpu::{Isa, Ordered, Rows, Which};
use crate::model::{Down, Matrix};

/// Some columns of a `down` that is stored by rows.
pub(super) struct Columns<'a> {
    isa: Isa,
    down: &'a Down,
    first: usize,
    width: usize,
    /// Another order of the sums, in which they stay while several tokens take turns.
    order: Option<&'static Ordered>,
}

impl<'a> Columns<'a> {
    pub fn new(isa: Isa, down: &'a Down, first: usize, width: usize, n_tokens: usize) -> Self {
        let order = match down {
            Down::Rows(down) | Down::Columns(down) => isa.ordered(down.dtype()),
            Down::Lossless(_) => None,
        };
        let order = order.filter(|order| n_tokens > 1 && width.is_multiple_of(order.columns));
        Self { isa, down, first, width, order }
    }

    /// The sums of a token.
    pub fn of<'y>(&self, token: u32, out: &'y mut [f32]) -> &'y mut [f32] {
        &mut out[token as usize * self.width..][..self.width]
    }

    /// Before the first neuron is added to the sums of these tokens.
    pub fn begin(&self, tokens: &[u32], out: &mut [f32]) {
        if let Some(order) = self.order {
            tokens.iter().for_each(|token| (order.begin)(self.of(*token, out)));
        }
    }

    /// Behind the last one.
    pub fn end(&self, tokens: &[u32], out: &mut [f32]) {
        if let Some(order) = self.order {
            tokens.iter().for_each(|token| (order.end)(self.of(*token, out)));
        }
    }

    /// Adds these neurons, each times its `h`, in rising order.
    pub fn add(&self, which: Which, h: &[f32], y: &mut [f32]) {
        match (self.order, self.down) {
            (Some(order), Down::Rows(down) | Down::Columns(down)) => {
                (order.add)(rows(down, which, self.first, y.len()), h, y)
            }
            _ => add_columns(self.isa, self.down, which, h, self.first, y),
        }
    }

    /// Has the processor fetch what these neurons have here.
    pub fn fetch(&self, neurons: &[u32]) {
        if let Down::Rows(down) | Down::Columns(down) = self.down {
            let rows = rows(down, Which::List(neurons), self.first, self.width);
            (0..neurons.len()).for_each(|i| rows.fetch(i));
        }
    }
}

/// Adds to `y`, the columns from `first` on, what neurons of `down`, stored by rows, have there, each times its `h`, in
/// rising order.
pub(super) fn add_columns(isa: Isa, down: &Down, which: Which, h: &[f32], first: usize, y: &mut [f32]) {
    match down {
        Down::Lossless(down) => down.add(isa, which, h, first, y),
        Down::Rows(down) | Down::Columns(down) => {
            (isa.kernels(down.dtype()).add_scaled)(rows(down, which, first, y.len()), h, y);
        }
    }
}

/// `width` columns from `first` on of some rows.
fn rows<'a>(down: &'a Matrix, which: Which<'a>, first: usize, width: usize) -> Rows<'a> {
    let dtype = down.dtype();
    let bytes = |columns: usize| columns / dtype.block_len() * dtype.block_bytes();
    down.which(which).piece(bytes(first), bytes(width))
}
