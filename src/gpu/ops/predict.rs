//! Predictors: scores from signs, and the hidden values of those with two matrices.

use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::quant::blocks::QK;
use anyhow::{Result, ensure};

/// Threads of a block.
const THREADS: u32 = 256;
/// Rows of signs that a block works on at a time.
const ROWS_OF_BLOCK: usize = 32;
/// Blocks of 256 threads that a multiprocessor holds at once.
const BLOCKS_OF_SM: u32 = 4;
/// Inputs of the widest row of signs.
pub const MAX_SIGNS: usize = 16384;
/// Hidden values per block.
const HIDDEN_OF_BLOCK: usize = 4 * THREADS as usize;

/// Enqueues the scores of `n_rows` rows of signs against `x` (`[n_embd]`): the number of inputs with the weight's sign,
/// minus the others. `signs` (`[n_rows][n_embd / 8]` bytes) is aligned to 16 bytes.
///
/// # Errors
/// When `n_embd` is not a multiple of 32 or above [`MAX_SIGNS`]; when the card has failed.
pub fn sign_scores(
    kernels: &Kernels,
    stream: &Stream,
    signs: Ptr,
    x: Ptr,
    n_embd: usize,
    n_rows: usize,
    scores: Ptr,
) -> Result<()> {
    let fits = n_embd > 0 && n_embd <= MAX_SIGNS && n_embd.is_multiple_of(QK);
    ensure!(fits, "rows of {n_embd} signs; multiples of {QK} up to {MAX_SIGNS} are possible on the card");
    if n_rows == 0 {
        return Ok(());
    }
    let blocks = u32::try_from(n_rows.div_ceil(ROWS_OF_BLOCK))?.min(stream.device().n_sm() * BLOCKS_OF_SM);
    let args = Args::new().ptr(signs).ptr(x).n(n_embd).n(n_rows).ptr(scores);
    kernels.launch(stream, "sign_scores", [blocks, 1, 1], [THREADS, 1, 1], args)
}

/// Enqueues what follows the first matrix of a predictor: `bias` (`[n]`, or [`Ptr::NULL`]) is added to the hidden
/// values `h` (`[n]`), in place, negative sums become 0, and the result is quantized to `x8` ([`Ptr::NULL`] if not
/// needed; otherwise `n` must be a multiple of 32).
///
/// # Errors
/// When the sizes are not possible; when the card has failed.
pub fn hidden(kernels: &Kernels, stream: &Stream, h: Ptr, bias: Ptr, n: usize, x8: Ptr) -> Result<()> {
    ensure!(n > 0 && (x8.is_null() || n.is_multiple_of(QK)), "{n} hidden values are not whole blocks of {QK}");
    let grid = [u32::try_from(n.div_ceil(HIDDEN_OF_BLOCK))?, 1, 1];
    kernels.launch(stream, "hidden", grid, [THREADS, 1, 1], Args::new().ptr(h).ptr(bias).n(n).ptr(x8))
}
