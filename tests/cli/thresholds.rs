//! Thresholds of gates: searched for, put into a variant, and used when asked for.

use crate::support::{ModelFile, Outcome, Value, refused, refused_by, tool};
use powerinfer::gguf::Gguf;
use std::path::{Path, PathBuf};

/// A random model that never rests, a text, and a profile of it made with `flags`.
struct Case {
    folder: tempfile::TempDir,
    model: PathBuf,
    text: PathBuf,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = ModelFile::tiny();
        file.set("powerinfer.activation", Value::Str("silu".to_owned()));
        let model = file.written(folder.path(), "silu.gguf");
        let text = folder.path().join("text.txt");
        std::fs::write(&text, "the quick brown fox jumps over a lazy dog ".repeat(8)).unwrap();
        Self { folder, model, text }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn profile(&self, output: &Path, flags: &[&str]) -> Outcome {
        let mut command = tool("profile");
        command.arg("-m").arg(&self.model).arg("-f").arg(&self.text).arg("-o").arg(output);
        command.args(["-t", "1", "-c", "32"]).args(flags).output().unwrap().into()
    }

    fn variant(&self, profile: &Path, name: &str) -> PathBuf {
        let variant = self.path(name);
        let mut command = tool("split");
        command.arg("-m").arg(&self.model).arg("--profile").arg(profile).arg("-o").arg(&variant).args(["-t", "1"]);
        Outcome::from(command.output().unwrap()).ok();
        variant
    }
}

fn thresholds(variant: &Path) -> Option<Vec<f32>> {
    let gguf = Gguf::open(variant).unwrap();
    gguf.metadata().array("powerinfer.gate_thresholds").unwrap().map(|array| array.floats().unwrap())
}

fn bench(variant: &Path, flags: &[&str]) -> Outcome {
    let mut command = tool("bench");
    command.arg("-m").arg(variant).args(["-t", "1", "-r", "1", "-c", "32", "-o", "json"]).args(flags);
    Outcome::from(command.output().unwrap()).ok()
}

#[test]
fn thresholds_are_found_for_a_budget_kept_in_the_variant_and_used_only_on_request() {
    let case = Case::new();
    let (plain, found) = (case.path("plain.profile"), case.path("found.profile"));
    case.profile(&plain, &[]).ok();
    let said = case.profile(&found, &["--threshold-search", "--kl-budget", "0.05"]).ok();
    assert!(
        said.stdout.contains("neurons stay active") && said.stdout.contains("of 0.05 nats allowed"),
        "{}",
        said.stdout
    );
    let (without, with) = (case.variant(&plain, "without.gguf"), case.variant(&found, "with.gguf"));
    assert_eq!(thresholds(&without), None);
    let values = thresholds(&with).unwrap();
    assert!(values.len() == 2 && values.iter().all(|t| *t > 0.0), "{values:?}");

    let text = case.text.to_str().unwrap();
    let rows = bench(&with, &["-p", "0", "-n", "0", "--kl", text, "--mode", "dense,exact,thresholded"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&rows.stdout).unwrap();
    let of = |row: usize, field: &str| rows[row][field].as_f64().unwrap();
    assert!(of(0, "kl_mean") < 1e-9 && of(1, "kl_mean") < 1e-9, "nothing is skipped but on request");
    assert!(of(2, "kl_mean") > 1e-6 && of(2, "kl_mean") < 0.2, "{}", rows[2]);
    assert!(of(2, "ffn_density") < of(1, "ffn_density"), "{} {}", rows[1], rows[2]);
    assert!(of(2, "bytes_per_token") < of(1, "bytes_per_token"), "{} {}", rows[1], rows[2]);

    // Whether thresholds are there changes nothing of the other modes.
    for mode in ["dense", "exact"] {
        let story = |variant: &Path| {
            let mut command = tool("run");
            command.arg("-m").arg(variant).args([
                "-p",
                "the quick",
                "-n",
                "8",
                "--temp",
                "0",
                "--mode",
                mode,
                "-t",
                "1",
            ]);
            Outcome::from(command.output().unwrap()).ok().stdout
        };
        assert_eq!(story(&without), story(&with), "{mode}");
    }
}

#[test]
fn a_larger_budget_lets_more_neurons_rest() {
    let case = Case::new();
    let of = |budget: &str| {
        let profile = case.path(&format!("{budget}.profile"));
        case.profile(&profile, &["--threshold-search", "--kl-budget", budget]).ok();
        thresholds(&case.variant(&profile, &format!("{budget}.gguf"))).unwrap()
    };
    let (small, large) = (of("0.0001"), of("0.5"));
    assert!(small.iter().zip(&large).all(|(small, large)| small < large), "{small:?} {large:?}");
}

#[test]
fn thresholds_of_one_search_survive_a_merge_and_those_of_two_do_not() {
    let case = Case::new();
    let [plain, first, second, merged] = ["plain", "first", "second", "merged"].map(|name| case.path(name));
    case.profile(&plain, &[]).ok();
    case.profile(&first, &["--threshold-search"]).ok();
    case.profile(&second, &["--threshold-search", "--kl-budget", "0.5"]).ok();
    let merge = |other: &Path| {
        let mut command = tool("profile");
        command.arg("--merge").args([&plain, &first]).arg(other).arg("-o").arg(&merged);
        command
    };
    refused(&mut merge(&second), &["second", "thresholds of another search"]);
    Outcome::from(merge(&first).output().unwrap()).ok();
    assert!(thresholds(&case.variant(&merged, "merged.gguf")).is_some());
}

#[test]
fn what_cannot_be_searched_or_run_is_refused_in_one_line() {
    let case = Case::new();
    let profile = case.path("a.profile");
    case.profile(&profile, &[]).ok();
    let variant = case.variant(&profile, "without.gguf");
    let mode = ["-p", "a", "-n", "1", "--mode", "thresholded"];
    let mut run = tool("run");
    run.arg("-m").arg(&variant).args(mode);
    refused(&mut run, &["without.gguf", "no thresholds", "--threshold-search"]);
    refused_by("bench", &[&"-m", &variant, &"--mode", &"thresholded"], &["without.gguf", "--threshold-search"]);
    for budget in ["0", "nan", "inf"] {
        let outcome = case.profile(&case.path("b.profile"), &["--threshold-search", "--kl-budget", budget]);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains(&format!("--kl-budget {}", budget.replace("nan", "NaN"))),
            "{}",
            outcome.stderr
        );
    }
    std::fs::write(&case.text, "a few words").unwrap();
    let outcome = case.profile(&case.path("b.profile"), &["--threshold-search"]);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("smaller -c"), "{}", outcome.stderr);
    assert!(!case.path("b.profile").exists());
}

#[test]
fn thresholds_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (i, (value, wanted)) in [
        (Value::f32s(&[0.1]), "1 thresholds for 2 groups"),
        (Value::f32s(&[0.1, -1.0]), "a threshold of -1"),
        (Value::f32s(&[f32::NAN, 0.0]), "a threshold of NaN"),
        (Value::i32s(&[1, 2]), "floats are wanted"),
        (Value::F32(0.1), "powerinfer.gate_thresholds"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut file = ModelFile::tiny();
        file.set("powerinfer.gate_thresholds", value);
        let model = file.written(folder.path(), &format!("{i}.gguf"));
        refused_by("run", &[&"-m", &model, &"-p", &"a", &"-n", &"1"], &["powerinfer.gate_thresholds", wanted]);
    }
}

#[test]
fn plans_are_not_made_for_it() {
    let plan = ["--shape", "7b", "--dry-run", "--hardware", "hardware/rtx-4090-ddr5.toml", "--mode", "thresholded"];
    let mut command = tool("split");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(plan);
    refused(&mut command, &["thresholded", "CPU only"]);
}
