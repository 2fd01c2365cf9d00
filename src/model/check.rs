//! Finds weights that are not numbers.

use crate::gguf::{Gguf, TensorInfo};
use crate::parallel;
use crate::progress::{self, Progress};
use crate::quant::convert;
use anyhow::{Context, Result, bail};

/// Looks through every weight for NaN and infinity.
///
/// # Errors
/// Names the tensor and the place of the first one found; [`progress::Interrupted`] when told to stop.
pub fn check_tensors(gguf: &Gguf, progress: &dyn Progress) -> Result<()> {
    progress.begin("checking tensors", gguf.tensors().iter().map(|t| t.data.len() as u64).sum());
    // Tensors of the other types, integers for one, are never computed with.
    let weights = gguf.tensors().iter().filter(|t| convert::dequantizer(t.dtype).is_ok());
    for tensor in weights {
        check_tensor(gguf, tensor, progress).with_context(|| gguf.source_of(tensor).name().to_owned())?;
    }
    Ok(())
}

/// Elements that a thread decodes at a time: whole blocks of every type.
const PIECE: usize = 1 << 16;

fn check_tensor(gguf: &Gguf, tensor: &TensorInfo, progress: &dyn Progress) -> Result<()> {
    let dequantize = convert::dequantizer(tensor.dtype).with_context(|| tensor.name.clone())?;
    let n_cols = tensor.n_cols();
    let (block_len, block_bytes) = (tensor.dtype.block_len(), tensor.dtype.block_bytes());
    let piece_bytes = PIECE / block_len * block_bytes;
    let results = parallel::map(gguf.data(tensor).chunks(piece_bytes), |piece, bytes| {
        progress::check(progress)?;
        let mut values = vec![0.0; bytes.len() / block_bytes * block_len];
        dequantize(bytes, &mut values);
        progress.advance(bytes.len() as u64);
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => {
                let (row, col) = ((piece * PIECE + at) / n_cols, (piece * PIECE + at) % n_cols);
                bail!("{}: row {row}, column {col} is {}", tensor.name, values[at])
            }
            None => Ok(()),
        }
    });
    results.into_iter().collect()
}
