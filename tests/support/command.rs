//! The four commands, run as users run them.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::{env, thread};

/// What bad input may cost: the memory that a command can write to, in KiB.
const MAX_DATA_KIB: u32 = 300_000;

/// Names a file to which the tests are added that start what may open a card: .ci/run has those run again where there is one.
const CARD_TESTS: &str = "CARD_TESTS";

/// Runs `"$@"`: computes on the CPU where the test does not say where (`$COMPUTES` is set for commands that can be told), so
/// that the tests are the same on a machine with a card. What may open a card is not limited: its driver reserves memory
/// by the gigabyte. The others plan for a card unless they get a description of one.
const LAUNCHER: &str = r#"
program=$1 given= card= before= plans= described=
shift
for argument; do
  case $argument in --vram* | --dry-run* | --report*) plans=1 ;; --hardware*) described=1 ;; esac
  case $before in
    -p | --prompt) ;;
    --device) [ "$argument" != cpu ] || card= ;;
    *) case $argument in --device | --device=* | -ngl | --n-gpu-layers | --n-gpu-layers=*) given=1 card=1 ;; esac ;;
  esac
  case $argument in --device=cpu) card= ;; esac
  before=$argument
done
[ -n "$card" ] || [ -z "$MAX_DATA" ] || ulimit -d "$MAX_DATA" || exit 125
[ -n "$given" ] || [ -z "$COMPUTES" ] || set -- --device cpu "$@"
[ -n "$COMPUTES" ] || [ -z "$plans" ] || [ -n "$described" ] || card=1
[ -z "$CARD_TESTS" ] || [ -z "$card" ] || echo "$TEST" >> "$CARD_TESTS"
unset MAX_DATA COMPUTES TEST
exec "$program" "$@"
"#;

/// What the system says where there is no file; [`refused`] takes what Windows says of a folder for it, too.
pub const NO_SUCH_FILE: &str = if cfg!(windows) { "(os error 2)" } else { "No such file" };
const NO_SUCH_FOLDER: &str = "(os error 3)";

/// A device that nothing is left of.
pub const NOWHERE: &str = if cfg!(windows) { "NUL" } else { "/dev/null" };

/// Has `command` keep in `folder` what can be made again.
pub fn with_cache<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.env("XDG_CACHE_HOME", folder).env("LOCALAPPDATA", folder)
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let outcome = Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        // On stdout the escape character may be a token that a random model chose.
        assert!(!outcome.stderr.contains('\x1b'), "escape sequences where no terminal is");
        assert!(outcome.code.is_some(), "ended by a signal: {:?}\n{}", output.status, outcome.stderr);
        outcome
    }
}

impl Outcome {
    /// Exit code 0, or the test fails with what the command said.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }
}

/// Path of a command, which may open a card: `run`, `profile`, `split` or `bench`.
pub fn file(name: &str) -> &'static str {
    if let Some(path) = env::var_os(CARD_TESTS) {
        let file = OpenOptions::new().append(true).create(true).open(path);
        writeln!(file.expect("it can be opened"), "{}", test()).expect("it can be written");
    }
    program(name)
}

/// The name of the test that runs on this thread, or of the thread.
fn test() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// [`file`], for what does not open a card, or one that is emulated in any case.
pub fn program(name: &str) -> &'static str {
    match name {
        "run" => env!("CARGO_BIN_EXE_powerinfer-run"),
        "profile" => env!("CARGO_BIN_EXE_powerinfer-profile"),
        "split" => env!("CARGO_BIN_EXE_powerinfer-split"),
        "bench" => env!("CARGO_BIN_EXE_powerinfer-bench"),
        _ => panic!("{name}: no such command"),
    }
}

/// A command with nothing on its standard input and at most [`MAX_DATA_KIB`] of memory (on Linux, where that bounds
/// what is allocated and not what is mapped from files). It computes on the CPU unless its arguments say otherwise.
pub fn tool(name: &str) -> Command {
    launched(program(name), matches!(name, "run" | "bench"))
}

/// [`tool`] for any program; whether it takes `--device`.
pub fn launched(program: &str, computes: bool) -> Command {
    let mut command = Command::new(if cfg!(unix) { "sh" } else { program });
    if cfg!(unix) {
        command.args(["-c", LAUNCHER, "sh", program]);
        command.env("TEST", test());
        command.env("COMPUTES", if computes { "1" } else { "" });
        command.env("MAX_DATA", if cfg!(target_os = "linux") { MAX_DATA_KIB.to_string() } else { String::new() });
    }
    super::ctrl_c::apart(&mut command);
    // A shell that takes the arguments apart is lacking: no card is shown.
    if cfg!(windows) {
        command.env("CUDA_VISIBLE_DEVICES", "-1");
    }
    // Stacks of threads count as memory; how many there are by default depends on the machine.
    command.env("RAYON_NUM_THREADS", "2").stdin(Stdio::null());
    command
}

/// A shell command in which `$RUN` is powerinfer-run, `$SPLIT` powerinfer-split, and `$0`, `$1`... are `args`. It must say
/// where `$RUN` and `$BENCH` compute.
#[track_caller]
pub fn sh(script: &str, args: &[&Path]) -> Command {
    let anywhere = ["$RUN", "$BENCH"].iter().any(|name| script.contains(name)) && !script.contains("--device ");
    assert!(!anywhere, "without --device the script depends on whether the machine has a card: {script}");
    let started: usize = ["$RUN", "$BENCH", "$SPLIT"].iter().map(|name| script.matches(name).count()).sum();
    let on_cpu = script.matches("--device cpu").count();
    let path = if started > on_cpu || script.contains("--report") { file } else { program };
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).args(args).stdin(Stdio::null());
    for name in ["run", "profile", "split", "bench"] {
        command.env(name.to_uppercase(), path(name));
    }
    command
}

/// Runs the command, which must fail with exit code 1 and one line beginning `error: ` that holds all of `wanted`.
/// Lines about what went well may come before it. Returns that line.
#[track_caller]
pub fn refused(command: &mut Command, wanted: &[&str]) -> String {
    let outcome = Outcome::from(command.output().expect("the command starts"));
    let stderr = &outcome.stderr;
    assert_eq!(outcome.code, Some(1), "{command:?}\n{stderr}");
    let line = stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with("error: "), "{command:?}\n{stderr}");
    assert_eq!(stderr.matches("error: ").count(), 1, "{command:?}\n{stderr}");
    let harmless = |l: &str| l.starts_with("note: ") || l.starts_with("warning: ") || l.contains(": activation ");
    assert!(stderr.lines().rev().skip(1).all(harmless), "{command:?}\n{stderr}");
    for text in wanted {
        let of_folder = cfg!(windows) && *text == NO_SUCH_FILE && line.contains(NO_SUCH_FOLDER);
        assert!(of_folder || line.contains(text), "{command:?}: \"{text}\" is missing in: {line}");
    }
    line.to_owned()
}

/// [`refused`], for the command of that name.
#[track_caller]
pub fn refused_by(name: &str, args: &[&dyn AsRef<OsStr>], wanted: &[&str]) -> String {
    let mut command = tool(name);
    args.iter().for_each(|a| {
        command.arg(a.as_ref());
    });
    refused(&mut command, wanted)
}

/// Runs the command, which must be refused by the parser of arguments: exit code 2, `wanted` on stderr.
#[track_caller]
pub fn usage_error(name: &str, args: &[&str], wanted: &str) {
    let outcome = Outcome::from(tool(name).args(args).output().expect("the command starts"));
    assert_eq!(outcome.code, Some(2), "{args:?}: {}", outcome.stderr);
    assert!(outcome.stderr.contains(wanted), "{args:?}: {}", outcome.stderr);
}

/// Names in a folder, hidden ones too, sorted.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
