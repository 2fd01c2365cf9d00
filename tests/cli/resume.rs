//! A profile that is interrupted, by Ctrl-C or worse, is that of an unbroken run.

use crate::support::{Outcome, Random, ctrl_c, names_in, refused, skipped, tool};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Place {
    folder: TempDir,
}

impl Place {
    /// With a text of `n` sentences for the embedded model.
    fn new(n: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random::new(n as u64);
        let words = ["dog", "girl", "house", "big", "red", "ran", "was", "happy", "tree", "ball"];
        let mut word = || words[random.below(words.len())];
        let text: String =
            (0..n).map(|_| format!("The {} {} {} to the {}. ", word(), word(), word(), word())).collect();
        std::fs::write(folder.path().join("text.txt"), text).unwrap();
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, name: &str, more: &[&str]) -> Command {
        let mut command = tool("profile");
        command.arg("-f").arg(self.at("text.txt")).arg("-o").arg(self.at(name));
        command.args(["-c", "64", "--samples", "60", "--checkpoint-seconds", "0"]).args(more);
        if !more.contains(&"-t") {
            command.args(["-t", "2"]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The bytes of a profile that nothing interrupted.
    fn unbroken(&self) -> Vec<u8> {
        Outcome::from(self.command("unbroken", &[]).output().unwrap()).ok();
        std::fs::read(self.at("unbroken")).unwrap()
    }

    /// Starts a profile and presses Ctrl-C as soon as some of it has been written down. `None` where it was done before, or nothing
    /// can be pressed.
    fn stopped(&self, name: &str) -> Option<std::process::Output> {
        let mut child = self.begun(name);
        let done = child.try_wait().unwrap().is_some();
        if done || !ctrl_c::press(&mut child) {
            return None;
        }
        Some(child.wait_with_output().unwrap())
    }

    /// The same with a process that is killed; `false` where it was done before.
    fn killed(&self, name: &str) -> bool {
        let mut child = self.begun(name);
        let done = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if cfg!(windows) {
            // Wine calls a process ended while its last system call is still under way.
            let read = || std::fs::read(self.at(&format!("{name}.part"))).ok();
            let mut before = None;
            while before != Some(read()) {
                before = Some(read());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        !done
    }

    /// A profile of which some has been written down, or all.
    fn begun(&self, name: &str) -> Child {
        let mut child = self.command(name, &[]).spawn().unwrap();
        let begun = Instant::now();
        while !self.at(&format!("{name}.part")).exists() && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written down");
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn killed_twenty_times_at_any_point_it_ends_as_if_nothing_had_been() {
    let place = Place::new(600);
    let begun = Instant::now();
    let unbroken = place.unbroken();
    let once = begun.elapsed();
    let mut random = Random::new(std::process::id().into());
    let (mut resumed, mut finished) = (0, 0);
    for _ in 0..20 {
        let mut child = place.command("killed", &[]).spawn().unwrap();
        std::thread::sleep(once.mul_f64(0.35 * random.below(1000) as f64 / 1000.0));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        resumed += usize::from(String::from_utf8_lossy(&output.stderr).contains("resuming after"));
        if place.at("killed").exists() {
            assert!(std::fs::read(place.at("killed")).unwrap() == unbroken, "a profile in the middle of the kills");
            finished += 1;
            // Between the profile and the end of the command the checkpoint is still there.
            let _ = std::fs::remove_file(place.at("killed.part"));
            std::fs::remove_file(place.at("killed")).unwrap();
        }
    }
    let outcome = Outcome::from(place.command("killed", &[]).output().unwrap()).ok();
    assert!(resumed > 0, "no kill came after a checkpoint: {}", outcome.stderr);
    assert!(std::fs::read(place.at("killed")).unwrap() == unbroken, "resumed {resumed} times, {finished} finished");
    assert_eq!(names_in(place.folder.path()), ["killed", "text.txt", "unbroken"]);
}

#[test]
fn ctrl_c_says_how_to_go_on() {
    let place = Place::new(600);
    let Some(output) = place.stopped("stopped") else {
        skipped("it was done before it could be interrupted");
        return;
    };
    let outcome = Outcome::from(output);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("stopped.part; run the same command again"), "{}", outcome.stderr);
    assert!(outcome.stderr.ends_with("interrupted\n"), "{}", outcome.stderr);
    assert_eq!(names_in(place.folder.path()), ["stopped.part", "text.txt"]);
    let outcome = Outcome::from(place.command("stopped", &["-t", "1"]).output().unwrap());
    // Threads are no part of the job.
    assert!(outcome.stderr.contains("resuming after"), "{}", outcome.stderr);
    assert!(std::fs::read(place.at("stopped")).unwrap() == place.unbroken());
    assert_eq!(names_in(place.folder.path()), ["stopped", "text.txt", "unbroken"]);
}

#[test]
fn checkpoints_of_other_jobs_and_damaged_ones_are_refused() {
    let place = Place::new(400);
    if !place.killed("p") {
        skipped("it was done before it could be ended");
        return;
    }
    let part = std::fs::read(place.at("p.part")).unwrap();
    let help = ["p.part", "a different run", "delete it to start over"];
    for (more, says) in [
        (&["--seed", "3"][..], "--seed 0, here 3"),
        (&["--tokens", "100"], "--tokens not given, here 100"),
        (&["--shard", "1/2"], "--shard 1/1, here 1/2"),
        (&["-c", "32"], "-c 64, here 32"),
        (&["--samples", "61"], "--samples 60, here 61"),
        (&["--activation", "silu"], "its activation differs"),
    ] {
        let mut command = tool("profile");
        command.arg("-f").arg(place.at("text.txt")).arg("-o").arg(place.at("p"));
        for pair in [["-c", "64"], ["--samples", "60"]].iter().filter(|pair| pair[0] != more[0]) {
            command.args(pair);
        }
        refused(command.args(more), &[&help[..], &[says]].concat());
    }
    let text = std::fs::read(place.at("text.txt")).unwrap();
    write(&place.at("text.txt"), b"Another text of several words.");
    refused(&mut place.command("p", &[]), &[&help[..], &["its text differs"]].concat());
    write(&place.at("text.txt"), &text);
    assert!(std::fs::read(place.at("p.part")).unwrap() == part, "a refusal leaves the checkpoint as it is");

    let mut random = Random::new(1);
    let mut damaged: Vec<Vec<u8>> = [0, 7, 12, 100, part.len() / 2, part.len() - 1].map(|n| part[..n].to_vec()).into();
    damaged.extend((0..6).map(|_| {
        let mut flipped = part.clone();
        flipped[random.below(part.len())] ^= 1 << random.below(8);
        flipped
    }));
    for bytes in damaged {
        write(&place.at("p.part"), &bytes);
        refused(&mut place.command("p", &[]), &["p.part", "delete it to start over"]);
    }
    assert!(!place.at("p").exists());
    std::fs::remove_file(place.at("p.part")).unwrap();
    Outcome::from(place.command("p", &[]).output().unwrap()).ok();
}
