//! What a variant's order of neurons comes from: a profile, or what stands for one.

use super::gpu_index::GpuIndex;
use crate::model::{ColdQuantiles, Model, NeuronId};
use crate::placement::covering_prefix;
use crate::profile::{Profile, report};

/// Share of a layer's firings that its planned hot prefix covers. Without knowing the device this is the plan;
/// `run` takes another prefix of the same file when it does.
const HOT_SHARE: f64 = 0.8;

/// Sizes of the hot prefix for which it is stored how many neurons behind it fire, and into how many quantiles.
const COLD_SIZES: usize = 17;
const COLD_QUANTILES: usize = 16;

/// Share of tokens for which a neuron is taken to fire where nobody has counted: about what ReLU models that are trained
/// for it have.
const ASSUMED_RATE: f32 = 0.1;

/// The same of gates that are above zero, where `up` has a mask of its own: as if the two were independent and equal.
const ASSUMED_OPEN_RATE: f32 = 0.316;

/// One group of neurons of a variant.
#[derive(Debug, Clone)]
pub struct GroupDraft {
    /// Which neuron comes to which slot: falling firing count, then mass, then id.
    pub order: Vec<NeuronId>,
    /// Firing rates by slot.
    pub rates: Vec<f32>,
    /// Mean mass per token by slot.
    pub mass: Vec<f32>,
    /// Shares of tokens for which the gate was above zero, by slot, where `up` has a mask of its own.
    pub open_rates: Option<Vec<f32>>,
    /// Planned size of the hot prefix.
    pub n_hot: usize,
    /// How many neurons behind a prefix fire for a token; profiles of version 1 cannot tell.
    pub cold: Option<ColdQuantiles>,
}

/// Where the order of neurons comes from without a profile.
pub enum Order {
    /// It is that of the source.
    AsStored,
    /// Neurons that PowerInfer has chosen for a card come first.
    Listed(GpuIndex),
}

/// What was counted of the neurons of a model.
pub(super) struct Counted {
    pub groups: Vec<GroupDraft>,
    /// What tables call the groups.
    pub labels: Vec<String>,
    /// SHA-256 of the profile in hex, and the tokens that it counts.
    pub profile: Option<(String, u64)>,
    /// Share of neurons that fire.
    pub density: f64,
    /// Share of gates that are above zero: the same, unless `up` has a mask of its own.
    pub open_density: f64,
}

impl Counted {
    /// By the firings of a profile.
    pub fn of_profile(profile: &Profile) -> Self {
        let groups = || 0..profile.groups.len();
        let density = report::sparsity(profile).map_or(0.0, |sparsity| 1.0 - sparsity);
        Self {
            groups: groups().map(|i| plan_group(profile, i)).collect(),
            labels: groups().map(|i| profile.label(i)).collect(),
            profile: Some((profile.sha256(), profile.n_tokens())),
            density,
            open_density: report::closed(profile).map_or(density, |closed| 1.0 - closed),
        }
    }

    /// By an order alone: each neuron is taken to fire as often as any other.
    pub fn assumed(model: &Model, order: &Order) -> Self {
        let (mut groups, mut labels) = (Vec::new(), Vec::new());
        let open_rate = model.has_two_masks().then_some(ASSUMED_OPEN_RATE);
        let rate = if model.config.activation.activation.is_sparse() { ASSUMED_RATE } else { 1.0 };
        for (i, layer) in model.weights.layers.iter().enumerate() {
            for (number, group) in layer.groups.iter().enumerate() {
                let n_ff = group.n_ff();
                let (order, n_hot) = match order {
                    Order::AsStored => ((0..n_ff as u32).map(NeuronId).collect(), 0),
                    Order::Listed(index) => index.order(i),
                };
                let (rates, mass) = (vec![rate; n_ff], vec![rate; n_ff]);
                let open_rates = open_rate.map(|rate| vec![rate; n_ff]);
                groups.push(GroupDraft { order, rates, mass, open_rates, n_hot, cold: None });
                labels.push(if layer.groups.len() > 1 { format!("{i}.{number}") } else { i.to_string() });
            }
        }
        let (density, open_density) = (f64::from(rate), f64::from(open_rate.unwrap_or(rate)));
        Self { groups, labels, profile: None, density, open_density }
    }
}

/// The planned hot prefix of neurons that fire with these falling rates, where no profile has counted them.
pub(crate) fn planned_hot(rates: &[f32]) -> usize {
    let counts: Vec<u64> = rates.iter().map(|r| (f64::from(*r) * 1e9) as u64).collect();
    covering_prefix(&counts, HOT_SHARE)
}

fn plan_group(profile: &Profile, group: usize) -> GroupDraft {
    let counts = &profile.groups[group];
    let (rates, mass) = (profile.rates(group), profile.mean_mass(group));
    let order = profile.order(group);
    let by_slot = |values: &[f32]| order.iter().map(|id| values[id.0 as usize]).collect::<Vec<f32>>();
    let falling: Vec<u64> = order.iter().map(|id| counts.fired.get(id.0 as usize)).collect();
    GroupDraft {
        rates: by_slot(&rates),
        mass: by_slot(&mass),
        open_rates: profile.open_rates(group).map(|rates| by_slot(&rates)),
        n_hot: covering_prefix(&falling, HOT_SHARE),
        cold: ColdQuantiles::of_counts(order.len(), COLD_SIZES, COLD_QUANTILES, &|n_hot| {
            profile.cold_histogram(group, &order, n_hot)
        }),
        order,
    }
}
