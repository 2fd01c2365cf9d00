//! How much two profiles of one model agree, and what that costs.

use super::experts::{self, ONE_IN, set_size};
use super::file::Profile;
use super::fingerprint::Kinship;
use super::pools::Pool;
use super::report::COVERED;
use crate::placement::covering_prefix;
use anyhow::{Result, bail, ensure};
use std::fmt::Write;

/// Sizes of the hot set for which hit rates are reported, in per cent of a layer's neurons.
pub const HIT_SIZES: [usize; 6] = [5, 10, 20, 40, 60, 80];

/// A group of profile A, or all those that a layer's router chooses, against the same of B.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolComparison {
    /// Neurons.
    pub n_ff: usize,
    /// A's hot set: the fewest neurons that cover [`COVERED`] of its firings.
    pub n_hot: usize,
    /// Share of A's hot set that is in B's.
    pub shared: f64,
    /// Neurons in both hot sets, divided by neurons in either.
    pub jaccard: f64,
    /// Kullback-Leibler divergence of B's firing rates from A's, in nats, mean over the neurons. A rate is
    /// `(fired + 0.5) / (tokens + 1)`, so that none is 0.
    pub kl: f64,
    /// Share of B's firings that A's hot set covers.
    pub covered: f64,
    /// Share of B's firings that the best set of that size covers.
    pub best: f64,
}

/// Neurons of a pool by falling firing count; ties by falling mass, then by place.
fn order(profile: &Profile, pool: &Pool) -> Vec<usize> {
    let (fired, mass) = (pool.counts(profile, |g| &g.fired), pool.counts(profile, |g| &g.mass));
    let mut order: Vec<usize> = (0..fired.len()).collect();
    order.sort_unstable_by_key(|i| (std::cmp::Reverse((fired[*i], mass[*i])), *i));
    order
}

/// Compares one pool of two profiles.
pub fn pool(a: &Profile, b: &Profile, pool: &Pool) -> PoolComparison {
    let (order_a, order_b) = (order(a, pool), order(b, pool));
    let [fired_a, fired_b] = [a, b].map(|profile| pool.counts(profile, |g| &g.fired));
    let of = |fired: &[u64], order: &[usize]| order.iter().map(|i| fired[*i]).collect::<Vec<u64>>();
    let n_hot = |fired: &[u64], order: &[usize]| covering_prefix(&of(fired, order), COVERED);
    let (n_a, n_b) = (n_hot(&fired_a, &order_a), n_hot(&fired_b, &order_b));
    let mut in_b = vec![false; fired_b.len()];
    order_b[..n_b].iter().for_each(|i| in_b[*i] = true);
    let both = order_a[..n_a].iter().filter(|i| in_b[**i]).count();
    let sum = |fired: &[u64], ids: &[usize]| of(fired, ids).iter().map(|n| *n as f64).sum::<f64>();
    let total = sum(&fired_b, &order_b);
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 1.0 };
    let rate = |fired: u64, tokens: u64| (fired as f64 + 0.5) / (tokens as f64 + 1.0);
    let (tokens_a, tokens_b) = (a.n_tokens(), b.n_tokens());
    let kl = fired_a.iter().zip(&fired_b).map(|(a, b)| {
        let (p, q) = (rate(*a, tokens_a), rate(*b, tokens_b));
        p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln()
    });
    PoolComparison {
        n_ff: fired_a.len(),
        n_hot: n_a,
        shared: share(both as f64, n_a as f64),
        jaccard: share(both as f64, (n_a + n_b - both) as f64),
        kl: kl.sum::<f64>() / fired_a.len().max(1) as f64,
        covered: share(sum(&fired_b, &order_a[..n_a]), total),
        best: share(sum(&fired_b, &order_b[..n_a]), total),
    }
}

/// Share of a pool's firings that its hottest `n_hot` neurons make up.
pub fn static_hit_rate(profile: &Profile, pool: &Pool, n_hot: usize) -> f64 {
    let mut fired = pool.counts(profile, |g| &g.fired);
    fired.sort_unstable_by(|a, b| b.cmp(a));
    let total: f64 = fired.iter().map(|n| *n as f64).sum();
    let hot: f64 = fired.iter().take(n_hot).map(|n| *n as f64).sum();
    if total > 0.0 { hot / total } else { 0.0 }
}

/// Holds that both are of one model.
///
/// # Errors
/// When they belong to different models or activations.
pub(super) fn check(a: &Profile, b: &Profile) -> Result<()> {
    match a.fingerprint.kinship(&b.fingerprint) {
        Kinship::Same | Kinship::Sibling => {}
        Kinship::OtherWeights => bail!("is of a model with different weights ({}) from the first ({})", b.name, a.name),
        Kinship::OtherFamily => {
            bail!("is of a different model ({}) from the first ({}){}", b.name, a.name, b.unlike(&a.n_ff()))
        }
    }
    ensure!(a.activation == b.activation, "was made with activation {}, the first with {}", b.activation, a.activation);
    ensure!(a.n_ff() == b.n_ff(), "has layers of different sizes from the first");
    ensure!(a.layer_of == b.layer_of, "has its groups of neurons in different layers from the first");
    let chooses = |profile: &Profile| profile.routers.iter().map(|r| r.groups.clone()).collect::<Vec<_>>();
    ensure!(chooses(a) == chooses(b), "has routers in different layers from the first, or of other experts");
    Ok(())
}

/// Human-readable tables: A against B by layer, and the hit rates of A.
///
/// # Errors
/// When they belong to different models or activations.
pub fn table(a: &Profile, b: &Profile) -> Result<String> {
    check(a, b)?;
    let mut out = format!(
        "A: {} tokens, B: {} tokens; a hot set covers {:.0} % of the firings\n\n",
        a.n_tokens(),
        b.n_tokens(),
        100.0 * COVERED
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "layer  hot set of A   also hot in B   Jaccard   KL of rates   B's firings in A's set   in its own"
    );
    let percent = |part: f64| 100.0 * part;
    let pools = Pool::all(a);
    for of_pool in &pools {
        let c = pool(a, b, of_pool);
        let _ = writeln!(
            out,
            "{:>5} {:>7} {:>4.1}% {:>14.1}% {:>9.3} {:>13.5} {:>23.2}% {:>11.2}%",
            of_pool.label,
            c.n_hot,
            percent(c.n_hot as f64 / c.n_ff.max(1) as f64),
            percent(c.shared),
            c.jaccard,
            c.kl,
            percent(c.covered),
            percent(c.best),
        );
    }
    out += &choices(a, b);
    out += &hit_table(a, &pools);
    out += &experts::table(a);
    Ok(out)
}

/// How far the routers of two texts agree; empty without routers.
fn choices(a: &Profile, b: &Profile) -> String {
    if a.routers.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "\nchoices of experts in B that a set hits, in %: the most chosen in A / the most chosen in B\nlayer",
    );
    out += &ONE_IN.map(|n| format!("{:>16}", format!("1 in {n}"))).concat();
    out += "\n";
    for (a, b) in a.routers.iter().zip(&b.routers) {
        let _ = write!(out, "{:>5}", a.layer);
        for one_in in ONE_IN {
            let n = set_size(a.groups.len(), one_in);
            let of = |hits: u64| 100.0 * hits as f64 / b.total().max(1) as f64;
            let cell = format!("{:.1} /{:>5.1}", of(b.hits_of_most_chosen(a, n)), of(b.fixed_hits(n)));
            let _ = write!(out, "{cell:>16}");
        }
        out += "\n";
    }
    out
}

/// Hit rates of the fixed hot set and of an LRU cache of the same size.
fn hit_table(profile: &Profile, pools: &[Pool]) -> String {
    let mut out = String::from("\nfirings of A that a cache hits, in %: the hottest neurons / the last used\n");
    if profile.reuse.is_none() {
        out = String::from(
            "\nfirings of A that the hottest neurons make up, in % (A does not record how soon neurons fire again)\n",
        );
    }
    out += "cache";
    for size in HIT_SIZES {
        let _ = write!(out, "{:>14}", format!("{size} %"));
    }
    out += " of the neurons\n";
    for pool in pools {
        let _ = write!(out, "{:>5}", pool.label);
        let n_ff = pool.n_ff(profile);
        // How soon neurons fire again is not counted where a router chooses.
        let reuse = profile.reuse.as_ref().filter(|_| pool.router.is_none());
        for size in HIT_SIZES {
            let n_hot = n_ff * size / 100;
            let hottest = 100.0 * static_hit_rate(profile, pool, n_hot);
            let cell = match reuse.zip(pool.groups.first()) {
                Some((reuse, group)) => format!("{hottest:.1} /{:>5.1}", 100.0 * reuse[*group].hit_rate(n_ff, n_hot)),
                None => format!("{hottest:.1}"),
            };
            let _ = write!(out, "{cell:>14}");
        }
        out += "\n";
    }
    if profile.reuse.is_some() {
        out += "the last used are counted from the beginning of each window, where nothing has been used\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Fingerprint, GroupCounts, ProfiledText, ReuseCounts};
    use super::*;

    fn profile(fired: &[u64]) -> Profile {
        let mut reuse = ReuseCounts { first: fired.iter().sum(), ..Default::default() };
        (reuse.first, reuse.buckets[0]) = (reuse.first / 2, reuse.first - reuse.first / 2);
        Profile {
            fingerprint: Fingerprint { family: [7; 32], samples: vec![1.0, -2.0] },
            arch: "llama".to_owned(),
            name: "n".to_owned(),
            activation: "relu".to_owned(),
            texts: vec![ProfiledText { sha256: [1; 32], n_tokens: 100, n_ctx: 64 }],
            groups: vec![GroupCounts { fired: fired.to_vec().into(), ..GroupCounts::new(fired.len(), false) }],
            layer_of: vec![0],
            reuse: Some(vec![reuse]),
            routers: vec![],
            fired_sets: None,
            unions: None,
            thresholds: None,
        }
    }

    #[test]
    fn a_profile_agrees_with_itself() {
        let a = profile(&[60, 1, 20, 5, 0, 0, 9, 5]);
        let c = pool(&a, &a, &Pool::all(&a)[0]);
        assert_eq!((c.n_hot, c.shared, c.jaccard, c.kl), (2, 1.0, 1.0, 0.0));
        assert_eq!((c.covered, c.best), (0.8, 0.8));
    }

    #[test]
    fn what_a_foreign_hot_set_loses_is_told() {
        let (a, b) = (profile(&[50, 30, 20, 0]), profile(&[50, 0, 20, 30]));
        let c = pool(&a, &b, &Pool::all(&a)[0]);
        assert_eq!((c.n_hot, c.shared), (2, 0.5));
        assert!((c.jaccard - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((c.covered, c.best), (0.5, 0.8));
        // 30.5 / 101 against 0.5 / 101, both ways, over four neurons.
        let (p, q) = (30.5f64 / 101.0, 0.5f64 / 101.0);
        let kl = |p: f64, q: f64| p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        assert!((c.kl - (kl(p, q) + kl(q, p)) / 4.0).abs() < 1e-12);
    }

    #[test]
    fn layers_in_which_nothing_fires_lose_nothing() {
        let a = profile(&[0, 0]);
        let c = pool(&a, &a, &Pool::all(&a)[0]);
        assert_eq!((c.n_hot, c.shared, c.covered, static_hit_rate(&a, &Pool::all(&a)[0], 1)), (0, 1.0, 1.0, 0.0));
    }

    #[test]
    fn profiles_of_different_models_are_refused() {
        let a = profile(&[1, 2]);
        assert!(table(&a, &profile(&[2, 1])).unwrap().contains("Jaccard"));
        let other = Profile { fingerprint: Fingerprint { family: [8; 32], samples: vec![] }, ..a.clone() };
        assert!(table(&a, &other).unwrap_err().to_string().contains("a different model"));
        let weights = Fingerprint { family: [7; 32], samples: vec![2.0, 1.0] };
        assert!(table(&a, &Profile { fingerprint: weights, ..a.clone() }).unwrap_err().to_string().contains("weights"));
        assert!(table(&a, &Profile { activation: "silu".to_owned(), ..a.clone() }).is_err());
    }
}
