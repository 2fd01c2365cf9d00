//! The threads that share the work inside a token.
#![allow(unsafe_code, reason = "pieces of one slice are written by different threads, which a scope bounds")]

mod crew;
mod pairs;
mod region;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::trace::{Recorder, Span, What};
use anyhow::{Result, ensure};

use crew::{Crew, Hand, Help, Lead};
use region::Instance;
pub use region::{Region, Work};

/// `fill` cuts this many pieces per thread, so that a thread with only half a core does less than the others.
const PIECES_PER_THREAD: usize = 4;

/// A fixed set of threads over which outputs are divided. Every element of an output is written by exactly one
/// call, so results do not depend on the number of threads.
pub struct Pool {
    n_threads: usize,
    team: Option<Team>,
    trace: Option<Arc<Recorder>>,
}

/// Fields are dropped in this order: the workers have ended before the jobs that `lead` keeps for them go.
struct Team {
    crew: Crew,
    lead: Mutex<Lead>,
}

impl Pool {
    /// A pool of `n_threads`; one thread means the caller's own. On hybrid processors the others keep to performance
    /// cores if there are enough of them.
    ///
    /// # Errors
    /// When `n_threads` is 0 or the system refuses to start threads.
    pub fn new(n_threads: usize) -> Result<Self> {
        ensure!((1..=1024).contains(&n_threads), "-t {n_threads}: 1 to 1024 threads are possible");
        let start = || Crew::start(n_threads - 1).map(|crew| Team { lead: Mutex::new(Lead::new(&crew)), crew });
        Ok(Self { n_threads, team: (n_threads > 1).then(start).transpose()?, trace: None })
    }

    /// From now on threads record what they do. A pool has one recorder at most.
    pub fn set_trace(&mut self, trace: Arc<Recorder>) {
        if let Some(team) = &mut self.team {
            team.crew.set_trace(Arc::clone(&trace));
            team.lead.get_mut().unwrap_or_else(PoisonError::into_inner).hand.trace = Some(Arc::clone(&trace));
        }
        self.trace = Some(trace);
    }

    /// Begins something that the caller's thread leads, in a layer, or in that of what it is a part of.
    pub(crate) fn span(&self, what: What, layer: Option<usize>) -> Span {
        Span::begin(self.trace.as_ref(), what, layer)
    }

    /// Begins a pass of `n` tokens.
    pub(crate) fn pass(&self, what: What, n: usize) -> Span {
        Span::pass(self.trace.as_ref(), what, n)
    }

    /// Sets how long idle threads keep their cores: longer where work is known to arrive soon from outside.
    pub fn set_patience(&self, patience: Duration) {
        if let Some(team) = &self.team {
            team.crew.set_patience(patience);
        }
    }

    /// Number of threads.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// The right to lead the crew. None while another thread has it, as inside a job: the caller then works alone.
    fn lead(&self) -> Option<(MutexGuard<'_, Lead>, &Crew)> {
        let Team { crew, lead } = self.team.as_ref()?;
        match lead.try_lock() {
            Ok(lead) => Some((lead, crew)),
            Err(TryLockError::Poisoned(lead)) => Some((lead.into_inner(), crew)),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Has `prepare` fill in the inputs, computes `len` outputs in chunks of `chunk` (the last may be shorter) and
    /// returns them. Does not wait for a thread that has lost its core: another one redoes its chunk.
    ///
    /// # Panics
    /// When `compute` does.
    pub fn run<'r, W: Work>(
        &self,
        region: &'r mut Region<W>,
        len: usize,
        chunk: usize,
        prepare: impl FnOnce(&mut W),
    ) -> &'r [f32] {
        let chunk = chunk.max(1);
        self.run_cut(region, (0..len).step_by(chunk).map(|start| chunk.min(len - start)), prepare)
    }

    /// As [`Pool::run`], in chunks of lengths that need not be the same: the outputs are all of them, one behind the
    /// other.
    ///
    /// # Panics
    /// When `compute` does.
    pub fn run_cut<'r, W: Work>(
        &self,
        region: &'r mut Region<W>,
        chunks: impl IntoIterator<Item = usize>,
        prepare: impl FnOnce(&mut W),
    ) -> &'r [f32] {
        let mut lead = self.lead();
        if let Some((lead, crew)) = &mut lead {
            lead.reap(crew);
        }
        let at = region.free();
        region.prepare(at, chunks, prepare);
        let Some((mut lead, crew)) = lead.filter(|_| region.instance(at).n_chunks() > 1) else {
            region.compute_alone(at);
            return region.instance(at).out();
        };
        let instance = region.instance(at);
        let keep: Arc<dyn Any + Send + Sync> = Arc::<Instance<W>>::clone(instance);
        let job: *const Instance<W> = Arc::as_ptr(instance);
        // SAFETY: `keep` owns the instance.
        let slot = unsafe { lead.open(crew, job, Some(keep), instance.n_chunks() - 1) };
        instance.help(&mut lead.hand);
        if let Some(slot) = slot {
            lead.close(crew, slot);
        }
        drop(lead);
        if let Some(panic) = instance.panic() {
            resume_unwind(panic);
        }
        instance.out()
    }

    /// Calls `write(start, piece)` for consecutive pieces of `out`, whose lengths are multiples of `grain` except
    /// for the last one. Meant for coarse work: waits for every thread that has begun.
    ///
    /// # Panics
    /// When `write` does.
    pub fn fill<T: Send>(&self, out: &mut [T], grain: usize, write: impl Fn(usize, &mut [T]) + Sync) {
        let piece = out.len().div_ceil(self.n_threads * PIECES_PER_THREAD).next_multiple_of(grain.max(1)).max(1);
        if piece >= out.len() {
            return write(0, out);
        }
        self.share_out(out, Cut::Even(piece), |_, start, piece| write(start, piece));
    }

    /// Calls `write(i, piece)` for the pieces of `out` that end at `ends`, the last of which is its length. As coarse.
    ///
    /// # Panics
    /// When `write` does, or the ends do not rise or lie outside `out`.
    pub fn fill_cut<T: Send>(&self, out: &mut [T], ends: &[usize], write: impl Fn(usize, &mut [T]) + Sync) {
        assert!(ends.is_sorted() && ends.last().copied().unwrap_or(0) == out.len(), "pieces end elsewhere");
        self.share_out(out, Cut::At(ends), |i, _, piece| write(i, piece));
    }

    /// Calls `write(i, start, piece)` for every piece. Where the caller cannot lead others it does all.
    fn share_out<T: Send>(&self, out: &mut [T], cut: Cut, write: impl Fn(usize, usize, &mut [T]) + Sync) {
        let n_pieces = cut.n_pieces(out.len());
        let lead = if n_pieces > 1 { self.lead() } else { None };
        let Some((mut lead, crew)) = lead else {
            let (mut rest, mut start) = (out, 0);
            for i in 0..n_pieces {
                let (_, end) = cut.piece(i, start + rest.len());
                let (piece, others) = rest.split_at_mut(end - start);
                write(i, start, piece);
                (rest, start) = (others, end);
            }
            return;
        };
        let (len, out) = (out.len(), out.as_mut_ptr());
        let pieces = Pieces { out, len, cut, write: &write, next: AtomicUsize::new(0), panic: Mutex::default() };
        let job: *const (dyn Help + '_) = &pieces;
        // SAFETY: only the lifetime changes.
        let job = unsafe { std::mem::transmute::<*const (dyn Help + '_), *const (dyn Help + 'static)>(job) };
        // SAFETY: nothing between here and `wait` unwinds, and `wait` returns when nobody is inside `pieces`.
        let slot = unsafe { lead.open(crew, job, None, n_pieces - 1) };
        pieces.help(&mut lead.hand);
        if let Some(slot) = slot {
            lead.close(crew, slot);
            let share = lead.hand.begin();
            lead.wait(crew, slot);
            lead.hand.end_waiting(share);
        }
        drop(lead);
        if let Some(panic) = pieces.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

/// How a slice is cut into pieces.
#[derive(Clone, Copy)]
enum Cut<'a> {
    /// Into pieces of this length, but for the last.
    Even(usize),
    /// Into pieces that end there.
    At(&'a [usize]),
}

impl Cut<'_> {
    fn n_pieces(self, len: usize) -> usize {
        match self {
            Self::Even(piece) => len.div_ceil(piece),
            Self::At(ends) => ends.len(),
        }
    }

    /// Where piece `i` of a slice of `len` begins and ends.
    fn piece(self, i: usize, len: usize) -> (usize, usize) {
        match self {
            Self::Even(piece) => (i * piece, len.min((i + 1) * piece)),
            Self::At(ends) => (if i == 0 { 0 } else { ends[i - 1] }, ends[i]),
        }
    }
}

/// A slice that threads fill piece by piece.
struct Pieces<'a, T, F> {
    out: *mut T,
    len: usize,
    cut: Cut<'a>,
    write: &'a F,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `next` gives each piece to one thread, which T: Send allows; `write` is shared, which F: Sync allows.
unsafe impl<T: Send, F: Sync> Sync for Pieces<'_, T, F> {}

impl<T: Send, F: Fn(usize, usize, &mut [T]) + Sync> Help for Pieces<'_, T, F> {
    fn help(&self, hand: &mut Hand) {
        let share = hand.begin();
        let mut n_done = 0;
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.cut.n_pieces(self.len) {
                return hand.end(share.filter(|_| n_done > 0));
            }
            n_done += 1;
            let (start, end) = self.cut.piece(i, self.len);
            // SAFETY: inside the slice that `share_out` borrows exclusively until all have left, since ends rise up to
            // its length; no other thread gets this piece.
            let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(start), end - start) };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.write)(i, start, out))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
        }
    }
}

#[cfg(test)]
mod tests;
