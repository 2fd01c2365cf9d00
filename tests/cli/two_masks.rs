//! Models whose gate and `up` both have a mask (dReLU): two densities, wherever one was shown.

use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Tensor, refused, tool};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::profile::Profile;
use powerinfer::quant::GgmlType;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// With a tokenizer of bytes.
fn bamboo() -> PathBuf {
    repository("tests/golden/arch/bamboo.gguf")
}

struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let story = "once upon a time there was a little dog who liked to run ".repeat(20);
        std::fs::write(folder.path().join("story.txt"), story).unwrap();
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn profile(&self, args: &[&str], to: &str) -> Outcome {
        let mut command = tool("profile");
        command.arg("-m").arg(bamboo()).arg("-f").arg(self.at("story.txt")).args(["-c", "64"]).args(args);
        Outcome::from(command.arg("-o").arg(self.at(to)).output().unwrap()).ok()
    }

    fn split(&self, to: &str) -> Outcome {
        let mut command = tool("split");
        command.arg("-m").arg(bamboo()).arg("--profile").arg(self.at("a.profile")).arg("-o").arg(self.at(to));
        Outcome::from(command.output().unwrap()).ok()
    }

    fn bench(&self, model: &Path, args: &[&str]) -> Outcome {
        let mut command = tool("bench");
        command.arg("-m").arg(model).args(["--cache-type", "f32", "-r", "1"]).args(args);
        Outcome::from(command.output().unwrap()).ok()
    }

    fn row(&self, model: &Path, args: &[&str]) -> Value {
        let shown = self.bench(model, &[args, &["-o", "json"]].concat()).stdout;
        let rows: Value = serde_json::from_str(&shown).unwrap();
        rows[0].clone()
    }
}

/// Shares of neurons that fire, and of gates that are above zero.
fn shares(profile: &Profile) -> (f64, f64) {
    let possible = (profile.n_tokens() * profile.n_ff().iter().sum::<usize>() as u64) as f64;
    let sum = |of: fn(&powerinfer::profile::GroupCounts) -> &powerinfer::profile::Tally| {
        profile.groups.iter().map(|group| of(group).sum() as f64).sum::<f64>() / possible
    };
    (sum(|group| &group.fired), sum(|group| &group.opened))
}

#[test]
fn a_profile_counts_gates_and_neurons() {
    let setup = Setup::new();
    let shown = setup.profile(&[], "a.profile");
    let profile = Profile::read(&setup.at("a.profile")).unwrap();
    let (fired, opened) = shares(&profile);
    // Random gates are above zero half of the time, and so is `up`.
    assert!((0.15..0.35).contains(&fired) && (0.4..0.6).contains(&opened), "{fired}, {opened}");
    let line = format!("{:.2}%     {:.2}%", 100.0 * (1.0 - fired), 100.0 * (1.0 - opened));
    assert!(shown.stdout.contains("of gates") && shown.stdout.contains(&line), "{line}: {}", shown.stdout);
    let show = Outcome::from(tool("profile").arg("--show").arg(setup.at("a.profile")).output().unwrap()).ok();
    assert!(show.stdout.contains(&line), "{}", show.stdout);
    // In parts, in whatever order: the same bytes.
    for part in ["1/3", "2/3", "3/3"] {
        setup.profile(&["--shard", part, "-t", "2"], &format!("{}.part", &part[..1]));
    }
    let mut merge = tool("profile");
    merge.arg("--merge").args(["2.part", "3.part", "1.part"].map(|name| setup.at(name)));
    Outcome::from(merge.arg("-o").arg(setup.at("merged.profile")).output().unwrap()).ok();
    assert_eq!(Profile::read(&setup.at("merged.profile")).unwrap(), profile);
    // Another function of the same gates.
    let relu = setup.profile(&["--activation", "relu"], "relu.profile");
    assert!(!relu.stdout.contains("of gates"), "{}", relu.stdout);
    let relu = Profile::read(&setup.at("relu.profile")).unwrap();
    assert!(relu.groups.iter().all(|group| group.opened.is_empty()));
    refused(
        tool("profile")
            .arg("--merge")
            .arg(setup.at("relu.profile"))
            .arg(setup.at("a.profile"))
            .arg("-o")
            .arg(setup.at("x")),
        &["drelu", "relu"],
    );
}

#[test]
fn a_variant_knows_both_rates_and_bench_both_densities() {
    let setup = Setup::new();
    setup.profile(&[], "a.profile");
    let (fired, opened) = shares(&Profile::read(&setup.at("a.profile")).unwrap());
    let table = setup.split("variant.gguf");
    let line = format!("{:.2} % of neurons fire, {:.2} % of gates are above zero", 100.0 * fired, 100.0 * opened);
    assert!((table.stdout.clone() + &table.stderr).contains(&line), "{line}: {}{}", table.stdout, table.stderr);
    let variant = setup.at("variant.gguf");
    let model = Model::new(Gguf::open(&variant).unwrap(), None).unwrap();
    let index = |group: &powerinfer::model::NeuronGroup| group.index.clone().unwrap();
    for (_, group) in model.weights.groups() {
        let index = index(group);
        let open = index.open_rates.as_ref().unwrap();
        assert!(open.iter().zip(&index.rates).all(|(open, rate)| open >= rate && *open <= 1.0));
        assert!(index.opened_per_fired() > 1.2, "{}", index.opened_per_fired());
    }
    let dense = setup.row(&variant, &["-p", "0", "-n", "32", "--mode", "dense"]);
    let exact = setup.row(&variant, &["-p", "0", "-n", "32", "--mode", "exact"]);
    for row in [&dense, &exact] {
        let [down, up] = ["ffn_density", "ffn_up_density"].map(|key| row[key].as_f64().unwrap());
        assert!(down > 0.1 && up > 1.3 * down && up < 0.7, "{row}");
        assert_eq!((&row["ffn_density"], &row["ffn_up_density"]), (&dense["ffn_density"], &dense["ffn_up_density"]));
    }
    // All gates, `up` where they are above zero, `down` where a neuron fires.
    let [down, up] = ["ffn_density", "ffn_up_density"].map(|key| exact[key].as_f64().unwrap());
    let config = &model.config;
    let matrix = (4 * config.n_embd * config.n_ff.iter().sum::<usize>()) as f64;
    let bytes = exact["ffn_bytes_per_token"].as_f64().unwrap();
    assert!((bytes / (matrix * (1.0 + up + down)) - 1.0).abs() < 1e-9, "{bytes}");
    let shown = setup.bench(&variant, &["-p", "0", "-n", "8", "--mode", "exact"]).stdout;
    assert!(shown.contains("density of up"), "{shown}");
    let prefilled = setup.row(&variant, &["-p", "32", "-n", "0"]);
    assert!(prefilled["ffn_up_density"].as_f64() > prefilled["ffn_density"].as_f64(), "{prefilled}");
    let mut run = tool("run");
    run.arg("-m").arg(&variant).args(["-p", "once", "-n", "12", "--ignore-eos", "--temp", "0", "--stats"]);
    let told = Outcome::from(run.output().unwrap()).ok().stderr;
    assert!(told.contains("% (of the gates ") && told.contains(", up was read of "), "{told}");
}

#[test]
fn predictors_of_two_masks_find_what_fires() {
    let setup = Setup::new();
    setup.profile(&["--samples", "4096"], "a.profile");
    setup.split("variant.gguf");
    let mut fit = tool("profile");
    fit.arg("-m").arg(setup.at("variant.gguf")).arg("--samples-from").arg(setup.at("a.profile"));
    fit.args(["--predictor", "lowrank", "-o"]).arg(setup.at("a.predictor"));
    Outcome::from(fit.output().unwrap()).ok();
    let mut pack = tool("split");
    pack.arg("-m").arg(setup.at("variant.gguf")).arg("--predictor").arg(setup.at("a.predictor"));
    Outcome::from(pack.arg("-o").arg(setup.at("predicted.gguf")).output().unwrap()).ok();
    let mut kl = tool("bench");
    kl.arg("-m").arg(setup.at("predicted.gguf")).arg("--kl").arg(setup.at("story.txt"));
    kl.args(["-c", "64", "--chunks", "2", "--mode", "predicted", "-o", "json"]);
    let outcome = Outcome::from(kl.output().unwrap()).ok();
    let rows: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let row = &rows[0];
    let [recall, fired, opened, named] = ["predictor_recall", "ffn_density", "ffn_up_density", "ffn_named"]
        .map(|key| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}")));
    assert!(recall > 0.9 && fired <= opened && opened <= named, "{row}");
}

#[test]
fn what_has_no_gate_has_no_second_mask() {
    let arcee = repository("tests/golden/arch/arcee.gguf");
    let mut bench = tool("bench");
    bench.arg("-m").arg(&arcee).args(["-n", "4", "-p", "0", "--activation", "drelu"]);
    refused(&mut bench, &["drelu (from --activation)", "architecture arcee has no gate"]);
}

#[test]
fn rates_of_gates_that_cannot_be_are_refused() {
    let setup = Setup::new();
    setup.profile(&[], "a.profile");
    setup.split("variant.gguf");
    let name = "blk.1.ffn_neuron_open_rate";
    for value in [-0.5f32, 1.5, f32::NAN] {
        let mut file = ModelFile::opened(&setup.at("variant.gguf")).unwrap();
        file.tensor(name).bytes[..4].copy_from_slice(&value.to_le_bytes());
        let damaged = file.written(setup.folder.path(), "damaged.gguf");
        refused(
            tool("bench").arg("-m").arg(damaged).args(["-n", "1", "-p", "0"]),
            &["damaged.gguf", name, "a gate is above zero"],
        );
    }
    let mut file = ModelFile::opened(&setup.at("variant.gguf")).unwrap();
    *file.tensor(name) = Tensor::zeros(name, GgmlType::F32, &[3]);
    let damaged = file.written(setup.folder.path(), "damaged.gguf");
    refused(tool("bench").arg("-m").arg(damaged).args(["-n", "1", "-p", "0"]), &["damaged.gguf", name]);
}

#[test]
fn a_killed_profile_goes_on_with_both_counts() {
    let setup = Setup::new();
    let story = "once upon a time there was a little dog who liked to run ".repeat(100);
    std::fs::write(setup.at("story.txt"), story).unwrap();
    setup.profile(&[], "whole.profile");
    let command = || {
        let mut command = tool("profile");
        command.arg("-m").arg(bamboo()).arg("-f").arg(setup.at("story.txt")).args(["-c", "64"]);
        command.args(["--checkpoint-seconds", "0", "-o"]).arg(setup.at("killed.profile"));
        command
    };
    let mut child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let part = setup.at("killed.profile.part");
    while !part.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let told = Outcome::from(command().output().unwrap()).ok().stderr;
    let bytes = |name: &str| std::fs::read(setup.at(name)).unwrap();
    assert_eq!(bytes("killed.profile"), bytes("whole.profile"), "{told}");
}
