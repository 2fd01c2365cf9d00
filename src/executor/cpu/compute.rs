//! What products run on, and how matrices meet the tokens of a batch.

use crate::cpu::{Isa, Pool};

/// What products run on.
#[derive(Clone, Copy)]
pub(in crate::executor) struct Compute<'a> {
    /// Threads.
    pub pool: &'a Pool,
    /// Instruction set.
    pub isa: Isa,
}

/// How matrices meet the tokens of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum How {
    /// Row by row, each with every token: a token gets the bits that it gets alone.
    Rows,
    /// Tile by tile: sums run in another order, and many tokens cost little more than a few.
    Tiles,
}
