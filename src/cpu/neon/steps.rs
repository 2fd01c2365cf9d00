//! Activations, a step at a time.

use super::super::activations::ActRow;
use super::super::padded::padded;
use super::each::each;
use crate::quant::blocks::QK;

/// Elements multiplied at a time.
pub const STEP: usize = 128;
/// Blocks in a step.
pub const BLOCKS: usize = STEP / QK;

/// Activations of a step.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    pub q: &'a [i8; STEP],
    pub d: &'a [f32; BLOCKS],
    pub ds: &'a [f32; BLOCKS],
}

/// Activations of some steps.
#[derive(Clone, Copy)]
pub struct Steps<'a> {
    q: &'a [[i8; STEP]],
    d: &'a [[f32; BLOCKS]],
    ds: &'a [[f32; BLOCKS]],
}

impl<'a> Steps<'a> {
    /// The whole steps among these.
    #[inline(always)]
    pub fn whole(x: &ActRow<'a>) -> Self {
        Self { q: x.q.as_chunks().0, d: x.d.as_chunks().0, ds: x.ds.as_chunks().0 }
    }

    /// The first `n` of them.
    #[inline(always)]
    pub fn first(self, n: usize) -> Self {
        Self { q: &self.q[..n], d: &self.d[..n], ds: &self.ds[..n] }
    }

    /// Step `i` of each vector.
    #[inline(always)]
    pub fn get<const N: usize>(all: &[Self; N], i: usize) -> [Step<'a>; N] {
        let get = |of: Self| Step { q: &of.q[i], d: &of.d[i], ds: &of.ds[i] };
        let mut steps = [get(all[0]); N];
        each!(N, v, { steps[v] = get(all[v]) });
        steps
    }
}

/// What is left over behind the steps, padded with zeros to a step.
pub struct Rest {
    q: [i8; STEP],
    d: [f32; BLOCKS],
    ds: [f32; BLOCKS],
}

impl Rest {
    pub const NONE: Self = Self { q: [0; STEP], d: [0.0; BLOCKS], ds: [0.0; BLOCKS] };

    pub fn of(x: &ActRow) -> Self {
        Self {
            q: padded(x.q.as_chunks::<STEP>().1),
            d: padded(x.d.as_chunks::<BLOCKS>().1),
            ds: padded(x.ds.as_chunks::<BLOCKS>().1),
        }
    }

    pub fn step(&self) -> Steps<'_> {
        Steps { q: std::slice::from_ref(&self.q), d: std::slice::from_ref(&self.d), ds: std::slice::from_ref(&self.ds) }
    }
}
