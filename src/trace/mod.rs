//! Where the time of tokens goes: what each thread did, layer by layer, from when to when.
//!
//! All memory is taken before the first token. What no longer fits is counted and left out.

mod chrome;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a thread did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A batch of a prompt, all of it.
    Prompt,
    /// A token, all of it.
    Token,
    /// Attention.
    Attention,
    /// Another mixer.
    Recurrent,
    /// A router.
    Router,
    /// A projection that belongs to none of the others.
    Project,
    /// Neurons of the processor, hot and cold.
    Ffn,
    /// Neurons of the processor beside those that a card has.
    Cold,
    /// Predictors.
    Predictor,
    /// Which neurons fire.
    Mask,
    /// Rows of `up` of those that do.
    Up,
    /// Their rows of `down`, added up.
    Down,
    /// Logits.
    Head,
    /// Waiting for other threads.
    Waiting,
    /// Waiting for a card, which computes its own part, such as attention and hot neurons.
    Card,
}

impl What {
    const ALL: [Self; 15] = [
        Self::Prompt,
        Self::Token,
        Self::Attention,
        Self::Recurrent,
        Self::Router,
        Self::Project,
        Self::Ffn,
        Self::Cold,
        Self::Predictor,
        Self::Mask,
        Self::Up,
        Self::Down,
        Self::Head,
        Self::Waiting,
        Self::Card,
    ];

    /// Name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Token => "token",
            Self::Attention => "attention",
            Self::Recurrent => "recurrent",
            Self::Router => "router",
            Self::Project => "project",
            Self::Ffn => "hot and cold",
            Self::Cold => "cold",
            Self::Predictor => "predictor",
            Self::Mask => "mask",
            Self::Up => "up",
            Self::Down => "down",
            Self::Head => "head",
            Self::Waiting => "waiting",
            Self::Card => "waiting for the card",
        }
    }
}

/// In no layer.
const NOWHERE: u32 = u32::MAX;

/// Something that a thread did.
#[derive(Debug, Clone, Copy)]
struct Event {
    what: What,
    layer: u32,
    /// Tokens, of passes.
    n: u32,
    /// Nanoseconds since the recorder was made.
    begin: u64,
    end: u64,
}

/// What is being done, as one word.
#[derive(Clone, Copy)]
struct Label(u64);

impl Label {
    fn new(what: What, layer: u32) -> Self {
        Self((what as u64) << 32 | u64::from(layer))
    }

    fn what(self) -> What {
        What::ALL[(self.0 >> 32) as usize % What::ALL.len()]
    }

    fn layer(self) -> u32 {
        self.0 as u32
    }
}

/// Keeps what threads do, until it is written.
pub struct Recorder {
    made: Instant,
    /// By thread.
    lanes: Box<[Mutex<Vec<Event>>]>,
    label: AtomicU64,
    /// Tokens that are still recorded.
    left: AtomicUsize,
    is_on: AtomicBool,
    /// Events that had no room.
    lost: AtomicU64,
}

/// Events of a thread that there is room for: 2 MiB.
const MOST_EVENTS: usize = 1 << 16;

impl Recorder {
    /// For `n_threads` threads, of the first `n_tokens` tokens that are decoded and what comes before them.
    pub fn new(n_threads: usize, n_tokens: usize) -> Arc<Self> {
        let lane = |_| Mutex::new(Vec::with_capacity(MOST_EVENTS));
        Arc::new(Self {
            made: Instant::now(),
            lanes: (0..n_threads.max(1)).map(lane).collect(),
            label: AtomicU64::new(Label::new(What::Token, NOWHERE).0),
            left: AtomicUsize::new(n_tokens),
            is_on: AtomicBool::new(true),
            lost: AtomicU64::new(0),
        })
    }

    /// Events that had no room.
    pub fn n_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn label(&self) -> Label {
        Label(self.label.load(Ordering::Relaxed))
    }

    fn lane(&self, thread: usize) -> Option<MutexGuard<'_, Vec<Event>>> {
        Some(self.lanes.get(thread)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, thread: usize, event: Event) {
        match self.lane(thread) {
            // Never more than there was room for at the beginning: that would take memory.
            Some(mut lane) if lane.len() < MOST_EVENTS => lane.push(event),
            _ => _ = self.lost.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// A pass begins: whether it is recorded.
    fn begins(&self, what: What) -> bool {
        if what == What::Token {
            let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            self.is_on.store(left.is_ok(), Ordering::Relaxed);
        }
        self.is_on.load(Ordering::Relaxed)
    }

    /// When a thread begins its share of what is being done; `None` while nothing is recorded.
    pub(crate) fn begin(&self) -> Option<Share> {
        self.is_on.load(Ordering::Relaxed).then(|| Share { label: self.label(), begin: self.now() })
    }

    /// Ends it.
    pub(crate) fn end(&self, thread: usize, share: Option<Share>) {
        if let Some(Share { label, begin }) = share {
            let (what, layer, end) = (label.what(), label.layer(), self.now());
            self.add(thread, Event { what, layer, n: 0, begin, end });
        }
    }

    /// Ends time that was spent waiting.
    pub(crate) fn end_waiting(&self, thread: usize, share: Option<Share>) {
        if let Some(Share { label, begin }) = share {
            self.add(thread, Event { what: What::Waiting, layer: label.layer(), n: 0, begin, end: self.now() });
        }
    }
}

/// A thread's share of something, from its beginning.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    label: Label,
    begin: u64,
}

/// Something that the first thread leads, until it is dropped.
pub(crate) struct Span {
    recorder: Option<Arc<Recorder>>,
    label: Label,
    n: u32,
    begin: u64,
    before: Label,
}

impl Span {
    /// Begins `what` in a layer, or where the last one was that has not ended. Costs nothing without a recorder.
    pub fn begin(recorder: Option<&Arc<Recorder>>, what: What, layer: Option<usize>) -> Self {
        Self::new(recorder, what, layer, 0)
    }

    /// Begins a pass of `n` tokens: [`What::Token`] or [`What::Prompt`].
    pub fn pass(recorder: Option<&Arc<Recorder>>, what: What, n: usize) -> Self {
        Self::new(recorder.filter(|recorder| recorder.begins(what)), what, Some(NOWHERE as usize), n as u32)
    }

    fn new(recorder: Option<&Arc<Recorder>>, what: What, layer: Option<usize>, n: u32) -> Self {
        let Some(recorder) = recorder.filter(|recorder| recorder.is_on.load(Ordering::Relaxed)) else {
            let nothing = Label(0);
            return Self { recorder: None, label: nothing, n, begin: 0, before: nothing };
        };
        let before = recorder.label();
        let label = Label::new(what, layer.map_or(before.layer(), |layer| layer as u32));
        recorder.label.store(label.0, Ordering::Relaxed);
        Self { label, n, begin: recorder.now(), before, recorder: Some(Arc::clone(recorder)) }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(recorder) = &self.recorder {
            recorder.label.store(self.before.0, Ordering::Relaxed);
            let (what, layer) = (self.label.what(), self.label.layer());
            recorder.add(0, Event { what, layer, n: self.n, begin: self.begin, end: recorder.now() });
        }
    }
}

#[cfg(test)]
mod tests;
