//! Bars side by side, or on top of each other.

use super::frame::{Area, Axis, Frame, Legend, Sample, draw_line, failed, filled};
use super::palette::{Colour, INK};
use anyhow::Result;
use plotters::prelude::Rectangle;

/// Bars at whole places of the x axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// What is to be seen.
    pub heading: String,
    /// What has bars.
    pub x: Axis,
    /// Upwards, from 0.
    pub y: Axis,
    /// A name, a colour and a value for each place.
    pub series: Vec<(String, Colour, Vec<f64>)>,
    /// Whether bars of a place stand on top of each other.
    pub stacked: bool,
    /// A line across and what it says.
    pub level: Option<(f64, String)>,
}

const HEIGHT: u32 = 440;

impl Bars {
    fn legend(&self) -> Legend {
        let series = self.series.iter().map(|(name, colour, _)| (Sample::Plain(*colour), name.clone()));
        series.chain(self.level.iter().map(|(_, what)| (Sample::Plain(INK), what.clone()))).collect()
    }

    fn frame<'a>(&'a self, legend: &'a Legend) -> Frame<'a> {
        Frame { heading: &self.heading, x: &self.x, y: &self.y, downwards: false, height: HEIGHT, right: 60, legend }
    }

    pub(super) fn height(&self) -> u32 {
        self.frame(&self.legend()).total_height()
    }

    pub(super) fn draw(&self, area: &Area) -> Result<()> {
        let legend = self.legend();
        let frame = self.frame(&legend);
        let mut chart = frame.chart(area)?;
        let n_series = self.series.len().max(1) as f64;
        for place in 0..self.series.iter().map(|(.., values)| values.len()).max().unwrap_or(0) {
            let mut bottom = 0.0;
            for (i, (_, colour, values)) in self.series.iter().enumerate() {
                let value = values.get(place).copied().filter(|value| value.is_finite() && *value > 0.0).unwrap_or(0.0);
                let (from, to) =
                    if self.stacked { (0.0, 1.0) } else { (i as f64 / n_series, (i + 1) as f64 / n_series) };
                let [left, right] = [from, to].map(|at| place as f64 - 0.4 + 0.8 * at);
                let bar = Rectangle::new([(left, bottom + value), (right, bottom)], filled(*colour));
                if value > 0.0 {
                    chart.draw_series([bar]).map_err(failed)?;
                }
                if self.stacked {
                    bottom += value;
                }
            }
        }
        if let Some((level, _)) = self.level {
            draw_line(&mut chart, vec![(self.x.range.0, level), (self.x.range.1, level)], INK, 3)?;
        }
        Ok(())
    }
}
