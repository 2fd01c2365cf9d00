//! The kernels and the code that drives them, on a GPU and under the emulator (tests/emulator/).
//!
//! Without a GPU every test here but `under_the_emulator` does nothing and says so; that one runs them all again with
//! the emulator in the place of the driver. `EMULATED_TESTS="matvec ffn"` limits it to tests with these words in their
//! names; `REQUIRE_GPU=1` makes a missing GPU an error. On a GPU the tests take turns, whatever `--test-threads` says.

mod architectures;
mod attention;
mod attention_prefill;
mod batches;
mod card;
mod context_shift;
mod device;
mod exact;
mod experts;
mod fallback;
mod ffn;
mod hybrid;
mod gemm;
mod gemm_chosen;
mod kernels;
mod latent;
mod loading;
mod matvec;
mod norm;
mod operands;
mod predict;
mod probe;
mod recurrent;
mod rewind;
mod rope;
mod route;
mod select;
mod self_test;
mod several;
#[path = "../support/mod.rs"]
mod support;
mod tiles;
mod token;
mod traces;

use powerinfer::gpu::Device;
use std::cell::RefCell;
use std::env;
use std::io::Write;
use std::num::NonZero;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::emulator;

/// Set where the tests run under the emulator.
const UNDER_EMULATOR: &str = "POWERINFER_UNDER_EMULATOR";

/// Says something that the test runner does not keep to itself when the test passes.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether the device is the emulator: tests may then be smaller, and ask for more (exact sums, poisoned memory).
pub fn emulated() -> bool {
    env::var_os(UNDER_EMULATOR).is_some()
}

/// Held by the test whose turn on the card it is.
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    /// The turn of the test that runs on this thread; it ends with the thread, after all that the test has on the card.
    static MINE: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Waits for the turn of the test that calls, which lasts until the test ends. Tests must not share a card: freeing memory
/// waits for all that runs there and holds up the calls of other threads meanwhile, among them those of the thread whose
/// answer a running kernel waits for. Under the emulator nothing does.
fn take_turn() {
    if emulated() {
        return;
    }
    MINE.with_borrow_mut(|mine| {
        // A test that failed has left nothing behind that its turn protects.
        mine.get_or_insert_with(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    });
}

/// The device to test on, for this test alone until it ends; or nothing, which is said.
///
/// # Panics
/// Where there must be one: under the emulator, and where the environment says `REQUIRE_GPU=1`.
pub fn gpu() -> Option<Device> {
    take_turn();
    let why = match Device::open(0) {
        Ok(device) => {
            if device.is_emulated() {
                // It is slow, and slower where it is watched.
                powerinfer::gpu::waiting::set_limit(std::time::Duration::from_secs(600));
            }
            return Some(device);
        }
        Err(why) => format!("{why:#}"),
    };
    let required = env::var("REQUIRE_GPU").is_ok_and(|v| v != "0") || emulated();
    assert!(!required, "no GPU: {why}");
    say(&format!("skipped: no GPU: {why}\n"));
    None
}

/// This test program again, under the emulator.
fn again() -> Result<Command, &'static str> {
    let mut command = emulator::command(env::current_exe().expect("the test has a path"))?;
    // Lists tests by their threads, and here there is one.
    command.env(UNDER_EMULATOR, "1").env_remove("CARD_TESTS");
    Ok(command)
}

/// Runs the ignored test `name` alone, under the emulator, with this setting of the device: for errors that would spoil
/// the device for other tests. Nothing where there is no emulator, which is said.
pub fn alone(name: &str, setting: (&str, &str)) -> Option<Output> {
    let command = again().map(|mut c| {
        c.args(["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"]).env(setting.0, setting.1);
        c.output().expect("the test program starts")
    });
    command.map_err(|why| say(&format!("skipped: {why}\n"))).ok()
}

/// What became of [`again`], which is possible, with these arguments.
fn emulated_run<'a>(args: impl IntoIterator<Item = &'a str>) -> Output {
    again().expect("an emulator").args(args).output().expect("the test program starts")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Each test has a process, and so a card, of its own: on one card they would wait for one another wherever memory is freed.
#[test]
fn under_the_emulator() {
    if emulated() {
        return;
    }
    if let Err(why) = again() {
        return say(&format!("skipped: {why}\n"));
    }
    let words = env::var("EMULATED_TESTS").unwrap_or_default();
    let listed = emulated_run(words.split_whitespace().chain(["--list", "--skip", "under_the_emulator"]));
    assert!(listed.status.success(), "{}", text(&listed));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let (next, n_passed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let take_turns = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let output = emulated_run(["--exact", name, "--test-threads", "1"]);
            assert!(output.status.success(), "{name}: {}\n{}", output.status, text(&output));
            let passed = String::from_utf8_lossy(&output.stdout).contains("test result: ok. 1 passed");
            n_passed.fetch_add(usize::from(passed), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, NonZero::get) {
            scope.spawn(take_turns);
        }
    });
    say(&format!(
        "under the emulator: {} of {} tests passed, others are ignored\n",
        n_passed.into_inner(),
        names.len()
    ));
}

/// What must work, and what must end the process with a message that names the place.
#[test]
fn the_emulator_finds_what_it_is_for() {
    if emulated() {
        return;
    }
    let program = match emulator::build("selftest") {
        Ok(folder) => folder.join("selftest"),
        Err(why) => return say(&format!("skipped: {why}\n")),
    };
    let run = |kernel: &[&str]| Command::new(&program).args(kernel).output().expect("the self-test starts");
    let works = run(&[]);
    assert!(works.status.success(), "{}", text(&works));
    for (kernel, message) in [
        ("divergent_barrier", "deadlock in kernel divergent_barrier, block (0,0,0)"),
        ("two_barriers", "divergent __syncthreads: other threads are at selftest.cu:"),
        ("mask_of_absent_lanes", "waits in a shuffle, selftest.cu:"),
    ] {
        let ends = run(&[kernel]);
        assert!(!ends.status.success() && text(&ends).contains(message), "{kernel}: {}", text(&ends));
    }
}

/// Streams are queues of their own: without an event between them, one does not see what the other will have done.
#[test]
fn the_emulator_shows_a_missing_wait_between_streams() {
    use powerinfer::gpu::{DeviceBuffer, Stream};
    if !emulated() {
        return;
    }
    let device = gpu().unwrap();
    let (writer, reader) = (Stream::new(&device).unwrap(), Stream::new(&device).unwrap());
    let buffer = DeviceBuffer::exact(&device, 4 << 20, "a buffer").unwrap();
    let last = buffer.len() - 1;
    let stale = (0..100u8).filter(|round| {
        writer.fill(buffer.ptr(), *round, buffer.len()).unwrap();
        let seen = reader.read_vec::<u8>(buffer.ptr().offset(last), 1).unwrap()[0];
        writer.synchronize().unwrap();
        assert_eq!(reader.read_vec::<u8>(buffer.ptr().offset(last), 1).unwrap()[0], *round);
        seen != *round
    });
    assert!(stale.count() > 0);
}
