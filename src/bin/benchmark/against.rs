//! `--against`: two builds measure in turns, each in a process of its own.

use super::compare::{conclude, tell_unpaired};
use super::output::Told;
use crate::Args;
use crate::common::own_program;
use crate::common::terminal::Bar;
use anyhow::{Context, Result, bail, ensure};
use powerinfer::files::{MOST_TEXT, open_regular, read_text};
use powerinfer::measure::compare::{Compared, Measured, earlier, pair};
use powerinfer::progress::{Interrupted, Progress};
use powerinfer::units::Bytes;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How often a test is measured in a turn, where nothing is said: the fastest of three is rarely a disturbed one.
const REPETITIONS: usize = 3;
/// Turns, where nothing is said: so many, and more until the ratios are known closely enough or so much time is over.
const LEAST_TURNS: usize = 12;
const ENOUGH_TIME: Duration = Duration::from_secs(300);
/// Between two looks at whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);
/// What a build writes is far shorter.
const MOST_OUTPUT: Bytes = Bytes(64 << 20);
/// How a program of this system begins; what does not is a script, whose place may matter to it.
const PROGRAM: [u8; 4] = *b"\x7fELF";

/// Flags of the comparison, and of what it asks for itself, with the value behind them.
const WITH_VALUE: [&str; 11] = [
    "--against",
    "--turns",
    "--fail-below",
    "-o",
    "--output",
    "-oe",
    "--output-err",
    "-r",
    "--repetitions",
    "--delay",
    "--output_err",
];
/// Those without a value.
const ALONE: [&str; 1] = ["--progress"];

/// Measures with `binary` and with this build in turns, and compares.
///
/// # Errors
/// As [`conclude`], and when one of them fails.
pub fn against(args: &Args, binary: &Path) -> Result<()> {
    ensure!(args.text() != "-", "--text -: standard input can be read only once; name a file");
    let folder = tempfile::tempdir().context("no place for temporary files")?;
    let arguments = arguments(std::env::args_os().skip(1), args.speed.repetitions.unwrap_or(REPETITIONS));
    let side = |program: &Path, name: &str| Side::new(program, name, &folder, &arguments);
    let sides = [side(binary, "old")?, side(&own_program()?, "new")?];
    let bar = Bar::new();
    let told = Told::new(&bar, &args.out);
    let least = args.compare.turns.unwrap_or(LEAST_TURNS);
    told.begin("turns", 2 * least as u64);
    let (mut turns, started): (Vec<[Vec<Measured>; 2]>, _) = (Vec::new(), Instant::now());
    let more = |turns: &[[Vec<Measured>; 2]]| {
        let may = args.compare.turns.is_none() && started.elapsed() < ENOUGH_TIME;
        turns.len() < least || may && !compared(turns, args).iter().all(Compared::is_close)
    };
    while more(&turns) {
        let n = turns.len();
        told.test(n + 1, least.max(n + 1), "a turn");
        let mut rows = [Vec::new(), Vec::new()];
        // Whoever is second finds the machine as the first has left it.
        let order = if n % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            rows[which] = sides[which].rows(&folder, &told)?;
            told.advance(1);
        }
        turns.push(rows);
    }
    drop(bar);
    let Some([old, new]) = turns.first() else { return Ok(()) };
    tell_unpaired(&pair(old, new), &binary.display().to_string());
    conclude(&args.out, compared(&turns, args))
}

/// Each thing that both sides have measured in all turns.
fn compared(turns: &[[Vec<Measured>; 2]], args: &Args) -> Vec<Compared> {
    let Some([old, new]) = turns.first() else { return Vec::new() };
    let firsts = pair(old, new).pairs;
    let all = firsts.iter().map(|(old, new)| {
        let of = |rows: &'_ [Measured], like: &Measured| rows.iter().position(|row| row.case == like.case);
        let turn = |[of_old, of_new]: &'_ [Vec<Measured>; 2]| Some((of(of_old, old[0])?, of(of_new, new[0])?));
        let found = turns.iter().filter_map(|rows| turn(rows).map(|(i, j)| (&rows[0][i], &rows[1][j])));
        Compared::in_turns(&found.collect::<Vec<_>>(), args.compare.limit())
    });
    all.collect()
}

/// What the command was called with, for a process that measures once.
fn arguments(given: impl Iterator<Item = OsString>, repetitions: usize) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut given = given;
    while let Some(argument) = given.next() {
        let text = argument.to_string_lossy();
        let flag = text.split_once('=').map_or(&*text, |(flag, _)| flag);
        let is_attached = ["-r", "-o"].iter().any(|short| {
            let value = text.strip_prefix(short).unwrap_or_default();
            !value.is_empty()
                && (value.bytes().all(|b| b.is_ascii_digit()) || value.parse::<super::output::Output>().is_ok())
        });
        if WITH_VALUE.contains(&&*text) {
            given.next();
        } else if !(WITH_VALUE.contains(&flag) || ALONE.contains(&flag) || is_attached) {
            kept.push(argument);
        }
    }
    kept.extend(["-o", "jsonl", "-r"].map(OsString::from));
    kept.push(repetitions.to_string().into());
    kept
}

/// One of the builds.
struct Side {
    program: PathBuf,
    /// What the user named, and where it lies.
    place: PathBuf,
    /// As the user named it.
    named: PathBuf,
    arguments: Vec<OsString>,
}

impl Side {
    fn new(program: &Path, name: &str, folder: &TempDir, arguments: &[OsString]) -> Result<Self> {
        let named = program.to_owned();
        let mut begin = [0; PROGRAM.len()];
        let mut file = open_regular(program).with_context(|| format!("{}: is no program", named.display()))?;
        // A name without a folder is a file here, not a command to be found elsewhere.
        let place = std::path::absolute(program).with_context(|| named.display().to_string())?;
        let is_program = file.read_exact(&mut begin).is_ok() && begin == PROGRAM;
        // A program that was just linked lies in other pages than one that was copied, and so does the model in it: of both
        // there is a copy.
        let copy = folder.path().join(name);
        let program = if is_program && fs::copy(program, &copy).is_ok() { copy } else { place.clone() };
        Ok(Self { program, place, named, arguments: arguments.to_vec() })
    }

    /// Has it measure once.
    fn rows(&self, folder: &TempDir, progress: &dyn Progress) -> Result<Vec<Measured>> {
        let name = self.named.display();
        let [out, error] = ["out", "error"].map(|name| folder.path().join(name));
        let mut child = self.start(&out, &error).with_context(|| format!("{name}: cannot be started"))?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if progress.cancelled() {
                // It may have ended by the same Ctrl-C.
                drop(child.kill());
                child.wait()?;
                return Err(Interrupted.into());
            }
            let is_flood = [&out, &error].iter().any(|file| fs::metadata(file).is_ok_and(|m| m.len() > MOST_OUTPUT.0));
            if is_flood {
                drop(child.kill());
                child.wait()?;
                bail!("{name}: writes more than {MOST_OUTPUT}, which no powerinfer-bench does; name one");
            }
            std::thread::sleep(LOOK);
        };
        if !status.success() {
            ensure!(!progress.cancelled(), Interrupted);
            let told = read_text(&error, MOST_TEXT, progress).unwrap_or_default();
            let last = told.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
            bail!("{name}: ended with {status}, and said last: {last}");
        }
        let rows = read_text(&out, MOST_TEXT, progress).and_then(|text| earlier::read(&text));
        rows.with_context(|| format!("{name}: what it measured"))
    }

    fn start(&self, out: &Path, error: &Path) -> Result<std::process::Child> {
        let start = |program: &OsStr| -> Result<std::process::Child> {
            let mut command = Command::new(program);
            command.args(&self.arguments).stdin(Stdio::null()).stdout(File::create(out)?).stderr(File::create(error)?);
            Ok(command.spawn()?)
        };
        // The folder of temporary files may be one from which nothing can be started.
        start(self.program.as_os_str()).or_else(|_| start(self.place.as_os_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_comparison_is_not_passed_on() {
        let passed = |line: &str| -> String {
            let kept = arguments(line.split(' ').map(OsString::from), 1);
            kept.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let rest = "-m a.gguf -p 8 -ub 16 --offline";
        for line in [
            "--against x -m a.gguf -p 8 -ub 16 --offline",
            "-m a.gguf --turns=9 -p 8 --fail-below 0.9 -ub 16 --offline --against=x",
            "-m a.gguf -o csv -p 8 -oe json -ub 16 --output=md --offline --progress -r 3 --repetitions=4 --delay 1",
            "-m a.gguf -ocsv -r3 -p 8 -ub 16 --offline",
        ] {
            assert_eq!(passed(line), format!("{rest} -o jsonl -r 1"), "{line}");
        }
    }
}
