//! Rows that meet several vectors of activations: each row is unpacked once for up to four of them.

use super::activations::ActRow;
use super::kernels::Kernels;
use super::rows::Rows;
use std::ops::Range;

/// Vectors that a row meets at once: the registers hold their sums.
pub const AT_ONCE: usize = 4;
/// Vectors among which each row may choose.
pub const CHOICE: usize = 16;
/// Rows that choose alike and are computed together, at the most.
const ALIKE: usize = 16;

/// How many of `n` vectors, at least one, a row meets next.
fn width(n: usize) -> usize {
    match n {
        1 => 1,
        2 | 3 => 2,
        _ => AT_ONCE,
    }
}

/// Up to [`CHOICE`] vectors that rows meet.
pub struct Vectors<'a> {
    all: [ActRow<'a>; CHOICE],
    n: usize,
}

impl<'a> Vectors<'a> {
    /// `n` vectors, at most [`CHOICE`], which `x` gives by number.
    pub fn of(n: usize, x: impl Fn(usize) -> ActRow<'a>) -> Self {
        let mut all = [ActRow::default(); CHOICE];
        all[..n].iter_mut().enumerate().for_each(|(i, own)| *own = x(i));
        Self { all, n }
    }
}

impl Kernels {
    /// The products of a range of `rows` with each of the vectors `x`: those of row `i` of the range become the first elements
    /// of number `i` of the pieces of `stride` elements that `out` is. Each has the bits that [`Kernels::dot`] gives it.
    pub fn dots(&self, rows: Rows, range: Range<usize>, x: &Vectors, out: &mut [f32], stride: usize) {
        if range.is_empty() {
            return;
        }
        let mut first = 0;
        while first < x.n {
            let width = width(x.n - first);
            let some: [_; AT_ONCE] = std::array::from_fn(|i| &x.all[(first + i).min(x.n - 1)]);
            (self.dot_some)(rows, range.clone(), &some[..width], &mut out[first..], stride);
            first += width;
        }
    }

    /// The products of each row of a range of `rows` with those of the vectors `x` whose bits are set in its element of
    /// `wanted`: `put` gets the number of the row in the range, that of the vector, and the product, which has the bits that
    /// [`Kernels::dot`] gives it.
    pub fn wanted_dots(
        &self,
        rows: Rows,
        range: Range<usize>,
        x: &Vectors,
        wanted: &[u16],
        mut put: impl FnMut(usize, usize, f32),
    ) {
        assert_eq!(wanted.len(), range.len());
        let mut first = 0;
        for alike in wanted.chunk_by(|a, b| a == b).flat_map(|alike| alike.chunks(ALIKE)) {
            let rows_alike = range.start + first..range.start + first + alike.len();
            let mut left = alike[0];
            while left != 0 {
                let width = width(left.count_ones() as usize);
                let mut numbers = [0; AT_ONCE];
                for number in &mut numbers[..width] {
                    *number = left.trailing_zeros() as usize;
                    left &= left - 1;
                }
                let some = numbers.map(|number| &x.all[number]);
                let mut products = [0.0; ALIKE * AT_ONCE];
                (self.dot_some)(rows, rows_alike.clone(), &some[..width], &mut products, width);
                for (i, products) in products[..alike.len() * width].chunks_exact(width).enumerate() {
                    numbers.iter().zip(products).for_each(|(number, product)| put(first + i, *number, *product));
                }
            }
            first += alike.len();
        }
    }
}

#[cfg(test)]
mod tests;
