//! Fetches what will be unpacked next, a little at a time, while computing with what is already unpacked.
#![allow(unsafe_code, reason = "prefetching takes a raw pointer")]

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
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
                // SAFETY: every x86-64 processor has SSE, and a prefetch may name any address.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(self.row.as_ptr().cast()) };
            }
            self.row = self.row.get(64..).unwrap_or(&[]);
        }
    }
}
