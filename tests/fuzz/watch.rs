//! What is being executed, for whoever has to say so when it does not end well.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::abort;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// How often the watch looks.
const INTERVAL: Duration = Duration::from_millis(100);

struct Execution {
    /// Target, seed and number.
    label: String,
    input: Vec<u8>,
    thread: ThreadId,
    begun: Instant,
    limit: Duration,
    /// Where it panicked and what it said.
    panicked: Option<String>,
}

static NOW: Mutex<Option<Execution>> = Mutex::new(None);

fn now() -> MutexGuard<'static, Option<Execution>> {
    NOW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here to [`end`] the execution is watched: when it takes longer than `limit`, the process ends, and panics are
/// not printed.
pub fn begin(label: &str, input: &[u8], limit: Duration) {
    static ONCE: Once = Once::new();
    ONCE.call_once(start);
    let (label, input, thread) = (label.to_owned(), input.to_vec(), thread::current().id());
    *now() = Some(Execution { label, input, thread, begun: Instant::now(), limit, panicked: None });
}

/// What it panicked with, if it did.
pub fn end() -> Option<String> {
    now().take().and_then(|execution| execution.panicked)
}

fn start() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // Not while the lock is held: what is said may be anything.
        let said = format!("{}", info).replace('\n', " ");
        match &mut *now() {
            Some(execution) if execution.thread == thread::current().id() => execution.panicked = Some(said),
            _ => usual(info),
        }
    }));
    thread::spawn(|| {
        loop {
            thread::sleep(INTERVAL);
            let late = now().as_ref().is_some_and(|e| e.begun.elapsed() > e.limit);
            if late {
                lost("it does not end");
            }
        }
    });
}

/// Saves the input of the execution that cannot go on, if there is one, and ends the process.
pub fn lost(why: &str) {
    let Some(Execution { label, input, .. }) = now().take() else { return };
    let path = save(&label, &input);
    say(&format!("{label}: {why}; its input is in {}", path.display()));
    abort()
}

/// Where inputs go that fail.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz")
}

/// Writes an input to a file of its own.
pub fn save(label: &str, input: &[u8]) -> PathBuf {
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let target = label.split(' ').next().unwrap_or_default();
    let path = folder().join(format!("{target}-{:016x}", hash.finish()));
    let written = fs::create_dir_all(folder()).and_then(|()| fs::write(&path, input));
    if let Err(error) = written {
        say(&format!("{}: {error}", path.display()));
    }
    path
}

/// Says it at once: the test runner keeps what is printed to itself.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
