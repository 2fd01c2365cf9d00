//! Which pages a cache holds, alone or with others. Threads that were held up may still look at rows while others go on: a row
//! that one of them may see is not written before it has left, and a page that another cache holds is copied before it is written.
#![allow(unsafe_code, reason = "late threads read rows while others are written; counting readers keeps them apart")]

use super::Plane;
use super::head::HeadCache;
use super::page::{Layout, Page, Slot, write};
use std::alloc::handle_alloc_error;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};

/// What readers share with the owner.
struct Shared {
    /// The pages of all layers.
    slots: Box<[Slot]>,
    /// Threads that are reading what they were lent.
    readers: AtomicUsize,
    /// What was lent before may be read by those only who have begun.
    generation: AtomicU64,
}

// SAFETY: slots are changed through `&mut Store` only, of which there is one for each `Shared`, and only when there are no
// readers: see `Store::replace`. Bytes are written by a store that alone holds their page, and only when no reader of its own
// may see them: see `Store::wait_for_all` and `Store::wait_for`.
unsafe impl Sync for Shared {}
// SAFETY: pages may be sent.
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

/// The one owner of what a cache holds.
pub(super) struct Store {
    shared: Arc<Shared>,
    lent: Vec<Lent>,
}

impl Store {
    /// Room for so many pages, of so many layers.
    pub fn new(n_pages: usize, n_layers: usize) -> Self {
        let slots = (0..n_pages).map(|_| Slot::default()).collect();
        let shared = Shared { slots, readers: AtomicUsize::new(0), generation: AtomicU64::new(0) };
        Self { shared: Arc::new(shared), lent: (0..n_layers).map(|_| Lent::nothing()).collect() }
    }

    /// Whether it has a page in this place.
    pub fn has(&self, number: usize) -> bool {
        self.page(number).is_some()
    }

    fn page(&self, number: usize) -> Option<&Arc<Page>> {
        // SAFETY: slots are changed through `&mut self` only.
        unsafe { &*self.shared.slots[number].get() }.as_ref()
    }

    /// The pages that it holds, and how many hold each of them.
    pub fn pages(&self) -> impl Iterator<Item = (&Page, usize)> {
        let pages = (0..self.shared.slots.len()).filter_map(|number| self.page(number));
        pages.map(|page| (&**page, Arc::strong_count(page)))
    }

    /// A page that nobody else holds.
    fn own(&self, number: usize) -> Option<&Page> {
        let page = self.page(number).filter(|page| Arc::strong_count(page) == 1)?;
        // What others did with it before they gave it up has been done.
        fence(Ordering::Acquire);
        Some(page)
    }

    /// Makes a page one that nobody else holds: a new one, or a copy with the first `n_used` of its rows. `false`, with nothing
    /// changed, when the system has not that much memory.
    #[must_use]
    pub fn make_own(&mut self, layout: &Layout, number: usize, n_used: usize) -> bool {
        if self.own(number).is_some() {
            return true;
        }
        let Some(mut page) = Page::new(layout, number) else { return false };
        if let Some(held) = self.page(number) {
            page.take_rows(held, n_used);
        }
        self.replace(number, Some(Arc::new(page)));
        true
    }

    /// Holds what `other` holds in this place.
    pub fn share(&mut self, number: usize, other: &Self) {
        self.replace(number, other.page(number).cloned());
    }

    /// Holds nothing there.
    pub fn give_up(&mut self, number: usize) {
        if self.page(number).is_some() {
            self.replace(number, None);
        }
    }

    /// Gives up what others hold, too.
    pub fn give_up_shared(&mut self) {
        for number in 0..self.shared.slots.len() {
            if self.page(number).is_some_and(|page| Arc::strong_count(page) > 1) {
                self.replace(number, None);
            }
        }
    }

    fn replace(&mut self, number: usize, page: Option<Arc<Page>>) {
        self.wait_for_all();
        // SAFETY: nobody is reading, nor begins to: what was lent has been called in.
        unsafe { *self.shared.slots[number].get() = page };
    }

    /// Keys and values of a head.
    pub fn of_head(&self, layout: Layout, head: usize) -> HeadCache<'_> {
        // SAFETY: nothing is written while `self` is borrowed.
        unsafe { HeadCache::new(&self.shared.slots, layout, head, 0..usize::MAX) }
    }

    /// Keys or values of a head at a stretch of positions, to be written. Waits for late readers. Of a page that others hold the
    /// first `n_used` rows stay.
    pub fn get_mut(
        &mut self,
        layout: &Layout,
        (plane, head): (Plane, usize),
        stretch: &Range<usize>,
        n_used: usize,
    ) -> &mut [u8] {
        self.wait_for_all();
        let (number, row) = layout.at(stretch.start);
        let page = self.own_or_end(layout, number, n_used);
        // SAFETY: nobody is reading, nor begins to: what was lent has been called in; nobody else holds the page.
        unsafe { write(page.cells(plane, head, row..row + stretch.len())) }
    }

    /// Calls `put` with the keys and the values of a position, head by head, once no late reader may see them or what their
    /// rows hold now. Of a page that others hold the first `n_used` rows stay.
    pub fn write(
        &mut self,
        (layer, position): (usize, usize),
        layout: &Layout,
        n_used: usize,
        mut put: impl FnMut(usize, &mut [u8], &mut [u8]),
    ) {
        self.wait_for(layer, position, layout.n_rows);
        let (number, row) = layout.at(position);
        let page = self.own_or_end(layout, number, n_used);
        for head in 0..layout.n_heads {
            let [keys, values] = Plane::BOTH.map(|plane| page.cells(plane, head, row..row + 1));
            // SAFETY: no reader has been lent the position, nor the one that has had its row; nobody else holds the page.
            let (keys, values) = unsafe { (write(keys), write(values)) };
            put(head, keys, values);
        }
    }

    /// A page that nobody else holds. Where there is no memory for it, which those find out who ask before, the process ends.
    fn own_or_end(&mut self, layout: &Layout, number: usize, n_used: usize) -> &Page {
        let made = self.make_own(layout, number, n_used);
        match self.own(number).filter(|_| made) {
            Some(page) => page,
            None => handle_alloc_error(std::alloc::Layout::new::<Page>()),
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
        let Loan { layout, seen, .. } = self.loan;
        // SAFETY: while it reads, nobody changes slots or writes what was lent.
        unsafe { HeadCache::new(&self.shared.slots, *layout, head, seen.clone()) }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.shared.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
