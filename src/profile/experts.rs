//! Whether the groups that routers choose are always the same few: what a fixed set of them would hit, and what a cache.

use super::file::Profile;
use super::pools::share_covering;
use super::report::COVERED;
use super::routers::RouterCounts;
use std::fmt::Write;

/// Sets of groups for which hits are reported: one in so many of a router's groups.
pub const ONE_IN: [usize; 4] = [16, 8, 4, 2];

/// The set by which the model is judged: one in so many.
const JUDGED: usize = 4;

/// Shares of all choices that a set of groups hits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hits {
    /// The groups that are chosen most.
    pub fixed: f64,
    /// The same where they are those of one half of the text, and met on the other; `None` where one has no choices.
    pub held_out: Option<f64>,
    /// The groups that were used last, at least: groups that are new in their window count as missed.
    pub cache: f64,
    /// The same at most: these groups count as hit.
    pub cache_at_most: f64,
}

/// What serves a model better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Favours {
    /// The groups that are chosen most, whatever the text.
    FixedSet,
    /// Those that were used last.
    Cache,
    /// One is as good as the other, as far as the windows tell.
    Either,
}

impl Favours {
    /// Name in JSON and in variants.
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedSet => "fixed",
            Self::Cache => "cache",
            Self::Either => "either",
        }
    }
}

/// Size of a set of one in `one_in` of `n` groups.
pub fn set_size(n: usize, one_in: usize) -> usize {
    n.div_ceil(one_in)
}

impl Hits {
    /// Over all choices of `routers`, of whose groups a set has one in `one_in`; `None` where nothing was chosen.
    pub fn of(routers: &[RouterCounts], one_in: usize) -> Option<Self> {
        let total: f64 = routers.iter().map(|router| router.total() as f64).sum();
        if total == 0.0 {
            return None;
        }
        let share = |of: &dyn Fn(&RouterCounts, usize) -> u64| {
            let hits = |router: &RouterCounts| of(router, set_size(router.groups.len(), one_in)) as f64;
            routers.iter().map(hits).sum::<f64>() / total
        };
        let chosen = || routers.iter().filter(|router| router.total() > 0);
        let halves = chosen().all(|router| router.held_out_hits(0).is_some());
        Some(Self {
            fixed: share(&RouterCounts::fixed_hits),
            held_out: halves.then(|| share(&|router, n| router.held_out_hits(n).unwrap_or(0))),
            cache: share(&RouterCounts::cache_hits),
            cache_at_most: share(&|router, n| router.cache_hits(n).saturating_add(router.first)),
        })
    }

    /// Of a fixed set that is not judged by the text it was learned on, where that can be told, and of a cache.
    pub fn favours(&self) -> Favours {
        let fixed = self.held_out.unwrap_or(self.fixed);
        if fixed > self.cache_at_most {
            Favours::FixedSet
        } else if fixed < self.cache {
            Favours::Cache
        } else {
            Favours::Either
        }
    }
}

/// Groups that the routers of a profile choose for a token, by router; 0 where it counts no tokens.
pub fn per_token(profile: &Profile, router: &RouterCounts) -> f64 {
    router.total() as f64 / profile.n_tokens().max(1) as f64
}

/// A table with one line per router and one for all, and which of the two the model favours; empty without routers.
pub fn table(profile: &Profile) -> String {
    let mut out = String::new();
    if profile.routers.is_empty() {
        return out;
    }
    out += "\nchoices of experts that a set of so many of them hits, in %: most chosen / most chosen in one half of the text, met \
            in the other / most recently used (LRU)\n";
    out += &format!("layer experts per token {:>20}", format!("{:.0} % of choices in", 100.0 * COVERED));
    out += &shown(&profile.routers).map(|n| format!("{:>22}", format!("1 in {n}"))).collect::<String>();
    out += "\n";
    for router in &profile.routers {
        let n = router.groups.len();
        let skew = 100.0 * share_covering(router.n_chosen().into_iter(), COVERED);
        let used = per_token(profile, router);
        // Writing to a string cannot fail.
        let _ = write!(out, "{:>5} {n:>7} {used:>9.2} {:>20}", router.layer, format!("{skew:.1}% of them"));
        out += &cells(std::slice::from_ref(router), shown(&profile.routers));
    }
    let _ = write!(out, "{:>5} {:>7} {:>9} {:>20}", "all", "", "", "");
    out += &cells(&profile.routers, shown(&profile.routers));
    out += &verdict(profile);
    out
}

/// Those of [`ONE_IN`] that are not less than one of the groups of all routers: as a set has at least one, they would repeat
/// the next.
fn shown(routers: &[RouterCounts]) -> impl Iterator<Item = usize> {
    let most = routers.iter().map(|router| router.groups.len()).max().unwrap_or(0);
    ONE_IN.into_iter().filter(move |one_in| *one_in <= most)
}

fn cells(routers: &[RouterCounts], sets: impl Iterator<Item = usize>) -> String {
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let cell = |one_in: usize| {
        let cell = Hits::of(routers, one_in).map_or_else(
            || "-".to_owned(),
            |hits| {
                let held_out = hits.held_out.map_or_else(|| "-".to_owned(), percent);
                format!("{} /{held_out:>5} /{:>5}", percent(hits.fixed), percent(hits.cache))
            },
        );
        format!("{cell:>22}")
    };
    sets.map(cell).collect::<String>() + "\n"
}

/// What the model favours, judged by sets of one in four; `None` where routers chose nothing.
pub fn favours(profile: &Profile) -> Option<Favours> {
    Hits::of(&profile.routers, JUDGED).map(|hits| hits.favours())
}

fn verdict(profile: &Profile) -> String {
    let Some(hits) = Hits::of(&profile.routers, JUDGED) else { return String::new() };
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let favoured = match hits.favours() {
        Favours::FixedSet => "a fixed set of experts",
        Favours::Cache => "a cache of the experts used last (LRU)",
        Favours::Either => "neither a fixed set of experts nor a cache",
    };
    let (fixed, met) = match hits.held_out {
        Some(share) => (share, "of the choices in text that it was not learned on"),
        None => (hits.fixed, "of the choices in the text that it was learned on"),
    };
    let (fixed, cache, most) = (percent(fixed), percent(hits.cache), percent(hits.cache_at_most));
    format!(
        "the model favours {favoured}: with 1 expert in {JUDGED} at hand, a fixed set hits {fixed} {met}, a cache {cache} to {most} \
         (experts new in a window counted as missed, or as hit)\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(chosen: [Vec<u64>; 2], again: Vec<u64>, first: u64) -> RouterCounts {
        RouterCounts { layer: 0, groups: (0..chosen[0].len() as u32).collect(), chosen, again, first }
    }

    #[test]
    fn what_serves_better_is_told_and_doubt_is_said() {
        // The same expert always, but never twice in a row.
        let steady = router([vec![50, 20, 20, 10], vec![50, 20, 20, 10]], vec![0, 100, 60, 36], 4);
        let hits = Hits::of(std::slice::from_ref(&steady), 4).unwrap();
        assert_eq!((hits.fixed, hits.held_out, hits.cache, hits.cache_at_most), (0.5, Some(0.5), 0.0, 0.02));
        assert_eq!(hits.favours(), Favours::FixedSet);
        // Another in each half.
        let bursts = router([vec![97, 1, 1, 1], vec![1, 97, 1, 1]], vec![190, 0, 2, 4], 4);
        let hits = Hits::of(std::slice::from_ref(&bursts), 4).unwrap();
        assert_eq!((hits.fixed, hits.held_out), (0.49, Some(0.01)));
        assert_eq!(hits.favours(), Favours::Cache);
        assert!((Hits::of(&[steady, bursts], 4).unwrap().fixed - 0.495).abs() < 1e-12);
        let short = router([vec![5, 2, 2, 1], vec![0; 4]], vec![2, 2, 1, 1], 4);
        let hits = Hits::of(&[short], 4).unwrap();
        assert_eq!((hits.held_out, hits.favours()), (None, Favours::Either));
        assert!(
            Hits::of(&[router([vec![0; 4], vec![0; 4]], vec![0; 4], 0)], 4).is_none() && Hits::of(&[], 4).is_none()
        );
    }

    #[test]
    fn sets_of_less_than_one_are_not_shown() {
        let of = |n: usize| router([vec![1; n], vec![1; n]], vec![0; n], 0);
        let sets = |routers: &[RouterCounts]| shown(routers).collect::<Vec<_>>();
        assert_eq!(sets(&[of(8)]), [8, 4, 2]);
        assert_eq!(sets(&[of(2), of(16)]), [16, 8, 4, 2]);
        assert_eq!(cells(&[of(8)], shown(&[of(8)])).matches('/').count(), 6);
    }

    #[test]
    fn a_set_has_at_least_one() {
        assert_eq!([1, 8, 9, 128].map(|n| set_size(n, 16)), [1, 1, 1, 8]);
    }
}
