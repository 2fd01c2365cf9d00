//! Workers: threads and the buffers that they compute in, which executors of one process share.

use super::buffers::Buffers;
use crate::cpu::{Isa, Pool};
use crate::trace::Recorder;
use anyhow::Result;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Threads with their buffers. A clone is the same worker, which serves one pass at a time.
#[derive(Clone)]
pub struct Worker {
    hands: Arc<Mutex<Hands>>,
    trace: Arc<OnceLock<Arc<Recorder>>>,
}

/// What a pass computes with.
pub(super) struct Hands {
    pub pool: Pool,
    pub isa: Isa,
    pub buffers: Buffers,
}

impl Worker {
    /// A worker of `n_threads` threads, one of which is the caller's.
    ///
    /// # Errors
    /// When `n_threads` is 0 or the system refuses to start threads.
    pub fn new(n_threads: usize, isa: Isa) -> Result<Self> {
        let hands = Hands { pool: Pool::new(n_threads)?, isa, buffers: Buffers::default() };
        Ok(Self { hands: Arc::new(Mutex::new(hands)), trace: Arc::default() })
    }

    /// From now on what it does is recorded; the first recorder stays.
    pub fn set_trace(&self, trace: &Arc<Recorder>) {
        if self.trace.set(Arc::clone(trace)).is_ok() {
            self.lock().pool.set_trace(Arc::clone(trace));
        }
    }

    /// Where what it does is recorded.
    pub(in crate::executor) fn trace(&self) -> Option<&Arc<Recorder>> {
        self.trace.get()
    }

    /// A pass that panicked leaves nothing behind that the next one reads.
    pub(super) fn lock(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of threads.
    pub fn n_threads(&self) -> usize {
        self.lock().pool.n_threads()
    }

    /// Instruction set of the kernels.
    pub fn isa(&self) -> Isa {
        self.lock().isa
    }

    /// Sets how long threads keep awake without work.
    pub(in crate::executor) fn set_patience(&self, patience: Duration) {
        self.lock().pool.set_patience(patience);
    }
}
