//! An activation profile as a picture: heat maps, cumulative curves and densities of its layers, and the same of experts, where
//! routers choose some.

mod compared;
mod experts;

pub use compared::compared;

use super::file::Profile;
use super::pools::Pool;
use super::report::{self, COVERED};
use crate::plot::palette::{BLUE, INK, PAPER, VERMILION, depth};
use crate::plot::{Axis, Bars, HeatMap, Line, Lines, Panel, Picture, Sample, Ticks};
use anyhow::{Result, bail, ensure};

/// The most neurons that are drawn one by one; of more, neighbours in the order of rates are drawn as their mean.
const MOST_NEURONS: usize = 1 << 22;

/// Points of a curve.
const POINTS: usize = 480;

/// The picture of a profile. Where a plan is given (neurons of the hot prefix, by group), heat maps show what of each layer is
/// hot by it, otherwise the neurons that cover [`COVERED`] of what fires.
///
/// # Errors
/// Without layers, on a layer without neurons, on a rate outside 0..=1 and on a plan of other groups.
pub fn picture(profile: &Profile, n_hot: Option<&[usize]>) -> Result<Picture> {
    let pools = Pool::all(profile);
    let rates: Vec<Vec<f32>> =
        pools.iter().map(|pool| pool.groups.iter().flat_map(|group| profile.rates(*group)).collect()).collect();
    check(&rates)?;
    let together = rates.iter().map(Vec::len).sum::<usize>().div_ceil(MOST_NEURONS).max(1);
    let layers: Vec<Vec<f32>> = rates.into_iter().map(|rates| thinned(falling(rates), together)).collect();
    let model = falling(layers.concat());
    let labels: Vec<String> = pools.iter().map(|pool| pool.label.clone()).collect();
    let cut = match n_hot {
        Some(n_hot) => planned(profile, &pools, n_hot)?,
        None => covering(&layers),
    };
    let heat = HeatMap {
        heading: "How often neurons fire, the most active of each layer first".to_owned(),
        rows: layers.clone(),
        y: Axis::names("layer", &labels),
        x: Axis::share("share of the layer's neurons"),
        scale: "firing rate".to_owned(),
        cut: Some(cut),
    };
    let mut panels =
        vec![Panel::Heat(heat), Panel::Lines(curves(&layers, &model, &labels)), Panel::Bars(density(profile, &pools))];
    panels.extend(experts::panels(profile));
    let n_tokens = profile.n_tokens();
    Ok(Picture { title: format!("{}, {n_tokens} tokens", profile.name), panels })
}

fn check(rates: &[Vec<f32>]) -> Result<()> {
    ensure!(!rates.is_empty(), "nothing to draw: the profile has no layers");
    for (layer, rates) in rates.iter().enumerate() {
        ensure!(!rates.is_empty(), "layer {layer} of the profile has no neurons");
        if let Some(neuron) = rates.iter().position(|rate| !(0.0..=1.0).contains(rate)) {
            let rate = rates[neuron];
            bail!("layer {layer}, neuron {neuron}: firing rate {rate} is not between 0 and 1");
        }
    }
    Ok(())
}

fn falling(mut rates: Vec<f32>) -> Vec<f32> {
    rates.sort_unstable_by(|a, b| b.total_cmp(a));
    rates
}

fn thinned(rates: Vec<f32>, together: usize) -> Vec<f32> {
    match together {
        1 => rates,
        _ => rates.chunks(together).map(|part| part.iter().sum::<f32>() / part.len() as f32).collect(),
    }
}

/// Where each layer's hot set ends, and what that says.
type Cut = (Vec<f64>, String);

fn covering(layers: &[Vec<f32>]) -> Cut {
    let of = |rates: &Vec<f32>| share_covering(&cumulative(rates), COVERED);
    (layers.iter().map(of).collect(), format!("left of it: {:.0} % of the layer's activations", 100.0 * COVERED))
}

fn planned(profile: &Profile, pools: &[Pool], n_hot: &[usize]) -> Result<Cut> {
    ensure!(n_hot.len() == profile.groups.len(), "the plan is of a model with other groups of neurons");
    let of = |pool: &Pool| {
        let hot: usize = pool.groups.iter().map(|group| n_hot[*group]).sum();
        hot as f64 / pool.n_ff(profile).max(1) as f64
    };
    Ok((pools.iter().map(of).collect(), "left of it: hot in the plan; right of it: cold".to_owned()))
}

/// Share of all firings that the neurons up to each cover, hottest first; begins with 0. Empty if none fired.
fn cumulative(falling: &[f32]) -> Vec<f64> {
    let total: f64 = falling.iter().copied().map(f64::from).sum();
    if total <= 0.0 {
        return Vec::new();
    }
    let sums = falling.iter().scan(0.0, |sum, rate| {
        *sum += f64::from(*rate);
        Some(*sum / total)
    });
    [0.0].into_iter().chain(sums).collect()
}

/// The smallest share of neurons that covers `share` of all firings, by what they cover; 0 if none fired.
fn share_covering(covered: &[f64], share: f64) -> f64 {
    let n = covered.len().saturating_sub(1).max(1);
    // Sums of many may end a little below 1.
    covered.iter().position(|covered| *covered >= share - 1e-9).map_or(0.0, |at| at as f64 / n as f64)
}

/// At most [`POINTS`] of a curve.
fn points(covered: &[f64]) -> Vec<(f64, f64)> {
    let Some(n) = covered.len().checked_sub(1) else { return Vec::new() };
    let steps = n.min(POINTS);
    let at = |step: usize| step * n / steps.max(1);
    (0..=steps).map(|step| (at(step) as f64 / n.max(1) as f64, covered[at(step)])).collect()
}

fn curves(layers: &[Vec<f32>], model: &[f32], labels: &[String]) -> Lines {
    let of_layer = |(layer, rates): (usize, &Vec<f32>)| Line {
        name: None,
        colour: depth(layer, layers.len()),
        width: 2,
        dots: false,
        points: points(&cumulative(rates)),
    };
    let covered = cumulative(model);
    let covering = share_covering(&covered, COVERED);
    let n_dead = layers.iter().filter(|rates| rates.iter().all(|rate| *rate == 0.0)).count();
    let mut lines: Vec<Line> = layers.iter().enumerate().map(of_layer).collect();
    let mut legend = Vec::new();
    if n_dead < layers.len() {
        let name = Some("whole model".to_owned());
        lines.push(Line { name, colour: INK, width: 7, dots: false, points: points(&covered) });
        lines.push(Line {
            name: Some(format!("{:.1} % of neurons cover {:.0} % of activations", 100.0 * covering, 100.0 * COVERED)),
            colour: VERMILION,
            width: 4,
            dots: false,
            points: vec![(0.0, COVERED), (covering, COVERED), (covering, 0.0)],
        });
        legend.extend(depths(labels));
    }
    if n_dead > 0 {
        let of = layers.len();
        legend.push((Sample::Plain(PAPER), format!("{n_dead} of {of} layers never fired")));
    }
    Lines {
        heading: "Share of all activations that the most active neurons cover".to_owned(),
        x: Axis::share("share of neurons"),
        y: Axis::share("share of activations"),
        lines,
        legend,
    }
}

/// The colours of layers.
fn depths(labels: &[String]) -> Option<(Sample, String)> {
    let (first, last) = labels.first().zip(labels.last())?;
    let layers = if labels.len() == 1 { format!("layer {first}") } else { format!("layers {first} to {last}") };
    Some((Sample::Layers, layers))
}

/// Shares of pairs of a token and a neuron that fired, by layer.
fn densities(profile: &Profile, pools: &[Pool]) -> Vec<f64> {
    pools.iter().map(|pool| report::pool(profile, pool).sparsity.map_or(0.0, |rests| 1.0 - rests)).collect()
}

fn density(profile: &Profile, pools: &[Pool]) -> Bars {
    let labels: Vec<String> = pools.iter().map(|pool| pool.label.clone()).collect();
    let values = densities(profile, pools);
    let routed = if profile.routers.is_empty() { "" } else { ", of those of experts where they are chosen" };
    Bars {
        heading: format!("Share of neurons that fire for a token{routed}"),
        x: Axis::names("layer", &labels),
        y: Axis::up_to("share that fires", Ticks::Percent, values.iter().copied()),
        level: report::sparsity(profile).map(|rests| (1.0 - rests, format!("all: {:.2} %", 100.0 * (1.0 - rests)))),
        series: vec![("layer".to_owned(), BLUE, values)],
        stacked: false,
    }
}

#[cfg(test)]
mod tests;
