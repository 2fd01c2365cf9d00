//! What a variant's order of neurons comes from: a profile, or what stands for one.

use super::gpu_index::GpuIndex;
use crate::model::{CONSECUTIVE_SIZES, ColdQuantiles, Model, NeuronId};
use crate::parallel;
use crate::placement::covering_prefix;
use crate::profile::experts::{Hits, ONE_IN};
use crate::profile::{Pool, Profile, report};

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
    /// Share of tokens that the group is computed for, where a router chooses it; rates and mass are of all tokens.
    pub chosen: Option<f32>,
    /// Mean shares of its neurons that fire for any of [`CONSECUTIVE_SIZES`] tokens; old profiles, and those of windows that are
    /// shorter, cannot tell.
    pub consecutive: Option<[f32; CONSECUTIVE_SIZES.len()]>,
    /// Planned size of the hot prefix.
    pub n_hot: usize,
    /// How many neurons behind a prefix fire for a token; profiles of version 1 cannot tell, and nothing is told of groups
    /// that a router chooses.
    pub cold: Option<ColdQuantiles>,
}

/// Groups of neurons that tables show as one: all that a layer's router chooses.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub label: String,
    /// Numbers of the groups.
    pub groups: Vec<usize>,
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
    /// Lines of tables.
    pub lines: Vec<Line>,
    /// SHA-256 of the profile in hex, and the tokens that it counts.
    pub profile: Option<(String, u64)>,
    /// Shares of choices that sets of experts hit, and which sets: one expert in so many.
    pub hits: Vec<(usize, Hits)>,
    /// Share of neurons that fire, of those of groups that are computed.
    pub density: f64,
    /// Share of gates that are above zero: the same, unless `up` has a mask of its own.
    pub open_density: f64,
}

impl Counted {
    /// By the firings of a profile.
    pub fn of_profile(profile: &Profile) -> Self {
        let mut groups = parallel::map(0..profile.groups.len(), |_, group| plan_group(profile, group));
        for router in &profile.routers {
            let of_router: Vec<usize> = router.groups.iter().map(|group| *group as usize).collect();
            let falling = |group: &usize| {
                let counts = &profile.groups[*group].fired;
                groups[*group].order.iter().map(|id| counts.get(id.0 as usize)).collect()
            };
            let n_hot = hottest_of_all(&of_router.iter().map(falling).collect::<Vec<_>>());
            of_router.into_iter().zip(n_hot).for_each(|(group, n_hot)| groups[group].n_hot = n_hot);
        }
        let line = |pool: Pool| Line { label: pool.label, groups: pool.groups };
        let of = |one_in: usize| Some((one_in, Hits::of(&profile.routers, one_in)?));
        let density = report::sparsity(profile).map_or(0.0, |sparsity| 1.0 - sparsity);
        Self {
            groups,
            lines: Pool::all(profile).into_iter().map(line).collect(),
            profile: Some((profile.sha256(), profile.n_tokens())),
            hits: ONE_IN.into_iter().filter_map(of).collect(),
            density,
            open_density: report::closed(profile).map_or(density, |closed| 1.0 - closed),
        }
    }

    /// By an order alone: each neuron is taken to fire as often as any other.
    pub fn assumed(model: &Model, order: &Order) -> Self {
        let (mut groups, mut lines) = (Vec::new(), Vec::<Line>::new());
        let open_rate = model.has_two_masks().then_some(ASSUMED_OPEN_RATE);
        let rate = if model.config.activation.activation.is_sparse() { ASSUMED_RATE } else { 1.0 };
        for (i, layer) in model.weights.layers.iter().enumerate() {
            let n_routed = layer.groups.iter().filter(|group| group.is_routed()).count();
            let mut routed = Line { label: format!("{i}x{n_routed}"), groups: Vec::new() };
            for (number, group) in layer.groups.iter().enumerate() {
                let n_ff = group.n_ff();
                // As if each were chosen as often as any other.
                let n_used = layer.router.filter(|_| group.is_routed()).map(|router| router.n_used);
                let chosen = n_used.map(|n| n as f32 / n_routed as f32);
                let (rate, open_rate) = (rate * chosen.unwrap_or(1.0), open_rate.map(|o| o * chosen.unwrap_or(1.0)));
                let (order, n_hot) = match order {
                    Order::AsStored => ((0..n_ff as u32).map(NeuronId).collect(), 0),
                    Order::Listed(index) => index.order(i),
                };
                let (rates, mass) = (vec![rate; n_ff], vec![rate; n_ff]);
                let open_rates = open_rate.map(|rate| vec![rate; n_ff]);
                let number_of_all = groups.len();
                groups.push(GroupDraft {
                    order,
                    rates,
                    mass,
                    open_rates,
                    chosen,
                    consecutive: None,
                    n_hot,
                    cold: None,
                });
                let label = if layer.groups.len() > 1 { format!("{i}.{number}") } else { i.to_string() };
                match group.is_routed() {
                    true => routed.groups.push(number_of_all),
                    false => lines.push(Line { label, groups: vec![number_of_all] }),
                }
            }
            if n_routed > 0 {
                lines.push(routed);
            }
        }
        let (density, open_density) = (f64::from(rate), f64::from(open_rate.unwrap_or(rate)));
        Self { groups, lines, profile: None, hits: Vec::new(), density, open_density }
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
    let chosen = profile.router_of(group).map(|_| profile.n_computed(group) as f64 / profile.n_tokens().max(1) as f64);
    let falling: Vec<u64> = order.iter().map(|id| counts.fired.get(id.0 as usize)).collect();
    GroupDraft {
        rates: by_slot(&rates),
        mass: by_slot(&mass),
        open_rates: profile.open_rates(group).map(|rates| by_slot(&rates)),
        chosen: chosen.map(|share| share as f32),
        consecutive: consecutive(profile, group),
        n_hot: covering_prefix(&falling, HOT_SHARE),
        cold: ColdQuantiles::of_counts(order.len(), COLD_SIZES, COLD_QUANTILES, &|n_hot| {
            profile.cold_histogram(group, &order, n_hot)
        }),
        order,
    }
}

fn consecutive(profile: &Profile, group: usize) -> Option<[f32; CONSECUTIVE_SIZES.len()]> {
    let (unions, n_ff) = (profile.unions.as_ref()?, profile.groups[group].fired.len().max(1) as f64);
    let mut shares = [0.0; CONSECUTIVE_SIZES.len()];
    let mut most: f64 = 0.0;
    for (size, share) in shares.iter_mut().enumerate() {
        // Of short texts not all tokens are in the larger blocks.
        most = most.max(unions.mean(&[group], size)? / n_ff);
        *share = most.min(1.0) as f32;
    }
    Some(shares)
}

/// Of groups whose neurons fire as often as these falling counts say, how many of each are among the fewest neurons of all
/// groups together that make up [`HOT_SHARE`] of all firings: none of a group that is hardly ever chosen. Of equals those of
/// the first groups are taken.
fn hottest_of_all(falling: &[Vec<u64>]) -> Vec<usize> {
    let counts = falling.iter().enumerate().flat_map(|(group, counts)| counts.iter().map(move |count| (*count, group)));
    let mut all: Vec<(u64, usize)> = counts.collect();
    all.sort_unstable_by_key(|(count, group)| (std::cmp::Reverse(*count), *group));
    let counts: Vec<u64> = all.iter().map(|(count, _)| *count).collect();
    let mut n_hot = vec![0; falling.len()];
    all[..covering_prefix(&counts, HOT_SHARE)].iter().for_each(|(_, group)| n_hot[*group] += 1);
    n_hot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_neurons_are_those_of_the_groups_that_are_chosen() {
        assert_eq!(hottest_of_all(&[vec![50, 20, 5, 0], vec![2, 1, 0, 0], vec![20, 2, 0, 0]]), [2, 0, 1]);
        assert_eq!(hottest_of_all(&[vec![5, 5], vec![5, 5], vec![0, 0]]), [2, 2, 0]);
        assert_eq!(hottest_of_all(&[vec![0, 0], vec![]]), [0, 0]);
    }
}
