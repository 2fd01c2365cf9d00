//! What plotters draws on: an SVG document, or pixels.
//!
//! plotters' own bitmaps need a decoder of all kinds of images and a rasteriser of fonts, which would take longer to build than
//! the rest of it. The pixels are ours.

use super::canvas::{Canvas, advance, text_width};
use super::font;
use super::palette::Colour;
use plotters::prelude::SVGBackend;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind};
use std::io;

/// Either of them.
pub(super) enum Surface<'a> {
    /// Kept in a string.
    Svg(SVGBackend<'a>),
    /// The canvas, and its size.
    Pixels(&'a mut Canvas, (u32, u32)),
}

type Drawn = Result<(), DrawingErrorKind<io::Error>>;

/// Everything that is drawn is opaque.
fn colour(of: BackendColor) -> Colour {
    [of.rgb.0, of.rgb.1, of.rgb.2]
}

/// The middle of a pixel is half a pixel away from its corner, by which plotters counts.
fn points(path: impl IntoIterator<Item = BackendCoord>) -> Vec<(f32, f32)> {
    path.into_iter().map(|(x, y)| (x as f32, y as f32)).collect()
}

/// Pixels of the letters' own pixels: letters of a size in pixels are as high as those of other fonts.
fn scale(style: &impl BackendTextStyle) -> usize {
    (style.size() / 11.5).round().max(1.0) as usize
}

impl DrawingBackend for Surface<'_> {
    type ErrorType = io::Error;

    fn get_size(&self) -> (u32, u32) {
        match self {
            Self::Svg(svg) => svg.get_size(),
            Self::Pixels(_, size) => *size,
        }
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        match self {
            Self::Svg(svg) => svg.present(),
            Self::Pixels(..) => Ok(()),
        }
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawn {
        self.draw_rect(point, (point.0 + 1, point.1 + 1), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn {
        match self {
            Self::Svg(svg) => svg.draw_line(from, to, style),
            Self::Pixels(..) => self.draw_path([from, to], style),
        }
    }

    fn draw_rect<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S, fill: bool) -> Drawn {
        match self {
            Self::Svg(svg) => svg.draw_rect(from, to, style, fill),
            Self::Pixels(canvas, _) if fill => {
                let [left, top, right, bottom] = [from.0, from.1, to.0, to.1].map(|at| at.max(0) as usize);
                canvas.fill(left, top, right.saturating_sub(left), bottom.saturating_sub(top), colour(style.color()));
                Ok(())
            }
            Self::Pixels(..) => self.draw_path([from, (to.0, from.1), to, (from.0, to.1), from], style),
        }
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        match self {
            Self::Svg(svg) => svg.draw_path(path, style),
            Self::Pixels(canvas, _) => {
                canvas.polyline(&points(path), style.stroke_width() as f32, colour(style.color()));
                Ok(())
            }
        }
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(&mut self, path: I, style: &S) -> Drawn {
        match self {
            Self::Svg(svg) => svg.fill_polygon(path, style),
            Self::Pixels(canvas, _) => {
                canvas.polygon(&points(path), colour(style.color()));
                Ok(())
            }
        }
    }

    fn draw_circle<S: BackendStyle>(&mut self, center: BackendCoord, radius: u32, style: &S, fill: bool) -> Drawn {
        match self {
            Self::Svg(svg) => svg.draw_circle(center, radius, style, fill),
            Self::Pixels(canvas, _) => {
                let (x, y) = (center.0 as f32, center.1 as f32);
                canvas.polyline(&[(x, y), (x, y)], 2.0 * radius as f32, colour(style.color()));
                Ok(())
            }
        }
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, pos: BackendCoord) -> Drawn {
        let canvas = match self {
            Self::Svg(svg) => return svg.draw_text(text, style, pos),
            Self::Pixels(canvas, _) => canvas,
        };
        let (scale, turn, anchor) = (scale(style), style.transform(), style.anchor());
        let (width, height) = (text_width(text.chars().count(), scale) as i32, (font::HEIGHT * scale) as i32);
        let left = match anchor.h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match anchor.v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        canvas.text(scale, colour(style.color()), text, |x, y| {
            let (x, y) = turn.transform(left + x as i32, top + y as i32);
            (pos.0 + x, pos.1 + y)
        });
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<io::Error>> {
        // Those of browsers are narrower, but one picture is to be laid out as the other.
        let scale = scale(style);
        Ok(((text.chars().count() * advance(scale)) as u32, (font::HEIGHT * scale) as u32))
    }
}
