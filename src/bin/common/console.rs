//! The console of Windows: UTF-8 and escape sequences, as terminals have elsewhere, and as it was before once the program ends.
#![allow(unsafe_code, reason = "functions of the system are called")]

use std::sync::Mutex;
use windows_sys::Win32::Globalization::CP_UTF8;
use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, ENABLE_PROCESSED_OUTPUT, ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleCP, GetConsoleMode,
    GetConsoleOutputCP, GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_OUTPUT_HANDLE, SetConsoleCP, SetConsoleMode,
    SetConsoleOutputCP,
};

/// What was before.
struct Before {
    /// Numbers of the code pages of input and output.
    pages: (u32, u32),
    modes: Vec<(STD_HANDLE, CONSOLE_MODE)>,
}

static BEFORE: Mutex<Option<Before>> = Mutex::new(None);

/// Has the console take UTF-8 and escape sequences, where there is one and it can: what is printed through pipes, as with `more`,
/// is read by its code page.
pub fn prepare() {
    let Ok(mut before) = BEFORE.lock() else { return };
    // SAFETY: these take numbers; without a console they return 0.
    let pages = unsafe { (GetConsoleCP(), GetConsoleOutputCP()) };
    if before.is_some() || pages.1 == 0 {
        return;
    }
    // SAFETY: as above.
    unsafe {
        SetConsoleCP(CP_UTF8);
        SetConsoleOutputCP(CP_UTF8);
    }
    let mut modes = Vec::new();
    for name in [STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        let mut mode = 0;
        // SAFETY: the pointer is to a number; a handle that is no console's is refused.
        unsafe {
            let handle = GetStdHandle(name);
            if GetConsoleMode(handle, &mut mode) != 0 {
                modes.push((name, mode));
                // An old console does not know them; then no library here uses them.
                SetConsoleMode(handle, mode | ENABLE_PROCESSED_OUTPUT | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
            }
        }
    }
    *before = Some(Before { pages, modes });
}

/// Leaves the console as it was found.
pub fn restore() {
    let Some(before) = BEFORE.lock().ok().and_then(|mut before| before.take()) else { return };
    for (name, mode) in before.modes.into_iter().rev() {
        // SAFETY: these take numbers and the handle of a console.
        unsafe { SetConsoleMode(GetStdHandle(name), mode) };
    }
    // SAFETY: these take numbers.
    unsafe {
        SetConsoleCP(before.pages.0);
        SetConsoleOutputCP(before.pages.1);
    }
}
