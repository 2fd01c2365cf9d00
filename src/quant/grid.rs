//! The values that the elements of a block without a minimum may have.

use super::iq4::LEVELS;
use super::lanes::Lanes;

/// Values that a search chooses from.
pub trait Grid {
    /// The magnitude of the least value, which none exceeds.
    const EXTREME: f32;
    /// By how much a search varies what the element of largest magnitude becomes.
    const STEP: f32;
    /// The closest values.
    fn closest<V: Lanes>(x: V) -> V;
}

/// The integers from `-N` to `N - 1`.
pub struct Integers<const N: u8>;

impl<const N: u8> Grid for Integers<N> {
    const EXTREME: f32 = N as f32;
    const STEP: f32 = 0.1;

    #[inline(always)]
    fn closest<V: Lanes>(x: V) -> V {
        x.nearest(-Self::EXTREME, Self::EXTREME - 1.0)
    }
}

/// The unevenly spaced [`LEVELS`].
pub struct Levels;

impl Levels {
    /// The levels.
    const VALUES: [f32; 16] = {
        let mut values = [0.0; 16];
        let mut i = 0;
        while i < 16 {
            values[i] = LEVELS[i] as f32 - 128.0;
            i += 1;
        }
        values
    };

    /// The place of each level, by what [`LEVELS`] has.
    pub const INDEX: [u8; 256] = {
        let mut index = [0; 256];
        let mut i = 0;
        while i < 16 {
            index[LEVELS[i] as usize] = i as u8;
            i += 1;
        }
        index
    };
}

impl Grid for Levels {
    const EXTREME: f32 = 127.0;
    const STEP: f32 = 1.0;

    #[inline(always)]
    fn closest<V: Lanes>(x: V) -> V {
        let mut level = V::all(Self::VALUES[0]);
        for i in 1..16 {
            let (below, above) = (Self::VALUES[i - 1], Self::VALUES[i]);
            // Sums of small integers, which are exact.
            let beyond = V::all((below + above) / 2.0).minus(x);
            level = level.plus(beyond.if_negative(V::all(above - below), V::all(0.0)));
        }
        level
    }
}
