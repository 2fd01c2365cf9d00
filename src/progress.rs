//! How long work reports what it has done and hears that it should stop.

use std::fmt;

/// Told about progress; asked whether to go on. The library itself neither prints nor catches signals.
pub trait Progress: Sync {
    /// A stage of `total` steps begins.
    fn begin(&self, _what: &str, _total: u64) {}
    /// The same of a stage that is over too soon to be shown to people.
    fn begin_brief(&self, _what: &str, _total: u64) {}
    /// `n` more steps are done.
    fn advance(&self, _n: u64) {}
    /// What the work is at, or what it has found so far, in a few words.
    fn tell(&self, _what: &str) {}
    /// The stage is over, though the work is not: what shows it may go away.
    fn end(&self) {}
    /// Whether the user wants the work to end now.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Reports nothing and never stops.
pub struct Silent;

impl Progress for Silent {}

/// The error of work that ended because [`Progress::cancelled`] said so.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Fails with [`Interrupted`] once the user wants to stop.
///
/// # Errors
/// [`Interrupted`], and nothing else.
pub fn check(progress: &dyn Progress) -> anyhow::Result<()> {
    if progress.cancelled() { Err(Interrupted.into()) } else { Ok(()) }
}
