//! A page of a mapped file that cannot be read is an exception on Windows.
#![allow(unsafe_code, reason = "functions of the system are called, and one is called by it")]

use super::super::mapped::{NOT_WHOLE, find};
use std::io::{IsTerminal, stderr};
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use windows_sys::Win32::Foundation::EXCEPTION_IN_PAGE_ERROR;
use windows_sys::Win32::Storage::FileSystem::WriteFile;
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, Sleep, TerminateProcess};

/// Whether standard error may show a progress bar, which the line replaces.
static TERMINAL: AtomicBool = AtomicBool::new(false);
/// Whether a thread is about to write the line.
static TOLD: AtomicBool = AtomicBool::new(false);

pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        TERMINAL.store(stderr().is_terminal(), Ordering::Relaxed);
        // SAFETY: the handler has the signature that is asked for, lives as long as the program and keeps to what is said there.
        unsafe { AddVectoredExceptionHandler(1, Some(on_exception)) };
    });
}

unsafe extern "system" fn on_exception(info: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system passes valid pointers.
    let record = unsafe { &*(*info).ExceptionRecord };
    // The second of its parameters is the address that was read.
    if record.ExceptionCode == EXCEPTION_IN_PAGE_ERROR
        && record.NumberParameters >= 2
        && let Some((name, len)) = find(record.ExceptionInformation[1])
    {
        while TOLD.swap(true, Ordering::Relaxed) {
            // SAFETY: takes a number. The thread that was first ends the program meanwhile.
            unsafe { Sleep(1000) };
        }
        let clear: &[u8] = if TERMINAL.load(Ordering::Relaxed) { b"\r\x1b[K" } else { b"" };
        // SAFETY: this thread reads the map at the address, which keeps its name.
        let name = unsafe { std::slice::from_raw_parts(name, len) };
        for part in [clear, b"error: ", name, b": ", NOT_WHOLE.as_bytes(), b"\n"] {
            // SAFETY: all parts live; what is written is not asked for.
            unsafe {
                WriteFile(GetStdHandle(STD_ERROR_HANDLE), part.as_ptr(), part.len() as u32, &mut 0, ptr::null_mut())
            };
        }
        // SAFETY: the handle is that of this process; no exit handlers run, which might wait for this thread.
        unsafe { TerminateProcess(GetCurrentProcess(), 1) };
    }
    EXCEPTION_CONTINUE_SEARCH
}
