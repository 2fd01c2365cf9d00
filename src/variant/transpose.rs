//! `ffn_down` of groups of neurons, transposed: a row for each neuron.

use crate::gguf::write::Writer;
use crate::gguf::{Gguf, TensorInfo};
use crate::model::NeuronId;
use crate::parallel;
use crate::progress::{self, Progress};
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result};

/// Bytes of transposed floats that are held at a time. The source's matrix is read once for each such buffer, so it is
/// larger: a 7B model's layer takes three.
const BYTES: usize = 64 << 20;
/// Rows of the source that are spread over the neurons together: as many floats as a line of the cache holds.
const ROWS: usize = 16;

/// Appends the columns of each part as rows of type `dtype`, those of the neurons in this order. Parts that are small are
/// transposed several at a time, a thread each: a model may have thousands of experts.
pub(super) fn write(
    gguf: &Gguf,
    parts: &[(TensorInfo, &[NeuronId])],
    dtype: GgmlType,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    let largest = parts.iter().map(|(part, _)| 4 * part.n_rows() * part.n_cols()).max().unwrap_or(0);
    let at_once = (BYTES / largest.max(1)).max(1);
    if at_once.min(parts.len()) < 2 {
        return parts.iter().try_for_each(|(part, order)| write_large(gguf, part, order, dtype, writer, progress));
    }
    for parts in parts.chunks(at_once) {
        progress::check(progress)?;
        let transposed = parallel::map(parts.iter(), |_, (part, order)| {
            let transposer = Transposer::new(gguf, part, dtype)?;
            let neurons = transposer.floats(order, &|| Ok(()))?;
            let mut bytes = vec![0; order.len() * transposer.row_bytes];
            let pairs = bytes.chunks_mut(transposer.row_bytes).zip(neurons.chunks(transposer.n_out));
            pairs.for_each(|(out, neuron)| (transposer.quantize)(neuron, out));
            Ok(bytes)
        });
        for bytes in transposed {
            let bytes: Result<Vec<u8>> = bytes;
            let bytes = bytes?;
            writer.append(&bytes)?;
            progress.advance(bytes.len() as u64);
        }
    }
    Ok(())
}

/// One part, as many neurons at a time as the buffer holds.
fn write_large(
    gguf: &Gguf,
    part: &TensorInfo,
    order: &[NeuronId],
    dtype: GgmlType,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    let transposer = Transposer::new(gguf, part, dtype)?;
    let per_buffer = (BYTES / (4 * transposer.n_out)).max(1);
    let mut bytes = vec![0; per_buffer.min(order.len()) * transposer.row_bytes];
    for ids in order.chunks(per_buffer) {
        let neurons = transposer.floats(ids, &|| progress::check(progress))?;
        let bytes = &mut bytes[..ids.len() * transposer.row_bytes];
        let pairs = bytes.chunks_mut(transposer.row_bytes).zip(neurons.chunks(transposer.n_out));
        parallel::each(pairs, |_, (out, neuron)| (transposer.quantize)(neuron, out));
        writer.append(bytes)?;
        progress.advance(bytes.len() as u64);
    }
    Ok(())
}

/// Transposes first, then quantizes: blocks must run along a neuron's own vector.
struct Transposer<'a> {
    data: &'a [u8],
    /// Elements of what a neuron gives.
    n_out: usize,
    n_ff: usize,
    /// Bytes of a neuron in the target.
    row_bytes: usize,
    dequantize: convert::Dequantize,
    quantize: convert::Quantize,
}

impl<'a> Transposer<'a> {
    fn new(gguf: &'a Gguf, part: &TensorInfo, dtype: GgmlType) -> Result<Self> {
        let (n_out, n_ff) = (part.n_rows(), part.n_cols());
        let row_bytes = dtype.row_bytes(n_out).context("rows are not whole blocks")?;
        let (dequantize, quantize) = (convert::dequantizer(part.dtype)?, convert::quantizer(dtype)?);
        Ok(Self { data: gguf.data(part), n_out, n_ff, row_bytes, dequantize, quantize })
    }

    /// What these neurons give, `[ids][n_out]`; asks now and then whether to go on.
    fn floats(&self, ids: &[NeuronId], check: &dyn Fn() -> Result<()>) -> Result<Vec<f32>> {
        let source_bytes = self.data.len() / self.n_out;
        let mut rows = vec![0.0; ROWS * self.n_ff];
        let mut neurons = vec![0.0; ids.len() * self.n_out];
        for (at, sources) in self.data.chunks(ROWS * source_bytes).enumerate() {
            check()?;
            let (first, n) = (at * ROWS, sources.len() / source_bytes);
            for (source, row) in sources.chunks_exact(source_bytes).zip(rows.chunks_exact_mut(self.n_ff)) {
                (self.dequantize)(source, row);
            }
            for (neuron, id) in neurons.chunks_exact_mut(self.n_out).zip(ids) {
                for (i, out) in neuron[first..first + n].iter_mut().enumerate() {
                    *out = rows[i * self.n_ff + id.0 as usize];
                }
            }
        }
        Ok(neurons)
    }
}
