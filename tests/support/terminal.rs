//! A command on a terminal.

use super::command::file;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running command whose standard input, output and errors are one terminal.
pub struct Terminal {
    child: Child,
    keyboard: File,
    other_end: File,
    screen: Arc<Mutex<Vec<u8>>>,
    _state: TempDir,
}

impl Terminal {
    pub fn of(mut command: Command) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let other_end = File::options().read(true).write(true).open(path).unwrap();
        let end = || other_end.try_clone().unwrap();
        // What tests type is no part of the user's history.
        let state = tempfile::tempdir().unwrap();
        let given = |name: &str| command.get_envs().any(|(known, _)| known == name);
        let defaults = [("TERM", Path::new("xterm")), ("XDG_STATE_HOME", state.path())];
        let missing: Vec<_> = defaults.into_iter().filter(|(name, _)| !given(name)).collect();
        let child = command.envs(missing).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(terminal);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, seen) = (keyboard.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                seen.lock().unwrap().extend(&bytes[..n]);
            }
        });
        Self { child, keyboard, other_end, screen, _state: state }
    }

    /// `run` with these arguments.
    pub fn run(args: &[&str]) -> Self {
        let mut command = Command::new(file("run"));
        command.args(args).args(["-t", "1", "--device", "cpu"]);
        Self::of(command)
    }

    pub fn types(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
    }

    /// Gives it another size, of which the command is told.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).unwrap();
        // It is no controlling terminal, so that the system tells nobody.
        self.signal("-WINCH");
    }

    /// All that has been shown.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until `text` has been shown `n` times in all.
    #[track_caller]
    pub fn shows(&self, text: &str, n: usize) {
        let start = Instant::now();
        while self.shown().matches(text).count() < n {
            assert!(start.elapsed() < PATIENCE, "\"{text}\" is not shown {n} times:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end, at most so long.
    #[track_caller]
    pub fn ends(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < within, "it goes on:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the terminal collects lines and shows what is typed, as it does for a shell.
    pub fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.other_end).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a screen shows in the end: lines, of which some have been written over. Knows what bars use.
pub fn in_the_end(shown: &str) -> Vec<String> {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut at, mut chars) = (0, 0, shown.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\n' => {
                (row, at) = (row + 1, 0);
                lines.resize(lines.len().max(row + 1), Vec::new());
            }
            '\r' => at = 0,
            '\x1b' => {
                let sequence: String = std::iter::from_fn(|| chars.next_if(|c| !c.is_ascii_alphabetic())).collect();
                match (sequence.as_str(), chars.next()) {
                    ("[2", Some('K')) => lines[row].clear(),
                    ("[" | "[0", Some('K')) => lines[row].truncate(at),
                    (up, Some('A')) => row = row.saturating_sub(up[1..].parse().unwrap()),
                    (down, Some('B')) => row = (row + down[1..].parse::<usize>().unwrap()).min(lines.len() - 1),
                    ("[?25" | "[?2004", Some('h' | 'l')) | ("[" | "[0", Some('m')) => {}
                    (other, end) => panic!("escape sequence {other:?} {end:?}"),
                }
            }
            c => {
                if lines[row].len() <= at {
                    lines[row].resize(at + 1, ' ');
                }
                lines[row][at] = c;
                at += 1;
            }
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect()).collect()
}
