//! First starts on a card where something about the program or its cache folder is unusual: still one test, and a text.
#![cfg(target_os = "linux")]

use crate::support::{ModelFile, Outcome, emulator, program, skipped};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const REMEMBERED: &str = "cache/powerinfer/self-tests.json";
const RUN: [&str; 8] = ["-p", "x", "-n", "2", "--temp", "0", "-t", "1"];

/// A folder with a model and, as may be, a cache; nothing where the emulator cannot be had, which is said.
fn folder() -> Option<(TempDir, PathBuf)> {
    if let Err(why) = emulator::library() {
        skipped(why);
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    Some((folder, model))
}

/// `program` with this model and cache, and an emulated card.
fn command(program: impl AsRef<std::ffi::OsStr>, folder: &Path, model: &Path) -> Command {
    let mut command = emulator::command(program).unwrap();
    command.env("XDG_CACHE_HOME", folder.join("cache")).env("RAYON_NUM_THREADS", "2").env_remove("EMU_FAIL");
    command.arg("-m").arg(model).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// With a description of a machine nothing is measured.
fn described(command: &mut Command) -> &mut Command {
    command.arg("--hardware").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware/rtx-3060-ddr4.toml"))
}

#[test]
fn a_program_that_was_replaced_since_it_started_is_tested_all_the_same() {
    let Some((folder, model)) = folder() else { return };
    let copy = folder.path().join("program");
    std::fs::copy(program("run"), &copy).unwrap();
    // The shell holds the file open, so that it can be started without its name.
    let mut shell = emulator::command("bash").unwrap();
    shell.env("XDG_CACHE_HOME", folder.path().join("cache")).env_remove("EMU_FAIL");
    shell.args(["-c", "exec 3< \"$0\"; rm \"$0\"; exec /proc/self/fd/3 \"$@\""]).arg(&copy).arg("-m").arg(&model);
    let outcome = Outcome::from(described(&mut shell).args(RUN).stdin(Stdio::null()).output().unwrap()).ok();
    assert!(outcome.stderr.contains("Emulated GPU") && !outcome.stderr.contains("self-test"), "{}", outcome.stderr);
}

#[test]
fn a_memory_of_tests_that_is_no_file_is_none() {
    let Some((folder, model)) = folder() else { return };
    let remembered = folder.path().join(REMEMBERED);
    std::fs::create_dir_all(remembered.parent().unwrap()).unwrap();
    for make in ["mkfifo", "mkdir"] {
        assert!(Command::new(make).arg(&remembered).status().unwrap().success());
        let mut run = command(program("run"), folder.path(), &model);
        let mut child = described(&mut run).args(RUN).spawn().unwrap();
        let begin = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begin.elapsed() > Duration::from_secs(120) {
                child.kill().unwrap();
                panic!("{make}: waits");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
        assert!(outcome.stderr.contains("Emulated GPU") && !outcome.stderr.contains("self-test"), "{make}");
        Command::new("rm").arg("-r").arg(&remembered).status().unwrap();
    }
}

#[test]
fn a_command_that_can_keep_nothing_tests_and_measures_once() {
    let Some((folder, model)) = folder() else { return };
    std::fs::write(folder.path().join("cache"), "no folder").unwrap();
    let mut bench = command(program("bench"), folder.path(), &model);
    bench.args(["--text", "random", "-p", "2", "-n", "2", "-r", "1", "-t", "1", "-o", "csv"]);
    let mut child = bench.spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let mut tests = BTreeSet::new();
    while child.try_wait().unwrap().is_none() {
        let now = std::fs::read_to_string(&children).unwrap_or_default();
        tests.extend(now.split_whitespace().map(str::to_owned));
        std::thread::sleep(Duration::from_millis(5));
    }
    let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
    assert_eq!(tests.len(), 1, "{}", outcome.stderr);
    assert_eq!(outcome.stdout.lines().count(), 3, "{}", outcome.stdout);
}

#[test]
fn a_memory_of_what_no_test_says_is_none() {
    let Some((folder, model)) = folder() else { return };
    let remembered = folder.path().join(REMEMBERED);
    let run = || {
        let mut run = command(program("run"), folder.path(), &model);
        Outcome::from(described(&mut run).args(RUN).output().unwrap()).ok()
    };
    run();
    for verdict in [r#"{"Failed": "one\ntwo"}"#, r#"{"Unavailable": "later"}"#] {
        let text = std::fs::read_to_string(&remembered).unwrap();
        assert!(text.contains("\"Passed\""), "{text}");
        std::fs::write(&remembered, text.replace("\"Passed\"", verdict)).unwrap();
        let outcome = run();
        assert!(!["two", "later"].iter().any(|said| outcome.stderr.contains(said)), "{}", outcome.stderr);
    }
}
