//! The bytes of a cache. Threads that were held up may still look at rows while others go on: a row that one of them may see
//! is not written before it has left.
#![allow(unsafe_code, reason = "late threads read rows while others are written; counting readers keeps them apart")]

use super::Plane;
use crate::cpu::Rows;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Bytes that the owner of the store writes, and that others read while they may.
type Cells = Box<[UnsafeCell<u8>]>;

/// What readers share with the owner.
struct Shared {
    keys: Cells,
    values: Cells,
    /// Threads that are reading what they were lent.
    readers: AtomicUsize,
    /// What was lent before may be read by those only who have begun.
    generation: AtomicU64,
}

// SAFETY: bytes are written through `&mut Store` only, of which there is one for each `Shared`, and only when no reader may
// see them: see `Store::wait_for_all` and `Store::wait_for`.
unsafe impl Sync for Shared {}
// SAFETY: bytes have no thread.
unsafe impl Send for Shared {}

/// Positions of a layer that were lent since nobody was reading. Only the owner looks at them.
struct Lent {
    first: AtomicUsize,
    end: AtomicUsize,
}

impl Lent {
    fn nothing() -> Self {
        Self { first: AtomicUsize::new(usize::MAX), end: AtomicUsize::new(0) }
    }
}

/// Where a layer's heads are: `[n_heads][n_rows]`, from row `first` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub first: usize,
    pub n_rows: usize,
    pub key_bytes: usize,
    pub value_bytes: usize,
}

/// The one owner of the bytes of a cache.
pub(super) struct Store {
    shared: Arc<Shared>,
    lent: Vec<Lent>,
}

/// Zeros, or `None` when the system has not that much memory. Asked first, because a zeroed vector, whose pages cost
/// nothing until they are used, cannot be asked for in a way that may fail.
fn zeros(n: usize) -> Option<Cells> {
    Vec::<u8>::new().try_reserve_exact(n).ok()?;
    let bytes = Box::into_raw(vec![0u8; n].into_boxed_slice());
    // SAFETY: the same allocation; UnsafeCell<u8> has the layout of u8.
    Some(unsafe { Box::from_raw(bytes as *mut [UnsafeCell<u8>]) })
}

impl Store {
    /// Zeros: so many bytes of keys and of values, of so many layers. `None` when the system has not that much memory.
    pub fn new(n_keys: usize, n_values: usize, n_layers: usize) -> Option<Self> {
        let (keys, values) = (zeros(n_keys)?, zeros(n_values)?);
        let shared = Shared { keys, values, readers: AtomicUsize::new(0), generation: AtomicU64::new(0) };
        Some(Self { shared: Arc::new(shared), lent: (0..n_layers).map(|_| Lent::nothing()).collect() })
    }

    /// Bytes of both planes.
    pub fn n_bytes(&self) -> usize {
        self.shared.keys.len() + self.shared.values.len()
    }

    /// Some bytes of a plane.
    pub fn get(&self, plane: Plane, bytes: Range<usize>) -> &[u8] {
        // SAFETY: they are written through `&mut self` only.
        unsafe { read(&self.cells(plane)[bytes]) }
    }

    fn cells(&self, plane: Plane) -> &[UnsafeCell<u8>] {
        self.shared.cells(plane)
    }

    /// Keys and values of a head.
    pub fn of_head(&self, layout: Layout, head: usize) -> HeadCache<'_> {
        // All of it: nothing is written while `self` is borrowed.
        self.shared.of_head(layout, head, 0..usize::MAX)
    }

    /// Some bytes of a plane, to be written. Waits for late readers.
    pub fn get_mut(&mut self, plane: Plane, bytes: Range<usize>) -> &mut [u8] {
        self.wait_for_all();
        // SAFETY: nobody is reading, nor begins to: what was lent has been called in.
        unsafe { write(&self.cells(plane)[bytes]) }
    }

    /// Calls `put` with the keys and the values of a position, head by head, once no late reader may see them or what their
    /// rows hold now.
    pub fn write(
        &mut self,
        (layer, position): (usize, usize),
        (layout, n_heads): (Layout, usize),
        mut put: impl FnMut(usize, &mut [u8], &mut [u8]),
    ) {
        let Layout { first, n_rows, key_bytes, value_bytes } = layout;
        self.wait_for(layer, position, n_rows);
        for head in 0..n_heads {
            let row = first + head * n_rows + position % n_rows;
            let keys = &self.shared.keys[row * key_bytes..][..key_bytes];
            let values = &self.shared.values[row * value_bytes..][..value_bytes];
            // SAFETY: no reader has been lent the position, nor the one that has had its row.
            let (keys, values) = unsafe { (write(keys), write(values)) };
            put(head, keys, values);
        }
    }

    /// Nobody begins to read what was lent before.
    fn call_in(&self) {
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Lends positions of a layer.
    pub fn lend(&self, layer: usize, layout: Layout, seen: Range<usize>) -> Loan {
        self.lent[layer].first.fetch_min(seen.start, Ordering::Relaxed);
        self.lent[layer].end.fetch_max(seen.end, Ordering::Relaxed);
        let generation = self.shared.generation.load(Ordering::Relaxed);
        Loan { shared: Arc::downgrade(&self.shared), generation, layout, seen }
    }

    fn wait_for_all(&mut self) {
        self.call_in();
        while self.shared.readers.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        self.lent.fill_with(Lent::nothing);
    }

    /// Waits where a reader may see the position, or the one that has had its row.
    fn wait_for(&mut self, layer: usize, position: usize, n_rows: usize) {
        self.call_in();
        if self.shared.readers.load(Ordering::SeqCst) == 0 {
            self.lent[layer] = Lent::nothing();
            return;
        }
        let Lent { first, end } = &mut self.lent[layer];
        let (first, end) = (*first.get_mut(), *end.get_mut());
        if position < end || position.checked_sub(n_rows).is_some_and(|before| before >= first) {
            self.wait_for_all();
        }
    }
}

impl Shared {
    fn cells(&self, plane: Plane) -> &[UnsafeCell<u8>] {
        match plane {
            Plane::Keys => &self.keys,
            Plane::Values => &self.values,
        }
    }

    fn of_head(&self, layout: Layout, head: usize, lent: Range<usize>) -> HeadCache<'_> {
        let Layout { first, n_rows, key_bytes, value_bytes } = layout;
        let first = first + head * n_rows;
        let keys = &self.keys[first * key_bytes..][..n_rows * key_bytes];
        let values = &self.values[first * value_bytes..][..n_rows * value_bytes];
        HeadCache { keys, values, key_bytes, value_bytes, n_rows, lent }
    }
}

/// The right to look at positions of a layer until they are called in. It does not keep the cache.
pub(in crate::executor) struct Loan {
    shared: Weak<Shared>,
    generation: u64,
    layout: Layout,
    seen: Range<usize>,
}

/// A reader, while it reads.
pub(in crate::executor) struct Reader<'a> {
    shared: Arc<Shared>,
    loan: &'a Loan,
}

impl Loan {
    /// Begins to read; `None` when the positions were called in, or the cache is gone.
    pub fn begin(&self) -> Option<Reader<'_>> {
        let reader = Reader { shared: self.shared.upgrade()?, loan: self };
        reader.shared.readers.fetch_add(1, Ordering::SeqCst);
        // The owner first calls in, then looks for readers; a reader the other way round: one of them sees the other.
        (reader.shared.generation.load(Ordering::SeqCst) == self.generation).then_some(reader)
    }
}

impl Reader<'_> {
    /// Keys and values of a head, at the positions that were lent.
    pub fn of_head(&self, head: usize) -> HeadCache<'_> {
        self.shared.of_head(self.loan.layout, head, self.loan.seen.clone())
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.shared.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// # Safety
/// Nobody may write these cells while the bytes are used.
unsafe fn read(cells: &[UnsafeCell<u8>]) -> &[u8] {
    // SAFETY: the caller's; UnsafeCell<u8> has the layout of u8.
    unsafe { std::slice::from_raw_parts(cells.as_ptr().cast(), cells.len()) }
}

/// # Safety
/// Nobody may read or write these cells while the bytes are used.
#[allow(clippy::mut_from_ref, reason = "cells may be written through a shared reference")]
unsafe fn write(cells: &[UnsafeCell<u8>]) -> &mut [u8] {
    // SAFETY: the caller's; UnsafeCell<u8> has the layout of u8.
    unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(cells.as_ptr()), cells.len()) }
}

/// Keys and values of one head in one layer.
#[derive(Clone)]
pub(in crate::executor) struct HeadCache<'a> {
    keys: &'a [UnsafeCell<u8>],
    values: &'a [UnsafeCell<u8>],
    key_bytes: usize,
    value_bytes: usize,
    n_rows: usize,
    /// Positions that nobody writes as long as this is there.
    lent: Range<usize>,
}

impl<'a> HeadCache<'a> {
    /// Of keys and values in rows of so many bytes.
    #[cfg(test)]
    pub fn of(keys: &'a [u8], values: &'a [u8], key_bytes: usize, value_bytes: usize) -> Self {
        // SAFETY: UnsafeCell<u8> has the layout of u8, and nobody writes these cells.
        let cells = |bytes: &'a [u8]| unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) };
        let (n_rows, lent) = (keys.len() / key_bytes, 0..usize::MAX);
        Self { keys: cells(keys), values: cells(values), key_bytes, value_bytes, n_rows, lent }
    }

    /// `positions`, no more than there are rows, in stretches whose rows lie one behind the other.
    pub fn stretches(&self, positions: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let end_of_rows = (positions.start / self.n_rows + 1) * self.n_rows;
        let middle = end_of_rows.min(positions.end);
        [positions.start..middle, middle..positions.end].into_iter().filter(|stretch| !stretch.is_empty())
    }

    /// Keys of a stretch.
    pub fn keys(&self, stretch: &Range<usize>) -> Rows<'a> {
        Rows::range(self.stored_keys(stretch), self.key_bytes, 0, stretch.len())
    }

    /// Values of a stretch.
    pub fn values(&self, stretch: &Range<usize>) -> Rows<'a> {
        Rows::range(self.stored_values(stretch), self.value_bytes, 0, stretch.len())
    }

    /// Keys of a stretch as bytes, one behind the other.
    pub fn stored_keys(&self, stretch: &Range<usize>) -> &'a [u8] {
        self.rows(self.keys, self.key_bytes, stretch)
    }

    /// Values of a stretch as bytes, one behind the other.
    pub fn stored_values(&self, stretch: &Range<usize>) -> &'a [u8] {
        self.rows(self.values, self.value_bytes, stretch)
    }

    fn rows(&self, cells: &'a [UnsafeCell<u8>], row_bytes: usize, stretch: &Range<usize>) -> &'a [u8] {
        assert!(self.lent.start <= stretch.start && stretch.end <= self.lent.end, "rows that were not lent");
        let first = stretch.start % self.n_rows;
        // SAFETY: positions that were lent are not written, and no others are looked at.
        unsafe { read(&cells[first * row_bytes..][..stretch.len() * row_bytes]) }
    }
}

#[cfg(test)]
mod tests;
