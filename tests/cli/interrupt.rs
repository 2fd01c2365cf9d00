//! Ctrl-C: exit code 130, soon, and no file that is half written.

use crate::support::{ModelFile, Outcome, ctrl_c, names_in, skipped, tool};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Presses Ctrl-C, after which the command must say so and end with exit code 130. `false` where it had ended before, and `None`
/// where nothing can be pressed.
fn interrupt(mut child: Child) -> Option<bool> {
    if child.try_wait().unwrap().is_some() {
        return Some(false);
    }
    if !ctrl_c::press(&mut child) {
        return None;
    }
    let pressed = Instant::now();
    let outcome = Outcome::from(child.wait_with_output().unwrap());
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    assert!(outcome.stderr.ends_with("interrupted\n"), "{}", outcome.stderr);
    assert!(pressed.elapsed() < PATIENCE);
    Some(true)
}

/// Whether the command has begun to write in `folder`, be it to a file that has no name yet.
fn is_writing(child: &Child, folder: &Path) -> bool {
    let folder = folder.canonicalize().unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
    let mut open = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let nameless =
        |path: std::path::PathBuf| path.starts_with(&folder) && path.to_string_lossy().ends_with(" (deleted)");
    names_in(&folder).iter().any(|n| n.ends_with(".partial")) || open.any(nameless)
}

#[test]
fn split_leaves_neither_a_file_nor_a_part_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::large().written(folder.path(), "large.gguf");
    let (text, profile) = (folder.path().join("story.txt"), folder.path().join("large.profile"));
    std::fs::write(&text, "once").unwrap();
    let mut command = tool("profile");
    command.arg("-m").arg(&model).arg("-f").arg(&text).arg("-o").arg(&profile);
    Outcome::from(command.output().unwrap()).ok();
    let before = names_in(folder.path());

    let mut command = tool("split");
    command.arg("-m").arg(&model).arg("--profile").arg(&profile).arg("-o").arg(folder.path().join("out.gguf"));
    let mut child = start(command.args(["-t", "1", "--type", "q8_0"]));
    let begun = Instant::now();
    while !is_writing(&child, folder.path()) && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it has not begun to write");
        std::thread::sleep(Duration::from_millis(1));
    }
    let Some(heard) = interrupt(child) else { return };
    if !heard {
        skipped("split was done before it could be interrupted");
        return;
    }
    assert_eq!(names_in(folder.path()), before);
}

#[test]
fn a_synthetic_model_leaves_neither_a_file_nor_a_part_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tool("bench");
    let mut child = start(command.args(["--synthetic", "1b", "--cache-dir"]).arg(folder.path()));
    let begun = Instant::now();
    while !is_writing(&child, folder.path()) && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it has not begun to write");
        std::thread::sleep(Duration::from_millis(1));
    }
    let Some(heard) = interrupt(child) else { return };
    if !heard {
        skipped("it was done before it could be interrupted");
        return;
    }
    assert!(names_in(folder.path()).is_empty(), "{:?}", names_in(folder.path()));
}

#[test]
fn run_stops_in_the_middle_of_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let mut command = tool("run");
    command.arg("-m").arg(&model).args(["-p", "x", "--ignore-eos", "-n", "-1", "-c", "200000", "-t", "1"]);
    let mut child = start(&mut command);
    // The prompt and the first of the text; the rest must not be left in the pipe, or the command would wait for us.
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 16];
    stdout.read_exact(&mut first).unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    assert_ne!(interrupt(child), Some(false), "200,000 tokens in no time");
    reader.join().unwrap().unwrap();
}

#[test]
fn bench_and_profile_stop_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let text = folder.path().join("long.txt");
    std::fs::write(&text, "once upon a time there was a dog\n".repeat(100_000)).unwrap();
    let before = names_in(folder.path());
    let mut bench = tool("bench");
    bench.arg("-m").arg(&model).args(["-p", "512", "-n", "0", "-r", "1000000", "-t", "1"]);
    let mut profile = tool("profile");
    profile.arg("-m").arg(&model).arg("-f").arg(&text).arg("-o").arg(folder.path().join("out")).args(["-t", "1"]);
    for command in [&mut bench, &mut profile] {
        let child = start(command);
        std::thread::sleep(Duration::from_millis(500));
        let Some(heard) = interrupt(child) else { return };
        assert!(heard, "a minute's work in no time");
    }
    // Apart from what a profile can go on from (resume.rs).
    let left: Vec<_> = names_in(folder.path()).into_iter().filter(|name| name != "out.part").collect();
    assert_eq!(left, before);
}
