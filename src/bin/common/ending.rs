//! SIGTERM and SIGHUP, or on Windows that the console is closed: the work is asked to stop, and if it does not, the program ends
//! all the same, with the exit status that shells have for these signals.

#[cfg(windows)]
mod windows;

use anyhow::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static WANTED: AtomicBool = AtomicBool::new(false);
/// Whether the program does nothing but wait for a line.
static WAITING: AtomicBool = AtomicBool::new(false);

/// Whether a signal has asked the program to end.
pub fn is_wanted() -> bool {
    WANTED.load(Ordering::SeqCst)
}

/// Ends the program without the exit handlers of libraries: that of a graphics card's driver may wait for what runs there,
/// which may never end. All output has been written: nothing here keeps any back.
pub fn leave(code: i32) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(code);
    #[cfg(windows)]
    windows::leave(code)
}

/// From now on Ctrl-C calls `handler`, on a thread of its own.
///
/// # Errors
/// When the system refuses a handler.
pub fn interrupted(handler: impl Fn() + Send + 'static) -> Result<()> {
    #[cfg(unix)]
    {
        let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT])?;
        let listen = move || signals.forever().for_each(|_| handler());
        std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(listen)?;
        Ok(())
    }
    #[cfg(windows)]
    Ok(ctrlc::set_handler(handler)?)
}

/// Runs `read`, which waits for a line: a signal then need not wait for anything.
pub fn while_waiting<T>(read: impl FnOnce() -> T) -> T {
    WAITING.store(true, Ordering::SeqCst);
    let result = read();
    WAITING.store(false, Ordering::SeqCst);
    result
}

/// From now on these signals call `stop` and end the program within [`PATIENCE`].
///
/// # Errors
/// When the system refuses a handler.
#[cfg(unix)]
pub fn watch(stop: fn()) -> Result<()> {
    use powerinfer::files::signals::is_ignored;
    use signal_hook::consts::{SIGHUP, SIGTERM};
    // Who started the program with nohup wants it to go on.
    let heard: Vec<i32> = [SIGTERM, SIGHUP].into_iter().filter(|s| !is_ignored(*s)).collect();
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    unix::remember_terminal();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            WANTED.store(true, Ordering::SeqCst);
            stop();
            wait();
            unix::restore_terminal();
            leave(128 + signal);
        }
    })?;
    Ok(())
}

/// From now on the end of the console, or of the session, calls `stop` and ends the program within [`PATIENCE`].
///
/// # Errors
/// When the system refuses a handler.
#[cfg(windows)]
pub fn watch(stop: fn()) -> Result<()> {
    windows::watch(stop)
}

/// Has the system open no window to say that this process has ended.
#[cfg(windows)]
pub fn without_windows() {
    windows::without_windows();
}

/// How long the work may take to stop by itself.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Waits until the work has stopped by itself, which the program's end shows, or it only waits for a line.
fn wait() {
    let start = Instant::now();
    while !WAITING.load(Ordering::SeqCst) && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(unix)]
mod unix {
    use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
    use std::io::{IsTerminal, Write, stderr, stdin, stdout};
    use std::sync::OnceLock;

    static TERMINAL: OnceLock<Termios> = OnceLock::new();

    pub fn remember_terminal() {
        if let Ok(now) = tcgetattr(stdin()) {
            TERMINAL.get_or_init(|| now);
        }
    }

    /// Line editing may have changed the terminal, and a bar may stand on its last line.
    pub fn restore_terminal() {
        if let Some(before) = TERMINAL.get() {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
            if stdout().is_terminal() {
                let _ = write!(stdout(), "\x1b[?2004l").and_then(|()| stdout().flush());
            }
        }
        if stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
