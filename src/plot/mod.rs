//! Pictures with axes and units, as SVG or as PNG: what is to be seen is data, which plotters draws.

mod bars;
mod canvas;
mod cells;
mod font;
mod frame;
mod heat;
mod lines;
pub mod palette;
mod surface;

pub use bars::Bars;
pub use cells::Cells;
pub use frame::{Axis, Legend, Sample, Ticks};
pub use heat::HeatMap;
pub use lines::{Line, Lines};

use crate::printable::printable;
use anyhow::{Result, bail};
use canvas::Canvas;
use frame::{Area, LETTER, MARGIN, WIDTH, failed, filled, text_style};
use palette::PAPER;
use plotters::prelude::{IntoDrawingArea, Rectangle, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};
use std::path::Path;
use surface::Surface;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A document, with text that can be searched.
    Svg,
    /// Pixels, twice as many as the document has.
    Png,
}

impl Format {
    /// By how the name of a file ends; a name without an ending, such as that of a pipe, is of pixels.
    ///
    /// # Errors
    /// When it ends like another kind.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        Ok(match ending.as_deref() {
            Some("svg") => Self::Svg,
            Some("png") | None => Self::Png,
            Some(_) => bail!("{}: pictures are .svg or .png files; end its name with one of these", path.display()),
        })
    }
}

/// One panel below the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Above all; shortened where it does not fit. May be empty.
    pub title: String,
    /// From the top.
    pub panels: Vec<Panel>,
}

/// A part of a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Panel {
    /// Shares as colours.
    Heat(HeatMap),
    /// Curves.
    Lines(Lines),
    /// Bars.
    Bars(Bars),
    /// Kinds as colours.
    Cells(Cells),
}

impl Panel {
    fn height(&self) -> u32 {
        match self {
            Self::Heat(panel) => panel.height(),
            Self::Lines(panel) => panel.height(),
            Self::Bars(panel) => panel.height(),
            Self::Cells(panel) => panel.height(),
        }
    }

    fn draw(&self, area: &Area) -> Result<()> {
        match self {
            Self::Heat(panel) => panel.draw(area),
            Self::Lines(panel) => panel.draw(area),
            Self::Bars(panel) => panel.draw(area),
            Self::Cells(panel) => panel.draw(area),
        }
    }
}

const TITLE: u32 = 100;
const TITLE_SIZE: f64 = 46.0;

impl Picture {
    /// Width and height of the document; pixels are twice as many.
    pub fn size(&self) -> (u32, u32) {
        (WIDTH / 2, (self.title_height() + self.panels.iter().map(Panel::height).sum::<u32>()) / 2)
    }

    /// The file, the same bytes for the same picture.
    ///
    /// # Errors
    /// None but of memory.
    pub fn draw(&self, format: Format) -> Result<Vec<u8>> {
        match format {
            Format::Svg => self.svg().map(String::into_bytes),
            Format::Png => {
                let (width, height) = self.drawn_size();
                let mut canvas = Canvas::new(width as usize, height as usize);
                self.draw_on(Surface::Pixels(&mut canvas, (width, height)))?;
                canvas.to_png()
            }
        }
    }

    /// The document.
    ///
    /// # Errors
    /// None but of memory.
    pub fn svg(&self) -> Result<String> {
        let (width, height) = self.drawn_size();
        let mut out = String::new();
        self.draw_on(Surface::Svg(SVGBackend::with_string(&mut out, (width, height))))?;
        // What is drawn is twice as large as what is shown, since plotters rounds places to whole pixels.
        let size = format!("<svg width=\"{width}\" height=\"{height}\"");
        let shown = format!("<svg role=\"img\" width=\"{}\" height=\"{}\"", width / 2, height / 2);
        Ok(out.replacen(&size, &shown, 1).replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", ""))
    }

    fn title_height(&self) -> u32 {
        if self.title.is_empty() { 0 } else { TITLE }
    }

    fn drawn_size(&self) -> (u32, u32) {
        let (width, height) = self.size();
        (2 * width, 2 * height)
    }

    fn draw_on(&self, surface: Surface) -> Result<()> {
        let (_, height) = self.drawn_size();
        let root = surface.into_drawing_area();
        root.draw(&Rectangle::new([(0, 0), (WIDTH as i32, height as i32)], filled(PAPER))).map_err(failed)?;
        if !self.title.is_empty() {
            let title = shortened(&printable(&self.title), ((WIDTH - 2 * MARGIN) / (LETTER + 6)) as usize);
            let style = text_style(TITLE_SIZE, HPos::Left, VPos::Top);
            root.draw_text(&title, &style, (MARGIN as i32, 28)).map_err(failed)?;
        }
        let mut top = self.title_height();
        for panel in &self.panels {
            panel.draw(&root.clone().shrink((0, top), (WIDTH, panel.height())))?;
            top += panel.height();
        }
        root.present().map_err(failed)
    }
}

/// As many letters as fit. What no document may hold is left out.
fn shortened(text: &str, most: usize) -> String {
    let text: String = text.chars().filter(|c| !matches!(c, '\u{fffe}' | '\u{ffff}')).collect();
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests;
