//! Whether a card computes what the processor does: each kernel once, a graph, a rendezvous. For the first start on a card.
//!
//! Shapes are small but not degenerate (several blocks, an unfinished one, hot and cold slots), inputs are new each time,
//! and no wait is endless. On a card it takes a second or two, most of it launches and copies that are waited for.

mod attention;
pub mod cache;
mod exchange;
mod experts;
mod gemm;
mod graph;
mod memory;
mod mailbox;
mod products;
mod random;
mod recurrent;
mod select;
mod several;
mod vectors;
pub mod weights;

use super::{Device, Kernels};
use anyhow::{Context, Result};
use memory::Memory;

/// Told what comes next; says whether it is to be tested. An error ends the test.
pub type Stage<'a> = dyn FnMut(&str) -> Result<bool> + 'a;

/// The stage in which the kernels are loaded, which takes seconds where the driver compiles them.
pub const COMPILING: &str = "compiling kernels";

/// The test as it runs: what the kernels work on, and who is told.
struct Test<'a, 'b> {
    memory: Memory,
    stage: &'a mut Stage<'b>,
}

impl Test<'_, '_> {
    /// Tests `name`: `test` launches it and compares.
    fn of(&mut self, name: &str, test: impl FnOnce(&mut Memory) -> Result<()>) -> Result<()> {
        if !(self.stage)(name)? {
            return Ok(());
        }
        self.memory.clear();
        test(&mut self.memory).with_context(|| name.to_owned())
    }

    fn all(&mut self) -> Result<()> {
        products::all(self)?;
        experts::all(self)?;
        vectors::all(self)?;
        attention::all(self)?;
        recurrent::all(self)?;
        gemm::all(self)?;
        select::all(self)?;
        several::all(self)?;
        mailbox::all(self)?;
        graph::all(self)
    }
}

/// Tests `device`; `stage` is told the name of each kernel, and of what else is tested, before it begins.
///
/// # Errors
/// One line that names the kernel, what came and what was expected, or what the driver says; those of `stage`. After a
/// kernel that does not end the card is given up (`waiting`).
pub fn run(device: &Device, stage: &mut Stage) -> Result<()> {
    if !stage(COMPILING)? {
        return Ok(());
    }
    let kernels = Kernels::load(device)?;
    Test { memory: Memory::new(device, kernels, exchange::SHARED)?, stage }.all()
}
