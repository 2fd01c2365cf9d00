//! Fetches what will be unpacked next, a little at a time, while computing with what is already unpacked.

use crate::cpu::fetch::{LINE, first_of};

/// The cache lines of some pieces of rows, in order.
pub(super) struct Ahead<'a, I> {
    rows: I,
    row: &'a [u8],
}

impl<'a, I: Iterator<Item = &'a [u8]>> Ahead<'a, I> {
    pub fn new(rows: I) -> Self {
        Self { rows, row: &[] }
    }

    /// Fetches the next `n_lines`, or as many as are left.
    pub fn fetch(&mut self, n_lines: usize) {
        for _ in 0..n_lines {
            if self.row.is_empty() {
                let Some(row) = self.rows.next() else { return };
                self.row = row;
            }
            first_of(self.row);
            self.row = self.row.get(LINE..).unwrap_or(&[]);
        }
    }
}
