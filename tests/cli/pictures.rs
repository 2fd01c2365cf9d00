//! `--plot`: documents and pixels of profiles, comparisons and plans, and where they cannot be written.

use crate::support::{Outcome, refused, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

const CARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware/rtx-4090-ddr5.toml");

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(place.at("a.txt"), "Once upon a time there was a dog. ".repeat(3)).unwrap();
        std::fs::write(place.at("b.txt"), "The sun was hot and the sea was blue. ".repeat(3)).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Of the embedded model.
    fn profiled(&self, text: &str) -> PathBuf {
        let profile = self.at(&format!("{text}.profile"));
        let mut command = tool("profile");
        command.arg("-f").arg(self.at(text)).arg("-o").arg(&profile).args(["-c", "16", "-t", "1"]);
        Outcome::from(command.output().unwrap()).ok();
        profile
    }

    /// What a command draws to a file of this name.
    fn drawn(&self, command: &mut Command, name: &str) -> Vec<u8> {
        Outcome::from(command.arg("--plot").arg(self.at(name)).output().unwrap()).ok();
        std::fs::read(self.at(name)).unwrap()
    }
}

fn show(profile: &Path) -> Command {
    let mut command = tool("profile");
    command.arg("--show").arg(profile);
    command
}

fn dry_run(args: &[&str]) -> Command {
    let mut command = tool("split");
    command.args(["--dry-run", "--hardware", CARD]).args(args);
    command
}

fn holds(document: &[u8], words: &[&str]) {
    let document = std::str::from_utf8(document).unwrap();
    assert!(document.starts_with("<svg ") && document.trim_end().ends_with("</svg>"));
    for word in words {
        assert!(document.contains(word), "{word}");
    }
}

#[test]
fn profiles_and_comparisons_are_drawn_in_the_format_of_the_name() {
    let place = Place::new();
    let (a, b) = (place.profiled("a.txt"), place.profiled("b.txt"));
    let svg = place.drawn(&mut show(&a), "a.svg");
    holds(
        &svg,
        &["How often neurons fire", "firing rate", "share of activations", "share that fires", "left of it: 80 %"],
    );
    assert!(svg == place.drawn(&mut show(&a), "again.svg"));
    assert!(place.drawn(&mut show(&a), "a.png").starts_with(b"\x89PNG"));
    let mut compare = tool("profile");
    compare.arg("--compare").args([&a, &b]);
    holds(&place.drawn(&mut compare, "ab.svg"), &["hot set", "divergence, nats", "share that fires"]);
    refused(tool("profile").arg("--compare").args([&a, &b]).arg("--plot").arg(&a), &["is an input"]);
}

#[test]
fn plans_are_drawn_by_layers() {
    let place = Place::new();
    let shape = ["--shape", "mistral-7b", "--vram-budget", "4GB"];
    let svg = place.drawn(&mut dry_run(&shape), "plan.svg");
    holds(
        &svg,
        &["What computes each layer", "time, ms", "size, MiB", "processor", "tokens/s predicted", "share of the layer"],
    );
    assert!(svg == place.drawn(&mut dry_run(&shape), "again.svg"));
    let mut run = tool("run");
    run.args(["--dry-run", "--hardware", CARD, "--vram-budget", "64MiB"]);
    holds(&place.drawn(&mut run, "run.svg"), &["time, ms"]);
}

#[test]
fn pictures_that_cannot_be_written_are_refused_before_the_work() {
    let place = Place::new();
    let other = place.at("plan.jpg");
    let shape = ["--shape", "mistral-7b"];
    refused(dry_run(&shape).arg("--plot").arg(&other), &["plan.jpg", ".svg or .png"]);
    refused(dry_run(&shape).arg("--plot").arg(place.at("no/plan.svg")), &["plan.svg", "cannot be written"]);
    refused(&mut dry_run(&["--shape", "mistral-7b", "--plot", CARD]), &["is an input"]);
    refused(tool("profile").args(["--show", "none.profile", "--plot"]).arg(&other), &["plan.jpg", ".svg or .png"]);
    let mut long = tool("profile");
    long.arg("-f").arg(place.at("a.txt")).arg("-o").arg(place.at("out")).arg("--plot").arg(&other);
    refused(&mut long, &["plan.jpg", ".svg or .png"]);
    assert!(!other.exists() && !place.at("out").exists());
}
