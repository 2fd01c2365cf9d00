//! Pages: keys and values of some rows of a layer, of all of its heads.
#![allow(unsafe_code, reason = "late threads read rows while others are written; stores keep them apart")]

use super::Plane;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a page. Attention takes blocks of as many positions or of a half of it, so that pages cut none of them.
pub(super) const PAGE: usize = 128;

/// Where a layer's rows are: in pages one behind the other, of [`PAGE`] rows each but for the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The layer's first page, of those of all layers.
    pub first: usize,
    pub n_rows: usize,
    pub n_heads: usize,
    pub key_bytes: usize,
    pub value_bytes: usize,
}

impl Layout {
    /// Pages of the layer, of those of all layers.
    pub fn pages(&self) -> Range<usize> {
        self.first..self.first + self.n_rows.div_ceil(PAGE)
    }

    /// The rows of a page.
    pub fn rows_of(&self, page: usize) -> Range<usize> {
        let first = (page - self.first) * PAGE;
        first..self.n_rows.min(first + PAGE)
    }

    /// Page and row in it of a position.
    pub fn at(&self, position: usize) -> (usize, usize) {
        let row = position % self.n_rows;
        (self.first + row / PAGE, row % PAGE)
    }

    /// `positions`, no more than there are rows, in stretches whose rows lie one behind the other in a page.
    pub fn stretches(self, positions: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut rest = positions;
        std::iter::from_fn(move || {
            let (page, row) = self.at(rest.start);
            let stretch = rest.start..rest.end.min(rest.start + self.rows_of(page).len() - row);
            rest.start = stretch.end;
            (!stretch.is_empty()).then_some(stretch)
        })
    }
}

/// Bytes that one owner writes, and that others read while they may: `[n_heads][n_rows]` keys, then values.
pub(super) struct Page {
    cells: Box<[UnsafeCell<u8>]>,
    n_heads: usize,
    n_rows: usize,
    key_bytes: usize,
    value_bytes: usize,
}

// SAFETY: bytes are written by a store that alone holds the page, and only when no reader may see them: see `Store`.
unsafe impl Sync for Page {}
// SAFETY: bytes have no thread.
unsafe impl Send for Page {}

/// A page, where there is one.
pub(super) type Slot = UnsafeCell<Option<Arc<Page>>>;

/// Zeros, or `None` when the system has not that much memory. Asked first, because a zeroed vector, whose pages cost
/// nothing until they are used, cannot be asked for in a way that may fail.
fn zeros(n: usize) -> Option<Box<[UnsafeCell<u8>]>> {
    Vec::<u8>::new().try_reserve_exact(n).ok()?;
    let bytes = Box::into_raw(vec![0u8; n].into_boxed_slice());
    // SAFETY: the same allocation; UnsafeCell<u8> has the layout of u8.
    Some(unsafe { Box::from_raw(bytes as *mut [UnsafeCell<u8>]) })
}

impl Page {
    /// Zeros for the rows of a page of `layout`; `None` when the system has not that much memory.
    pub fn new(layout: &Layout, page: usize) -> Option<Self> {
        let Layout { n_heads, key_bytes, value_bytes, .. } = *layout;
        let n_rows = layout.rows_of(page).len();
        let cells = zeros(n_heads * n_rows * (key_bytes + value_bytes))?;
        Some(Self { cells, n_heads, n_rows, key_bytes, value_bytes })
    }

    /// Bytes of both planes.
    pub fn n_bytes(&self) -> usize {
        self.cells.len()
    }

    /// Some rows of a head.
    pub fn cells(&self, plane: Plane, head: usize, rows: Range<usize>) -> &[UnsafeCell<u8>] {
        let (plane_at, bytes) = match plane {
            Plane::Keys => (0, self.key_bytes),
            Plane::Values => (self.n_heads * self.n_rows * self.key_bytes, self.value_bytes),
        };
        debug_assert!(head < self.n_heads && rows.end <= self.n_rows);
        &self.cells[plane_at + (head * self.n_rows + rows.start) * bytes..][..rows.len() * bytes]
    }

    /// Has the first `n` rows of `other`, which is laid out alike and which nobody writes.
    pub fn take_rows(&mut self, other: &Self, n: usize) {
        for head in 0..self.n_heads {
            for plane in Plane::BOTH {
                let (from, to) = (other.cells(plane, head, 0..n), self.cells(plane, head, 0..n));
                // SAFETY: nobody writes these, and nobody else has this page.
                unsafe { write(to).copy_from_slice(read(from)) };
            }
        }
    }
}

/// # Safety
/// Nobody may write these cells while the bytes are used.
pub(super) unsafe fn read(cells: &[UnsafeCell<u8>]) -> &[u8] {
    // SAFETY: the caller's; UnsafeCell<u8> has the layout of u8.
    unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
}

/// # Safety
/// Nobody may read or write these cells while the bytes are used.
#[allow(clippy::mut_from_ref, reason = "cells may be written through a shared reference")]
pub(super) unsafe fn write(cells: &[UnsafeCell<u8>]) -> &mut [u8] {
    // SAFETY: the caller's; UnsafeCell<u8> has the layout of u8.
    unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), cells.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_end_with_pages_and_where_rows_begin_anew() {
        let layout = Layout { first: 3, n_rows: PAGE + 10, n_heads: 1, key_bytes: 1, value_bytes: 1 };
        assert_eq!((layout.pages(), layout.rows_of(4)), (3..5, PAGE..PAGE + 10));
        let cut = |positions| layout.stretches(positions).collect::<Vec<_>>();
        assert!(cut(5..5).is_empty());
        assert_eq!((cut(0..PAGE).len(), cut(0..PAGE + 1)), (1, vec![0..PAGE, PAGE..PAGE + 1]));
        assert_eq!(cut(5..PAGE + 12), [5..PAGE, PAGE..PAGE + 10, PAGE + 10..PAGE + 12]);
        assert_eq!((layout.at(PAGE + 9), layout.at(PAGE + 10)), ((4, 9), (3, 0)));
    }
}
