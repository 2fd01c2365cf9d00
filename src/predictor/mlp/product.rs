//! Matrix products of views, on the `matrixmultiply` crate.

#![allow(unsafe_code, reason = "the crate's product takes raw pointers; views establish what it needs")]

/// A matrix whose element (i, j) is at `i * row + j * column` of `data`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    n_rows: usize,
    n_columns: usize,
    row: usize,
    column: usize,
}

impl<'a> View<'a> {
    /// `[n_rows][n_columns]`, all of `data`.
    pub fn new(data: &'a [f32], n_rows: usize, n_columns: usize) -> Self {
        assert_eq!(data.len(), n_rows * n_columns, "a matrix of {n_rows} x {n_columns}");
        Self { data, n_rows, n_columns, row: n_columns, column: 1 }
    }

    /// Its transpose.
    pub fn transposed(self) -> Self {
        Self { n_rows: self.n_columns, n_columns: self.n_rows, row: self.column, column: self.row, ..self }
    }
}

/// Writes `a` times `b` to `out`, `[a's rows][b's columns]`. One thread; the result depends only on the operands (and
/// the processor's instruction set).
pub(super) fn multiply_into(a: View, b: View, out: &mut [f32]) {
    assert_eq!(a.n_columns, b.n_rows, "inner sizes of a product");
    assert_eq!(out.len(), a.n_rows * b.n_columns, "size of a product");
    // SAFETY: `View::new` is the only constructor and has checked that the last element lies within `data`, which
    // transposing keeps; `out` has the size of the product, row by row, and as a unique borrow overlaps neither.
    unsafe {
        matrixmultiply::sgemm(
            a.n_rows,
            a.n_columns,
            b.n_columns,
            1.0,
            a.data.as_ptr(),
            a.row as isize,
            a.column as isize,
            b.data.as_ptr(),
            b.row as isize,
            b.column as isize,
            0.0,
            out.as_mut_ptr(),
            b.n_columns as isize,
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_views_are_those_of_their_elements() {
        let (m, k, n) = (5, 7, 3);
        let a: Vec<f32> = (0..m * k).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..n * k).map(|i| (i % 7) as f32 - 3.0).collect();
        let mut out = vec![f32::NAN; m * n];
        multiply_into(View::new(&a, m, k), View::new(&b, n, k).transposed(), &mut out);
        for (i, o) in out.iter().enumerate() {
            let (row, column) = (i / n, i % n);
            let sum: f32 = (0..k).map(|j| a[row * k + j] * b[column * k + j]).sum();
            assert_eq!(*o, sum);
        }
    }
}
