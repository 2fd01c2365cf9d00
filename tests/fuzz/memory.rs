//! Counts the memory that is in use, and the most that was.
#![allow(unsafe_code, reason = "an allocator that counts is unsafe by nature")]

use super::watch;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

fn add(n: isize) {
    let now = IN_USE.fetch_add(n, Ordering::Relaxed) + n;
    MOST.fetch_max(now, Ordering::Relaxed);
}

/// Of what the system refuses the caller would die without a word about its input.
fn granted(block: *mut u8, n: isize) -> *mut u8 {
    if block.is_null() {
        watch::lost(&format!("the system has no {n} bytes of memory"));
    }
    add(n);
    block
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        granted(unsafe { System.alloc(layout) }, layout.size() as isize)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        granted(unsafe { System.alloc_zeroed(layout) }, layout.size() as isize)
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        granted(unsafe { System.realloc(block, layout, size) }, size as isize - layout.size() as isize)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: the caller's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that were in use when counting began.
pub struct Baseline(isize);

impl Baseline {
    pub fn now() -> Self {
        let now = IN_USE.load(Ordering::Relaxed);
        MOST.store(now, Ordering::Relaxed);
        Self(now)
    }

    /// The most bytes that were in use since then, beyond what was before.
    pub fn most(&self) -> usize {
        usize::try_from(MOST.load(Ordering::Relaxed) - self.0).unwrap_or(0)
    }
}
