//! Regions: work inside a token that does not wait for a thread that has lost its core.
#![allow(unsafe_code, reason = "chunks of one output are written by different threads, each by the one that won it")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::crew::{Hand, Help, Padded};

/// A chunk is late when it has kept a free thread waiting for this many times what the fastest chunk took.
const PATIENCE: u32 = 2;
/// How long a chunk is assumed to take before one is done.
const UNKNOWN: Duration = Duration::from_micros(50);

/// Something that can be computed piecewise; computing a piece twice gives the same result. Owns its inputs: a late
/// thread may still read them long after the result was used.
pub trait Work: Default + Send + Sync + 'static {
    /// Computes outputs start..start+out.len(), all of them: what `out` held before is arbitrary. May be called more
    /// than once for a piece, and after the region has ended.
    fn compute(&self, start: usize, out: &mut [f32]);
}

/// The buffers of one call site, kept from call to call.
pub struct Region<W: Work> {
    /// More than one only if a late thread was still inside one; at most one per thread of the pool.
    instances: Vec<Arc<Instance<W>>>,
}

impl<W: Work> Default for Region<W> {
    fn default() -> Self {
        Self { instances: Vec::new() }
    }
}

impl<W: Work> Region<W> {
    /// The place of an instance that no other thread can reach.
    pub(super) fn free(&mut self) -> usize {
        if let Some(at) = self.instances.iter_mut().position(|instance| Arc::get_mut(instance).is_some()) {
            return at;
        }
        self.instances.push(Arc::default());
        self.instances.len() - 1
    }

    /// Makes instance `at` ready for chunks of these lengths. Where another thread can reach it, nothing is done.
    pub(super) fn prepare(&mut self, at: usize, chunks: impl IntoIterator<Item = usize>, prepare: impl FnOnce(&mut W)) {
        if let Some(instance) = Arc::get_mut(&mut self.instances[at]) {
            instance.reset(chunks);
            prepare(&mut instance.work);
        }
    }

    /// Computes all chunks of instance `at` on this thread.
    pub(super) fn compute_alone(&mut self, at: usize) {
        if let Some(Instance { work, out, ends, .. }) = Arc::get_mut(&mut self.instances[at]) {
            for i in 0..ends.len() {
                let chunk = chunk(ends, i);
                let cells = &mut out[chunk.clone()];
                // SAFETY: the exclusive borrow of `cells` passes to `out`; UnsafeCell<f32> has the layout of f32.
                let out = unsafe { std::slice::from_raw_parts_mut(cells.as_mut_ptr().cast::<f32>(), cells.len()) };
                work.compute(chunk.start, out);
            }
        }
    }

    pub(super) fn instance(&self, at: usize) -> &Arc<Instance<W>> {
        &self.instances[at]
    }

    #[cfg(test)]
    pub(super) fn n_instances(&self) -> usize {
        self.instances.len()
    }
}

/// Inputs, outputs and progress of one run.
pub(super) struct Instance<W> {
    work: W,
    /// Where each chunk ends.
    ends: Vec<usize>,
    /// As long as the longest run so far: runs of several lengths take turns.
    out: Vec<UnsafeCell<f32>>,
    /// Outputs of this run.
    len: usize,
    /// Per chunk: whether someone has won it.
    won: Vec<AtomicBool>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    fastest_ns: AtomicU64,
    next: Padded<AtomicUsize>,
    unfinished: Padded<AtomicUsize>,
}

// SAFETY: a cell of `out` is written by the one thread that won its chunk, before that chunk counts as finished, and
// read when all have finished (`unfinished` releases and acquires); the other fields are Sync.
unsafe impl<W: Sync> Sync for Instance<W> {}

impl<W: Default> Default for Instance<W> {
    fn default() -> Self {
        Self {
            work: W::default(),
            ends: Vec::new(),
            out: Vec::new(),
            len: 0,
            won: Vec::new(),
            panic: Mutex::default(),
            fastest_ns: AtomicU64::default(),
            next: Padded::default(),
            unfinished: Padded::default(),
        }
    }
}

/// Chunk `i` of those that end at `ends`.
fn chunk(ends: &[usize], i: usize) -> Range<usize> {
    let start = if i == 0 { 0 } else { ends[i - 1] };
    start..ends[i]
}

impl<W: Work> Instance<W> {
    fn reset(&mut self, chunks: impl IntoIterator<Item = usize>) {
        let mut len = 0;
        self.ends.clear();
        self.ends.extend(chunks.into_iter().map(|chunk| {
            len += chunk;
            len
        }));
        let n_chunks = self.ends.len();
        self.len = len;
        if self.out.len() < len {
            self.out.resize_with(len, UnsafeCell::default);
        }
        self.won.resize_with(n_chunks, AtomicBool::default);
        self.won.iter_mut().for_each(|won| *won.get_mut() = false);
        *self.panic.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        *self.fastest_ns.get_mut() = UNKNOWN.as_nanos() as u64;
        *self.next.0.get_mut() = 0;
        *self.unfinished.0.get_mut() = n_chunks;
    }

    pub fn n_chunks(&self) -> usize {
        self.won.len()
    }

    pub fn panic(&self) -> Option<Box<dyn Any + Send>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The outputs. All chunks have finished, or only this thread can reach the instance.
    pub fn out(&self) -> &[f32] {
        assert!(self.unfinished.0.load(Ordering::Acquire) == 0 || self.next.0.load(Ordering::Relaxed) == 0);
        // SAFETY: nothing writes to `out` any more: every chunk is won and finished (asserted), or none was offered to
        // another thread. UnsafeCell<f32> has the layout of f32.
        unsafe { std::slice::from_raw_parts(self.out.as_ptr().cast::<f32>(), self.len) }
    }

    /// Computes chunk `i` into `scratch`; whoever finishes first copies it to the outputs.
    fn attempt(&self, i: usize, scratch: &mut Vec<f32>) {
        let chunk = chunk(&self.ends, i);
        let (start, cells) = (chunk.start, &self.out[chunk]);
        if scratch.len() < cells.len() {
            scratch.resize(cells.len(), 0.0);
        }
        let scratch = &mut scratch[..cells.len()];
        let result = catch_unwind(AssertUnwindSafe(|| self.work.compute(start, scratch)));
        if self.won[i].swap(true, Ordering::Relaxed) {
            return;
        }
        match result {
            Ok(()) => {
                for (cell, value) in cells.iter().zip(scratch.iter()) {
                    // SAFETY: this thread alone has won the chunk, and nobody reads before it counts as finished.
                    unsafe { *cell.get() = *value };
                }
            }
            Err(panic) => *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic),
        }
        self.unfinished.0.fetch_sub(1, Ordering::Release);
    }

    fn is_finished(&self) -> bool {
        self.unfinished.0.load(Ordering::Acquire) == 0
    }

    /// Redoes chunks whose owners are late, until all are done.
    fn redo(&self, hand: &mut Hand) {
        let mut since = Instant::now();
        while !self.is_finished() {
            let patience = Duration::from_nanos(self.fastest_ns.load(Ordering::Relaxed)) * PATIENCE;
            if since.elapsed() < patience {
                std::hint::spin_loop();
                continue;
            }
            // So that not all threads begin with the same one.
            let order = (0..self.won.len()).cycle().skip(hand.index % self.won.len()).take(self.won.len());
            match order.into_iter().find(|i| !self.won[*i].load(Ordering::Relaxed)) {
                Some(late) => self.attempt(late, &mut hand.scratch),
                // The owner lost its core while copying: that takes nanoseconds, but it happens.
                None => std::thread::yield_now(),
            }
            since = Instant::now();
        }
    }
}

impl<W: Work> Help for Instance<W> {
    fn help(&self, hand: &mut Hand) {
        let share = hand.begin();
        let mut n_done = 0;
        loop {
            let i = self.next.0.fetch_add(1, Ordering::Relaxed);
            if i >= self.won.len() {
                break;
            }
            let start = Instant::now();
            self.attempt(i, &mut hand.scratch);
            self.fastest_ns.fetch_min(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            n_done += 1;
        }
        hand.end(share.filter(|_| n_done > 0));
        if hand.redoes {
            let share = hand.begin();
            self.redo(hand);
            hand.end_waiting(share);
        }
    }
}
