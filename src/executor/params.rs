//! How a model is to be run.

use crate::cpu::Isa;
use crate::model::{KvType, Mode};
use crate::placement::plan::{Room, Run};

/// How a model is to be run.
#[derive(Debug, Clone)]
pub struct ExecutorParams {
    /// Threads for computing.
    pub n_threads: usize,
    /// Tokens that the KV cache holds.
    pub n_ctx: usize,
    /// Types of the KV cache.
    pub kv_type: KvType,
    /// What decode computes of the FFN.
    pub mode: Mode,
    /// Tokens that prefill computes at once.
    pub n_ubatch: usize,
    /// Instruction set of the kernels.
    pub isa: Isa,
}

impl ExecutorParams {
    /// What is planned for such a run of one sequence, token by token, timed when `n_past` tokens are in the context.
    pub fn run(&self, n_past: usize) -> Run {
        let Self { n_ctx, kv_type, n_ubatch, mode, .. } = *self;
        Run { n_ctx, n_past, kv_type, n_ubatch, mode, room: Room::default() }
    }
}
