//! What panels have in common: a heading, axes with units, a legend below.

use super::palette::{Colour, GRAY, GRID, INK, depth};
use super::surface::Surface;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, DrawingArea, IntoFont, PathElement, RGBColor, Rectangle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, ShapeStyle, TextStyle};
use std::fmt::Display;

pub(super) type Area<'s> = DrawingArea<Surface<'s>, Shift>;
pub(super) type Chart<'a, 's> = ChartContext<'a, Surface<'s>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// All lengths are halves of what is a pixel of a document; pictures in PNG have twice as many.
pub(super) const WIDTH: u32 = 1920;
pub(super) const MARGIN: u32 = 40;
pub(super) const TEXT: f64 = 34.0;
const LETTERS: RGBColor = RGBColor(INK[0], INK[1], INK[2]);
/// Of a letter and the gap behind it, at most.
pub(super) const LETTER: u32 = 18;
const HEADING: u32 = 64;
const X_AXIS: u32 = 104;
const Y_AXIS: u32 = 190;
const Y_MARGIN: u32 = 22;
const SAMPLE: u32 = 56;
const LEGEND_LINE: u32 = 46;

/// A range of values and how they are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// Least and greatest value.
    pub range: (f64, f64),
    /// How ticks are written.
    pub ticks: Ticks,
}

/// How the ticks of an axis are written.
#[derive(Debug, Clone, PartialEq)]
pub enum Ticks {
    /// 1 is 100 %.
    Percent,
    /// As they are.
    Number,
    /// Place 0, and at most 1 away from the next, has the first of these names; below 0 the same.
    Names(Vec<String>),
}

impl Axis {
    /// Shares from 0 to 1.
    pub fn share(label: &str) -> Self {
        Self { label: label.to_owned(), range: (0.0, 1.0), ticks: Ticks::Percent }
    }

    /// Things with these names, from left to right.
    pub fn names(label: &str, names: &[String]) -> Self {
        let range = (-0.5, names.len().max(1) as f64 - 0.5);
        Self { label: label.to_owned(), range, ticks: Ticks::Names(names.to_vec()) }
    }

    /// From 0 to a little above the greatest of `values`.
    pub fn up_to(label: &str, ticks: Ticks, values: impl IntoIterator<Item = f64>) -> Self {
        let most = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        Self { label: label.to_owned(), range: (0.0, if most > 0.0 { 1.08 * most } else { 1.0 }), ticks }
    }

    /// The same from top to bottom.
    fn downwards(self) -> Self {
        let (least, most) = self.range;
        Self { range: (-most, -least), ..self }
    }

    fn tick(&self, value: f64) -> String {
        let (least, most) = self.range;
        let decimals = |width: f64| (0.9 - width.max(1e-12).log10()).ceil().clamp(0.0, 6.0) as usize;
        match &self.ticks {
            Ticks::Percent => format!("{:.*} %", decimals(100.0 * (most - least)), 100.0 * value),
            Ticks::Number => format!("{:.*}", decimals(most - least), value),
            Ticks::Names(names) => {
                let place = value.abs().round();
                let near = (value.abs() - place).abs() < 1e-6;
                names.get(place as usize).filter(|_| near).cloned().unwrap_or_default()
            }
        }
    }

    /// Ticks that there is room for in `length`, of `each` at least.
    fn n_ticks(&self, length: u32, each: u32) -> usize {
        let room = (length / each) as usize;
        match &self.ticks {
            Ticks::Names(names) => room.min(names.len()).max(1),
            Ticks::Percent | Ticks::Number => room.clamp(2, 11),
        }
    }
}

/// A colour of a legend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// One.
    Plain(Colour),
    /// Those of layers, from the first to the last.
    Layers,
}

/// A colour and what it means.
pub type Legend = Vec<(Sample, String)>;

/// Around a panel.
pub(super) struct Frame<'a> {
    pub heading: &'a str,
    pub x: &'a Axis,
    pub y: &'a Axis,
    /// Whether the first of the y axis is on top.
    pub downwards: bool,
    /// Height of what is between the axes.
    pub height: u32,
    /// Room on the right.
    pub right: u32,
    pub legend: &'a Legend,
}

/// An error of plotters: there is none but of writing to memory.
pub(super) fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("the picture cannot be drawn: {error}")
}

pub(super) fn rgb([r, g, b]: Colour) -> RGBColor {
    RGBColor(r, g, b)
}

pub(super) fn filled(colour: Colour) -> ShapeStyle {
    rgb(colour).filled()
}

pub(super) fn line(colour: Colour, width: u32) -> ShapeStyle {
    rgb(colour).stroke_width(width)
}

/// Text of a size, at a place that is to its left, or in the middle of it, and above, beside or below.
pub(super) fn text_style(size: f64, h: HPos, v: VPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&LETTERS).pos(Pos::new(h, v))
}

impl Frame<'_> {
    /// Of all of it.
    pub fn total_height(&self) -> u32 {
        let lines = self.legend_places().last().map_or(0, |(_, line)| line + 1);
        HEADING + self.height + X_AXIS + lines * LEGEND_LINE + MARGIN
    }

    /// Draws all that is around the panel, at the top of `area`.
    pub fn chart<'s>(&self, area: &Area<'s>) -> Result<Chart<'_, 's>> {
        let heading = text_style(TEXT * 1.1, HPos::Left, VPos::Top);
        area.draw_text(self.heading, &heading, (MARGIN as i32, 12)).map_err(failed)?;
        let inner = area.clone().shrink((0, HEADING), (WIDTH - self.right, self.height + X_AXIS));
        let y = if self.downwards { self.y.clone().downwards() } else { self.y.clone() };
        let mut chart = ChartBuilder::on(&inner)
            .margin_left(Y_MARGIN)
            .x_label_area_size(X_AXIS)
            .y_label_area_size(Y_AXIS - Y_MARGIN)
            .build_cartesian_2d(self.x.range.0..self.x.range.1, y.range.0..y.range.1)
            .map_err(failed)?;
        let width = WIDTH - self.right - Y_AXIS;
        let (x_format, y_format) = (|value: &f64| self.x.tick(*value), |value: &f64| y.tick(*value));
        let text = |h, v| text_style(TEXT, h, v);
        let mut mesh = chart.configure_mesh();
        mesh.x_labels(self.x.n_ticks(width, 110))
            .y_labels(y.n_ticks(self.height, 48))
            .max_light_lines(0)
            .bold_line_style(line(GRID, 2))
            .axis_style(line(GRAY, 2))
            .x_label_formatter(&x_format)
            .y_label_formatter(&y_format)
            .x_label_style(text(HPos::Center, VPos::Top))
            .y_label_style(text(HPos::Right, VPos::Center))
            .axis_desc_style(text(HPos::Center, VPos::Top))
            .x_desc(&*self.x.label)
            .y_desc(&*self.y.label);
        if matches!(self.x.ticks, Ticks::Names(_)) {
            mesh.disable_x_mesh();
        }
        if matches!(self.y.ticks, Ticks::Names(_)) {
            mesh.disable_y_mesh();
        }
        mesh.draw().map_err(failed)?;
        self.draw_legend(area)?;
        Ok(chart)
    }

    /// Left end and line of each sample: side by side as far as they fit.
    fn legend_places(&self) -> Vec<(u32, u32)> {
        let (mut x, mut row) = (Y_AXIS, 0);
        let mut places = Vec::new();
        for (_, what) in self.legend {
            let width = SAMPLE + 16 + LETTER * what.chars().count() as u32 + 44;
            if x > Y_AXIS && x + width > WIDTH {
                (x, row) = (Y_AXIS, row + 1);
            }
            places.push((x, row));
            x += width;
        }
        places
    }

    fn draw_legend(&self, area: &Area) -> Result<()> {
        let top = HEADING + self.height + X_AXIS + 18;
        for ((sample, what), (x, row)) in self.legend.iter().zip(self.legend_places()) {
            let (x, y) = (x as i32, (top + row * LEGEND_LINE) as i32);
            let (from, to) = (y + 6, y + 22);
            match *sample {
                Sample::Plain(colour) => {
                    let sample = Rectangle::new([(x, from), (x + SAMPLE as i32, to)], filled(colour));
                    area.draw(&sample).map_err(failed)?;
                }
                Sample::Layers => {
                    for part in 0..14 {
                        let left = x + 4 * part;
                        let colour = depth(part as usize, 14);
                        area.draw(&Rectangle::new([(left, from), (left + 4, to)], filled(colour))).map_err(failed)?;
                    }
                }
            }
            let style = text_style(TEXT, HPos::Left, VPos::Center);
            area.draw_text(what, &style, (x + SAMPLE as i32 + 16, y + 14)).map_err(failed)?;
        }
        Ok(())
    }
}

/// A line of `colour` through `points` of a chart.
pub(super) fn draw_line(chart: &mut Chart, points: Vec<(f64, f64)>, colour: Colour, width: u32) -> Result<()> {
    chart.draw_series([PathElement::new(points, line(colour, width))]).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_have_as_many_digits_as_their_range_needs() {
        let axis = |most: f64, ticks: Ticks| Axis { label: String::new(), range: (0.0, most), ticks };
        assert_eq!(axis(1.0, Ticks::Percent).tick(0.2), "20 %");
        assert_eq!(axis(0.05, Ticks::Percent).tick(0.025), "2.5 %");
        assert_eq!(axis(0.0012, Ticks::Percent).tick(0.0005), "0.05 %");
        assert_eq!(axis(3.0, Ticks::Number).tick(0.5), "0.5");
        assert_eq!(axis(300.0, Ticks::Number).tick(50.0), "50");
        assert_eq!(Axis::up_to("", Ticks::Number, [f64::NAN, 0.0]).range, (0.0, 1.0));
    }

    #[test]
    fn names_stand_at_whole_places_only() {
        let axis = Axis::names("layer", &["0".to_owned(), "1x8".to_owned()]);
        assert_eq!(axis.range, (-0.5, 1.5));
        assert_eq!((axis.tick(1.0), axis.tick(0.5), axis.tick(2.0)), ("1x8".to_owned(), String::new(), String::new()));
        assert_eq!(axis.downwards().tick(-1.0), "1x8");
    }
}
