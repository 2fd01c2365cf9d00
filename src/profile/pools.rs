//! The lines of tables: a group of neurons, or all groups that a layer's router chooses, which may be hundreds.

use super::file::Profile;
use super::tally::Tally;
use super::{GroupCounts, RouterCounts};
use std::collections::HashMap;

/// Groups of neurons that are shown as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What tables call it: the number of the layer; behind a point the number of the group there, where the layer has
    /// others, or behind an x how many groups its router chooses from.
    pub label: String,
    /// Numbers of the groups, rising.
    pub groups: Vec<usize>,
    /// Place of its router among those of the profile, where one chooses.
    pub router: Option<usize>,
}

impl Pool {
    /// All pools of a profile, layer by layer; the groups that a router chooses stand where the first of them does.
    pub fn all(profile: &Profile) -> Vec<Self> {
        let mut pools: Vec<Self> = Vec::new();
        for group in 0..profile.groups.len() {
            let layer = profile.layer_of[group];
            let router = profile.routers.binary_search_by_key(&layer, |router| router.layer).ok();
            let router = router.filter(|router| profile.routers[*router].groups.binary_search(&(group as u32)).is_ok());
            match pools.iter_mut().rev().find(|pool| router.is_some() && pool.router == router) {
                Some(pool) => pool.groups.push(group),
                None => pools.push(Self { label: profile.label(group), groups: vec![group], router }),
            }
        }
        for pool in pools.iter_mut().filter(|pool| pool.router.is_some()) {
            pool.label = format!("{}x{}", profile.layer_of[pool.groups[0]], pool.groups.len());
        }
        pools
    }

    /// What its router chose, where it has one.
    pub fn choices<'p>(&self, profile: &'p Profile) -> Option<&'p RouterCounts> {
        self.router.map(|router| &profile.routers[router])
    }

    /// One kind of counts of all its neurons, group by group.
    pub fn counts(&self, profile: &Profile, of: fn(&GroupCounts) -> &Tally) -> Vec<u64> {
        self.groups.iter().flat_map(|group| of(&profile.groups[*group]).iter()).collect()
    }

    /// Number of neurons.
    pub fn n_ff(&self, profile: &Profile) -> usize {
        self.groups.iter().map(|group| profile.groups[*group].fired.len()).sum()
    }

    /// Pairs of a neuron and a token that its group was computed for.
    pub fn possible(&self, profile: &Profile) -> f64 {
        let of_group = |group: &usize| profile.n_computed(*group) as f64 * profile.groups[*group].fired.len() as f64;
        self.groups.iter().map(of_group).sum()
    }
}

/// The smallest share of `counts` that makes up `share` of their sum; 0 where all are 0.
pub(super) fn share_covering(counts: impl Iterator<Item = u64>, share: f64) -> f64 {
    let mut times: HashMap<u64, u64> = HashMap::new();
    counts.for_each(|count| *times.entry(count).or_default() += 1);
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    let product = |(count, n): &(u64, u64)| u128::from(*count) * u128::from(*n);
    let total: u128 = times.iter().map(product).sum();
    let n: u64 = times.iter().map(|(_, n)| n).sum();
    let (mut left, mut taken) = ((total as f64 * share).ceil() as u128, 0u64);
    for entry in &times {
        let (count, n) = *entry;
        if left <= product(entry) {
            // Of equal counts as many as are needed.
            taken += if count > 0 { left.div_ceil(u128::from(count)) as u64 } else { 0 };
            break;
        }
        (left, taken) = (left - product(entry), taken + n);
    }
    taken as f64 / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_share_that_covers_is_found() {
        let covering = |counts: &[u64], share| share_covering(counts.iter().copied(), share);
        assert_eq!(covering(&[1; 10], 0.8), 0.8);
        assert_eq!(covering(&[5, 0, 0, 95], 0.8), 0.25);
        assert_eq!(covering(&[5, 5, 5, 85], 0.96), 1.0);
        assert_eq!(covering(&[5, 5, 5, 85], 0.95), 0.75);
        assert_eq!((covering(&[0; 4], 0.8), covering(&[], 0.8), covering(&[3, 1], 0.0)), (0.0, 0.0, 0.0));
    }
}
