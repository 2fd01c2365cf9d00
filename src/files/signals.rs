//! Signals that files cause: what the system would end the program by becomes an error in one line.
#![allow(unsafe_code, reason = "signal handlers are installed and written through libc")]

#[cfg(windows)]
mod windows;

/// From now on a mapped file that is cut short ends the program with exit code 1 and a line on standard error, and a file
/// that may not grow further is an error of whoever writes it. For programs, not for libraries: it is the process that has
/// signal handlers.
#[cfg(unix)]
pub fn prepare() {
    unix::prepare();
}

/// Whether `signal` is ignored, as it is of programs that nohup starts.
#[cfg(unix)]
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null action only asks; an action of zeros is a valid place for the answer.
    let handler = unsafe {
        let mut now: libc::sigaction = std::mem::MaybeUninit::zeroed().assume_init();
        libc::sigaction(signal, std::ptr::null(), &mut now);
        now.sa_sigaction
    };
    handler == libc::SIG_IGN
}

/// The same where there are exceptions in the place of signals.
#[cfg(windows)]
pub fn prepare() {
    windows::prepare();
}

#[cfg(unix)]
mod unix {
    use super::super::mapped::{NOT_WHOLE, find};
    use libc::{c_int, c_void, iovec, sigaction, siginfo_t};
    use std::io::{IsTerminal, stderr};
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// What was done about SIGBUS before: Rust's own handler knows overflowing stacks.
    static BEFORE: OnceLock<sigaction> = OnceLock::new();
    /// Whether standard error may show a progress bar, which the line replaces.
    static TERMINAL: AtomicBool = AtomicBool::new(false);
    /// Whether a thread is about to write the line.
    static TOLD: AtomicBool = AtomicBool::new(false);

    pub(super) fn prepare() {
        TERMINAL.store(stderr().is_terminal(), Ordering::Relaxed);
        // SAFETY: ignoring a signal calls nothing. Writes beyond `ulimit -f` then fail with EFBIG.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let mut before = MaybeUninit::zeroed();
        // SAFETY: a null action only asks; an action of zeros is a valid place for the answer.
        let before = unsafe {
            libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr());
            before.assume_init()
        };
        if BEFORE.set(before).is_err() {
            return;
        }
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_bus_error;
        // SAFETY: `on_bus_error` has the signature that SA_SIGINFO asks for and calls only what a handler may. It needs
        // little stack, and SA_ONSTACK is of no effect where a thread has no other one.
        unsafe {
            let mut action: sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
        }
    }

    extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
        // SAFETY: with SA_SIGINFO the system passes a valid `info`, whose address is set for faults.
        let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
        // Others are sent by `kill`, with no address.
        let is_fault = code > 0;
        if let Some((name, len)) = find(address).filter(|_| is_fault) {
            while TOLD.swap(true, Ordering::Relaxed) {
                // SAFETY: waiting for a signal is allowed. The thread that was first ends the program meanwhile.
                unsafe { libc::pause() };
            }
            let clear: &[u8] = if TERMINAL.load(Ordering::Relaxed) { b"\r\x1b[K" } else { b"" };
            let part = |start: *const u8, len| iovec { iov_base: start.cast_mut().cast(), iov_len: len };
            let of = |bytes: &[u8]| part(bytes.as_ptr(), bytes.len());
            let line = [of(clear), of(b"error: "), part(name, len), of(b": "), of(NOT_WHOLE.as_bytes()), of(b"\n")];
            // SAFETY: all parts live: this thread reads the map at `address`, which keeps its name. `writev` and `_exit`
            // neither allocate nor lock.
            unsafe {
                libc::writev(2, line.as_ptr(), line.len() as c_int);
                libc::_exit(1);
            }
        }
        // SAFETY: only what a handler may call. A fault happens again as soon as this returns, and meets what was there
        // before; a signal that was sent is sent again.
        unsafe {
            libc::sigaction(signal, BEFORE.get().map_or(ptr::null(), ptr::from_ref), ptr::null_mut());
            if !is_fault {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
}
