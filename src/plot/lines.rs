//! Curves in a pair of axes.

use super::frame::{Area, Axis, Frame, Legend, Sample, draw_line, failed, filled};
use super::palette::Colour;
use anyhow::Result;
use plotters::prelude::Circle;

/// Curves in one pair of axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// What is to be seen.
    pub heading: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Drawn one after the other.
    pub lines: Vec<Line>,
    /// What is said below beside the names of curves.
    pub legend: Legend,
}

/// One curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// In the legend; many may have none.
    pub name: Option<String>,
    /// Of the curve.
    pub colour: Colour,
    /// Of the curve, in halves of a pixel.
    pub width: u32,
    /// Whether points are marked.
    pub dots: bool,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

const HEIGHT: u32 = 560;

impl Lines {
    fn all_of_legend(&self) -> Legend {
        let named = |line: &Line| line.name.clone().map(|name| (Sample::Plain(line.colour), name));
        self.lines.iter().filter_map(named).chain(self.legend.clone()).collect()
    }

    fn frame<'a>(&'a self, legend: &'a Legend) -> Frame<'a> {
        Frame { heading: &self.heading, x: &self.x, y: &self.y, downwards: false, height: HEIGHT, right: 60, legend }
    }

    pub(super) fn height(&self) -> u32 {
        self.frame(&self.all_of_legend()).total_height()
    }

    pub(super) fn draw(&self, area: &Area) -> Result<()> {
        let legend = self.all_of_legend();
        let frame = self.frame(&legend);
        let mut chart = frame.chart(area)?;
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            draw_line(&mut chart, line.points.clone(), line.colour, line.width)?;
            if line.dots {
                let dot = |at: &(f64, f64)| Circle::new(*at, line.width + 4, filled(line.colour));
                chart.draw_series(line.points.iter().map(dot)).map_err(failed)?;
            }
        }
        Ok(())
    }
}
