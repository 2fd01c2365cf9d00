//! Rows of a tensor on their way into a file: in another order, as another type.

use crate::gguf::write::Writer;
use crate::gguf::{Gguf, TensorInfo};
use crate::parallel;
use crate::progress::{self, Progress};
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Error, Result};

/// Bytes of rows that are held at a time.
pub(super) const BUFFER_BYTES: usize = 8 << 20;
/// Rows that a thread converts at a time.
const ROWS: usize = 16;

/// Appends the rows of `source`, in this order where there is one, as `dtype`; rows that have it already are copied.
pub(super) fn write_rows(
    gguf: &Gguf,
    source: &TensorInfo,
    order: Option<&[usize]>,
    dtype: GgmlType,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    write_weighted_rows(gguf, source, order, (dtype, None), writer, progress)
}

/// As [`write_rows`], given how much the columns count where that is known: `[n_cols]` for all matrices of a stack, or for each.
pub(super) fn write_weighted_rows(
    gguf: &Gguf,
    source: &TensorInfo,
    order: Option<&[usize]>,
    (dtype, importance): (GgmlType, Option<&[f32]>),
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    let (n_rows, n_cols) = (source.n_rows(), source.n_cols());
    let data = gguf.data(source);
    let source_bytes = data.len() / n_rows;
    let row_bytes = dtype.row_bytes(n_cols).context("rows are not whole blocks")?;
    let converted = dtype != source.dtype;
    let converters =
        converted.then(|| Ok::<_, Error>((convert::dequantizer(source.dtype)?, convert::quantizer(dtype)?)));
    let converters = converters.transpose().with_context(|| source.name.clone())?;
    let importance = importance.and_then(|columns| Some((columns, convert::weighted_quantizer(dtype)?)));
    let rows_of_matrix = source.dims.get(1).copied().unwrap_or(1);
    let per_buffer = (BUFFER_BYTES / row_bytes).max(1);
    let mut buffer = vec![0; per_buffer.min(n_rows) * row_bytes];
    for first in (0..n_rows).step_by(per_buffer) {
        progress::check(progress)?;
        let n = per_buffer.min(n_rows - first);
        let buffer = &mut buffer[..n * row_bytes];
        parallel::each(buffer.chunks_mut(ROWS * row_bytes), |piece, out| {
            let mut values = vec![0.0; if converted { n_cols } else { 0 }];
            for (i, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                let row = first + piece * ROWS + i;
                let row = order.map_or(row, |o| o[row]);
                let source_row = &data[row * source_bytes..][..source_bytes];
                match converters {
                    None => out.copy_from_slice(source_row),
                    Some((dequantize, quantize)) => {
                        dequantize(source_row, &mut values);
                        match importance {
                            Some((columns, quantize)) => {
                                let matrix = if columns.len() == n_cols { 0 } else { row / rows_of_matrix };
                                quantize(&values, &columns[matrix * n_cols..][..n_cols], out);
                            }
                            None => quantize(&values, out),
                        }
                    }
                }
            }
        });
        writer.append(buffer)?;
        progress.advance(buffer.len() as u64);
    }
    Ok(())
}
