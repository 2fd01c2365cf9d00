//! Tokens that are computed together: `kernels/several.cu`, and the same kernels as for one where these take several.

use crate::gpu::mailbox::MAX_TOKENS;
use crate::gpu::matrix::{DeviceMatrix, takes_floats};
use crate::placement::budget::WIDTH_STEP;
use anyhow::{Result, ensure};

/// Tokens whose neurons are computed together, and how far what is a token's lies from what is the next one's.
#[derive(Debug, Clone, Copy)]
pub struct Several {
    /// How many they are.
    pub n_tokens: usize,
    /// Floats from one's activations to the next one's.
    pub acts: usize,
    /// Words from one's counts to the next one's.
    pub counts: usize,
    /// Words from one's list in the mailbox to the next one's, and of its activations there.
    pub lists: usize,
}

impl Several {
    /// One token alone.
    pub const ONE: Self = Self { n_tokens: 1, acts: 0, counts: 0, lists: 0 };
}

/// Whether so many tokens can be multiplied with `matrix` at once.
pub(super) fn check_several(matrix: &DeviceMatrix, n_tokens: usize) -> Result<()> {
    ensure!((1..=MAX_TOKENS).contains(&n_tokens), "{n_tokens} tokens at once; up to {MAX_TOKENS} are possible");
    let (n, dtype) = (matrix.n_cols(), matrix.dtype());
    let fits = n_tokens == 1 || takes_floats(dtype) || n.is_multiple_of(WIDTH_STEP);
    // So that what is quantized of each begins at a multiple of 16 bytes.
    ensure!(fits, "{n_tokens} vectors of {n} for {dtype}; multiples of {WIDTH_STEP} are possible");
    Ok(())
}
