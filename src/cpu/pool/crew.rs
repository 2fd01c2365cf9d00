//! The threads of a pool: how they learn of a job, enter it, leave it and sleep.
#![allow(unsafe_code, reason = "a job is passed to other threads; counting who entered and left guards it")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cpu::cores;
use crate::trace::{Recorder, Share};

/// How long an idle thread keeps its core. Longer than most gaps inside a token, but short: the system can move a
/// caller that has lost its core only to one that falls idle. Measured on 2 cores beside a busy loop: 20 us keep 65 %
/// of the undisturbed speed, 100 us 57 %, 400 us 55 %.
const IDLE_SPIN: Duration = Duration::from_micros(20);
/// The same where threads share cores: a thread that waits is in another one's way.
const CROWDED_SPIN: Duration = Duration::from_micros(2);
/// Pause between checks on workers that have not left a job after a while.
const LEAVE_PAUSE: Duration = Duration::from_micros(50);

/// What a thread brings to a job.
#[derive(Default)]
pub(super) struct Hand {
    /// 0 is the caller.
    pub index: usize,
    /// Whether it waits for the chunks of others, to redo them when they are late.
    pub redoes: bool,
    /// Kept from job to job.
    pub scratch: Vec<f32>,
    /// Where what it does is recorded.
    pub trace: Option<Arc<Recorder>>,
}

impl Hand {
    /// Begins a share of a job, where what threads do is recorded.
    pub fn begin(&self) -> Option<Share> {
        self.trace.as_ref()?.begin()
    }

    /// Ends it. That of the caller is what lies between its waiting.
    pub fn end(&self, share: Option<Share>) {
        if let Some(trace) = self.trace.as_ref().filter(|_| self.index > 0) {
            trace.end(self.index, share);
        }
    }

    /// Ends time in which there was nothing to do.
    pub fn end_waiting(&self, share: Option<Share>) {
        if let Some(trace) = &self.trace {
            trace.end_waiting(self.index, share);
        }
    }
}

/// Something that several threads do together.
pub(super) trait Help: Sync {
    /// Does a share of the job. Does not unwind.
    fn help(&self, hand: &mut Hand);
}

/// A cache line of its own, with the neighbour that the processor fetches along with it.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub T);

/// The job that may be entered, if any: its generation, its slot, and how many workers have entered. One word, so that
/// entering and closing exclude each other.
#[derive(Clone, Copy, PartialEq)]
struct Door(u64);

impl Door {
    const BITS: u32 = 12;
    const MASK: u64 = (1 << Self::BITS) - 1;
    const CLOSED: u64 = Self::MASK;

    fn new(generation: u64, slot: u64) -> Self {
        Self(generation << (2 * Self::BITS) | slot << Self::BITS)
    }

    fn generation(self) -> u64 {
        self.0 >> (2 * Self::BITS)
    }

    fn slot(self) -> Option<usize> {
        let slot = self.0 >> Self::BITS & Self::MASK;
        (slot != Self::CLOSED).then_some(slot as usize)
    }

    fn entered(self) -> usize {
        (self.0 & Self::MASK) as usize
    }
}

/// Where workers find a job. Reused only when as many have left as had entered.
struct Slot {
    job: UnsafeCell<Option<*const dyn Help>>,
    left: AtomicUsize,
}

struct Shared {
    door: Padded<AtomicU64>,
    n_asleep: Padded<AtomicUsize>,
    asleep: Box<[AtomicBool]>,
    slots: Box<[Padded<Slot>]>,
    stop: AtomicBool,
    /// Nanoseconds.
    idle_spin: AtomicU64,
    trace: OnceLock<Arc<Recorder>>,
}

// SAFETY: a slot's job is written by the one lead while nobody is inside, and read by workers that entered (`Door`);
// the pointee is Sync and outlives their stay (`Lead::open`).
unsafe impl Sync for Shared {}
// SAFETY: as above; a job may be used from any thread.
unsafe impl Send for Shared {}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Shared {
    fn idle_spin(&self) -> Duration {
        Duration::from_nanos(self.idle_spin.load(Ordering::Relaxed))
    }

    /// Enters the open job, if there is one that is not `seen`.
    fn enter(&self, seen: &mut u64) -> Option<&Slot> {
        let door = Door(self.door.0.load(Ordering::SeqCst));
        let slot = door.slot().filter(|_| door.generation() != *seen)?;
        let entered = self.door.0.compare_exchange(door.0, door.0 + 1, Ordering::AcqRel, Ordering::Relaxed);
        entered.ok()?;
        *seen = door.generation();
        Some(&self.slots[slot].0)
    }

    fn has_news(&self, seen: u64) -> bool {
        let door = Door(self.door.0.load(Ordering::SeqCst));
        self.stop.load(Ordering::SeqCst) || door.slot().is_some() && door.generation() != seen
    }

    /// What worker `index` (from 0) does until the pool ends.
    fn work(&self, index: usize, hand: &mut Hand) {
        let (mut seen, mut since) = (0, Instant::now());
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(slot) = self.enter(&mut seen) {
                if hand.trace.is_none() {
                    hand.trace = self.trace.get().cloned();
                }
                // SAFETY: this thread has entered, so the lead neither writes the slot nor lets go of the job before
                // `left` counts this thread.
                if let Some(job) = unsafe { *slot.job.get() } {
                    // SAFETY: as above.
                    unsafe { &*job }.help(hand);
                }
                slot.left.fetch_add(1, Ordering::Release);
                since = Instant::now();
            } else if since.elapsed() < self.idle_spin() {
                std::hint::spin_loop();
            } else {
                self.sleep(index, seen);
                since = Instant::now();
            }
        }
    }

    /// Sleeps until woken. News that arrives meanwhile is seen either here or by `Crew::wake`: each side first writes
    /// its own word, then reads the other's.
    fn sleep(&self, index: usize, seen: u64) {
        self.n_asleep.0.fetch_add(1, Ordering::SeqCst);
        self.asleep[index].store(true, Ordering::SeqCst);
        while self.asleep[index].load(Ordering::SeqCst) {
            if self.has_news(seen) {
                self.wakes(index);
            } else {
                thread::park();
            }
        }
    }

    /// Marks worker `index` as awake; returns whether it was asleep.
    fn wakes(&self, index: usize) -> bool {
        let slept = self.asleep[index].swap(false, Ordering::SeqCst);
        if slept {
            self.n_asleep.0.fetch_sub(1, Ordering::SeqCst);
        }
        slept
    }
}

/// The workers of a pool.
pub(super) struct Crew {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Crew {
    pub fn start(n_workers: usize) -> Result<Self> {
        let crowded = n_workers >= cores::usable_cores();
        let slot = || Padded(Slot { job: UnsafeCell::new(None), left: AtomicUsize::new(0) });
        let shared = Arc::new(Shared {
            door: Padded(AtomicU64::new(Door::new(0, Door::CLOSED).0)),
            n_asleep: Padded::default(),
            asleep: (0..n_workers).map(|_| AtomicBool::new(false)).collect(),
            slots: (0..=n_workers).map(|_| slot()).collect(),
            stop: AtomicBool::new(false),
            idle_spin: AtomicU64::new(nanoseconds(if crowded { CROWDED_SPIN } else { IDLE_SPIN })),
            trace: OnceLock::new(),
        });
        let mut crew = Self { shared, workers: Vec::with_capacity(n_workers) };
        let fast = cores::performance_cores().filter(|fast| n_workers < fast.len()).map(Arc::new);
        for index in 0..n_workers {
            let (shared, fast) = (Arc::clone(&crew.shared), fast.clone());
            let work = move || {
                if let Some(fast) = fast {
                    cores::keep_to(&fast);
                }
                shared.work(index, &mut Hand { index: index + 1, redoes: !crowded, ..Hand::default() });
            };
            let worker = thread::Builder::new().name(format!("pool-{}", index + 1)).spawn(work);
            crew.workers.push(worker.context("threads cannot be started")?);
        }
        Ok(crew)
    }

    /// Sets how long workers keep their cores without work, unless they share cores.
    pub fn set_patience(&self, patience: Duration) {
        if self.workers.len() < cores::usable_cores() {
            self.shared.idle_spin.store(nanoseconds(patience), Ordering::Relaxed);
        }
    }

    /// From now on workers record what they do.
    pub fn set_trace(&self, trace: Arc<Recorder>) {
        // Once is enough: a worker keeps the first.
        drop(self.shared.trace.set(trace));
    }

    /// Wakes up to `n` workers; costs only a load where all are awake.
    fn wake(&self, n: usize) {
        if self.shared.n_asleep.0.load(Ordering::SeqCst) == 0 {
            return;
        }
        let woken = self.workers.iter().enumerate().filter(|(index, _)| self.shared.wakes(*index));
        woken.take(n).for_each(|(_, worker)| worker.thread().unpark());
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake(self.workers.len());
        for worker in self.workers.drain(..) {
            // A job does not unwind, so there is no panic to pass on.
            worker.join().ok();
        }
    }
}

/// A slot as its lead sees it.
#[derive(Default)]
struct Berth {
    /// Keeps the job alive while a worker may be inside.
    keep: Option<Arc<dyn Any + Send + Sync>>,
    entered: usize,
}

/// The right to give jobs to a crew, and what its holder keeps from job to job.
pub(super) struct Lead {
    pub hand: Hand,
    generation: u64,
    berths: Vec<Berth>,
}

impl Lead {
    pub fn new(crew: &Crew) -> Self {
        let berths = crew.shared.slots.iter().map(|_| Berth::default()).collect();
        Self { hand: Hand { redoes: true, ..Hand::default() }, generation: 0, berths }
    }

    fn is_empty(&self, crew: &Crew, slot: usize) -> bool {
        crew.shared.slots[slot].0.left.load(Ordering::Acquire) == self.berths[slot].entered
    }

    /// Lets go of jobs that the last worker has left.
    pub fn reap(&mut self, crew: &Crew) {
        for slot in 0..self.berths.len() {
            if self.berths[slot].keep.is_some() && self.is_empty(crew, slot) {
                self.berths[slot].keep = None;
            }
        }
    }

    /// Opens a job to all workers that are awake and at most `n_workers` that sleep; returns its slot.
    ///
    /// # Safety
    /// `job` is valid until the slot is closed and all who entered have left: either `keep` owns it, or the caller
    /// closes the slot and calls `wait` before `job` ends.
    pub unsafe fn open(
        &mut self,
        crew: &Crew,
        job: *const dyn Help,
        keep: Option<Arc<dyn Any + Send + Sync>>,
        n_workers: usize,
    ) -> Option<usize> {
        // There is one more slot than workers, and no worker is in two: one is always free.
        let slot = (0..self.berths.len()).find(|slot| self.is_empty(crew, *slot))?;
        let place = &crew.shared.slots[slot].0;
        // SAFETY: all who entered this slot have left, which `is_empty` acquires, and it has been closed since.
        unsafe { *place.job.get() = Some(job) };
        place.left.store(0, Ordering::Relaxed);
        self.berths[slot] = Berth { keep, entered: 0 };
        self.generation += 1;
        crew.shared.door.0.store(Door::new(self.generation, slot as u64).0, Ordering::SeqCst);
        crew.wake(n_workers);
        Some(slot)
    }

    /// Nobody enters from now on.
    pub fn close(&mut self, crew: &Crew, slot: usize) {
        let closed = Door::new(self.generation, Door::CLOSED).0;
        self.berths[slot].entered = Door(crew.shared.door.0.swap(closed, Ordering::AcqRel)).entered();
    }

    /// Waits until all who entered the closed slot have left.
    pub fn wait(&self, crew: &Crew, slot: usize) {
        let since = Instant::now();
        while !self.is_empty(crew, slot) {
            if since.elapsed() < crew.shared.idle_spin() { std::hint::spin_loop() } else { thread::sleep(LEAVE_PAUSE) }
        }
    }
}
