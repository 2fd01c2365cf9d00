//! How two profiles of one model differ, as a picture.

use super::densities;
use crate::plot::palette::{BLUE, Colour, GREEN, VERMILION};
use crate::plot::{Axis, Bars, Line, Lines, Panel, Picture, Ticks};
use crate::profile::compare::{self, PoolComparison, check};
use crate::profile::experts::set_size;
use crate::profile::{Pool, Profile, RouterCounts};
use anyhow::{Result, ensure};

/// One in so many experts is a set.
const ONE_IN: usize = 4;

/// What [`compare::table`] says by layer, as curves and bars.
///
/// # Errors
/// As [`compare::table`], and without layers.
pub fn compared(a: &Profile, b: &Profile) -> Result<Picture> {
    check(a, b)?;
    let pools = Pool::all(a);
    ensure!(!pools.is_empty(), "nothing to draw: the profiles have no layers");
    let labels: Vec<String> = pools.iter().map(|pool| pool.label.clone()).collect();
    let (in_a, in_b) = (densities(a, &pools), densities(b, &pools));
    let density = Bars {
        heading: "Share of neurons that fire for a token".to_owned(),
        x: Axis::names("layer", &labels),
        y: Axis::up_to("share that fires", Ticks::Percent, in_a.iter().chain(&in_b).copied()),
        series: vec![("A".to_owned(), BLUE, in_a), ("B".to_owned(), VERMILION, in_b)],
        stacked: false,
        level: None,
    };
    let pairs: Vec<PoolComparison> = pools.iter().map(|pool| compare::pool(a, b, pool)).collect();
    let by_layer = |name: &str, colour: Colour, of: fn(&PoolComparison) -> f64| {
        line(name, colour, pairs.iter().map(of).enumerate().map(|(i, share)| (i as f64, share)).collect())
    };
    let sets = Lines {
        heading: "What A's hot set (80 % of A's activations) is worth in B".to_owned(),
        x: Axis::names("layer", &labels),
        y: Axis::share("share"),
        lines: vec![
            by_layer("B's firings in a set of B's own of that size", BLUE, |pair| pair.best),
            by_layer("B's firings in A's hot set", VERMILION, |pair| pair.covered),
            by_layer("A's hot set that is hot in B", GREEN, |pair| pair.shared),
        ],
        legend: Vec::new(),
    };
    let far = Bars {
        heading: "How far B's firing rates are from A's".to_owned(),
        x: Axis::names("layer", &labels),
        y: Axis::up_to("divergence, nats", Ticks::Number, pairs.iter().map(|pair| pair.kl)),
        series: vec![("mean over neurons".to_owned(), BLUE, pairs.iter().map(|pair| pair.kl).collect())],
        stacked: false,
        level: None,
    };
    let mut panels = vec![Panel::Bars(density), Panel::Lines(sets), Panel::Bars(far)];
    panels.extend(choices(a, b).map(Panel::Lines));
    let title = format!("A: {}, {} tokens; B: {} tokens", a.name, a.n_tokens(), b.n_tokens());
    Ok(Picture { title, panels })
}

fn line(name: &str, colour: Colour, points: Vec<(f64, f64)>) -> Line {
    Line { name: Some(name.to_owned()), colour, width: 4, dots: true, points }
}

/// How far the routers agree; nothing without routers.
fn choices(a: &Profile, b: &Profile) -> Option<Lines> {
    let labels: Vec<String> = a.routers.iter().map(|router| router.layer.to_string()).collect();
    let share = |of: fn(&RouterCounts, &RouterCounts, usize) -> u64| {
        let one = |(i, (a, b)): (usize, (&RouterCounts, &RouterCounts))| {
            (i as f64, of(a, b, set_size(a.groups.len(), ONE_IN)) as f64 / b.total().max(1) as f64)
        };
        a.routers.iter().zip(&b.routers).enumerate().map(one).collect::<Vec<_>>()
    };
    let learned = share(|a, b, n| b.hits_of_most_chosen(a, n));
    (!labels.is_empty()).then(|| Lines {
        heading: format!("Choices of experts in B that one in {ONE_IN} experts of each layer hits"),
        x: Axis::names("layer", &labels),
        y: Axis::share("share of choices"),
        lines: vec![
            line("the most chosen in B", BLUE, share(|_, b, n| b.fixed_hits(n))),
            line("the most chosen in A", VERMILION, learned),
        ],
        legend: Vec::new(),
    })
}
