//! Output, progress on stderr, and Ctrl-C.

use super::{ending, progress_lines};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use powerinfer::gpu::waiting::heed;
use powerinfer::printable::{printable_lines, without_controls};
use powerinfer::progress::Progress;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// `eprintln!`, but a stderr that is full or closed is no reason to panic, and what could command a terminal is escaped.
macro_rules! tell {
    ($($text:tt)*) => { $crate::common::terminal::say(format_args!($($text)*)) };
}
pub(crate) use tell;

/// How lines begin that tell what a user need not know.
const NOTE: &str = "note: ";

static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on no notes are told.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether only warnings and errors are wanted.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// What [`tell!`] does.
pub fn say(text: std::fmt::Arguments) {
    let text = text.to_string();
    if !is_quiet() || !text.starts_with(NOTE) {
        without_bar(|| drop(writeln!(stderr(), "{}", printable_lines(&text))));
    }
}

/// The bar that is shown now, if any.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Takes the bar off the terminal while `write` writes.
fn without_bar<T>(write: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().ok().and_then(|bar| bar.clone());
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Writes to standard output, at once.
///
/// # Errors
/// When nobody reads it any more, or the disk behind it is full.
pub fn print(text: impl Display) -> Result<()> {
    let mut out = stdout();
    without_bar(|| write!(out, "{text}").and_then(|()| out.flush())).context("standard output")
}

/// Writes data to standard error, at once.
///
/// # Errors
/// As [`print`].
pub fn print_error(text: impl Display) -> Result<()> {
    let mut error = stderr();
    without_bar(|| write!(error, "{text}").and_then(|()| error.flush())).context("standard error")
}

/// Writes lines for people, in which what could command a terminal is escaped.
///
/// # Errors
/// As [`print`].
pub fn print_table(text: impl Display) -> Result<()> {
    print(printable_lines(&text.to_string()))
}

/// Writes a line of JSON, in which what could command a terminal is escaped: beside what JSON itself demands, the controls
/// from U+007F on.
///
/// # Errors
/// As [`print`].
pub fn print_json(text: impl Display) -> Result<()> {
    let mut line = String::new();
    for c in text.to_string().chars() {
        match c {
            '\n' => line.push(c),
            c if c.is_control() => line += &format!("\\u{:04x}", u32::from(c)),
            c => line.push(c),
        }
    }
    print(line + "\n")
}

/// Writes text of a model or a prompt: as it is into a pipe or a file, without control characters on a terminal.
///
/// # Errors
/// As [`print`].
pub fn print_generated(text: &str) -> Result<()> {
    if stdout().is_terminal() { print(without_controls(text)) } else { print(text) }
}

/// The prompt of a terminal without editing that a line is waited for at.
static PROMPT: Mutex<Option<&'static str>> = Mutex::new(None);

/// Shows `prompt` on a terminal without editing and runs `read`, which waits for a line there. The terminal itself drops what is
/// typed at Ctrl-C; that is told, and the prompt shown anew.
pub fn at_plain_prompt<T>(prompt: &'static str, read: impl FnOnce() -> T) -> T {
    let waits = |at| PROMPT.lock().map(|mut now| *now = at);
    let _ = waits(Some(prompt));
    let result = read();
    let _ = waits(None);
    result
}

/// Whether Ctrl-C has dropped a line.
fn has_dropped_line() -> bool {
    let Some(prompt) = PROMPT.lock().ok().and_then(|now| *now) else { return false };
    let _ = writeln!(stderr(), "\n(the line was dropped; Ctrl-D or /exit leaves)");
    let _ = write!(stdout(), "{prompt}").and_then(|()| stdout().flush());
    true
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

/// From now on Ctrl-C asks the work to stop, and so do SIGTERM and SIGHUP, which end the program in any case.
///
/// # Errors
/// When the system refuses a handler.
pub fn catch_ctrl_c(again: Again) -> Result<()> {
    press_again(again);
    let handler = move || {
        if has_dropped_line() {
            return;
        }
        if STOP.swap(true, Ordering::SeqCst) && EXITS.load(Ordering::SeqCst) {
            ending::leave(130);
        }
    };
    heed(|| STOP.load(Ordering::SeqCst));
    ending::interrupted(handler).context("Ctrl-C cannot be caught")?;
    ending::watch(|| STOP.store(true, Ordering::SeqCst)).context("SIGTERM cannot be caught")
}

/// Changes what a second Ctrl-C does.
pub fn press_again(again: Again) {
    EXITS.store(again == Again::Exits, Ordering::SeqCst);
}

/// Takes back a request to stop, unless it was one to end.
pub fn clear_stop() {
    STOP.store(ending::is_wanted(), Ordering::SeqCst);
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
        progress_lines::begin(what, total);
        if progress_lines::are_wanted() || !stderr().is_terminal() {
            return;
        }
        // The old one goes first: two on one line would leave something behind.
        self.end();
        let style = "{msg:>16} [{wide_bar}] {percent:>3} %  {elapsed}, {eta} left  {prefix}";
        let new = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(style) {
            new.set_style(style.progress_chars("=> "));
        }
        new.set_message(what.to_owned());
        if let Ok(mut shown) = SHOWN.lock() {
            *shown = Some(new.clone());
        }
        self.with(|bar| *bar = new);
    }

    fn begin_brief(&self, what: &str, total: u64) {
        progress_lines::begin(what, total);
    }

    fn advance(&self, n: u64) {
        progress_lines::advance(n);
        self.with(|bar| bar.inc(n));
    }

    fn tell(&self, what: &str) {
        progress_lines::at(what);
        self.with(|bar| bar.set_prefix(what.to_owned()));
    }

    fn end(&self) {
        progress_lines::end();
        self.with(|bar| bar.finish_and_clear());
        if let Ok(mut shown) = SHOWN.lock() {
            shown.take_if(|bar| bar.is_finished());
        }
    }

    fn cancelled(&self) -> bool {
        STOP.load(Ordering::SeqCst)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}
