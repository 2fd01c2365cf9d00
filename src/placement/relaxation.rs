//! What no plan of a model with experts can be faster than.
//!
//! Plans take the groups that a router chooses in one order, so the search among them does not prove that no other division
//! is faster. This does: every byte of the card gets a price (a Lagrangian relaxation of the budget), the longer one of the
//! two sides of a layer is at least any weighted mean of both, and on average at least as long as on average (Jensen's
//! inequality). Then each group can be divided as is best for it alone, among all its options, and the sum is a bound for
//! every price and every weight.

use super::budget;
use super::choice::{GroupChoice, Place};
use super::cost::{Cost, Routed, SidesTime};
use super::options::{GroupOptions, picoseconds};
use super::planner::Planner;
use super::solve::Problem;
use super::workload::LayerWork;

/// Prices that are tried, in shares of what bytes are worth where the search ended.
const PRICES: [f64; 4] = [0.0, 0.9, 1.0, 1.1];
/// Weights of the card's time that are tried; the CPU's is the rest.
const WEIGHTS: [f64; 8] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.96, 1.0];

/// Which options of groups are looked at together: so that fixed times are known.
struct Case {
    /// Whether the card has the whole mask of some group, of all that are not hot as a whole, or of none.
    masks: Masks,
    /// Whether any neuron is hot.
    hot: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Masks {
    None,
    Some,
    All,
}

const CASES: [Case; 5] = [
    Case { masks: Masks::None, hot: true },
    Case { masks: Masks::Some, hot: true },
    Case { masks: Masks::All, hot: true },
    Case { masks: Masks::Some, hot: false },
    Case { masks: Masks::All, hot: false },
];

impl Case {
    /// Whether a group may have that in this case, or in one that it bounds, too.
    fn allows(&self, choice: GroupChoice, n_ff: usize) -> bool {
        let masks = match self.masks {
            Masks::None => !choice.mask,
            Masks::Some => true,
            Masks::All => choice.mask || choice.n_hot == n_ff,
        };
        masks && (self.hot || choice.n_hot == 0)
    }
}

/// Picoseconds per token, but for what is beside layers and head, that no plan within `room` bytes comes below when the
/// residual stream lives at `home`; `None` where nothing fits. `like` has for each layer the first one that it is like.
pub(super) fn least(
    cost: &Cost,
    planner: Planner,
    like: &[usize],
    home: Place,
    problem: &Problem,
    room: u64,
) -> Option<u64> {
    let (saving, bytes) = problem.relaxed(room)?.price;
    let worth = saving as f64 / bytes as f64;
    let prices = PRICES.map(|share| share * worth);
    let layers = &planner.work.layers;
    let of_layer = |i: usize| {
        let searched = like[i] == i && layers[i].is_routed() && layers[i].is_divisible();
        searched.then(|| layer_least(cost, planner, i, home, &prices))
    };
    let searched: Vec<_> = (0..layers.len()).map(of_layer).collect();
    let bound = |(k, price): (usize, &f64)| {
        let listed = problem.least_paid(*price);
        let each = (0..listed.len()).map(|i| {
            let known = like.get(i).and_then(|first| searched[*first].as_ref());
            known.map_or(listed[i], |least| least[k])
        });
        each.sum::<f64>() - price * room as f64
    };
    let best = prices.iter().enumerate().map(bound).fold(0.0, f64::max);
    // Times are rounded to whole picoseconds, each by half of one at the most.
    Some((best - layers.len() as f64 - 1.0).max(0.0) as u64)
}

/// Picoseconds of a layer with a router, each of whose bytes costs so many: at least that, by price.
fn layer_least(cost: &Cost, planner: Planner, i: usize, home: Place, prices: &[f64; 4]) -> [f64; 4] {
    let layer = &planner.work.layers[i];
    let options = GroupOptions::of_layer(layer, planner.run.mode);
    let mut routed = Routed::new(cost, i);
    let mut least = [f64::INFINITY; 4];
    let mut found = |picoseconds: f64, bytes: u64| {
        for (least, price) in least.iter_mut().zip(prices) {
            *least = least.min(picoseconds + price * bytes as f64);
        }
    };
    // All of it on one side, and the mixer on the card: as they are.
    for (at, options) in options.iter().enumerate() {
        routed.set(at, GroupChoice::default(), options.sums(GroupChoice::default()));
    }
    found(picoseconds(routed.time(false, home).total()) as f64, 0);
    let beside = |ffn: bool| budget::beside_groups(layer, true, ffn, planner.run);
    found(picoseconds(routed.time(true, home).total()) as f64, beside(false));
    let mut bytes = beside(true);
    for (at, (options, group)) in options.iter().zip(&layer.groups).enumerate() {
        let all = GroupChoice { n_hot: group.n_ff(), ..GroupChoice::default() };
        routed.set(at, all, options.sums(all));
        bytes += budget::of_group(group, all);
    }
    found(picoseconds(routed.time(true, home).total()) as f64, bytes);
    let sums = all_sums(&routed, layer, &options, prices);
    for (case, of_case) in CASES.iter().zip(&sums) {
        let fixed = routed.fixed(home, case.masks != Masks::None, case.masks == Masks::All, case.hot);
        for (k, of_price) in of_case.iter().enumerate() {
            let weighted = WEIGHTS.iter().zip(of_price);
            let weighted = weighted.map(|(w, sum)| 1e12 * (w * fixed.gpu + (1.0 - w) * fixed.cpu) + sum);
            let longer = weighted.fold(0.0, f64::max);
            let paid = 1e12 * fixed.before + longer + prices[k] * beside(true) as f64;
            least[k] = least[k].min(paid);
        }
    }
    least
}

/// By case, price and weight: the sum over groups of what each adds at the least.
fn all_sums(routed: &Routed, layer: &LayerWork, options: &[GroupOptions], prices: &[f64; 4]) -> [[[f64; 8]; 4]; 5] {
    let mut sums = [[[0.0; 8]; 4]; 5];
    for (at, (group, options)) in layer.groups.iter().zip(options).enumerate() {
        let mut least = [[[f64::INFINITY; 8]; 4]; 5];
        for (choice, of_prefix) in options.all() {
            let part = routed.part(at, choice, of_prefix);
            let SidesTime { before, gpu, cpu } = routed.mean_of(at, &part);
            let bytes = budget::of_group(group, choice) as f64;
            let allowed = |case: &Case| case.allows(choice, group.n_ff());
            for (_, least) in CASES.iter().zip(&mut least).filter(|(case, _)| allowed(case)) {
                for (price, least) in prices.iter().zip(least) {
                    let paid = 1e12 * before + price * bytes;
                    for (weight, least) in WEIGHTS.iter().zip(least) {
                        *least = least.min(paid + 1e12 * (weight * gpu + (1.0 - weight) * cpu));
                    }
                }
            }
        }
        for (sum, least) in
            sums.as_flattened_mut().as_flattened_mut().iter_mut().zip(least.as_flattened().as_flattened())
        {
            *sum += least;
        }
    }
    sums
}
