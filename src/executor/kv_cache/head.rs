//! What attention reads: keys and values of one head in one layer.
#![allow(unsafe_code, reason = "rows are read while other rows of their page are written")]

use super::Plane;
use super::page::{Layout, Slot, read};
use crate::cpu::Rows;
use std::ops::Range;

/// Keys and values of one head in one layer.
#[derive(Clone)]
pub(in crate::executor) struct HeadCache<'a> {
    slots: &'a [Slot],
    layout: Layout,
    head: usize,
    /// Positions that nobody writes as long as this is there.
    lent: Range<usize>,
}

impl<'a> HeadCache<'a> {
    /// Positions `lent` of a head in the pages of `slots`.
    ///
    /// # Safety
    /// As long as it is there, nobody changes the slots of the layer or writes positions that were lent.
    pub(super) unsafe fn new(slots: &'a [Slot], layout: Layout, head: usize, lent: Range<usize>) -> Self {
        Self { slots, layout, head, lent }
    }

    /// `positions`, no more than there are rows, in stretches whose rows lie one behind the other.
    pub fn stretches(&self, positions: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        self.layout.stretches(positions)
    }

    /// Keys of a stretch.
    pub fn keys(&self, stretch: &Range<usize>) -> Rows<'a> {
        Rows::range(self.stored(Plane::Keys, stretch), self.layout.key_bytes, 0, stretch.len())
    }

    /// Values of a stretch.
    pub fn values(&self, stretch: &Range<usize>) -> Rows<'a> {
        Rows::range(self.stored(Plane::Values, stretch), self.layout.value_bytes, 0, stretch.len())
    }

    /// Keys or values of a stretch as bytes, one behind the other.
    ///
    /// # Panics
    /// When they were not lent or never stored.
    pub fn stored(&self, plane: Plane, stretch: &Range<usize>) -> &'a [u8] {
        assert!(self.lent.start <= stretch.start && stretch.end <= self.lent.end, "rows that were not lent");
        let (page, row) = self.layout.at(stretch.start);
        // SAFETY: nobody changes slots as long as this is there.
        let page = unsafe { &*self.slots[page].get() };
        let Some(page) = page else { panic!("rows that were never stored") };
        // SAFETY: positions that were lent are not written, and no others are looked at.
        unsafe { read(page.cells(plane, self.head, row..row + stretch.len())) }
    }
}
