//! Profiles: their sections, samples in them, and what is made of them.

use super::models;
use super::sections::Sections;
use super::target::Target;
use anyhow::Result;
use half::f16;
use powerinfer::model::Model;
use powerinfer::profile::samples::{SampleKey, Samples};
use powerinfer::profile::{
    Fingerprint, FiredSets, GroupCounts, Profile, ProfiledText, ReuseCounts, RouterCounts, Tally, UnionCounts, compare,
    experts, json, report, together,
};
use powerinfer::variant::{Draft, Options};

pub struct Profiles {
    seeds: Vec<Sections>,
    model: Model,
}

/// A made-up profile of `model`, in which some neurons fire more often than others.
pub fn counts(model: &Model) -> Profile {
    let group = |n: usize| GroupCounts {
        fired: (0..n as u64).map(|i| i * 7 % 10).collect(),
        mass: (0..n as u64).map(|i| i * 1000).collect(),
        opened: Tally::new(0),
    };
    Profile {
        fingerprint: Fingerprint::of(model).expect("a fingerprint"),
        arch: model.config.arch.clone(),
        name: model.config.name.clone(),
        activation: model.config.activation.activation.to_string(),
        layer_of: model.weights.groups().map(|(layer, _)| layer as u32).collect(),
        groups: model.weights.group_sizes().into_iter().map(group).collect(),
        texts: vec![ProfiledText { sha256: [0; 32], n_tokens: 100, n_ctx: 64 }],
        reuse: None,
        routers: Vec::new(),
        fired_sets: None,
        unions: None,
        thresholds: None,
    }
}

/// The same as of a run that has counted everything.
pub fn whole(model: &Model) -> Profile {
    let mut profile = counts(model);
    let keys: Vec<_> = keys();
    let reuse = profile.groups.iter().map(|group| ReuseCounts { first: group.fired.sum(), ..Default::default() });
    profile.reuse = Some(reuse.collect());
    let mut unions = UnionCounts::new(profile.groups.len(), 0);
    unions.blocks = [40, 16, 8, 4];
    unions.fired.iter_mut().for_each(|sums| *sums = [7, 6, 5, 4]);
    profile.unions = Some(unions);
    profile.fired_sets = Some(FiredSets { seed: 1, capacity: 8, bits: vec![0x35; keys.len() * 2], keys });
    profile
}

fn keys() -> Vec<SampleKey> {
    let mut keys: Vec<_> = (0..3).map(|token| SampleKey::new(1, [0; 32], token)).collect();
    keys.sort();
    keys
}

impl Profiles {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Model::new(models::open(&models::file(&models::kind()).bytes()).expect("a file"), None);
        let model = model.expect("a model");
        let whole = whole(&model);
        let x = vec![vec![f16::ONE; 3 * model.config.n_embd]; model.config.n_layer];
        let samples = Samples { seed: 1, capacity: 5, keys: keys(), x };
        let path = folder.path().join("profile");
        whole.write_with(&path, Some(&samples), &powerinfer::progress::Silent).expect("a file");
        let sampled = Sections::of(&std::fs::read(&path).expect("a file"));
        // As of a model whose layer has two groups of neurons.
        let groups = Profile { layer_of: vec![0; whole.groups.len()], ..whole.clone() };
        // And of one whose router chooses among them.
        let n = whole.groups.len();
        let mut router = RouterCounts::new(0, (0..n as u32).collect());
        router.chosen.iter_mut().for_each(|half| half.fill(50));
        router.first = router.total();
        let mut unions = UnionCounts { chosen: vec![[20, 15, 8, 4]], ..whole.unions.clone().expect("unions") };
        unions.fired.truncate(n);
        let routed =
            Profile { unions: Some(unions), routers: vec![router], reuse: None, fired_sets: None, ..groups.clone() };
        let seeds = vec![
            Sections::of(&counts(&model).to_bytes()),
            Sections::of(&groups.to_bytes()),
            Sections::of(&routed.to_bytes()),
            Sections::of(&whole.to_bytes()),
            sampled.in_version_1(),
            sampled,
        ];
        Self { seeds, model }
    }
}

impl Target for Profiles {
    type Form = Sections;

    fn name(&self) -> &'static str {
        "profile"
    }

    fn seeds(&self) -> Vec<Sections> {
        self.seeds.clone()
    }

    fn words(&self) -> &[&str] {
        &["GRPS", "LRUD", "FSET", "unio", "samp", "relu"]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let samples = Samples::from_bytes(input);
        let profile = Profile::from_bytes(input)?;
        let again = Profile::from_bytes(&profile.to_bytes()).expect("what was read can be read again");
        assert_eq!(again.to_bytes(), profile.to_bytes());
        let _ = (report::table(&profile), report::cold_table(&profile), experts::table(&profile), profile.sha256());
        let _ = (compare::table(&profile, &again), together::table(&profile), json(&profile));
        for group in 0..profile.groups.len() {
            let _ = (profile.label(group), profile.mean_mass(group));
            assert!(profile.rates(group).iter().all(|rate| (0.0..=1.0).contains(rate)), "a rate is no share");
            let order = profile.order(group);
            let _ = profile.cold_histogram(group, &order, order.len() / 2);
        }
        let mut merged = profile.clone();
        let _ = merged.merge(&again);
        if let Ok(Some(samples)) = samples {
            let _ = samples.clone().merge(&samples);
            (0..samples.x.len()).for_each(|layer| drop(samples.layer(layer)));
        }
        // Most are of other models.
        let _ = Draft::new(&self.model, &profile, Options::default());
        Ok(())
    }
}
