//! What the kernels compute: one file per `.cu`, which checks sizes, chooses the grid and enqueues on a stream.

pub mod attention;
pub mod attention_prefill;
pub mod down;
pub mod experts;
pub mod ffn;
pub mod gemm;
pub mod kv_rows;
pub mod matvec;
pub mod norm;
pub mod predict;
pub mod recurrent;
pub mod repack;
pub mod rope;
pub mod route;
pub mod select;
pub mod several;
pub mod token;

use super::device::Device;
use crate::model::Activation;
use anyhow::{Result, bail};

/// Threads of a block in the kernels that read weights.
const THREADS: usize = 256;
/// Blocks of them that a multiprocessor holds at once (`__launch_bounds__`).
const BLOCKS_PER_SM: u32 = 3;

/// Blocks that the card runs at once.
fn resident(device: &Device) -> u32 {
    device.n_sm() * BLOCKS_PER_SM
}

/// The grid for `n_blocks` blocks of work that any number of blocks can share: no more than can run at once.
fn spread(device: &Device, n_blocks: usize) -> u32 {
    u32::try_from(n_blocks).unwrap_or(u32::MAX).clamp(1, resident(device))
}

/// The kernels' code for an activation function.
///
/// # Errors
/// When they have none.
pub fn activation_code(activation: Option<Activation>) -> Result<i32> {
    Ok(match activation {
        None => -1,
        Some(Activation::Silu) => 0,
        Some(Activation::Relu) => 1,
        Some(Activation::Relu2) => 2,
        Some(Activation::Gelu) => 3,
        Some(Activation::GeluErf) => 4,
        Some(Activation::GeluQuick) => 5,
        Some(Activation::DRelu) => 6,
        // Its threshold is not negative, so the sign is free to tell it from all others.
        Some(Activation::FatRelu(threshold)) => (threshold.get().to_bits() | 1 << 31).cast_signed(),
        Some(Activation::SwigluOai) => bail!("activation swiglu_oai is not computed on a card yet"),
    })
}
