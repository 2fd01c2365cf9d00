//! The process that a card is tested in: this program, started again with [`ARGUMENT`]. It says line by line what it is at,
//! so that who waits for it knows how long to wait, and what it did last.

use super::{Outcome, SLOW, Verdict, tell_of_compiling};
use crate::common::own_program;
use crate::common::terminal::Bar;
use anyhow::{Context, Result};
use powerinfer::chat::contained::apart_from_terminal;
use powerinfer::gpu::memory::SHORT_OF_MEMORY;
use powerinfer::gpu::self_test::{COMPILING, run};
use powerinfer::gpu::{Device, Identity};
use powerinfer::progress::{self, Progress};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write, stdin, stdout};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The argument that makes a program a child; the number of the card follows.
const ARGUMENT: &str = "--self-test-card";
const OPENING: &str = "opening";
const ENDING: &str = "ending";

/// Seconds on a machine with many cards whose driver is not kept loaded.
const OPENING_LIMIT: Duration = Duration::from_secs(30);
/// Several times what the slowest processor needs for all kernels.
const COMPILING_LIMIT: Duration = Duration::from_secs(120);
/// A kernel takes microseconds; its inputs and what is expected, milliseconds.
const STAGE_LIMIT: Duration = Duration::from_secs(10);
/// A process that is killed is gone at once, unless the driver holds it in the kernel.
const DYING_LIMIT: Duration = Duration::from_secs(2);
/// How often the parent looks at the clock, and for Ctrl-C.
const INTERVAL: Duration = Duration::from_millis(10);
/// A hundred lines are expected.
const MOST_SAID: u64 = 1 << 20;

/// A line from the child.
#[derive(Serialize, Deserialize)]
enum Said {
    Stage(String),
    Card(String),
    Verdict(Verdict),
}

/// The number of the card, where this process is a child.
pub fn asked() -> Option<u32> {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().filter(|argument| argument == ARGUMENT)?;
    arguments.next()?.to_str()?.parse().ok()
}

/// The child's part: tests the card and ends.
pub fn serve(ordinal: u32) -> ExitCode {
    without_core_file();
    thread::spawn(end_with_parent);
    let verdict = test_here(ordinal).unwrap_or_else(|why| Verdict::Unavailable(format!("{why:#}")));
    let told = say(&Said::Verdict(verdict));
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Nobody looks at a core file of a driver.
#[cfg(unix)]
fn without_core_file() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Then there may be one.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Nor at the window in which the system says that it has ended.
#[cfg(windows)]
fn without_core_file() {
    super::super::ending::without_windows();
}

/// Waits until the parent's end of the pipe is closed; then ends without anything that a driver has to do at an exit.
fn end_with_parent() {
    let mut byte = [0];
    while stdin().read(&mut byte).is_ok_and(|n| n > 0) {}
    #[cfg(unix)]
    {
        use rustix::process::{Signal, getpid, kill_process};
        let _ = kill_process(getpid(), Signal::KILL);
    }
    #[cfg(windows)]
    super::super::ending::leave(1);
    #[cfg(unix)]
    std::process::abort();
}

fn say(said: &Said) -> Result<()> {
    let line = serde_json::to_string(said)? + "\n";
    let mut out = stdout().lock();
    Ok(out.write_all(line.as_bytes()).and_then(|()| out.flush())?)
}

fn test_here(ordinal: u32) -> Result<Verdict> {
    say(&Said::Stage(OPENING.to_owned()))?;
    say(&Said::Card(Identity::of(ordinal)?.name))?;
    let device = Device::open(ordinal)?;
    let result = run(&device, &mut |stage| say(&Said::Stage(stage.to_owned())).map(|()| true));
    Ok(match result.map_err(|why| format!("{why:#}").replace('\n', " ")) {
        Ok(()) => Verdict::Passed,
        // Others use the card now.
        Err(why) if why.contains(SHORT_OF_MEMORY) || why.contains("OUT_OF_MEMORY") => Verdict::Unavailable(why),
        Err(why) => Verdict::Failed(why),
    })
}

/// The parent's part: tests the card of this number.
///
/// # Errors
/// When the user stops it; when this program cannot be found.
pub fn test(ordinal: u32) -> Result<Outcome> {
    let program = own_program()?;
    let mut command = Command::new(&program);
    command.arg(ARGUMENT).arg(ordinal.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).env("RUST_BACKTRACE", "0");
    apart_from_terminal(&mut command);
    let child = command.spawn().with_context(|| format!("{}: cannot be started for the self-test", program.display()));
    let mut child = match child {
        Ok(child) => child,
        Err(why) => return Ok(Outcome { card: None, verdict: Verdict::Unavailable(format!("{why:#}")) }),
    };
    let outcome = follow(&mut child, &Bar::new());
    end(&mut child);
    outcome
}

/// Kills what has not ended. The pipe to it is closed here, too.
fn end(child: &mut Child) {
    // It may have ended.
    let _ = child.kill();
    drop(child.stdin.take());
    let begin = Instant::now();
    // What cannot be killed is left to itself.
    while matches!(child.try_wait(), Ok(None)) && begin.elapsed() < DYING_LIMIT {
        thread::sleep(INTERVAL);
    }
}

/// Sends on what the child says, until it ends.
fn listen(from: impl Read, to: &Sender<Said>) -> io::Result<()> {
    for line in BufReader::new(from.take(MOST_SAID)).lines() {
        // A driver may say something, too.
        let Ok(said) = serde_json::from_str(&line?) else { continue };
        if to.send(said).is_err() {
            break;
        }
    }
    Ok(())
}

fn limit(stage: &str) -> Duration {
    match stage {
        OPENING => OPENING_LIMIT,
        COMPILING => COMPILING_LIMIT,
        _ => STAGE_LIMIT,
    }
}

/// Follows the child from stage to stage, each as long as it may take.
fn follow(child: &mut Child, progress: &dyn Progress) -> Result<Outcome> {
    let out = child.stdout.take().context("the self-test has no pipe")?;
    let (send, receive) = channel();
    thread::spawn(move || drop(listen(out, &send)));
    let mut card = None;
    let mut stage = OPENING.to_owned();
    let mut verdict = None;
    let mut since = Instant::now();
    loop {
        match receive.recv_timeout(INTERVAL) {
            Ok(Said::Card(name)) => card = Some(name),
            Ok(Said::Stage(next)) => (stage, since) = (next, Instant::now()),
            // It passes once it has closed the card, too: this one can be used by one process only, as may be.
            Ok(Said::Verdict(Verdict::Passed)) => {
                (stage, since, verdict) = (ENDING.to_owned(), Instant::now(), Some(Verdict::Passed));
            }
            Ok(Said::Verdict(verdict)) => return Ok(Outcome { card, verdict }),
            Err(RecvTimeoutError::Disconnected) => {
                let verdict = verdict.unwrap_or_else(|| Verdict::Failed(format!("{stage}: {}", ended(child))));
                return Ok(Outcome { card, verdict });
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        progress::check(progress)?;
        if stage == COMPILING && since.elapsed() > SLOW {
            tell_of_compiling();
        }
        if since.elapsed() > limit(&stage) {
            let verdict = Verdict::Failed(format!("{stage}: does not end within {} s", limit(&stage).as_secs()));
            return Ok(Outcome { card, verdict });
        }
    }
}

/// How a child came to its end that has closed its output.
fn ended(child: &mut Child) -> String {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return format!("the driver has ended the process ({status})"),
            Ok(None) if begin.elapsed() < DYING_LIMIT => thread::sleep(INTERVAL),
            _ => return "the process says nothing more".to_owned(),
        }
    }
}
