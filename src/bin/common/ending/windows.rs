//! How a program ends on Windows: by its console's events, or at once.
#![allow(unsafe_code, reason = "functions of the system are called, and one is called by it")]

use super::{WANTED, wait};
use crate::common::console;
use anyhow::Result;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use windows_sys::Win32::System::Console::{
    CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT, SetConsoleCtrlHandler,
};
use windows_sys::Win32::System::Diagnostics::Debug::{SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SetErrorMode};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess};
use windows_sys::core::BOOL;

/// The exit codes of SIGHUP and SIGTERM elsewhere.
const HUNG_UP: i32 = 129;
const TERMINATED: i32 = 143;

static STOP: OnceLock<fn()> = OnceLock::new();

pub(super) fn watch(stop: fn()) -> Result<()> {
    if STOP.set(stop).is_ok() {
        // SAFETY: the handler has the signature that is asked for and lives as long as the program.
        let is_set = unsafe { SetConsoleCtrlHandler(Some(on_event), 1) } != 0;
        anyhow::ensure!(is_set, io::Error::last_os_error());
    }
    Ok(())
}

/// Runs on a thread of its own. When it returns from one of these events the system ends the program, and in any case after
/// five seconds.
unsafe extern "system" fn on_event(event: u32) -> BOOL {
    let code = match event {
        CTRL_CLOSE_EVENT => HUNG_UP,
        CTRL_LOGOFF_EVENT | CTRL_SHUTDOWN_EVENT => TERMINATED,
        // Ctrl-C and Ctrl-Break have another handler.
        _ => return 0,
    };
    WANTED.store(true, Ordering::SeqCst);
    if let Some(stop) = STOP.get() {
        stop();
    }
    wait();
    leave(code)
}

/// Without what libraries do when the program ends.
pub(super) fn leave(code: i32) -> ! {
    console::restore();
    // SAFETY: the handle is that of this process.
    unsafe { TerminateProcess(GetCurrentProcess(), code as u32) };
    std::process::abort()
}

pub(super) fn without_windows() {
    // SAFETY: takes a number.
    unsafe { SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX) };
}
