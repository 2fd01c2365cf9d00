//! Waiting for the card: by asking, never without a limit, and never for a card that is known to hang.
//!
//! A kernel that does not end makes the driver's own waits endless, and so do the calls that give memory back. So nothing
//! here calls them before it is known that nothing runs. What a card that hangs has is leaked; whether one does is a fact of
//! the whole process, as are the settings.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use super::driver::{Api, Code, NOT_READY, RawStream};
use crate::progress::Interrupted;
use anyhow::{Result, bail};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the card may show no end of what it was given, unless [`set_limit`] says otherwise. What is waited for at once
/// takes milliseconds, or seconds on the slowest cards; a driver that compiles kernels is not waited for here.
pub const LIMIT: Duration = Duration::from_secs(60);
/// A wait is longer than any that a healthy card needs, so that a user who wants to stop need not see the end of it.
const LONG: Duration = Duration::from_secs(2);
/// The thread does not sleep between looks before this time: what is waited for in the middle of a prompt takes less.
const AWAKE: Duration = Duration::from_micros(200);
/// The longest sleep between looks.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);
/// Calls that enqueue work before it is waited for: drivers have room for about a thousand, and then wait themselves.
const MOST_QUEUED: u32 = 256;

static HANGS: AtomicBool = AtomicBool::new(false);
static LIMIT_MS: AtomicU64 = AtomicU64::new(LIMIT.as_millis() as u64);
static STOP: OnceLock<fn() -> bool> = OnceLock::new();

/// Whether a card has been given up because it hangs. The driver's own exit handlers might then wait for ever, so the process
/// is best ended without them.
pub fn hangs() -> bool {
    HANGS.load(Acquire)
}

/// From now on the card is taken for one that hangs: nothing on it is waited for, called or given back any more.
pub fn give_up() {
    HANGS.store(true, Release);
}

/// Sets how long to wait for the card instead of [`LIMIT`].
pub fn set_limit(limit: Duration) {
    LIMIT_MS.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Relaxed);
}

/// How long the card is waited for.
pub fn limit() -> Duration {
    Duration::from_millis(LIMIT_MS.load(Relaxed))
}

/// Waits that have become long end with [`Interrupted`] once `stop` says so. The first caller's stays.
pub fn heed(stop: fn() -> bool) {
    let _ = STOP.set(stop);
}

/// Whether a wait since `begin` is to be ended because the user wants it.
///
/// # Errors
/// [`Interrupted`], and nothing else.
pub fn check_stop(begin: Instant) -> Result<()> {
    if begin.elapsed() > LONG && STOP.get().is_some_and(|stop| stop()) {
        return Err(Interrupted.into());
    }
    Ok(())
}

/// Looks until `done`, which is for `what` on the card of that name: at full speed at first, then sleeping for a small part of the time that has passed.
///
/// # Errors
/// Those of `done`; when the time has passed, and then the card is given up; when the user wants to stop.
pub(super) fn wait_until(name: &str, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !done()? {
        let waited = begin.elapsed();
        if waited < AWAKE {
            thread::yield_now();
            continue;
        }
        if waited >= limit() {
            give_up();
            bail!("{name}: {what} has not ended within {:?}: it hangs", limit());
        }
        check_stop(begin)?;
        thread::sleep((waited / 16).min(LONGEST_SLEEP));
    }
    Ok(())
}

/// A stream that exists, as its card knows it.
pub(super) struct Queue {
    pub raw: RawStream,
    pub capturing: AtomicBool,
    /// Calls that have enqueued something since it was last known to be empty.
    queued: AtomicU32,
    /// How often it was known to be empty.
    emptied: AtomicU64,
}

// SAFETY: a handle, which the driver's functions take on any thread.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    pub fn new(raw: RawStream) -> Self {
        Self { raw, capturing: AtomicBool::new(false), queued: AtomicU32::new(0), emptied: AtomicU64::new(0) }
    }

    /// Something is about to be enqueued: whether it has to be waited for what is there already.
    pub fn is_full(&self) -> bool {
        !self.capturing.load(Relaxed) && self.queued.fetch_add(1, Relaxed) >= MOST_QUEUED
    }

    /// All that was enqueued is done.
    pub fn has_emptied(&self) {
        self.queued.store(0, Relaxed);
        self.emptied.fetch_add(1, Release);
    }

    /// What the driver says of it: [`NOT_READY`], 0, or an error that ended whatever ran.
    fn state(&self, api: &Api) -> Code {
        if self.capturing.load(Relaxed) {
            // It has nothing to run, and must not be asked.
            return 0;
        }
        // SAFETY: the stream exists as long as it is in the list, which is locked.
        unsafe { (api.cuStreamQuery)(self.raw) }
    }
}

/// The streams of a card.
#[derive(Default)]
pub(super) struct Queues(Mutex<Vec<Arc<Queue>>>);

impl Queues {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, queue: &Arc<Queue>) {
        self.lock().push(Arc::clone(queue));
    }

    pub fn remove(&self, queue: &Arc<Queue>) {
        self.lock().retain(|q| !Arc::ptr_eq(q, queue));
    }

    /// Waits until each has done what was enqueued when this was called: other threads may enqueue more. Returns the first
    /// error of the driver, or 0: an error has ended whatever ran.
    ///
    /// # Errors
    /// As [`wait_until`].
    pub fn wait(&self, api: &Api, name: &str) -> Result<Code> {
        let of_now = |queue: &Arc<Queue>| (Arc::clone(queue), queue.emptied.load(Acquire));
        let mut waiting: Vec<_> = self.lock().iter().map(of_now).collect();
        let mut first = 0;
        wait_until(name, "work on the card", || {
            // Locked, so that none is destroyed meanwhile.
            let there = self.lock();
            waiting.retain(|(queue, emptied)| {
                let is_there = there.iter().any(|other| Arc::ptr_eq(other, queue));
                if !is_there || queue.emptied.load(Acquire) != *emptied {
                    return false;
                }
                let state = queue.state(api);
                if state != NOT_READY && first == 0 {
                    first = state;
                }
                state == NOT_READY
            });
            Ok(waiting.is_empty())
        })?;
        Ok(first)
    }
}
