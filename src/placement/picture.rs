//! A plan by layers, as a picture: what is where, how much of it is hot, and how long each side takes.

use super::plan::{Plan, PlannedLayer, Planner};
use super::workload::LayerWork;
use crate::plot::palette::{BLUE, Colour, GREEN, ORANGE, PURPLE, SKY, VERMILION};
use crate::plot::{Axis, Bars, Cells, Panel, Picture, Ticks};

/// Kinds of cells, in the order of their numbers.
const CARD: usize = 0;
const PROCESSOR: usize = 1;
const BOTH: usize = 2;
const KINDS: [(&str, Colour); 3] = [("card", BLUE), ("processor", ORANGE), ("both", GREEN)];

/// Bytes of a mebibyte.
const MIB: f64 = 1024.0 * 1024.0;

/// The picture of `plan`, which `planner` made.
pub fn picture(planner: &Planner, plan: &Plan) -> Picture {
    let title = format!(
        "{} on {}: {:.2} tokens/s predicted",
        planner.work.name,
        planner.hardware.name,
        plan.tokens_per_second()
    );
    let panels = panels(plan, &planner.work.layers);
    Picture { title, panels }
}

fn panels(plan: &Plan, work: &[LayerWork]) -> Vec<Panel> {
    let labels: Vec<String> = (0..plan.layers.len()).map(|layer| layer.to_string()).collect();
    let x = || Axis::names("layer", &labels);
    let of = |f: &dyn Fn(&PlannedLayer) -> f64| plan.layers.iter().map(f).collect::<Vec<f64>>();
    let cells = |f: fn(&PlannedLayer) -> Option<usize>| plan.layers.iter().map(f).collect::<Vec<_>>();
    let places = Cells {
        heading: "What computes each layer".to_owned(),
        x: x(),
        y: Axis::names("", &["mixer", "mask", "neurons"].map(str::to_owned)),
        rows: vec![cells(mixer), cells(mask), cells(neurons)],
        kinds: KINDS.map(|(name, colour)| (name.to_owned(), colour)).to_vec(),
    };
    let n_hot = |layer: &PlannedLayer| layer.choice.n_hot() as f64 / layer.n_ff.max(1) as f64;
    let routed = if work.iter().any(LayerWork::is_routed) { ", those of experts among them" } else { "" };
    let hot = Bars {
        heading: format!("Neurons that are hot, on the card, and what they are worth{routed}"),
        x: x(),
        y: Axis::share("share of the layer's"),
        series: vec![
            ("neurons".to_owned(), BLUE, of(&n_hot)),
            ("firings".to_owned(), VERMILION, of(&|layer| layer.firings_covered)),
            ("activation mass".to_owned(), GREEN, of(&|layer| layer.mass_covered)),
        ],
        stacked: false,
        level: None,
    };
    let mixer_on =
        |layer: &PlannedLayer, card: bool| if layer.choice.attention == card { layer.time.attention } else { 0.0 };
    let sides = [
        ("card", BLUE, of(&|layer| 1e3 * (mixer_on(layer, true) + layer.time.before + layer.time.gpu))),
        ("processor", ORANGE, of(&|layer| 1e3 * (mixer_on(layer, false) + layer.time.cpu))),
        ("handing over", PURPLE, of(&|layer| 1e3 * layer.time.rendezvous)),
    ];
    let times = Bars {
        heading: "Time of each side for a token".to_owned(),
        x: x(),
        y: Axis::up_to("time, ms", Ticks::Number, sides.iter().flat_map(|(.., values)| values.iter().copied())),
        series: sides.map(|(name, colour, values)| (name.to_owned(), colour, values)).to_vec(),
        stacked: false,
        level: None,
    };
    let mut panels = vec![Panel::Cells(places), Panel::Bars(hot), Panel::Bars(times)];
    if plan.budget().is_some() {
        let parts = [
            ("mixer", BLUE, of(&|layer| layer.account.attention as f64 / MIB)),
            ("KV cache, states", SKY, of(&|layer| layer.account.kv_cache as f64 / MIB)),
            ("masks", GREEN, of(&|layer| layer.account.mask as f64 / MIB)),
            ("hot neurons", VERMILION, of(&|layer| layer.account.hot as f64 / MIB)),
            ("predictors", PURPLE, of(&|layer| layer.account.predictor as f64 / MIB)),
        ];
        panels.push(Panel::Bars(Bars {
            heading: "Memory on the card".to_owned(),
            x: x(),
            y: Axis::up_to("size, MiB", Ticks::Number, of(&|layer| layer.account.sum() as f64 / MIB)),
            series: parts.map(|(name, colour, values)| (name.to_owned(), colour, values)).to_vec(),
            stacked: true,
            level: None,
        }));
    }
    panels
}

fn mixer(layer: &PlannedLayer) -> Option<usize> {
    Some(if layer.choice.attention { CARD } else { PROCESSOR })
}

fn mask(layer: &PlannedLayer) -> Option<usize> {
    (layer.n_ff > 0).then(|| match () {
        () if layer.choice.masks_all(layer.n_ff) => CARD,
        () if layer.choice.has_ffn() => BOTH,
        () => PROCESSOR,
    })
}

fn neurons(layer: &PlannedLayer) -> Option<usize> {
    (layer.n_ff > 0).then(|| match layer.choice.n_hot() {
        0 => PROCESSOR,
        n_hot if n_hot == layer.n_ff => CARD,
        _ => BOTH,
    })
}
