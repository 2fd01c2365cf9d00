//! Random numbers.

use std::time::{SystemTime, UNIX_EPOCH};

/// splitmix64: a seed gives the same numbers on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Other numbers in every run. The seed is printed, for a test that fails; the variable `SEED` sets it.
    pub fn anew() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64;
        let seed = std::env::var("SEED").map_or_else(|_| now(), |s| s.parse().expect("SEED is a number"));
        println!("SEED={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Less than `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Evenly from -1 to 1, without 1.
    pub fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    /// Values of which about the share `active` is not 0.
    pub fn sparse(&mut self, n: usize, active: f32) -> Vec<f32> {
        (0..n).map(|_| if self.value() < 2.0 * active - 1.0 { self.value() } else { 0.0 }).collect()
    }

    /// About `share` of the numbers below `n`, in rising order.
    pub fn some(&mut self, n: usize, share: f32) -> Vec<u32> {
        (0..n as u32).filter(|_| self.value() < 2.0 * share - 1.0).collect()
    }
}
