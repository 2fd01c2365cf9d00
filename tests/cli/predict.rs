//! From samples to predicted decode on the command line: fitted, packed in, run, and measured against dense.

use crate::support::{ModelFile, Outcome, names_in, refused, tool};
use powerinfer::measure::STORY;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    model: PathBuf,
    text: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-stories-f16.gguf");
        let text = folder.path().join("story.txt");
        std::fs::write(&text, STORY).unwrap();
        Self { folder, model, text }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = tool(name);
        command.args(["-t", "2"]);
        command
    }

    /// A profile of the story with samples of all its tokens.
    fn profiled(&self) -> PathBuf {
        let out = self.at("story.profile");
        let mut command = self.tool("profile");
        command.arg("-m").arg(&self.model).arg("-f").arg(&self.text).arg("-o").arg(&out).args(["--samples", "4096"]);
        Outcome::from(command.output().unwrap()).ok();
        out
    }

    fn fit(&self, profile: &Path, kind: &str, out: &Path) -> Command {
        let mut command = self.tool("profile");
        command.arg("-m").arg(&self.model).arg("--samples-from").arg(profile).arg("-o").arg(out);
        command.args(["--predictor", kind]);
        command
    }

    fn split(&self, model: &Path, predictor: &Path, out: &Path) -> Command {
        let mut command = self.tool("split");
        command.arg("-m").arg(model).arg("--predictor").arg(predictor).arg("-o").arg(out);
        command
    }

    fn kl(&self, model: &Path, modes: &str) -> Vec<Value> {
        let mut command = self.tool("bench");
        command.arg("-m").arg(model).arg("--kl").arg(&self.text).args(["-c", "128", "--chunks", "2", "-o", "json"]);
        let out = Outcome::from(command.args(["--mode", modes]).output().unwrap()).ok().stdout;
        serde_json::from_str(&out).unwrap()
    }
}

#[test]
fn predictors_are_fitted_packed_in_run_and_measured() {
    let place = Place::new();
    let profile = place.profiled();
    let variant = place.at("variant.gguf");
    for kind in ["sign", "lowrank"] {
        let predictor = place.at(kind);
        let table = Outcome::from(place.fit(&profile, kind, &predictor).output().unwrap()).ok().stdout;
        assert!(table.contains(kind) && table.contains("recall"), "{table}");
        let mut split = place.split(&place.model, &predictor, &variant);
        Outcome::from(split.arg("--profile").arg(&profile).output().unwrap()).ok();

        let mut run = place.tool("run");
        run.arg("-m").arg(&variant).args([
            "-p",
            "Once upon a time",
            "-n",
            "48",
            "--temp",
            "0",
            "--ignore-eos",
            "--stats",
        ]);
        let said = Outcome::from(run.args(["--mode", "predicted"]).output().unwrap()).ok();
        assert!(said.stderr.contains("mode predicted") && said.stderr.contains("of their mass"), "{}", said.stderr);

        let rows = place.kl(&variant, "exact,predicted");
        let of = |row: usize, key: &str| rows[row][key].as_f64().unwrap_or_else(|| panic!("{key}: {}", rows[row]));
        assert_eq!((of(0, "kl_mean"), of(0, "kl_max")), (0.0, 0.0));
        // A story of 1,800 tokens is little to learn from: the bound is wide, but chance is far beyond it.
        let (kl, recall, named) = (of(1, "kl_mean"), of(1, "predictor_recall"), of(1, "ffn_named"));
        assert!(kl > 0.0 && kl < 0.05 && recall > 0.95 && named < 0.95, "{kl} {recall} {named}");
        assert!(of(1, "predictor_bytes_per_token") > 0.0);
    }

    // Into a variant that there is: the last predictor is replaced, everything else stays.
    let again = place.at("again.gguf");
    Outcome::from(place.split(&variant, &place.at("sign"), &again).output().unwrap()).ok();
    let rows = place.kl(&again, "predicted");
    assert!(rows[0]["kl_mean"].as_f64().unwrap() > 0.0);
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(size(&again) < size(&variant), "signs take less than two matrices");
}

#[test]
fn the_same_samples_give_the_same_predictor() {
    let place = Place::new();
    let profile = place.profiled();
    let (a, b) = (place.at("a"), place.at("b"));
    Outcome::from(place.fit(&profile, "lowrank", &a).output().unwrap()).ok();
    let mut one = tool("profile");
    one.arg("-m").arg(&place.model).arg("--samples-from").arg(&profile).arg("-o").arg(&b);
    Outcome::from(one.args(["--predictor", "lowrank", "-t", "1"]).output().unwrap()).ok();
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn what_does_not_belong_together_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let profile = place.profiled();
    let predictor = place.at("predictor");
    Outcome::from(place.fit(&profile, "sign", &predictor).output().unwrap()).ok();
    let before = names_in(place.folder.path());

    let out = place.at("out.gguf");
    let tiny = ModelFile::tiny().written(place.folder.path(), "tiny.gguf");
    let story = place.text.clone();
    refused(&mut place.split(&tiny, &predictor, &out), &["another model"]);
    refused(&mut place.split(&place.model, &predictor, &out), &["is no variant", "--profile"]);
    refused(place.split(&place.model, &story, &out).arg("--profile").arg(&profile), &["story.txt"]);
    let mut other = tool("profile");
    other.arg("-m").arg(&tiny).arg("--samples-from").arg(&profile).args(["--predictor", "sign", "-o"]).arg(&out);
    refused(&mut other, &["story.profile", "another model"]);

    let bytes = std::fs::read(&predictor).unwrap();
    let cut = place.at("cut");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    refused(place.split(&place.model, &cut, &out).arg("--profile").arg(&profile), &["cut"]);

    let mut command = tool("profile");
    let plain = place.at("plain.profile");
    command.arg("-m").arg(&place.model).arg("-f").arg(&place.text).arg("-o").arg(&plain).args(["--tokens", "64"]);
    Outcome::from(command.output().unwrap()).ok();
    refused(&mut place.fit(&plain, "sign", &out), &["plain.profile", "--samples"]);

    for name in ["cut", "tiny.gguf", "plain.profile"] {
        std::fs::remove_file(place.at(name)).unwrap();
    }
    assert_eq!(names_in(place.folder.path()), before);
}

#[test]
fn plans_know_the_predictor_before_and_after_it_is_packed_in() {
    let place = Place::new();
    let profile = place.profiled();
    let (predictor, variant) = (place.at("lowrank"), place.at("variant.gguf"));
    Outcome::from(place.fit(&profile, "lowrank", &predictor).output().unwrap()).ok();
    let card = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware/rtx-4090-ddr5.toml");
    let planned = |command: &mut Command, last: &[&str]| {
        command.args(["--dry-run", "--json", "--hardware", card, "--vram-budget", "20MiB", "-c", "128"]).args(last);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        (serde_json::from_str::<Value>(&outcome.stdout).unwrap(), outcome.stderr)
    };
    let split = || {
        let mut command = place.tool("split");
        command.arg("-m").arg(&place.model).arg("--profile").arg(&profile);
        command
    };
    let (before, told) = planned(split().arg("--predictor").arg(&predictor), &["--mode", "predicted"]);
    assert!(!told.contains("factors of rank"), "{told}");
    let mut write = place.split(&place.model, &predictor, &variant);
    Outcome::from(write.arg("--profile").arg(&profile).output().unwrap()).ok();
    let (after, _) = planned(place.tool("run").arg("-m").arg(&variant), &["--mode", "predicted"]);
    for key in ["objective_ps", "layers", "bytes", "weights_bytes"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    let (exact, _) = planned(place.tool("run").arg("-m").arg(&variant), &["--mode", "exact"]);
    assert_ne!(exact["objective_ps"], after["objective_ps"]);
    let (assumed, told) = planned(&mut split(), &["--mode", "predicted"]);
    assert!(told.contains("no --predictor given") && told.contains("factors of rank"), "{told}");
    assert_ne!(assumed["objective_ps"], after["objective_ps"]);
    refused(
        place.tool("run").arg("-m").arg(&place.model).args(["--dry-run", "--mode", "predicted", "--hardware", card]),
        &["no predictor"],
    );
}
