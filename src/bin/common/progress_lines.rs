//! `--progress-json`: what bars show, as lines of JSON on standard error, for programs.

use super::terminal::tell;
use clap::Args;
use powerinfer::printable::printable;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How progress is shown.
#[derive(Args)]
pub struct ProgressArgs {
    /// Instead of a bar, write progress to standard error as lines of JSON: {"progress":"profiling","done":3,"total":9,"seconds":0.5}
    #[arg(long)]
    progress_json: bool,
}

impl ProgressArgs {
    /// From now on progress is shown as the flags say.
    pub fn apply(&self) {
        WANTED.store(self.progress_json, Ordering::Relaxed);
    }
}

static WANTED: AtomicBool = AtomicBool::new(false);
static STAGE: Mutex<Option<Stage>> = Mutex::new(None);
/// Which test of how many it is.
static TEST: Mutex<Option<(usize, usize)>> = Mutex::new(None);

/// Between two lines of a stage, at least.
const PAUSE: Duration = Duration::from_millis(200);

struct Stage {
    what: String,
    done: u64,
    total: u64,
    /// What it is at, where it says so.
    at: Option<String>,
    /// Of the test that it belongs to.
    test: Option<(usize, usize)>,
    begun: Instant,
    told: Instant,
    /// Steps that were done when it was told last.
    told_done: u64,
}

impl Stage {
    fn new(what: &str, total: u64) -> Self {
        let now = Instant::now();
        let test = *TEST.lock().unwrap_or_else(PoisonError::into_inner);
        Self { what: what.to_owned(), done: 0, total, at: None, test, begun: now, told: now, told_done: 0 }
    }

    fn tell_now_and_then(&mut self) {
        if self.told.elapsed() >= PAUSE {
            self.tell();
        }
    }

    fn tell(&mut self) {
        (self.told, self.told_done) = (Instant::now(), self.done);
        let seconds = (1e3 * self.begun.elapsed().as_secs_f64()).round() / 1e3;
        let (done, total) = (self.done, self.total);
        let mut line = json!({"progress": printable(&self.what), "done": done, "total": total, "seconds": seconds});
        if let Some(at) = &self.at {
            line["at"] = printable(at).into();
        }
        if let Some((n, of)) = self.test {
            line["test"] = n.into();
            line["tests"] = of.into();
        }
        tell!("{line}");
    }
}

fn with(f: impl FnOnce(&mut Option<Stage>)) {
    if WANTED.load(Ordering::Relaxed) {
        f(&mut STAGE.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Whether lines are wanted, and no bars.
pub fn are_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// A stage of `total` steps begins.
pub fn begin(what: &str, total: u64) {
    with(|stage| {
        // One that is complete ends here, where nobody has said so.
        if let Some(mut last) = stage.take().filter(|last| last.done >= last.total && last.told_done < last.done) {
            last.tell();
        }
        let mut new = Stage::new(what, total);
        new.tell();
        *stage = Some(new);
    });
}

/// From now on test number `n` of `of` is made.
pub fn test(n: usize, of: usize) {
    *TEST.lock().unwrap_or_else(PoisonError::into_inner) = Some((n, of));
}

/// What the stage is at.
pub fn at(what: &str) {
    with(|stage| {
        if let Some(stage) = stage {
            stage.at = Some(what.to_owned());
            stage.tell_now_and_then();
        }
    });
}

/// A stage of one step, which others may be a part of.
pub struct Span(Option<Stage>);

impl Span {
    /// It begins.
    pub fn new(what: &str) -> Self {
        Self(are_wanted().then(|| {
            let mut stage = Stage::new(what, 1);
            stage.tell();
            stage
        }))
    }

    /// It is over, and well.
    pub fn end(mut self) {
        if let Some(stage) = &mut self.0 {
            stage.done = 1;
            stage.tell();
        }
    }
}

/// `n` more steps are done.
pub fn advance(n: u64) {
    with(|stage| {
        if let Some(stage) = stage {
            stage.done += n;
            stage.tell_now_and_then();
        }
    });
}

/// The stage is over.
pub fn end() {
    with(|stage| {
        if let Some(mut stage) = stage.take() {
            stage.tell();
        }
    });
}
