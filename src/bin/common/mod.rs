//! What the four commands share: arguments, messages, progress bars, Ctrl-C, exit codes.
#![allow(dead_code, reason = "no command uses all of it")]

pub mod args;
pub mod batches;
pub mod cache;
pub mod card;
#[cfg(windows)]
pub mod console;
pub mod devices;
pub mod ending;
pub mod escapes;
pub mod habits;
pub mod hardware;
pub mod help;
pub mod hub;
pub mod line;
pub mod memory;
pub mod models;
pub mod names;
pub mod papers;
pub mod picture;
pub mod plan;
pub mod progress_lines;
pub mod sampling;
pub mod self_test;
pub mod terminal;
pub mod told;
pub mod version;
pub mod which;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use powerinfer::cpu::cores::{performance_cores, usable_cores};
use powerinfer::printable::printable;
use powerinfer::progress::{Interrupted, Progress};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code of a command that has done what it was to do.
const DONE: u8 = 0;
/// Exit code of one that could not.
const FAILED: u8 = 1;
/// Exit code of wrong usage, as clap has it.
const USAGE: u8 = 2;
/// Exit code of a comparison that found the new side slower.
const SLOWER: u8 = 3;
/// Exit code of a command that Ctrl-C ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Parses the arguments, runs the command, and turns its result into messages and an exit code: 0 done, 1 an error
/// in one line on stderr, 2 wrong usage, 3 slower than what it was compared with, 130 interrupted.
pub fn main<A: Parser>(run: fn(A) -> Result<()>) -> ExitCode {
    // A child that tests a card.
    if let Some(ordinal) = self_test::asked() {
        return self_test::serve(ordinal);
    }
    let code = status(run);
    #[cfg(windows)]
    console::restore();
    if powerinfer::gpu::waiting::hangs() {
        ending::leave(code.into());
    }
    ExitCode::from(code)
}

/// The exit code of the command.
fn status<A: Parser>(run: fn(A) -> Result<()>) -> u8 {
    powerinfer::files::signals::prepare();
    let args = match line::arguments() {
        Ok(args) => args,
        Err(code) => return code,
    };
    #[cfg(windows)]
    console::prepare();
    let Err(error) = powerinfer::cpu::floor::check().and_then(|()| run(args)) else { return DONE };
    if error.is::<Interrupted>() {
        terminal::tell!("interrupted");
        return INTERRUPTED;
    }
    if let Some(Regression(line)) = error.downcast_ref() {
        terminal::tell!("{line}");
        return SLOWER;
    }
    failed(&error)
}

/// Says what has failed; the exit code of that. Who reads only the beginning of what is printed has it.
fn failed(error: &anyhow::Error) -> u8 {
    let pipe_closed = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<io::Error>().is_some_and(pipe_closed) {
        return DONE;
    }
    let line = format!("{error:#}").replace('\n', " ");
    terminal::tell!("error: {}", printable(&line));
    FAILED
}

/// The end of a comparison in which the new side was slower: a line that says so. Not a failure, but no success either.
#[derive(Debug)]
pub struct Regression(pub String);

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Regression {}

/// Threads to use where the user does not say: one per performance core, or per core where all are alike.
pub fn default_threads() -> usize {
    let cores = usable_cores();
    performance_cores().map_or(cores, |fast| fast.len().clamp(1, cores))
}

/// Says so where there are more threads than cores: they then wait for each other.
pub fn warn_of_threads(n_threads: usize) {
    let cores = usable_cores();
    if n_threads > cores {
        terminal::tell!(
            "warning: -t {n_threads}: this machine has {cores} cores; more threads than cores only slow it down"
        );
    }
}

/// This program, even where its file has been replaced since it started.
///
/// # Errors
/// Where the system does not tell.
pub fn own_program() -> Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && running.exists() {
        return Ok(running.to_owned());
    }
    std::env::current_exe().context("this program cannot find itself")
}

/// Where this platform keeps what users have set.
pub fn config_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = if cfg!(windows) {
        folder("APPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))
    };
    Some(config?.join("powerinfer"))
}

/// Where this platform keeps what can be made again.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Caches"))
    } else {
        folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))
    };
    Some(cache?.join("powerinfer"))
}

/// Where this platform keeps what users have done, such as what they have typed.
pub fn state_folder() -> Option<PathBuf> {
    if cfg!(windows) || cfg!(target_os = "macos") {
        return if cfg!(windows) { cache_folder() } else { config_folder() };
    }
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    Some(folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?.join("powerinfer"))
}

/// Writes a file of the cache folder, which is made where it is not there. A FIFO or a device is none of ours: it might be
/// waited for.
pub fn write_cached(path: &Path, bytes: &[u8], progress: &dyn Progress) -> Result<()> {
    path.parent().map(std::fs::create_dir_all).transpose()?;
    ensure!(path.metadata().map_or(true, |found| found.is_file()), "{}: is no file", path.display());
    powerinfer::files::write_whole(path, bytes, progress)
}
