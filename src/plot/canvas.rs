//! An RGB picture with rectangles, lines and text.

use super::font;
use super::palette::{Colour, mix};
use anyhow::Result;

/// Starts white. Anything outside is not drawn.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
    /// Scratch of [`Canvas::polyline`], zero between calls: how much of each pixel the line covers.
    coverage: Vec<f32>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, height, rgb: vec![255; width * height * 3], coverage: vec![0.0; width * height] }
    }

    /// Mixes `colour` into a pixel; `alpha` 1 replaces it.
    fn blend(&mut self, x: usize, y: usize, colour: Colour, alpha: f32) {
        if x >= self.width || y >= self.height {
            return;
        }
        let at = (y * self.width + x) * 3;
        for (old, new) in self.rgb[at..at + 3].iter_mut().zip(colour) {
            *old = mix(*old, new, alpha);
        }
    }

    pub(super) fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        let (left, right) = (x.min(self.width), (x + width).min(self.width));
        for y in y.min(self.height)..(y + height).min(self.height) {
            let row = &mut self.rgb[(y * self.width + left) * 3..(y * self.width + right) * 3];
            row.as_chunks_mut::<3>().0.fill(colour);
        }
    }

    /// Writes `text` in pixels of `scale` x `scale`, each where `place` has its left top corner: with text that begins at
    /// (0, 0) and goes right.
    pub(super) fn text(
        &mut self,
        scale: usize,
        colour: Colour,
        text: &str,
        place: impl Fn(usize, usize) -> (i32, i32),
    ) {
        for (i, c) in text.chars().enumerate() {
            for (row, bits) in font::glyph(c).into_iter().enumerate() {
                for column in (0..font::WIDTH).filter(|column| bits >> (font::WIDTH - 1 - column) & 1 == 1) {
                    let (x, y) = place(i * advance(scale) + column * scale, (font::descent(c) + row) * scale);
                    if let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) {
                        self.fill(x, y, scale, scale, colour);
                    }
                }
            }
        }
    }

    /// Fills a polygon; a pixel is inside where its centre is.
    pub(super) fn polygon(&mut self, corners: &[(f32, f32)], colour: Colour) {
        let reach = |of: fn(&(f32, f32)) -> f32, end: usize| {
            let (least, most) = corners.iter().map(of).fold((f32::INFINITY, 0.0f32), |(a, b), v| (a.min(v), b.max(v)));
            least.max(0.0) as usize..end.min(most as usize + 1)
        };
        for y in reach(|c| c.1, self.height) {
            for x in reach(|c| c.0, self.width) {
                let edges = corners.iter().zip(corners.iter().cycle().skip(1));
                let (x_mid, y_mid) = (x as f32 + 0.5, y as f32 + 0.5);
                let crossed = edges.filter(|(a, b)| {
                    (a.1 > y_mid) != (b.1 > y_mid) && x_mid < (b.0 - a.0) * (y_mid - a.1) / (b.1 - a.1) + a.0
                });
                if crossed.count() % 2 == 1 {
                    self.blend(x, y, colour, 1.0);
                }
            }
        }
    }

    /// Joins the points with an anti-aliased line. Coordinates are those of pixel centres.
    ///
    /// The coverage of the segments is merged before blending; otherwise the joints would show as dots.
    pub(super) fn polyline(&mut self, points: &[(f32, f32)], thickness: f32, colour: Colour) {
        let mut touched = vec![];
        let reach = thickness / 2.0 + 0.5;
        for pair in points.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            for y in pixels_between(from.1, to.1, reach, self.height) {
                for x in pixels_between(from.0, to.0, reach, self.width) {
                    let distance = distance_to_segment((x as f32, y as f32), from, to);
                    let at = y * self.width + x;
                    self.coverage[at] = self.coverage[at].max((reach - distance).clamp(0.0, 1.0));
                    touched.push(at);
                }
            }
        }
        for at in touched {
            let alpha = std::mem::take(&mut self.coverage[at]);
            self.blend(at % self.width, at / self.width, colour, alpha);
        }
    }

    /// Encodes as RGB8.
    pub(super) fn to_png(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, u32::try_from(self.width)?, u32::try_from(self.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// Pixels from one character to the next.
pub(super) fn advance(scale: usize) -> usize {
    (font::WIDTH + 1) * scale
}

/// Width of `n_chars` characters in pixels.
pub(super) fn text_width(n_chars: usize, scale: usize) -> usize {
    (n_chars * advance(scale)).saturating_sub(scale)
}

fn pixels_between(a: f32, b: f32, reach: f32, end: usize) -> std::ops::Range<usize> {
    let first = (a.min(b) - reach).max(0.0) as usize;
    let last = (a.max(b) + reach).max(0.0) as usize;
    first..end.min(last + 1)
}

fn distance_to_segment(point: (f32, f32), from: (f32, f32), to: (f32, f32)) -> f32 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let squared = dx * dx + dy * dy;
    let along = (point.0 - from.0) * dx + (point.1 - from.1) * dy;
    let t = if squared > 0.0 { (along / squared).clamp(0.0, 1.0) } else { 0.0 };
    let (x, y) = (point.0 - from.0 - t * dx, point.1 - from.1 - t * dy);
    (x * x + y * y).sqrt()
}
