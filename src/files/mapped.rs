//! Which mapped file an address belongs to: asked where nothing may be allocated or waited for, in a signal handler.
#![allow(unsafe_code, reason = "a signal handler has no borrow of the name that it finds")]

use crate::printable::printable;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};

/// What is wrong with a mapped file of which a page cannot be read.
pub const NOT_WHOLE: &str = "was changed or cut short while it was being read, or its disk has failed";

/// Mapped files that are known at a time: a model may come in hundreds. Of further ones the system's own message must do.
const N_SLOTS: usize = 1024;

static SLOTS: [Slot; N_SLOTS] = [const { Slot::new() }; N_SLOTS];

struct Slot {
    taken: AtomicBool,
    /// First address; 0 while the rest is not to be believed.
    start: AtomicUsize,
    end: AtomicUsize,
    name: AtomicPtr<u8>,
    name_len: AtomicUsize,
}

impl Slot {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            name: AtomicPtr::new(ptr::null_mut()),
            name_len: AtomicUsize::new(0),
        }
    }

    /// The name, if `address` is in this file.
    fn find(&self, address: usize) -> Option<(*const u8, usize)> {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Relaxed);
        let name = (self.name.load(Ordering::Relaxed).cast_const(), self.name_len.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        // Unless all of it is of one file.
        let is_whole = start != 0 && start == self.start.load(Ordering::Relaxed);
        (is_whole && (start..end).contains(&address)).then_some(name)
    }
}

/// A mapped file whose name is known as long as this lives. It must not outlive the map.
pub struct Mapped {
    slot: Option<&'static Slot>,
    /// What the slot points to.
    _name: Box<str>,
}

impl Mapped {
    /// `map` is of the file that the user calls `name`.
    pub fn new(map: &[u8], name: &str) -> Self {
        let name: Box<str> = printable(&name.replace('\n', " ")).into();
        let free = |slot: &&Slot| slot.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let slot = SLOTS.iter().find(free);
        if let Some(slot) = slot {
            let start = map.as_ptr() as usize;
            slot.end.store(start + map.len(), Ordering::Relaxed);
            slot.name.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
            slot.name_len.store(name.len(), Ordering::Relaxed);
            slot.start.store(start, Ordering::Release);
        }
        Self { slot, _name: name }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.start.store(0, Ordering::Relaxed);
            fence(Ordering::Release);
            slot.taken.store(false, Ordering::Release);
        }
    }
}

/// The name of the file that is mapped at `address`, as start and length: only for whoever holds the map, or is a signal
/// handler of the thread that reads it.
pub(super) fn find(address: usize) -> Option<(*const u8, usize)> {
    SLOTS.iter().find_map(|slot| slot.find(address))
}

/// The name of the mapped file that `bytes` are of, if any.
pub fn file_of(bytes: &[u8]) -> Option<String> {
    let (name, len) = find(bytes.as_ptr() as usize)?;
    // SAFETY: `bytes` keep the map alive, with it its `Mapped`, and that keeps the name.
    let name = unsafe { std::slice::from_raw_parts(name, len) };
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_as_long_as_the_file_is_mapped() {
        let (a, b) = (vec![0; 100], vec![0; 50]);
        let first = Mapped::new(&a, "one\nline");
        let second = Mapped::new(&b, "second");
        assert_eq!(file_of(&a).unwrap(), "one line");
        assert_eq!(file_of(&a[99..]).unwrap(), "one line");
        assert_ne!(file_of(&a[100..]).as_deref(), Some("one line"));
        assert_eq!(file_of(&b[7..]).unwrap(), "second");
        drop(first);
        assert_eq!(file_of(&a), None);
        drop(second);
        assert_eq!(file_of(&b), None);
        let many: Vec<_> = (0..2 * N_SLOTS).map(|_| Mapped::new(&a, "again")).collect();
        assert_eq!(file_of(&a).unwrap(), "again");
        drop(many);
        let _last = Mapped::new(&b, "last");
        assert_eq!((file_of(&a), file_of(&b).as_deref()), (None, Some("last")));
    }
}
