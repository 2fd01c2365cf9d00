//! The activation profile as a picture: a heat map of the layers, and cumulative curves of the neurons; below it the same of
//! experts, where routers choose some.

mod experts;

use super::RouterCounts;
use super::canvas::{Canvas, Colour, advance, mix, text_width};
use super::font;
use anyhow::{Result, bail, ensure};

/// Of the picture in pixels.
pub const WIDTH: usize = 1200;
/// Of the picture in pixels.
pub const HEIGHT: usize = CURVES_BOTTOM + AXIS_HEIGHT + LEGEND_ROWS * LEGEND_LINE + MARGIN;
/// The same where routers choose experts.
pub const HEIGHT_WITH_EXPERTS: usize = HEIGHT + experts::DOWN;

/// The share of activations whose neurons are marked, as in PowerInfer's paper.
const MARKED_SHARE: f32 = 0.8;

const MARGIN: usize = 24;
const PLOT_LEFT: usize = 96;
const PLOT_WIDTH: usize = 960;
const HEAT_TOP: usize = 104;
const HEAT_HEIGHT: usize = 320;
const CURVES_TOP: usize = 540;
const CURVES_HEIGHT: usize = 290;
const CURVES_BOTTOM: usize = CURVES_TOP + CURVES_HEIGHT;
/// Rows that a legend has room for.
const LEGEND_ROWS: usize = 2;
const LEGEND_LINE: usize = 24;
const TEXT_SCALE: usize = 2;
const TEXT_HEIGHT: usize = font::HEIGHT * TEXT_SCALE;
const TICK_LENGTH: usize = 6;
/// Ticks, their labels and the label of the axis, with room below.
const AXIS_HEIGHT: usize = TICK_LENGTH + 4 + TEXT_HEIGHT + 8 + TEXT_HEIGHT + 14;
const HEADING_OFFSET: usize = 32;

const BLACK: Colour = [0x20, 0x20, 0x20];
const GRAY: Colour = [0x60, 0x60, 0x60];
const GRID: Colour = [0xE4, 0xE4, 0xE4];
const WHITE: Colour = [0xFF; 3];
const MARK: Colour = [0xD6, 0x27, 0x28];
/// Every eighth of matplotlib's viridis.
const VIRIDIS: [Colour; 9] = [
    [0x44, 0x01, 0x54],
    [0x47, 0x2D, 0x7B],
    [0x3B, 0x52, 0x8B],
    [0x2C, 0x72, 0x8E],
    [0x21, 0x91, 0x8C],
    [0x28, 0xAE, 0x80],
    [0x5E, 0xC9, 0x62],
    [0xAD, 0xDC, 0x30],
    [0xFD, 0xE7, 0x25],
];

/// What [`draw`] shows.
#[derive(Debug, Clone, Copy)]
pub struct PlotInput<'a> {
    /// Truncated if it does not fit.
    pub title: &'a str,
    /// Firing rates 0..=1, `[n_layer][n_ff]` in any order of the neurons; `n_ff` may differ between layers.
    pub rates: &'a [Vec<f32>],
    /// What rows are called, as many.
    pub labels: &'a [String],
    /// What routers chose; may be empty.
    pub routers: &'a [RouterCounts],
    /// Tokens that were counted.
    pub n_tokens: u64,
}

/// The most neurons that are drawn one by one; of more, neighbours in the order of rates are drawn as their mean.
const MOST_NEURONS: usize = 1 << 22;

/// The picture as a PNG of [`WIDTH`] x [`HEIGHT`], or [`HEIGHT_WITH_EXPERTS`], the same bytes for the same input.
///
/// Fails without layers, on a layer without neurons and on a rate outside 0..=1.
pub fn draw(input: &PlotInput) -> Result<Vec<u8>> {
    check(input.rates)?;
    let together = input.rates.iter().map(Vec::len).sum::<usize>().div_ceil(MOST_NEURONS).max(1);
    let thinned = |rates: &Vec<f32>| {
        let sorted = falling(rates);
        match together {
            1 => sorted,
            _ => sorted.chunks(together).map(|part| part.iter().sum::<f32>() / part.len() as f32).collect(),
        }
    };
    let layers: Vec<Vec<f32>> = input.rates.iter().map(thinned).collect();
    let model = falling(&layers.concat());
    let experts = !input.routers.is_empty();
    let mut canvas = Canvas::new(WIDTH, if experts { HEIGHT_WITH_EXPERTS } else { HEIGHT });
    draw_title(&mut canvas, input.title);
    let map = HeatMap {
        down: 0,
        heading: "How often neurons fire: one row per layer, most active neurons first",
        rows: &layers,
        labels: input.labels,
        x_label: "share of the layer's neurons",
        scale: "firing rate",
    };
    map.draw(&mut canvas);
    draw_curves(&mut canvas, &layers, &model, input.labels);
    if experts {
        experts::draw(&mut canvas, input);
    }
    canvas.to_png()
}

/// Points (share of neurons, hottest first; share of all firings that they cover) from (0, 0) to
/// (1, 1), one more than there are neurons. Empty if none fired. `rates` in any order.
pub fn cumulative_curve(rates: &[f32]) -> Vec<(f32, f32)> {
    cumulative_curve_of_sorted(&falling(rates))
}

/// The smallest share of the neurons that covers `share` (0..=1) of all firings; 0 if none fired.
/// `rates` in any order; for the whole model, all layers' rates in one slice.
pub fn neurons_covering(rates: &[f32], share: f32) -> f32 {
    share_covering(&cumulative_curve(rates), share)
}

fn share_covering(curve: &[(f32, f32)], share: f32) -> f32 {
    curve.iter().find(|&&(_, covered)| covered >= share).map_or(0.0, |&(neurons, _)| neurons)
}

fn falling(rates: &[f32]) -> Vec<f32> {
    let mut sorted = rates.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    sorted
}

fn cumulative_curve_of_sorted(rates: &[f32]) -> Vec<(f32, f32)> {
    let total: f64 = rates.iter().copied().map(f64::from).sum();
    if total <= 0.0 {
        return vec![];
    }
    let n = rates.len() as f64;
    let mut sum = 0.0;
    let mut curve = vec![(0.0, 0.0)];
    curve.extend(rates.iter().enumerate().map(|(i, &rate)| {
        sum += f64::from(rate);
        (((i + 1) as f64 / n) as f32, (sum / total) as f32)
    }));
    curve
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

fn draw_title(canvas: &mut Canvas, title: &str) {
    let n_chars = title.chars().count();
    let room = WIDTH - 2 * MARGIN;
    let scale = if text_width(n_chars, 3) <= room { 3 } else { TEXT_SCALE };
    let n_fitting = room / advance(scale);
    let shown: String = if n_chars <= n_fitting {
        title.to_owned()
    } else {
        title.chars().take(n_fitting - 3).chain("...".chars()).collect()
    };
    canvas.text(MARGIN, MARGIN, scale, BLACK, &shown);
}

/// Rates by layer, as colours.
struct HeatMap<'a> {
    /// Pixels that it lies below the place of the first one.
    down: usize,
    heading: &'a str,
    /// Falling.
    rows: &'a [Vec<f32>],
    labels: &'a [String],
    x_label: &'a str,
    /// What the colours say.
    scale: &'a str,
}

impl HeatMap<'_> {
    /// One band per layer, the first one on top; each pixel averages what is under it.
    fn draw(&self, canvas: &mut Canvas) {
        let top = HEAT_TOP + self.down;
        text(canvas, PLOT_LEFT, top - HEADING_OFFSET, self.heading);
        let n_layer = self.rows.len();
        let top_of = |layer: usize| top + layer * HEAT_HEIGHT / n_layer;
        let gap = usize::from(HEAT_HEIGHT / n_layer >= 16);
        for (layer, rates) in self.rows.iter().enumerate() {
            // If there are more layers than pixels, they share rows, and the last one drawn shows.
            let height = (top_of(layer + 1) - top_of(layer)).max(1 + gap) - gap;
            for (x, rate) in resample(rates, PLOT_WIDTH).into_iter().enumerate() {
                canvas.fill(PLOT_LEFT + x, top_of(layer), 1, height, heat_colour(rate));
            }
        }
        let step = label_step(n_layer, HEAT_HEIGHT);
        for (layer, label) in self.labels.iter().enumerate().step_by(step) {
            let middle = (top_of(layer) + top_of(layer + 1) - gap) / 2;
            y_tick(canvas, middle, label);
        }
        x_axis(canvas, top + HEAT_HEIGHT, self.x_label);
        draw_colour_bar(canvas, top, self.scale);
    }
}

fn draw_colour_bar(canvas: &mut Canvas, top: usize, scale: &str) {
    const LEFT: usize = PLOT_LEFT + PLOT_WIDTH + 24;
    const BAR_WIDTH: usize = 20;
    for row in 0..HEAT_HEIGHT {
        let from_bottom = 1.0 - row as f32 / (HEAT_HEIGHT - 1) as f32;
        canvas.fill(LEFT, top + row, BAR_WIDTH, 1, viridis(from_bottom));
    }
    for (rate, label) in
        [(0.0, "0%"), (0.001, "0.1%"), (0.01, "1%"), (0.1, "10%"), (0.3, "30%"), (0.6, "60%"), (1.0, "100%")]
    {
        let y = top + ((1.0 - heat_scale(rate)) * (HEAT_HEIGHT - 1) as f32).round() as usize;
        canvas.fill(LEFT + BAR_WIDTH, y, TICK_LENGTH, 1, GRAY);
        text(canvas, LEFT + BAR_WIDTH + TICK_LENGTH + 4, y - TEXT_HEIGHT / 2, label);
    }
    text(canvas, LEFT - 20, top - HEADING_OFFSET, scale);
}

/// Grid and axes of curves.
fn draw_frame(canvas: &mut Canvas, down: usize, heading: &str, x_label: &str) {
    text(canvas, PLOT_LEFT, CURVES_TOP + down - HEADING_OFFSET, heading);
    for percent in (0..=100).step_by(20) {
        let (x, y) = curve_pixel((percent as f32 / 100.0, percent as f32 / 100.0), down);
        canvas.fill(PLOT_LEFT, y as usize, PLOT_WIDTH, 1, GRID);
        canvas.fill(x as usize, CURVES_TOP + down, 1, CURVES_HEIGHT, GRID);
        y_tick(canvas, y as usize, &format!("{percent}%"));
    }
    x_axis(canvas, CURVES_BOTTOM + down, x_label);
}

fn draw_curves(canvas: &mut Canvas, layers: &[Vec<f32>], model: &[f32], labels: &[String]) {
    draw_frame(canvas, 0, "Share of all activations that the most active neurons cover", "share of neurons");
    for (layer, rates) in layers.iter().enumerate() {
        let points = curve_pixels(&cumulative_curve_of_sorted(rates), 0);
        canvas.polyline(&points, 1.2, depth_colour(layer, layers.len()));
    }
    let model_curve = cumulative_curve_of_sorted(model);
    canvas.polyline(&curve_pixels(&model_curve, 0), 3.6, BLACK);
    let covering = share_covering(&model_curve, MARKED_SHARE);
    if !model_curve.is_empty() {
        mark_share(canvas, covering);
    }
    draw_legend(canvas, 0, &legend(layers, covering, labels));
}

/// Dashed lines from the axes to where the whole model's curve reaches [`MARKED_SHARE`].
fn mark_share(canvas: &mut Canvas, covering: f32) {
    const DASH: usize = 6;
    let (x, y) = curve_pixel((covering, MARKED_SHARE), 0);
    for left in (PLOT_LEFT..x as usize).step_by(2 * DASH) {
        canvas.fill(left, y as usize - 1, DASH.min(x as usize - left), 2, MARK);
    }
    for top in (y as usize..CURVES_BOTTOM).step_by(2 * DASH) {
        canvas.fill(x as usize - 1, top, 2, DASH.min(CURVES_BOTTOM - top), MARK);
    }
    canvas.polyline(&[(x, y), (x, y)], 10.0, MARK);
}

/// Pixels of a sample in a legend.
const SAMPLE: usize = 40;

/// A part of a legend: what a line looks like, and what it is.
type LegendEntry = ([Colour; SAMPLE], String);

fn legend(layers: &[Vec<f32>], covering: f32, labels: &[String]) -> Vec<LegendEntry> {
    let n_layer = layers.len();
    let n_dead = layers.iter().filter(|rates| rates.iter().all(|&rate| rate == 0.0)).count();
    let mut entries = vec![];
    if n_dead < n_layer {
        let (neurons, share) = (covering * 100.0, MARKED_SHARE * 100.0);
        entries.push(([BLACK; SAMPLE], "whole model".to_owned()));
        entries.push(([MARK; SAMPLE], format!("{neurons:.1}% of neurons cover {share:.0}% of activations")));
        entries.extend(depth_entry(labels));
    }
    if n_dead > 0 {
        entries.push(([WHITE; SAMPLE], format!("{n_dead} of {n_layer} layers never fired")));
    }
    entries
}

/// The colours of layers.
fn depth_entry(labels: &[String]) -> Option<LegendEntry> {
    let (first, last) = labels.first().zip(labels.last())?;
    let layers = if labels.len() == 1 { format!("layer {first}") } else { format!("layers {first} to {last}") };
    Some((std::array::from_fn(|x| depth_colour(x, SAMPLE)), layers))
}

/// Below the curves, side by side as far as they fit: inside, it would cover some.
fn draw_legend(canvas: &mut Canvas, down: usize, entries: &[LegendEntry]) {
    const GAP: usize = 10;
    const BETWEEN: usize = 36;
    let widths: Vec<usize> =
        entries.iter().map(|(_, what)| SAMPLE + GAP + text_width(what.len(), TEXT_SCALE)).collect();
    let (mut x, mut y) = (PLOT_LEFT, CURVES_BOTTOM + down + AXIS_HEIGHT);
    for ((sample, what), width) in entries.iter().zip(widths) {
        if x > PLOT_LEFT && x + width > WIDTH - MARGIN {
            (x, y) = (PLOT_LEFT, y + LEGEND_LINE);
        }
        for (column, colour) in sample.iter().enumerate() {
            canvas.fill(x + column, y + TEXT_HEIGHT / 2 - 2, 1, 4, *colour);
        }
        text(canvas, x + SAMPLE + GAP, y, what);
        x += width + BETWEEN;
    }
}

fn x_axis(canvas: &mut Canvas, y: usize, label: &str) {
    canvas.fill(PLOT_LEFT, y, PLOT_WIDTH, 1, GRAY);
    for percent in (0..=100).step_by(20) {
        let x = PLOT_LEFT + percent * (PLOT_WIDTH - 1) / 100;
        canvas.fill(x, y, 1, TICK_LENGTH, GRAY);
        centred(canvas, x, y + TICK_LENGTH + 4, &format!("{percent}%"));
    }
    centred(canvas, PLOT_LEFT + PLOT_WIDTH / 2, y + TICK_LENGTH + 4 + TEXT_HEIGHT + 8, label);
}

fn y_tick(canvas: &mut Canvas, y: usize, label: &str) {
    canvas.fill(PLOT_LEFT - TICK_LENGTH, y, TICK_LENGTH, 1, GRAY);
    let width = text_width(label.len(), TEXT_SCALE);
    text(canvas, (PLOT_LEFT - TICK_LENGTH - 4).saturating_sub(width), y - TEXT_HEIGHT / 2, label);
}

fn text(canvas: &mut Canvas, x: usize, y: usize, text: &str) {
    canvas.text(x, y, TEXT_SCALE, BLACK, text);
}

fn centred(canvas: &mut Canvas, x: usize, y: usize, label: &str) {
    text(canvas, x - text_width(label.len(), TEXT_SCALE) / 2, y, label);
}

/// The first of 1, 2, 5, 10, 20, ... that leaves room between the labels.
fn label_step(n_layer: usize, height: usize) -> usize {
    let room = TEXT_HEIGHT + 6;
    let steps = (0..).flat_map(|decade| [1, 2, 5].map(|digit: usize| digit * 10usize.saturating_pow(decade)));
    steps.into_iter().find(|step| step * height / n_layer >= room).unwrap_or(n_layer)
}

/// Averages over `width` equal parts of `values`; a value that two parts share counts in proportion.
fn resample(values: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0f64];
    sums.extend(values.iter().scan(0f64, |sum, &value| {
        *sum += f64::from(value);
        Some(*sum)
    }));
    let sum_until = |position: f64| {
        let whole = (position as usize).min(values.len());
        let rest = values.get(whole).map_or(0.0, |&value| f64::from(value));
        sums[whole] + rest * (position - whole as f64)
    };
    let per_part = values.len() as f64 / width as f64;
    (0..width)
        .map(|i| ((sum_until((i + 1) as f64 * per_part) - sum_until(i as f64 * per_part)) / per_part) as f32)
        .collect()
}

/// One point per pixel column is enough, however many neurons there are.
fn curve_pixels(curve: &[(f32, f32)], down: usize) -> Vec<(f32, f32)> {
    let Some(n) = curve.len().checked_sub(1) else {
        return vec![];
    };
    (0..PLOT_WIDTH)
        .map(|column| {
            let share = column as f32 / (PLOT_WIDTH - 1) as f32;
            let position = share * n as f32;
            let (left, right) = (curve[position as usize].1, curve[(position as usize + 1).min(n)].1);
            curve_pixel((share, left + (right - left) * position.fract()), down)
        })
        .collect()
}

fn curve_pixel((neurons, covered): (f32, f32), down: usize) -> (f32, f32) {
    let x = PLOT_LEFT as f32 + neurons * (PLOT_WIDTH - 1) as f32;
    let y = (CURVES_TOP + down) as f32 + (1.0 - covered) * CURVES_HEIGHT as f32;
    (x, y)
}

/// The fourth root: like a logarithm it separates 1 % from 0.1 %, but it has a place for 0.
fn heat_scale(rate: f32) -> f32 {
    rate.sqrt().sqrt()
}

fn heat_colour(rate: f32) -> Colour {
    viridis(heat_scale(rate))
}

/// Leaves out viridis's yellow end, which is hard to see on white.
fn depth_colour(layer: usize, n_layer: usize) -> Colour {
    viridis(0.85 * layer as f32 / n_layer.saturating_sub(1).max(1) as f32)
}

fn viridis(t: f32) -> Colour {
    let position = t.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let low = (position as usize).min(VIRIDIS.len() - 2);
    let (a, b) = (VIRIDIS[low], VIRIDIS[low + 1]);
    std::array::from_fn(|i| mix(a[i], b[i], position - low as f32))
}

#[cfg(test)]
mod tests;
