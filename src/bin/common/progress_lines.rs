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

/// Between two lines of a stage, at least.
const PAUSE: Duration = Duration::from_millis(200);

struct Stage {
    what: String,
    done: u64,
    total: u64,
    begun: Instant,
    told: Instant,
}

impl Stage {
    fn tell(&mut self) {
        self.told = Instant::now();
        let seconds = (1e3 * self.begun.elapsed().as_secs_f64()).round() / 1e3;
        let (done, total) = (self.done, self.total);
        tell!("{}", json!({"progress": printable(&self.what), "done": done, "total": total, "seconds": seconds}));
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
        let now = Instant::now();
        let mut new = Stage { what: what.to_owned(), done: 0, total, begun: now, told: now };
        new.tell();
        *stage = Some(new);
    });
}

/// `n` more steps are done.
pub fn advance(n: u64) {
    with(|stage| {
        if let Some(stage) = stage {
            stage.done += n;
            if stage.told.elapsed() >= PAUSE {
                stage.tell();
            }
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
