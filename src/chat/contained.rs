//! Renders templates in a process of its own: a template comes from a downloaded file, and may try to take all memory,
//! all time, or the stack.
//!
//! The program starts itself again with [`ARGUMENT`] as its only argument, which leads it to [`serve`]. The child takes a
//! [`Request`] from its standard input and writes a prompt or an error to its standard output. Before it reads anything
//! it limits its memory and the size of core files (with `setrlimit`, whose bounds on memory hold on Linux, or as a job of
//! Windows; on macOS it looks every few milliseconds how much memory it has), and it ends when it has used up its time. The parent
//! waits longer than that, and kills it then.

use super::errors::{Refused, Unusable};
use super::template::{MAX_OUTPUT_BYTES, check_size};
use super::{Request, limits};
use crate::progress::{self, Progress};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The argument that makes a program a child.
pub const ARGUMENT: &str = "--render-chat-template";

/// Of the processor. The templates in the tests take a few milliseconds.
const TIME: Duration = Duration::from_millis(500);
/// And for every 16 KiB of text.
const TIME_PER_MESSAGE: Duration = Duration::from_millis(2);
/// A child that waits for a processor has more time on the clock.
const PATIENCE: u32 = 20;
const STACK_BYTES: usize = 48 << 20;
/// Beside the stack.
const MEMORY_BYTES: u64 = 96 << 20;
/// How often a parent asks whether to go on, and a child for the time.
const INTERVAL: Duration = Duration::from_millis(10);
/// A character takes up to six bytes in JSON.
const MAX_ANSWER_BYTES: u64 = 6 * MAX_OUTPUT_BYTES as u64 + 4096;
const MAX_COMPLAINT_BYTES: u64 = 4096;

const TOO_LONG: &str = "takes too long";
const TOO_DEEP: &str = "nests too deeply";
const TOO_MUCH: &str = "takes too much memory";
/// What Rust says where more is asked for than there can be.
const OVERFLOW: &str = "capacity overflow";

#[derive(Serialize, Deserialize)]
enum Answer {
    Prompt(String),
    Unusable(String),
    Refused(String),
    Failed(String),
}

impl From<Result<String>> for Answer {
    fn from(result: Result<String>) -> Self {
        match result {
            Ok(prompt) => Self::Prompt(prompt),
            Err(e) if e.is::<Unusable>() => Self::Unusable(e.to_string()),
            Err(e) if e.is::<Refused>() => Self::Refused(e.to_string()),
            Err(e) => Self::Failed(e.to_string()),
        }
    }
}

/// What the child may take.
fn time(request: &Request) -> Duration {
    let messages = &request.messages;
    let pages = messages.iter().map(|m| m.content.len()).sum::<usize>() >> 14;
    TIME + TIME_PER_MESSAGE.saturating_mul(u32::try_from(messages.len() + pages).unwrap_or(u32::MAX))
}

/// The child's part: answers one request and ends. It starts one thread, reads no files and prints nothing but the answer.
pub fn serve() -> ExitCode {
    limits::set(MEMORY_BYTES + STACK_BYTES as u64);
    let answer = answer().unwrap_or_else(|e| Answer::from(Err(e)));
    let mut out = BufWriter::new(io::stdout().lock());
    let written = serde_json::to_writer(&mut out, &answer).is_ok() && out.flush().is_ok();
    if written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn answer() -> Result<Answer> {
    let request: Request = serde_json::from_reader(io::stdin().lock())?;
    let time = time(&request);
    let (send, receive) = channel();
    let render = move || drop(send.send(Answer::from(request.render())));
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(render)?;
    loop {
        match receive.recv_timeout(INTERVAL) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if limits::time_used() > time => {
                return Ok(Answer::from(Err(Unusable::because(TOO_LONG))));
            }
            Err(RecvTimeoutError::Timeout) if limits::exceeded(MEMORY_BYTES + STACK_BYTES as u64) => {
                return Ok(Answer::from(Err(Unusable::because(TOO_MUCH))));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    let panic = thread.join().err().and_then(|panic| panic.downcast::<&str>().ok());
    let too_much = panic.is_some_and(|message| message.contains(OVERFLOW));
    Err(Unusable::because(if too_much { TOO_MUCH } else { "the template engine has failed" }))
}

/// The parent's part: the prompt that `program`, which must call [`serve`] where [`ARGUMENT`] is its first argument,
/// makes of `request`.
///
/// # Errors
/// Those of the template ([`Unusable`] where no conversation can be held with it), when a message does not reach the
/// prompt, [`progress::Interrupted`], and when the program cannot be started.
pub fn render(program: &Path, request: &Request, progress: &dyn Progress) -> Result<String> {
    check_size(&request.source)?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // More heaps would count as memory without being used; nobody reads a backtrace.
    apart_from_terminal(&mut command);
    command.env("MALLOC_ARENA_MAX", "1").env("RUST_BACKTRACE", "0");
    let child =
        command.spawn().with_context(|| format!("{}: cannot be started for the chat template", program.display()));
    let mut child = child?;
    let answer = converse(&mut child, request, progress);
    // It may have ended; then there is nothing to kill.
    let _ = child.kill();
    let status = child.wait().context("the process of the chat template")?;
    progress::check(progress)?;
    let (answer, complaint) = answer?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Prompt(prompt)) => Ok(prompt),
        Ok(Answer::Refused(why)) => Err(Refused(why).into()),
        Ok(Answer::Failed(why)) => Err(anyhow!(why)),
        Ok(Answer::Unusable(why)) => Err(Unusable(why).into()),
        Err(_) if complaint.contains("overflowed its stack") => Err(Unusable::because(TOO_DEEP)),
        Err(_) if complaint.contains("memory allocation") || complaint.contains(OVERFLOW) => {
            Err(Unusable::because(TOO_MUCH))
        }
        Err(_) => Err(Unusable::because(format_args!("the process that renders it has ended ({status})"))),
    }
}

/// Has Ctrl-C not reach what `command` starts: it is for this process, which ends the other.
pub fn apart_from_terminal(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::Threading::DETACHED_PROCESS;
        std::os::windows::process::CommandExt::creation_flags(command, DETACHED_PROCESS);
    }
}

/// Sends the request; what the child answers, and what it writes to its standard error.
fn converse(child: &mut Child, request: &Request, progress: &dyn Progress) -> Result<(Vec<u8>, String)> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(anyhow!("the process of the chat template has no pipes"));
    };
    let deadline = Instant::now() + time(request) * PATIENCE;
    let request = serde_json::to_vec(request)?;
    let (send, receive) = channel();
    // A child that ends early closes its pipes, which ends the threads, too.
    thread::spawn(move || drop(stdin.write_all(&request)));
    thread::spawn(move || {
        let complaint = thread::spawn(move || read_at_most(stderr, MAX_COMPLAINT_BYTES));
        let answer = read_at_most(stdout, MAX_ANSWER_BYTES);
        let complaint = complaint.join().unwrap_or_default();
        drop(send.send((answer, String::from_utf8_lossy(&complaint).into_owned())));
    });
    loop {
        match receive.recv_timeout(INTERVAL) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("the chat template's answer cannot be read")),
            Err(RecvTimeoutError::Timeout) => progress::check(progress)?,
        }
        if Instant::now() > deadline {
            return Err(Unusable::because(TOO_LONG));
        }
    }
}

fn read_at_most(from: impl Read, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What has been read before an error is what the child said.
    let _ = from.take(most).read_to_end(&mut bytes);
    bytes
}
