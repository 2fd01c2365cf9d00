//! Heat maps: rows of shares as colours.

use super::frame::{Area, Axis, Frame, Legend, MARGIN, Sample, TEXT, WIDTH, draw_line, failed, filled, text_style};
use super::palette::{PAPER, VERMILION, heat, heat_scale, viridis};
use anyhow::Result;
use plotters::prelude::Rectangle;
use plotters::style::text_anchor::{HPos, VPos};

/// Rows of shares, drawn as colours of equal width.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// What is to be seen.
    pub heading: String,
    /// Shares 0..=1 by row, the first of which is on top.
    pub rows: Vec<Vec<f32>>,
    /// What rows are called, and what their names are.
    pub y: Axis,
    /// From the first to the last of a row.
    pub x: Axis,
    /// What the colours say.
    pub scale: String,
    /// A line across: how far along each row it is, as a share; and what it says.
    pub cut: Option<(Vec<f64>, String)>,
}

/// Widest step of a row, as one in so many.
const COLUMNS: usize = 480;
const HEIGHT: u32 = 600;
const BAR: u32 = 230;

impl HeatMap {
    fn legend(&self) -> Legend {
        self.cut.iter().map(|(_, what)| (Sample::Plain(VERMILION), what.clone())).collect()
    }

    fn frame<'a>(&'a self, legend: &'a Legend) -> Frame<'a> {
        Frame { heading: &self.heading, x: &self.x, y: &self.y, downwards: true, height: HEIGHT, right: BAR, legend }
    }

    pub(super) fn height(&self) -> u32 {
        self.frame(&self.legend()).total_height()
    }

    pub(super) fn draw(&self, area: &Area) -> Result<()> {
        let legend = self.legend();
        let frame = self.frame(&legend);
        let mut chart = frame.chart(area)?;
        let gap = if self.rows.len() > 40 { 0.0 } else { 0.03 };
        for (row, shares) in self.rows.iter().enumerate() {
            let (top, bottom) = (-(row as f64) + 0.5 - gap, -(row as f64) - 0.5 + gap);
            let colours: Vec<_> =
                resample(shares, COLUMNS.min(shares.len().max(1) * 8)).into_iter().map(heat).collect();
            // Neighbours of one colour are one rectangle, which keeps documents small. It goes on below those behind it, so that
            // no paper shows between them where a viewer scales them.
            let mut from = 0;
            for run in colours.chunk_by(|a, b| a == b) {
                let left = from as f64 / colours.len() as f64;
                let cells = Rectangle::new([(left, top), (1.0, bottom)], filled(run[0]));
                chart.plotting_area().draw(&cells).map_err(failed)?;
                from += run.len();
            }
        }
        if let Some((cut, _)) = &self.cut {
            let steps = cut.iter().enumerate();
            let steps = steps.flat_map(|(row, at)| [(*at, 0.5 - row as f64), (*at, -0.5 - row as f64)]);
            let steps: Vec<(f64, f64)> = steps.collect();
            draw_line(&mut chart, steps.clone(), PAPER, 10)?;
            draw_line(&mut chart, steps, VERMILION, 5)?;
        }
        self.draw_bar(area)
    }

    /// The colours from 0 to 1.
    fn draw_bar(&self, area: &Area) -> Result<()> {
        let (left, top, steps) = ((WIDTH - BAR + 40) as i32, 64, HEIGHT as i32 / 4);
        for step in 0..steps {
            let y = top + 4 * step;
            let colour = viridis(1.0 - step as f32 / (steps - 1) as f32);
            area.draw(&Rectangle::new([(left, y), (left + 36, y + 4)], filled(colour))).map_err(failed)?;
        }
        let style = text_style(TEXT, HPos::Left, VPos::Center);
        for (share, label) in
            [(0.0, "0 %"), (0.001, "0.1 %"), (0.01, "1 %"), (0.1, "10 %"), (0.3, "30 %"), (0.6, "60 %"), (1.0, "100 %")]
        {
            let y = top + ((1.0 - heat_scale(share)) * HEIGHT as f32).round() as i32;
            area.draw_text(label, &style, (left + 48, y)).map_err(failed)?;
        }
        let style = text_style(TEXT, HPos::Right, VPos::Top);
        area.draw_text(&self.scale, &style, ((WIDTH - MARGIN / 2) as i32, 12)).map_err(failed)
    }
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

#[cfg(test)]
mod tests {
    use super::resample;

    #[test]
    fn resampling_averages_and_keeps_the_sum() {
        assert_eq!(resample(&[1.0, 0.5, 0.0, 0.0], 2), [0.75, 0.0]);
        assert_eq!(resample(&[0.5], 3), [0.5; 3]);
        let parts = resample(&[1.0, 0.0, 0.0], 2);
        assert!((parts[0] - 2.0 / 3.0).abs() < 1e-6 && parts[1] == 0.0);
    }
}
