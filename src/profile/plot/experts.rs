//! The part of the picture that is about experts: how often each is chosen, and what sets of them would hit.

use super::{depths, falling};
use crate::plot::palette::{BLUE, Colour, INK, VERMILION, depth};
use crate::plot::{Axis, HeatMap, Line, Lines, Panel};
use crate::profile::{Profile, RouterCounts};

/// Sizes of sets that curves go through.
const STEPS: usize = 128;

/// What a set of so many of a router's groups hits.
type Hits = fn(&RouterCounts, usize) -> u64;

/// The first one is wider, so that it shows where the others lie on it.
const CURVES: [(Colour, u32, &str, Hits); 3] = [
    (INK, 10, "most chosen", RouterCounts::fixed_hits),
    (VERMILION, 5, "most chosen in one half of the text, met in the other", |r, n| r.held_out_hits(n).unwrap_or(0)),
    (BLUE, 5, "most recently used (LRU cache)", RouterCounts::cache_hits),
];

/// None without routers.
pub(super) fn panels(profile: &Profile) -> Vec<Panel> {
    let routers = &profile.routers;
    if routers.is_empty() {
        return Vec::new();
    }
    let n_tokens = profile.n_tokens().max(1) as f64;
    let rate = |n: u64| (n as f64 / n_tokens).min(1.0) as f32;
    let labels: Vec<String> = routers.iter().map(|router| router.layer.to_string()).collect();
    let heat = HeatMap {
        heading: "How often experts are chosen, the most chosen of each layer first".to_owned(),
        rows: routers.iter().map(|router| falling(router.n_chosen().into_iter().map(rate).collect())).collect(),
        y: Axis::names("layer", &labels),
        x: Axis::share("share of the layer's experts"),
        scale: "of tokens".to_owned(),
        cut: None,
    };
    let of_layer = |(i, router): (usize, &RouterCounts)| Line {
        name: None,
        colour: depth(i, routers.len()),
        width: 2,
        dots: false,
        points: curve(std::slice::from_ref(router), RouterCounts::fixed_hits),
    };
    let of_all = |(colour, width, name, hits): (Colour, u32, &str, Hits)| Line {
        name: Some(name.to_owned()),
        colour,
        width,
        dots: false,
        points: curve(routers, hits),
    };
    let lines = Lines {
        heading: "Share of all choices that a set of so many experts of each layer hits".to_owned(),
        x: Axis::share("share of experts"),
        y: Axis::share("share of choices"),
        lines: routers.iter().enumerate().map(of_layer).chain(CURVES.map(of_all)).collect(),
        legend: depths(&labels).into_iter().collect(),
    };
    vec![Panel::Heat(heat), Panel::Lines(lines)]
}

/// Nothing where nothing was chosen.
fn curve(routers: &[RouterCounts], hits: Hits) -> Vec<(f64, f64)> {
    let total: f64 = routers.iter().map(|router| router.total() as f64).sum();
    if total == 0.0 {
        return Vec::new();
    }
    let of = |step: usize| {
        let hit: f64 = routers.iter().map(|router| hits(router, router.groups.len() * step / STEPS) as f64).sum();
        (step as f64 / STEPS as f64, hit / total)
    };
    (0..=STEPS).map(of).collect()
}
