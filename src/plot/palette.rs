//! Colours that can be told apart by people who see fewer of them.

/// Red, green, blue.
pub type Colour = [u8; 3];

/// Text and axes.
pub const INK: Colour = [0x20, 0x20, 0x20];
/// Ticks.
pub const GRAY: Colour = [0x60, 0x60, 0x60];
/// Lines behind curves.
pub const GRID: Colour = [0xE4, 0xE4, 0xE4];
/// What is drawn on.
pub const PAPER: Colour = [0xFF; 3];

/// Of the colours of Okabe and Ito (2008).
pub const BLUE: Colour = [0x00, 0x72, 0xB2];
/// The same.
pub const VERMILION: Colour = [0xD5, 0x5E, 0x00];
/// The same.
pub const GREEN: Colour = [0x00, 0x9E, 0x73];
/// The same.
pub const ORANGE: Colour = [0xE6, 0x9F, 0x00];
/// The same.
pub const SKY: Colour = [0x56, 0xB4, 0xE9];
/// The same.
pub const PURPLE: Colour = [0xCC, 0x79, 0xA7];

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

/// Steps of a scale of colours: more than the eye tells apart, and few enough that neighbours often share one.
const STEPS: f32 = 64.0;

/// The place of a share (0..=1) on the scale of heat maps: its fourth root, which like a logarithm separates 1 % from 0.1 %, but
/// has a place for 0.
pub fn heat_scale(share: f32) -> f32 {
    share.sqrt().sqrt()
}

/// The colour of a share in a heat map.
pub fn heat(share: f32) -> Colour {
    viridis((heat_scale(share) * STEPS).round() / STEPS)
}

/// The colour of one of `n` layers. Leaves out viridis's yellow end, which is hard to see on white.
pub fn depth(layer: usize, n: usize) -> Colour {
    viridis(0.85 * layer as f32 / n.saturating_sub(1).max(1) as f32)
}

/// From dark blue at 0 to yellow at 1.
pub fn viridis(t: f32) -> Colour {
    let position = t.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let low = (position as usize).min(VIRIDIS.len() - 2);
    let (a, b) = (VIRIDIS[low], VIRIDIS[low + 1]);
    std::array::from_fn(|i| mix(a[i], b[i], position - low as f32))
}

/// From `a` at `t` = 0 to `b` at 1.
pub(super) fn mix(a: u8, b: u8, t: f32) -> u8 {
    (f32::from(a) + (f32::from(b) - f32::from(a)) * t).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_begin_and_end_with_their_colours() {
        assert_eq!((viridis(-1.0), viridis(0.5), viridis(2.0)), (VIRIDIS[0], VIRIDIS[4], VIRIDIS[8]));
        assert_eq!((heat(0.0), heat(1.0), depth(0, 1)), (VIRIDIS[0], VIRIDIS[8], VIRIDIS[0]));
        assert!(depth(7, 8) != VIRIDIS[8] && heat(0.001) != heat(0.01));
    }
}
