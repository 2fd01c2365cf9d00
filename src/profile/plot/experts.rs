//! The part of the picture that is about experts: how often each is chosen, and what sets of them would hit.

use super::{
    BLACK, Canvas, Colour, HEADING_OFFSET, HEAT_TOP, HEIGHT, HeatMap, LegendEntry, MARK, PlotInput, SAMPLE,
    curve_pixel, depth_colour, depth_entry, draw_frame, draw_legend, falling,
};
use crate::profile::RouterCounts;

/// Pixels that it lies below the same of neurons.
pub(super) const DOWN: usize = HEIGHT + HEADING_OFFSET - HEAT_TOP;

/// Sizes of sets that curves go through.
const STEPS: usize = 128;

const BLUE: Colour = [0x1F, 0x77, 0xB4];

/// What a set of so many of a router's groups hits.
type Hits = fn(&RouterCounts, usize) -> u64;

/// The first one is wider, so that it shows where the others lie on it.
const CURVES: [(Colour, f32, &str, Hits); 3] = [
    (BLACK, 6.0, "most chosen", RouterCounts::fixed_hits),
    (MARK, 2.4, "most chosen in one half of the text, met in the other", |r, n| r.held_out_hits(n).unwrap_or(0)),
    (BLUE, 2.4, "most recently used (LRU cache)", RouterCounts::cache_hits),
];

pub(super) fn draw(canvas: &mut Canvas, input: &PlotInput) {
    let rate = |n: u64| (n as f64 / input.n_tokens.max(1) as f64).min(1.0) as f32;
    let rows: Vec<Vec<f32>> = input
        .routers
        .iter()
        .map(|router| falling(&router.n_chosen().into_iter().map(rate).collect::<Vec<_>>()))
        .collect();
    let labels: Vec<String> = input.routers.iter().map(|router| router.layer.to_string()).collect();
    let map = HeatMap {
        down: DOWN,
        heading: "How often experts are chosen: one row per layer, most chosen experts first",
        rows: &rows,
        labels: &labels,
        x_label: "share of the layer's experts",
        scale: "of tokens",
    };
    map.draw(canvas);
    draw_frame(
        canvas,
        DOWN,
        "Share of all choices that a set of so many experts of each layer hits",
        "share of experts",
    );
    for (i, router) in input.routers.iter().enumerate() {
        let points = curve(std::slice::from_ref(router), RouterCounts::fixed_hits);
        canvas.polyline(&points, 1.2, depth_colour(i, input.routers.len()));
    }
    for (colour, thickness, _, hits) in CURVES {
        canvas.polyline(&curve(input.routers, hits), thickness, colour);
    }
    let entries = CURVES.iter().map(|(colour, _, what, _)| ([*colour; SAMPLE], (*what).to_owned()));
    let entries: Vec<LegendEntry> = entries.chain(depth_entry(&labels)).collect();
    draw_legend(canvas, DOWN, &entries);
}

/// Nothing where nothing was chosen.
fn curve(routers: &[RouterCounts], hits: Hits) -> Vec<(f32, f32)> {
    let total: f64 = routers.iter().map(|router| router.total() as f64).sum();
    if total == 0.0 {
        return Vec::new();
    }
    let of = |step: usize| {
        let hit: f64 = routers.iter().map(|router| hits(router, router.groups.len() * step / STEPS) as f64).sum();
        curve_pixel((step as f32 / STEPS as f32, (hit / total) as f32), DOWN)
    };
    (0..=STEPS).map(of).collect()
}
