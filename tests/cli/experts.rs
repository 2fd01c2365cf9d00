//! Models whose routers choose experts, through profile, split and bench.

use super::architectures::golden;
use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Value, refused, tool};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::profile::{Profile, plot};
use std::path::{Path, PathBuf};
use std::process::Command;

const STORY: &str = "once upon a time there was a little dog who liked to run ";

struct Setup {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Setup {
    /// The golden model of that name, with ReLU where `relu`.
    fn new(name: &str, relu: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = golden(name);
        if relu {
            file.set("powerinfer.activation", Value::Str("relu".to_owned()));
        }
        let model = file.written(folder.path(), "model.gguf");
        std::fs::write(folder.path().join("story.txt"), STORY.repeat(12)).unwrap();
        Self { folder, model }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = tool(name);
        command.arg("-m").arg(&self.model).args(args);
        command
    }

    fn profile(&self, to: &str, args: &[&str]) -> Outcome {
        let mut command = self.command("profile", &["-c", "32"]);
        command.arg("-f").arg(self.at("story.txt")).arg("-o").arg(self.at(to)).args(args);
        Outcome::from(command.output().unwrap()).ok()
    }

    fn split(&self, to: &str, args: &[&str]) -> Outcome {
        let mut command = self.command("split", args);
        command.arg("--profile").arg(self.at("a.profile")).arg("-o").arg(self.at(to));
        Outcome::from(command.output().unwrap()).ok()
    }

    fn perplexity(&self, model: &Path, mode: &str) -> f64 {
        let mut command = tool("bench");
        command.arg("-m").arg(model).arg("--perplexity").arg(self.at("story.txt"));
        command.args(["-c", "32", "-t", "2", "--cache-type", "f32", "--mode", mode, "-o", "json"]);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        rows[0]["perplexity"].as_f64().unwrap()
    }
}

fn show(profile: &Path, args: &[&str]) -> String {
    Outcome::from(tool("profile").arg("--show").arg(profile).args(args).output().unwrap()).ok().stdout
}

#[test]
fn a_profile_says_which_experts_are_chosen() {
    let setup = Setup::new("smallthinker", false);
    let made = setup.profile("a.profile", &["-t", "1", "--plot", setup.at("a.png").to_str().unwrap()]).stdout;
    let profile = Profile::read(&setup.at("a.profile")).unwrap();
    assert!(!profile.routers.is_empty());
    let shown = show(&setup.at("a.profile"), &[]);
    for text in [&made, &shown] {
        assert!(text.contains("choices of experts") && text.contains("the model favours"), "{text}");
    }
    // Five panels instead of three.
    let picture = std::fs::read(setup.at("a.png")).unwrap();
    assert_eq!(
        u32::from_be_bytes(picture[20..24].try_into().unwrap()),
        2 * plot::picture(&profile, None).unwrap().size().1
    );
    let json: serde_json::Value = serde_json::from_str(&show(&setup.at("a.profile"), &["--json"])).unwrap();
    for (router, of_json) in profile.routers.iter().zip(json["routers"].as_array().unwrap()) {
        assert_eq!(of_json["experts"], router.groups.len());
        let chosen: u64 = of_json["chosen"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(chosen, router.total());
        let per_token = of_json["experts_per_token"].as_f64().unwrap();
        assert!((per_token - chosen as f64 / profile.n_tokens() as f64).abs() < 1e-9 && per_token >= 1.0);
    }
    assert!(["fixed", "cache", "either"].contains(&json["favours"].as_str().unwrap()), "{json}");
    // In any number of threads, and in parts.
    setup.profile("b.profile", &["-t", "3"]);
    let bytes = |name: &str| std::fs::read(setup.at(name)).unwrap();
    assert_eq!(bytes("a.profile"), bytes("b.profile"));
    for part in ["1/2", "2/2"] {
        setup.profile(&format!("{}.part", &part[..1]), &["--shard", part]);
    }
    let mut merge = tool("profile");
    merge.arg("--merge").args(["2.part", "1.part"].map(|name| setup.at(name))).arg("-o").arg(setup.at("c.profile"));
    Outcome::from(merge.output().unwrap()).ok();
    assert_eq!(bytes("a.profile"), bytes("c.profile"));
    let mut compare = tool("profile");
    compare.arg("--compare").args(["a.profile", "1.part"].map(|name| setup.at(name)));
    let compared = Outcome::from(compare.output().unwrap()).ok().stdout;
    assert!(compared.contains("the most chosen in A"), "{compared}");
}

#[test]
fn variants_compute_what_their_sources_do() {
    for (name, relu) in [
        ("smallthinker", false),
        ("llama-experts", true),
        ("llama-experts-old", true),
        ("llama-experts-drelu", false),
        ("qwen3moe", true),
        ("qwen3moe-fused", true),
        ("nemotron_h_moe", false),
        ("nemotron_h_moe-latent", false),
    ] {
        let setup = Setup::new(name, relu);
        setup.profile("a.profile", &[]);
        let told = setup.split("variant.gguf", &[]);
        assert!(told.stdout.contains("wholly cold"), "{name}: {}", told.stdout);
        let variant = setup.at("variant.gguf");
        let (profile, model) =
            (Profile::read(&setup.at("a.profile")).unwrap(), Model::new(Gguf::open(&variant).unwrap(), None).unwrap());
        assert!(model.is_variant(), "{name}");
        for (number, (_, group)) in model.weights.groups().enumerate() {
            let index = group.index.as_ref().unwrap();
            let share = (profile.n_computed(number) as f64 / profile.n_tokens() as f64) as f32;
            assert_eq!(index.chosen, group.is_routed().then_some(share), "{name}, group {number}");
        }
        let plain = setup.perplexity(&setup.model, "dense");
        for mode in ["dense", "exact"] {
            let got = setup.perplexity(&variant, mode);
            assert!((got / plain - 1.0).abs() < 1e-4, "{name}, {mode}: {got} instead of {plain}");
        }
        // Once more of a variant: its neurons are counted by what they were.
        let mut again = tool("profile");
        again.arg("-m").arg(&variant).args(["-c", "32"]).arg("-f").arg(setup.at("story.txt"));
        Outcome::from(again.arg("-o").arg(setup.at("b.profile")).output().unwrap()).ok();
        assert_eq!(Profile::read(&setup.at("b.profile")).unwrap().n_ff(), profile.n_ff(), "{name}");
    }
}

/// As SmallThinker's makers write it: a row for each neuron of an expert.
#[test]
fn down_that_has_a_row_for_each_neuron_already_stays_so() {
    let setup = Setup::new("smallthinker", false);
    let mut file = ModelFile::opened(&setup.model).unwrap();
    for tensor in file.tensors.iter_mut().filter(|tensor| tensor.name.ends_with("ffn_down_exps.weight")) {
        let [n_ff, n_embd, n] = tensor.dims[..] else { panic!("{:?}", tensor.dims) };
        assert!(n_ff != n_embd);
        let width = tensor.bytes.len() / (n_ff * n_embd * n);
        let value = |expert: usize, neuron: usize, i: usize| {
            let at = ((expert * n_embd + i) * n_ff + neuron) * width;
            tensor.bytes[at..at + width].to_vec()
        };
        let of_expert = |e: usize| (0..n_ff).flat_map(move |neuron| (0..n_embd).map(move |i| (e, neuron, i)));
        let bytes = (0..n).flat_map(of_expert).flat_map(|(e, neuron, i)| value(e, neuron, i)).collect();
        (tensor.dims, tensor.bytes) = (vec![n_embd, n_ff, n], bytes);
    }
    let by_neurons = file.written(setup.folder.path(), "by-neurons.gguf");
    let plain = setup.perplexity(&setup.model, "dense");
    setup.profile("a.profile", &[]);
    let setup = Setup { model: by_neurons, ..setup };
    setup.split("variant.gguf", &[]);
    for model in [&setup.model, &setup.at("variant.gguf")] {
        let got = setup.perplexity(model, "exact");
        assert!((got / plain - 1.0).abs() < 1e-4, "{}: {got} instead of {plain}", model.display());
    }
}

#[test]
fn experts_get_no_predictor_and_that_is_said() {
    let setup = Setup::new("smallthinker", false);
    setup.profile("a.profile", &["--samples", "300"]);
    let mut fit = setup.command("profile", &["--predictor", "auto"]);
    fit.arg("--samples-from").arg(setup.at("a.profile")).arg("-o").arg(setup.at("a.predictor"));
    let told = Outcome::from(fit.output().unwrap()).ok();
    assert!(told.stderr.contains("too small for a predictor"), "{}", told.stderr);
    let told = setup.split("variant.gguf", &["--predictor", setup.at("a.predictor").to_str().unwrap()]);
    assert!(told.stderr.contains("too small for a predictor"), "{}", told.stderr);
    let plain = setup.perplexity(&setup.model, "dense");
    let predicted = setup.perplexity(&setup.at("variant.gguf"), "predicted");
    assert!((predicted / plain - 1.0).abs() < 1e-4, "{predicted} instead of {plain}");
}

#[test]
fn profiles_of_other_experts_are_refused() {
    let setup = Setup::new("smallthinker", false);
    setup.profile("a.profile", &[]);
    let mut profile = Profile::read(&setup.at("a.profile")).unwrap();
    profile.routers.pop();
    profile.write(&setup.at("fewer.profile")).unwrap();
    let out = setup.at("out.gguf");
    let mut split = setup.command("split", &[]);
    split.arg("--profile").arg(setup.at("fewer.profile")).arg("-o").arg(&out);
    refused(&mut split, &["fewer.profile", "group 24"]);
    let mut merge = tool("profile");
    merge.arg("--merge").args(["a.profile", "fewer.profile"].map(|name| setup.at(name))).arg("-o").arg(&out);
    refused(&mut merge, &["fewer.profile", "group 24"]);
    let mut compare = tool("profile");
    compare.arg("--compare").args(["a.profile", "fewer.profile"].map(|name| setup.at(name)));
    refused(&mut compare, &["fewer.profile", "group 24"]);
    let mut lossless = setup.command("split", &["--down", "lossless"]);
    lossless.arg("--profile").arg(setup.at("a.profile")).arg("-o").arg(&out);
    refused(&mut lossless, &["--down"]);
    assert!(!out.exists());
}

#[test]
fn what_a_variant_says_of_its_experts_is_checked() {
    let setup = Setup::new("smallthinker", false);
    setup.profile("a.profile", &[]);
    setup.split("variant.gguf", &[]);
    let variant = ModelFile::opened(&setup.at("variant.gguf")).unwrap();
    let n = Profile::read(&setup.at("a.profile")).unwrap().groups.len();
    let with = |shares: &[f32], wanted: &[&str]| {
        let mut file = variant.clone();
        file.set("powerinfer.group_rates", Value::f32s(shares));
        let path = file.written(setup.folder.path(), "wrong.gguf");
        refused(tool("run").arg("-m").arg(path).args(["-p", "x", "-n", "1"]), wanted);
    };
    with(&vec![1.0; n - 1], &["powerinfer.group_rates", "groups of neurons"]);
    with(&vec![1.5; n], &["powerinfer.group_rates", "1.5 is no share"]);
    with(&vec![f32::NAN; n], &["powerinfer.group_rates", "no share"]);
    with(&vec![0.0; n], &["powerinfer.group_rates", "fires for"]);
    let altered = |key: &str, value: Option<Value>, wanted: &[&str]| {
        let mut file = variant.clone();
        match value {
            Some(value) => file.set(key, value),
            None => file.remove(key),
        };
        let path = file.written(setup.folder.path(), "wrong.gguf");
        refused(tool("run").arg("-m").arg(path).args(["-p", "x", "-n", "1"]), wanted);
    };
    let key = "powerinfer.experts.cache_hits";
    altered(key, Some(Value::f32s(&[0.5; 3])), &[key, "sets"]);
    altered(key, Some(Value::f32s(&[0.5, 0.5, -0.5, 0.5])), &[key, "-0.5 is no share"]);
    altered(key, None, &[key, "missing"]);
    // What is right is said of the variant as it was of what it was made of.
    let hardware = repository("hardware/rtx-3060-ddr4.toml");
    let mut plan = tool("run");
    plan.arg("-m").arg(setup.at("variant.gguf")).args(["--dry-run", "-c", "64"]).arg("--hardware").arg(hardware);
    let planned = Outcome::from(plan.output().unwrap()).ok().stdout;
    assert!(planned.lines().any(|line| line.starts_with("favours ")), "{planned}");
}
