//! What the crates of tests share; each takes it in once.
#![allow(dead_code, unused_imports, reason = "no crate uses all of it")]

mod command;
pub mod compare;
pub mod convert;
pub mod emulator;
pub mod predictors;
mod raw;
pub mod real;
pub mod reference;
pub mod small;
mod tiny;

pub use command::{Outcome, file, names_in, refused, refused_by, sh, tool, usage_error};
pub use raw::{Raw, patch_key, patch_tensor};
pub use tiny::Tiny;

/// Says why a test does nothing here; not with `println!`, which the test runner keeps to itself when a test passes.
pub fn skipped(reason: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {reason}\n").as_bytes());
}

/// Knuth's MMIX generator: the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    /// Between -1 and 1.
    pub fn weight(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
}
