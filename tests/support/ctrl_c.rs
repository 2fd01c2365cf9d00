//! Ctrl-C, pressed at a command; on Windows it is Ctrl-Break, which can be sent to one process alone.
#![cfg_attr(windows, allow(unsafe_code, reason = "the system's functions are called"))]

use std::process::{Child, Command};

/// Has `command` hear [`press`] alone.
pub fn apart(command: &mut Command) -> &mut Command {
    #[cfg(windows)]
    {
        use std::os::windows::process::CommandExt;
        use windows_sys::Win32::System::Console::{AllocConsole, GetConsoleOutputCP};
        use windows_sys::Win32::System::Threading::CREATE_NEW_PROCESS_GROUP;
        static CONSOLE: std::sync::Once = std::sync::Once::new();
        // SAFETY: without arguments. Who runs the tests may have no console, without which there is no Ctrl-Break.
        CONSOLE.call_once(|| unsafe {
            if GetConsoleOutputCP() == 0 {
                AllocConsole();
            }
        });
        command.creation_flags(CREATE_NEW_PROCESS_GROUP);
    }
    command
}

/// Presses Ctrl-C. Where that cannot be done the child is killed, the test says so, and has nothing more to do: `false`.
pub fn press(child: &mut Child) -> bool {
    #[cfg(unix)]
    let is_sent = {
        let mut kill = Command::new("kill");
        assert!(kill.args(["-INT", &child.id().to_string()]).status().unwrap().success());
        true
    };
    #[cfg(windows)]
    let is_sent = {
        use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, GenerateConsoleCtrlEvent};
        // SAFETY: takes numbers.
        unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, child.id()) != 0 }
    };
    if !is_sent {
        child.kill().unwrap();
        child.wait().unwrap();
        super::skipped("there is no console, or none whose keys can be pressed, as in Wine 8 (scripts/ctrl_c.py)");
    }
    is_sent
}
