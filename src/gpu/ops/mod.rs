//! What the kernels compute: one file per `.cu`, which checks sizes, chooses the grid and enqueues on a stream.

pub mod attention;
pub mod attention_prefill;
pub mod down;
pub mod ffn;
pub mod gemm;
pub mod matvec;
pub mod norm;
pub mod predict;
pub mod repack;
pub mod rope;
pub mod select;
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
    match activation {
        None => Ok(-1),
        Some(Activation::Silu) => Ok(0),
        Some(Activation::Relu) => Ok(1),
        Some(Activation::Relu2) => Ok(2),
        Some(Activation::Gelu) => Ok(3),
        Some(Activation::GeluErf) => Ok(4),
        Some(Activation::GeluQuick) => Ok(5),
        Some(other @ (Activation::FatRelu(_) | Activation::DRelu | Activation::SwigluOai)) => {
            bail!("activation {other} is not computed on a card yet")
        }
    }
}
