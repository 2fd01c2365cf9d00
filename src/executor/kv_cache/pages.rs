//! Counting pages: what caches hold, and what several of them hold together.

use super::KvCache;
use crate::units::Bytes;
use std::collections::HashSet;

/// Memory of the pages that keys and values of some sequences are in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvPages {
    /// Each page once.
    pub taken: Bytes,
    /// Those of them that more than one sequence holds.
    pub shared: Bytes,
    /// Each page as often as it is held: what they would take if none were shared.
    pub held: Bytes,
}

impl KvPages {
    /// That of `caches`, which hold pages with each other only.
    pub(in crate::executor) fn of<'a>(caches: impl Iterator<Item = &'a KvCache>) -> Self {
        let (mut pages, mut met) = (Self::default(), HashSet::new());
        for (page, n_holders) in caches.flat_map(|cache| cache.store.pages()) {
            let bytes = page.n_bytes() as u64;
            pages.held.0 += bytes;
            if n_holders == 1 || met.insert(std::ptr::from_ref(page)) {
                pages.taken.0 += bytes;
                pages.shared.0 += if n_holders > 1 { bytes } else { 0 };
            }
        }
        pages
    }
}
