//! Rows of cells, each of one of a few kinds: where things are.

use super::frame::{Area, Axis, Frame, Legend, Sample, failed, filled};
use super::palette::Colour;
use anyhow::Result;
use plotters::prelude::Rectangle;

/// Cells at whole places of the x axis, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Cells {
    /// What is to be seen.
    pub heading: String,
    /// What has cells.
    pub x: Axis,
    /// What the rows are.
    pub y: Axis,
    /// A kind for each place, by row from the top; `None` leaves it empty.
    pub rows: Vec<Vec<Option<usize>>>,
    /// What kinds are called, and their colours.
    pub kinds: Vec<(String, Colour)>,
}

/// Of a row.
const HEIGHT: u32 = 64;

impl Cells {
    fn legend(&self) -> Legend {
        self.kinds.iter().map(|(name, colour)| (Sample::Plain(*colour), name.clone())).collect()
    }

    fn frame<'a>(&'a self, legend: &'a Legend) -> Frame<'a> {
        let height = HEIGHT * self.rows.len().max(1) as u32;
        Frame { heading: &self.heading, x: &self.x, y: &self.y, downwards: true, height, right: 60, legend }
    }

    pub(super) fn height(&self) -> u32 {
        self.frame(&self.legend()).total_height()
    }

    pub(super) fn draw(&self, area: &Area) -> Result<()> {
        let legend = self.legend();
        let frame = self.frame(&legend);
        let mut chart = frame.chart(area)?;
        for (row, kinds) in self.rows.iter().enumerate() {
            for (place, kind) in kinds.iter().enumerate() {
                let Some((_, colour)) = kind.and_then(|kind| self.kinds.get(kind)) else { continue };
                let (x, y) = (place as f64, -(row as f64));
                let cell = Rectangle::new([(x - 0.45, y + 0.4), (x + 0.45, y - 0.4)], filled(*colour));
                chart.draw_series([cell]).map_err(failed)?;
            }
        }
        Ok(())
    }
}
