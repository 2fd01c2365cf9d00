//! Progress on stderr, and Ctrl-C.

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use powerinfer::progress::Progress;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// `eprintln!`, but a stderr that is full or closed is no reason to panic.
macro_rules! tell {
    ($($text:tt)*) => {
        drop(std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($text)*))))
    };
}
pub(crate) use tell;

/// Writes to standard output, at once.
///
/// # Errors
/// When nobody reads it any more, or the disk behind it is full.
pub fn print(text: impl Display) -> Result<()> {
    let mut out = stdout();
    write!(out, "{text}").and_then(|()| out.flush()).context("standard output")
}

static STOP: AtomicBool = AtomicBool::new(false);
static EXITS: AtomicBool = AtomicBool::new(false);

/// What a second Ctrl-C does before the first has been heard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It ends the program at once.
    Exits,
    /// Nothing: a file is being written, and must not be left half done.
    Waits,
}

/// From now on Ctrl-C asks the work to stop.
///
/// # Errors
/// When the system refuses a handler.
pub fn catch_ctrl_c(again: Again) -> Result<()> {
    press_again(again);
    let handler = move || {
        if STOP.swap(true, Ordering::SeqCst) && EXITS.load(Ordering::SeqCst) {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).context("Ctrl-C cannot be caught")
}

/// Changes what a second Ctrl-C does.
pub fn press_again(again: Again) {
    EXITS.store(again == Again::Exits, Ordering::SeqCst);
}

/// Takes back a request to stop.
pub fn clear_stop() {
    STOP.store(false, Ordering::SeqCst);
}

/// A bar on stderr where that is a terminal; hears Ctrl-C either way.
pub struct Bar(Mutex<ProgressBar>);

impl Bar {
    /// No bar yet; one appears when work begins.
    pub fn new() -> Self {
        Self(Mutex::new(ProgressBar::hidden()))
    }

    fn with(&self, f: impl FnOnce(&mut ProgressBar)) {
        if let Ok(mut bar) = self.0.lock() {
            f(&mut bar);
        }
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total: u64) {
        if !stderr().is_terminal() {
            return;
        }
        let style = "{msg:>16} [{bar:40}] {percent:>3} %  {elapsed}, {eta} left";
        let new = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(style) {
            new.set_style(style.progress_chars("=> "));
        }
        new.set_message(what.to_owned());
        self.with(|bar| std::mem::replace(bar, new).finish_and_clear());
    }

    fn advance(&self, n: u64) {
        self.with(|bar| bar.inc(n));
    }

    fn end(&self) {
        self.with(|bar| bar.finish_and_clear());
    }

    fn cancelled(&self) -> bool {
        STOP.load(Ordering::SeqCst)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.with(|bar| bar.finish_and_clear());
    }
}
