//! What goes wrong on the way, told apart by whether it helps to try again, and how long to wait before.

use crate::progress::{self, Progress};
use anyhow::{Error, Result, bail};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Tries in a row that fail before it is given up.
const TRIES: u32 = 5;
/// The pause after the first of them; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often to look whether the user wants to stop.
const GLANCE: Duration = Duration::from_millis(50);

/// Why there is no answer, or no good one.
#[derive(Debug)]
pub(super) enum Fault {
    /// The next try would end the same way.
    Final(Error),
    /// No server was reached: in the middle of work that may pass, at its beginning it will not.
    Unreachable(String),
    /// It may be over soon.
    Passing {
        /// One line that names the address.
        why: String,
        /// How long the server asks to wait.
        after: Option<Duration>,
        /// Whether something arrived before: then there is nothing to wait for.
        moved: bool,
    },
}

impl Fault {
    /// A fault that may be over soon.
    pub fn passing(why: String) -> Self {
        Self::Passing { why, after: None, moved: false }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// How often it has failed in a row.
#[derive(Default)]
pub(super) struct Patience {
    n_failed: u32,
}

impl Patience {
    /// It goes on: earlier failures count no more.
    pub fn renew(&mut self) {
        self.n_failed = 0;
    }

    /// Waits before the next try, or gives up.
    ///
    /// # Errors
    /// Why there is no use in another try; [`progress::Interrupted`].
    pub fn wait(&mut self, fault: Fault, progress: &dyn Progress) -> Result<()> {
        let (why, after, moved) = match fault {
            Fault::Final(error) => return Err(error),
            Fault::Unreachable(why) => (why, None, false),
            Fault::Passing { why, after, moved } => (why, after, moved),
        };
        self.n_failed += 1;
        if let Some(after) = after.filter(|after| *after > LONGEST_PAUSE) {
            bail!("{why}; the server asks to come back in {} s", after.as_secs());
        }
        if self.n_failed >= TRIES {
            bail!("{why}; given up after {TRIES} tries");
        }
        let usual = if moved { Duration::ZERO } else { FIRST_PAUSE * 2u32.pow(self.n_failed - 1) };
        pause(after.unwrap_or(usual), progress)
    }
}

/// Sleeps, unless the user wants to stop.
pub(super) fn pause(time: Duration, progress: &dyn Progress) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        progress::check(progress)?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        sleep(left.min(GLANCE));
    }
}

/// Tries until it works or there is no use: for questions with which work begins.
///
/// # Errors
/// As [`Patience::wait`].
pub(super) fn patiently<T>(progress: &dyn Progress, mut attempt: impl FnMut() -> Result<T, Fault>) -> Result<T> {
    let mut patience = Patience::default();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Fault::Unreachable(why)) => bail!(why),
            Err(fault) => patience.wait(fault, progress)?,
        }
    }
}
