//! What a profile says of several tokens at once: which share of the neurons fires for any of them.

use super::file::Profile;
use super::pools::Pool;
use super::routers::RouterCounts;
use super::unions::{SIZES, unrelated};
use serde_json::{Value, json};
use std::fmt::Write;

/// Shares of the neurons of some groups that fire for any of so many tokens, or of groups that a router chooses for any.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Together {
    /// For one token; `None` where nothing was counted.
    pub alone: Option<f64>,
    /// For 2, 4, 8 and 16 consecutive tokens; `None` where no so many were counted.
    pub consecutive: [Option<f64>; SIZES.len()],
    /// For as many tokens of different places in the texts.
    pub unrelated: [Option<f64>; SIZES.len()],
}

impl Together {
    /// Of the neurons of one pool. Groups that a router does not choose for any of the tokens fire nothing.
    pub fn of_pool(profile: &Profile, pool: &Pool) -> Self {
        Self::of_groups(profile, &pool.groups)
    }

    /// Of all neurons.
    pub fn of_all(profile: &Profile) -> Self {
        Self::of_groups(profile, &(0..profile.groups.len()).collect::<Vec<_>>())
    }

    fn of_groups(profile: &Profile, groups: &[usize]) -> Self {
        let fired = || groups.iter().flat_map(|group| profile.groups[*group].fired.iter());
        let consecutive = |size| profile.unions.as_ref()?.mean(groups, size);
        Self::of(fired().count(), fired, profile.n_tokens(), consecutive)
    }

    /// Of the groups that router number `number` of the profile chooses from.
    pub fn of_router(profile: &Profile, number: usize) -> Self {
        let chosen = profile.routers[number].n_chosen();
        let consecutive = |size| profile.unions.as_ref()?.mean_chosen(number, size);
        Self::of(chosen.len(), || chosen.iter().copied(), profile.n_tokens(), consecutive)
    }

    fn of<I: Iterator<Item = u64>>(
        n: usize,
        counts: impl Fn() -> I,
        n_tokens: u64,
        consecutive: impl Fn(usize) -> Option<f64>,
    ) -> Self {
        let share = |sum: f64| if n > 0 { Some(sum / n as f64) } else { None };
        Self {
            alone: (n_tokens > 0).then(|| counts().map(|n| n as f64).sum::<f64>() / n_tokens as f64).and_then(share),
            consecutive: std::array::from_fn(|size| consecutive(size).and_then(share)),
            unrelated: unrelated(counts(), n_tokens).map(|sum| sum.and_then(share)),
        }
    }

    /// As an array of objects, one for each number of tokens.
    pub fn json(&self) -> Value {
        let of = |(size, n): (usize, &usize)| json!({ "tokens": n, "consecutive": self.consecutive[size], "unrelated": self.unrelated[size] });
        SIZES.iter().enumerate().map(of).collect()
    }

    /// A line of the table.
    fn line(&self, label: &str) -> String {
        let percent =
            |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}", 100.0 * share));
        let mut out = format!("{label:>7} {:>7}", percent(self.alone));
        for (consecutive, unrelated) in self.consecutive.iter().zip(&self.unrelated) {
            // Writing to a string cannot fail.
            let _ = write!(out, " {:>7} / {:>5}", percent(*consecutive), percent(*unrelated));
        }
        out + "\n"
    }
}

/// A table with a line for each layer and one for all, and where routers choose, of the groups that they choose.
pub fn table(profile: &Profile) -> String {
    let head = |title: &str| {
        let sizes = SIZES.map(|n| format!(" {:>15}", n)).concat();
        format!("{title:>7} {:>7}{sizes}\n", 1)
    };
    let mut out = "\nneurons that fire for any of so many tokens, in %: consecutive ones / those of different places in the texts\n".to_owned();
    out += &head("layer");
    for pool in Pool::all(profile) {
        out += &Together::of_pool(profile, &pool).line(&pool.label);
    }
    out += &Together::of_all(profile).line("all");
    if !profile.routers.is_empty() {
        out += "experts that are chosen for any of them, in %\n";
        let line = |(number, router): (usize, &RouterCounts)| {
            Together::of_router(profile, number).line(&format!("{}x{}", router.layer, router.groups.len()))
        };
        out.extend(profile.routers.iter().enumerate().map(line));
    }
    out
}
