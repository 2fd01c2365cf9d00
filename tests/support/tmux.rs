//! tmux, which draws what a command writes as a terminal would: tests see its screen.

use super::skipped;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// How often the screen is looked at before something is late: a minute or more, in which time that the tests themselves are stopped for
/// does not count.
const LOOKS: usize = 6000;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// A variable that has a missing tmux fail the test.
const REQUIRED: &str = "REQUIRE_TMUX";
/// The status line would take one of the screen's; what has ended is to be seen all the same.
const SETTINGS: &str =
    "set -gq status off\nset -gq remain-on-exit on\nset -gq remain-on-exit-format ''\nset -gq escape-time 0\n";

/// Runs its arguments, of which the one before them is the file for the exit code. Ctrl-C is for the command alone.
const WRITES_CODE: &str = r#"trap : INT; "$@"; echo "$?" >"$0""#;

/// A server of tmux with one window, in which one command runs.
pub struct Tmux {
    name: String,
    folder: TempDir,
}

impl Tmux {
    /// `command` with its arguments and variables in a window of `columns` and `rows`; `None` where there is no tmux, which is told.
    pub fn start((columns, rows): (u16, u16), command: &Command) -> Option<Self> {
        static N: AtomicUsize = AtomicUsize::new(0);
        if Command::new("tmux").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            assert!(std::env::var_os(REQUIRED).is_none_or(|value| value != "1"), "{REQUIRED}=1, and there is no tmux");
            skipped("there is no tmux");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("tmux.conf");
        std::fs::write(&settings, SETTINGS).unwrap();
        let name = format!("test-{}-{}", std::process::id(), N.fetch_add(1, Ordering::Relaxed));
        let tmux = Self { name, folder };
        let mut start = tmux.command("-f");
        start.arg(&settings).args(["new-session", "-d", "-x", &columns.to_string(), "-y", &rows.to_string()]);
        // tmux may miss that a command has ended, so a shell writes its exit code down.
        start.args(["sh", "-c", WRITES_CODE]).arg(tmux.code());
        // `env` gives the variables to the command alone: tmux gives its windows a TERM of its own.
        start.arg("env").arg("-u").arg("NO_COLOR");
        for (variable, value) in command.get_envs() {
            let value = value.expect("no variable is taken away").to_str().unwrap();
            start.arg(format!("{}={value}", variable.to_str().unwrap()));
        }
        start.arg(command.get_program()).args(command.get_args());
        let started = start.output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        Some(tmux)
    }

    /// Where the exit code is written.
    fn code(&self) -> PathBuf {
        self.folder.path().join("code")
    }

    fn command(&self, argument: &str) -> Command {
        let mut command = Command::new("tmux");
        // Sockets lie there. The terminal that the tests run in may be one of tmux's.
        command.env("TMUX_TMPDIR", self.folder.path()).env_remove("TMUX").args(["-L", &self.name, argument]);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command
    }

    fn tells(&self, argument: &str, others: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(argument).args(others).output().unwrap();
        assert!(status.success(), "tmux {argument} {others:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// Types text as it is.
    pub fn types(&self, text: &str) {
        self.tells("send-keys", &["-l", "--", text]);
    }

    /// Presses keys by their names, as `Enter`, `C-c` or `Up`.
    pub fn presses(&self, keys: &[&str]) {
        self.tells("send-keys", keys);
    }

    /// Types a line.
    pub fn says(&self, line: &str) {
        self.types(line);
        self.presses(&["Enter"]);
    }

    /// Pastes text, with the marks of bracketed paste where the command has asked for them.
    pub fn pastes(&self, text: &str) {
        let file = self.folder.path().join("pasted.txt");
        std::fs::write(&file, text).unwrap();
        self.tells("load-buffer", &[file.to_str().unwrap()]);
        self.tells("paste-buffer", &["-p", "-r", "-d"]);
    }

    /// Gives the window another size.
    pub fn resizes(&self, columns: u16, rows: u16) {
        self.tells("resize-window", &["-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// The lines of the screen, without the empty ones at its end.
    pub fn screen(&self) -> Vec<String> {
        let text = self.tells("capture-pane", &["-p"]);
        text.trim_end_matches('\n').lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// All that was shown, with what has left the screen, and lines that were too long for it in one piece.
    pub fn everything(&self) -> String {
        self.tells("capture-pane", &["-p", "-J", "-S", "-"]).trim_end_matches('\n').to_owned()
    }

    /// All that was shown, with the sequences for colours.
    pub fn coloured(&self) -> String {
        self.tells("capture-pane", &["-p", "-e", "-S", "-"])
    }

    /// Waits for a screen of which `holds` is true.
    #[track_caller]
    pub fn waits(&self, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
        for _ in 0..LOOKS {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{}", self.screen().join("\n"))
    }

    /// Waits for a screen whose last lines are these.
    #[track_caller]
    pub fn shows(&self, last: &[&str]) {
        self.waits(|screen| {
            let n = screen.len().checked_sub(last.len());
            n.is_some_and(|n| screen[n..].iter().map(String::as_str).eq(last.iter().copied()))
        });
    }

    /// Waits until `text` has been shown.
    #[track_caller]
    pub fn has_shown(&self, text: &str) {
        self.waits(|_| self.everything().contains(text));
    }

    /// Waits until the command has ended, and returns its exit code.
    #[track_caller]
    pub fn ends(&self) -> i32 {
        for _ in 0..LOOKS {
            let told = std::fs::read_to_string(self.code()).unwrap_or_default();
            if let Some(code) = told.strip_suffix('\n') {
                return code.parse().unwrap();
            }
            std::thread::sleep(PAUSE);
        }
        panic!("it has not ended: {}", self.screen().join("\n"))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command("kill-server").stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
