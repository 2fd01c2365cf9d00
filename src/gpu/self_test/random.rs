//! Random inputs.

use std::time::{SystemTime, UNIX_EPOCH};

/// splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
pub struct Random(u64);

impl Random {
    /// Other numbers at each start.
    pub fn anew() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(now.map_or(1, |now| now.as_nanos() as u64))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Evenly from -1 to 1, without 1.
    pub fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    /// `n` values, of which those in one of `one_in` places are not 0.
    pub fn sparse(&mut self, n: usize, one_in: u64) -> Vec<f32> {
        // Never all 0.
        let first = self.next() % n as u64;
        let active = |this: &mut Self, i: usize| i as u64 == first || this.next().is_multiple_of(one_in);
        (0..n).map(|i| if active(self, i) { 0.5 + self.value().abs() } else { 0.0 }).collect()
    }
}
