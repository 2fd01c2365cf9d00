//! What a profile says, as a human-readable table.

use super::GroupCounts;
use super::file::Profile;
use super::pools::{Pool, share_covering};
use super::tally::Tally;
use crate::placement::covering_prefix;
use std::fmt::Write;

/// Share of all firings by which skew is measured.
pub const COVERED: f64 = 0.8;

/// Figures of a group of neurons, or of all those that a layer's router chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolReport {
    /// Share of (token, neuron) pairs that did not fire, of tokens that the group was computed for; `None` where there are
    /// none.
    pub sparsity: Option<f64>,
    /// Share of pairs whose gate was not above zero, where `up` has a mask of its own: then fewer than rest.
    pub closed: Option<f64>,
    /// Share of neurons, hottest first, that make up [`COVERED`] of all firings.
    pub skew: f64,
    /// Neurons that never fired.
    pub dead: usize,
    /// Neurons.
    pub n_ff: usize,
}

/// Figures of one pool of a profile.
pub fn pool(profile: &Profile, pool: &Pool) -> PoolReport {
    let one = std::slice::from_ref(pool);
    let fired = || counts(profile, one, |g| &g.fired);
    PoolReport {
        sparsity: share_that_rests(profile, one, |g| &g.fired),
        closed: share_that_rests(profile, one, |g| &g.opened).filter(|_| profile.has_two_masks()),
        skew: share_covering(fired(), COVERED),
        dead: fired().filter(|n| *n == 0).count(),
        n_ff: pool.n_ff(profile),
    }
}

/// Share of (token, neuron) pairs that did not fire, of tokens that groups were computed for, over all layers; `None` where
/// there are none.
pub fn sparsity(profile: &Profile) -> Option<f64> {
    share_that_rests(profile, &Pool::all(profile), |g| &g.fired)
}

/// Share of pairs whose gate was not above zero, over all layers; `None` where `up` has no mask of its own.
pub fn closed(profile: &Profile) -> Option<f64> {
    share_that_rests(profile, &Pool::all(profile), |g| &g.opened).filter(|_| profile.has_two_masks())
}

fn counts<'p>(
    profile: &'p Profile,
    pools: &'p [Pool],
    of: fn(&GroupCounts) -> &Tally,
) -> impl Iterator<Item = u64> + 'p {
    pools.iter().flat_map(|pool| &pool.groups).flat_map(move |group| of(&profile.groups[*group]).iter())
}

fn share_that_rests(profile: &Profile, pools: &[Pool], of: fn(&GroupCounts) -> &Tally) -> Option<f64> {
    let sum: f64 = counts(profile, pools, of).map(|n| n as f64).sum();
    let possible: f64 = pools.iter().map(|pool| pool.possible(profile)).sum();
    (possible > 0.0).then(|| 1.0 - sum / possible)
}

/// A table with one line per layer and one for the model.
pub fn table(profile: &Profile) -> String {
    let gates = profile.has_two_masks();
    let title = if gates { "   of gates" } else { "" };
    let mut out = format!("layer   neurons   sparsity{title}   80 % of firings in   dead\n");
    let mut line = |name: &str, n: usize, sparsity: Option<f64>, closed: Option<f64>, skew: f64, dead: usize| {
        let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |s| format!("{:.2}%", 100.0 * s));
        let (sparsity, skew) = (percent(sparsity), 100.0 * skew);
        let closed = if gates { format!(" {:>10}", percent(closed)) } else { String::new() };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:>5} {n:>9} {sparsity:>10}{closed} {skew:>12.1}% of them {dead:>6}");
    };
    let (mut neurons, mut dead) = (0, 0);
    let pools = Pool::all(profile);
    for of_pool in &pools {
        let r = pool(profile, of_pool);
        line(&of_pool.label, r.n_ff, r.sparsity, r.closed, r.skew, r.dead);
        neurons += r.n_ff;
        dead += r.dead;
    }
    let skew = share_covering(counts(profile, &pools, |g| &g.fired), COVERED);
    line("all", neurons, sparsity(profile), closed(profile), skew, dead);
    if !profile.routers.is_empty() {
        out += "sparsity of experts is that of the tokens that they were chosen for\n";
    }
    if let Some(thresholds) = &profile.thresholds {
        let all = thresholds.by_group();
        let (least, most) = all.iter().fold((f32::INFINITY, 0.0f32), |(a, b), t| (a.min(*t), b.max(*t)));
        let _ = writeln!(out, "thresholds for mode thresholded: {least:.4} to {most:.4}");
    }
    out
}

/// How many neurons fire for one token, apart from those that make up [`COVERED`] of all firings: the work left to the
/// cold side. Empty if the profile has no fired sets.
pub fn cold_table(profile: &Profile) -> String {
    let all_routed = (0..profile.groups.len()).all(|group| profile.router_of(group).is_some());
    let Some(sets) = profile.fired_sets.as_ref().filter(|_| !all_routed || profile.groups.is_empty()) else {
        return String::new();
    };
    let mut out = format!(
        "\nneurons that fire for a token beyond the hottest with {:.0} % of firings ({} tokens sampled)\n\
         layer      hot     least     10 %   median     90 %     99 %     most\n",
        100.0 * COVERED,
        sets.keys.len()
    );
    for layer in (0..profile.groups.len()).filter(|group| profile.router_of(*group).is_none()) {
        let order = profile.order(layer);
        let falling: Vec<u64> = order.iter().map(|id| profile.groups[layer].fired.get(id.0 as usize)).collect();
        let n_hot = covering_prefix(&falling, COVERED);
        let counts = profile.cold_histogram(layer, &order, n_hot);
        let Some(last) = counts.len().checked_sub(1) else { return String::new() };
        let at = |share: f64| counts[(last as f64 * share).round() as usize];
        let _ = write!(out, "{:>5} {n_hot:>8} {:>9}", profile.label(layer), at(0.0));
        for share in [0.1, 0.5, 0.9, 0.99, 1.0] {
            let _ = write!(out, " {:>8}", at(share));
        }
        out += "\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Fingerprint, GroupCounts, ReuseCounts, compare};
    use super::*;

    #[test]
    fn tables_of_nothing_hold_no_nonsense() {
        let empty = Profile {
            fingerprint: Fingerprint { family: [7; 32], samples: vec![] },
            arch: "llama".to_owned(),
            name: "n".to_owned(),
            activation: "relu".to_owned(),
            texts: vec![],
            groups: vec![],
            layer_of: vec![],
            reuse: None,
            routers: vec![],
            fired_sets: None,
            unions: None,
            thresholds: None,
        };
        let no_tokens = Profile { groups: vec![GroupCounts::new(4, false)], layer_of: vec![0], ..empty.clone() };
        let reuse = Some(vec![ReuseCounts::default()]);
        let no_neurons =
            Profile { groups: vec![GroupCounts::new(0, false)], layer_of: vec![0], reuse, ..empty.clone() };
        for profile in [empty, no_tokens, no_neurons] {
            let tables = [table(&profile), cold_table(&profile), compare::table(&profile, &profile).unwrap()].concat();
            assert!(tables.contains(" - "), "{tables}");
            assert!(!tables.contains("NaN") && !tables.contains("inf"), "{tables}");
            assert!((0..profile.groups.len()).all(|i| profile.rates(i).iter().all(|rate| *rate == 0.0)));
        }
    }
}
