//! What a plan is made from.

use super::choice::Run;
use super::hardware::Hardware;
use super::workload::Workload;

/// Everything that a plan is made from.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    /// The machine.
    pub hardware: &'a Hardware,
    /// The model.
    pub work: &'a Workload,
    /// How it is run.
    pub run: &'a Run,
}
