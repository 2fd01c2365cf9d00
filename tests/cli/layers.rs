//! Each layer is planned, ordered and described by its own counts, however many there are.

use crate::support::{ModelFile, Outcome, tool};
use powerinfer::gguf::Gguf;
use powerinfer::model::{ColdQuantiles, Model, NeuronId, NeuronIndex};
use powerinfer::profile::samples::SampleKey;
use powerinfer::profile::{Fingerprint, FiredSets, GroupCounts, Profile, ProfiledText};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const N_LAYER: usize = 12;
/// A power of two, so that any odd number is a step through all of them.
const N_FF: usize = 16_384;
const N_TOKENS: u64 = 10_000;
const N_SETS: u64 = 24;
/// Where each layer of the permuted profile comes from.
const ORDER: [usize; N_LAYER] = [7, 0, 11, 3, 2, 9, 1, 10, 4, 6, 8, 5];

/// A processor so slow and a bus so fast that all that fits is worth having on the card.
const MACHINE: &str = "name = \"test\"\n\
    [cpu]\nthreads = 2\nregion_us = 0.001\nvalue_ns = 0.0\n\
    [cpu.bandwidth]\nstream_gb_s = 0.1\ngather_gb_s = 0.05\n\
    [gpu]\nvram = \"1GiB\"\ncontext = \"1MiB\"\nkernel_us = 0.001\n\
    [gpu.bandwidth]\nstream_gb_s = 500\ngather_gb_s = 400\n\
    [bus]\ngb_s = 25\nrendezvous_us = 0.01\n";
/// Of this 66 MiB are for batches; all layers would need as much again.
const BUDGET: &str = "116MiB";

struct Place {
    folder: TempDir,
    model: PathBuf,
    machine: PathBuf,
}

/// How often the neurons of a layer fire: each layer has another density, another steepness and another order.
fn counts(layer: usize) -> GroupCounts {
    let share = |rank: usize| {
        let x = (rank + 1) as f64 / N_FF as f64;
        0.9 * (-x * (1.5 + 2.5 * ((layer * 5) % N_LAYER) as f64)).exp()
    };
    // Counts that differ by one for each rank or so make every order strict where shares are not tiny.
    let by_rank: Vec<u64> = (0..N_FF).map(|rank| (N_TOKENS as f64 * share(rank)) as u64).collect();
    let rank = |id: usize| (id * (2 * layer + 3) + 97 * layer) % N_FF;
    let fired: Vec<u64> = (0..N_FF).map(|id| by_rank[rank(id)]).collect();
    let mass: Vec<u64> = (0..N_FF).map(|id| fired[id] * 100 * (1 + ((id + layer) % 7) as u64)).collect();
    GroupCounts { fired: fired.into(), mass: mass.into(), ..GroupCounts::new(0, false) }
}

/// For some tokens, which neurons fired: of token `t` those that fire more often than in the share `t / N_SETS` of tokens.
fn sets(layers: &[GroupCounts]) -> FiredSets {
    let mut keys: Vec<_> = (0..N_SETS).map(|t| SampleKey::new(1, [1; 32], t)).collect();
    keys.sort();
    let mut bits = vec![0u8; keys.len() * layers.len() * N_FF / 8];
    for (token, key) in keys.iter().enumerate() {
        for (layer, counts) in layers.iter().enumerate() {
            let start = (token * layers.len() + layer) * N_FF / 8;
            let fires = |id: &usize| counts.fired.get(*id) * N_SETS > key.position * N_TOKENS;
            (0..N_FF).filter(fires).for_each(|id| bits[start + id / 8] |= 1 << (id % 8));
        }
    }
    FiredSets { seed: 1, capacity: 32, keys, bits }
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = ModelFile::zeros(N_LAYER, N_FF).written(folder.path(), "model.gguf");
        let machine = folder.path().join("machine.toml");
        std::fs::write(&machine, MACHINE).unwrap();
        Self { folder, model, machine }
    }

    /// Writes the profile with these layers.
    fn profile(&self, name: &str, layers: Vec<GroupCounts>) -> (PathBuf, Profile) {
        let model = Model::new(Gguf::open(&self.model).unwrap(), None).unwrap();
        let profile = Profile {
            fingerprint: Fingerprint::of(&model).unwrap(),
            arch: "llama".to_owned(),
            name: "tiny".to_owned(),
            activation: "relu".to_owned(),
            texts: vec![ProfiledText { sha256: [1; 32], n_tokens: N_TOKENS, n_ctx: 64 }],
            routers: Vec::new(),
            fired_sets: Some(sets(&layers)),
            unions: None,
            thresholds: None,
            layer_of: (0..layers.len() as u32).collect(),
            groups: layers,
            reuse: None,
        };
        let path = self.folder.path().join(name);
        profile.write(&path).unwrap();
        (path, profile)
    }

    /// Splits within the budget; the variant and the plan that a dry run shows for it.
    fn split(&self, profile: &Path) -> (Vec<NeuronIndex>, Value) {
        let variant = self.folder.path().join("variant.gguf");
        let split = |last: &[&str]| {
            let mut command = tool("split");
            command.arg("-m").arg(&self.model).arg("--profile").arg(profile).arg("--hardware").arg(&self.machine);
            command.args(["--vram-budget", BUDGET, "-c", "64", "-t", "2"]).args(last);
            Outcome::from(command.output().unwrap()).ok().stdout
        };
        let plan = serde_json::from_str(&split(&["--dry-run", "--json"])).unwrap();
        split(&["-o", variant.to_str().unwrap()]);
        let model = Model::new(Gguf::open(&variant).unwrap(), None).unwrap();
        let index = |layer: &powerinfer::model::Layer| layer.groups[0].index.clone().unwrap();
        (model.weights.layers.iter().map(index).collect(), plan)
    }
}

#[test]
fn twelve_layers_are_each_planned_by_their_own_counts() {
    let place = Place::new();
    let layers: Vec<GroupCounts> = (0..N_LAYER).map(counts).collect();
    let (path, profile) = place.profile("profile", layers.clone());
    let (stored, plan) = place.split(&path);
    assert_eq!((stored.len(), &plan["optimal"]), (N_LAYER, &Value::Bool(true)));
    for (i, (index, own)) in stored.iter().zip(&layers).enumerate() {
        let mut order: Vec<usize> = (0..N_FF).collect();
        order.sort_by_key(|id| (std::cmp::Reverse((own.fired.get(*id), own.mass.get(*id))), *id));
        let order: Vec<NeuronId> = order.into_iter().map(|id| NeuronId(id as u32)).collect();
        assert_eq!(index.ids(), order, "layer {i}");
        let rate = |id: &NeuronId| (own.fired.get(id.0 as usize) as f64 / N_TOKENS as f64) as f32;
        assert_eq!(index.rates, order.iter().map(rate).collect::<Vec<_>>(), "layer {i}");
        assert_eq!(plan["layers"][i]["n_hot"], index.n_hot, "layer {i}");
        let cold = index.cold.as_ref().unwrap();
        assert_eq!(cold.n_hot, ColdQuantiles::sizes(N_FF, cold.n_hot.len()));
        for (n_hot, quantiles) in cold.n_hot.iter().zip(&cold.fired) {
            let counted = profile.cold_histogram(i, &order, *n_hot);
            let sum = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>();
            let mean = sum(&mut counted.iter().map(|n| f64::from(*n))) / N_SETS as f64;
            let stored = sum(&mut quantiles.iter().map(|n| f64::from(*n))) / quantiles.len() as f64;
            assert!((stored - mean).abs() <= 1e-3 * mean, "layer {i}, {n_hot} hot: {stored} for {mean}");
        }
    }
    let mut sizes: Vec<usize> = stored.iter().map(|index| index.n_hot).collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert!(sizes.len() > 2, "the layers are not told apart: {sizes:?}");

    let (path, _) = place.profile("permuted", ORDER.iter().map(|from| layers[*from].clone()).collect());
    let (permuted, again) = place.split(&path);
    for (to, from) in ORDER.iter().enumerate() {
        assert!(permuted[to] == stored[*from], "layer {from} at place {to}");
        let figures = |plan: &Value, at: usize| {
            let mut layer = plan["layers"][at].clone();
            layer["layer"] = Value::Null;
            layer
        };
        assert_eq!(figures(&again, to), figures(&plan, *from), "layer {from} at place {to}");
    }
    assert_eq!(again["objective_ps"], plan["objective_ps"]);
}
