//! Writes a synthetic model as a stream.

use super::header::metadata;
use super::kind::Kind;
use super::neurons::{Family, families};
use super::norms::{Norms, output_norm};
use super::pool::Pools;
use super::recurrent::Heads;
use super::spec::{Layout, Spec};
use super::tensors::{Content, Tensor, tensors};
use super::weights::Weights;
use crate::gguf::write::Writer;
use crate::parallel;
use crate::progress::{self, Progress};
use anyhow::{Context, Result};
use std::path::Path;

/// Bytes of rows that are held at a time.
const BUFFER_BYTES: usize = 8 << 20;
/// Rows that a thread converts at a time.
const ROWS: usize = 16;
/// Alignment of tensors where the metadata say nothing.
const ALIGNMENT: usize = 32;

/// Bytes of the tensors of `spec`'s file.
///
/// # Errors
/// When rows are not whole blocks.
pub fn n_bytes(spec: &Spec, layout: Layout) -> Result<u64> {
    total(&tensors(spec, layout, &families(spec, None))?)
}

fn total(tensors: &[Tensor]) -> Result<u64> {
    let sizes = tensors.iter().map(|t| t.planned.n_bytes());
    Ok(sizes.sum::<Result<usize>>()? as u64)
}

/// Writes `spec`'s file to `path`, whole or not at all.
///
/// # Errors
/// When it cannot be written, or the user stops it; no file is left then.
pub fn write(spec: &Spec, layout: Layout, path: &Path, progress: &dyn Progress) -> Result<()> {
    let weights = Weights::new(spec, layout);
    let tensors = tensors(spec, layout, &weights.families)?;
    let planned: Vec<_> = tensors.iter().map(|t| t.planned.clone()).collect();
    progress.begin("writing", total(&tensors)?);
    let mut writer = Writer::create(path, &metadata(spec, layout, &weights), &planned, ALIGNMENT, progress)?;
    let mut pools = Pools::default();
    for tensor in &tensors {
        if let Content::Rows(kind) = tensor.content {
            write_rows(&weights, &mut pools, (kind, tensor), &mut writer, progress)?;
        } else {
            let bytes = bytes(spec, &weights, tensor);
            writer.append(&bytes)?;
            progress.advance(bytes.len() as u64);
        }
    }
    progress::check(progress)?;
    writer.finish()
}

/// What a tensor holds that is no matrix.
fn bytes(spec: &Spec, weights: &Weights, tensor: &Tensor) -> Vec<u8> {
    let Tensor { planned, content, layer, family } = tensor;
    let family = &weights.families[*family];
    let n: usize = planned.dims.iter().product();
    let heads = |of: fn(Heads) -> Vec<f32>| {
        let shape = spec.sized.shape.mamba.as_ref();
        shape.map(|shape| of(Heads::new(shape, [spec.seed, Kind::SsmHeads as u64, *layer as u64]))).unwrap_or_default()
    };
    let values = match *content {
        Content::Ids => {
            let ids = (0..family.n_groups).flat_map(|group| weights.ids(*layer, family, group));
            return ids.flat_map(u32::to_le_bytes).collect();
        }
        Content::Norm { after_attention, constant } => Norms::new(spec, *layer, after_attention).weights(n, constant),
        Content::OutputNorm => output_norm(spec),
        Content::Ones => vec![1.0; n],
        Content::Rows(_) | Content::Zeros => vec![0.0; n],
        Content::Rates => by_slot(weights, *layer, family, |slot| family.rates[slot]),
        Content::Mass => by_slot(weights, *layer, family, |slot| family.mean_factor(slot)),
        Content::SsmDt => heads(|heads| heads.dt_bias),
        Content::SsmA => heads(|heads| heads.a),
        Content::SsmD => heads(|heads| heads.d),
    };
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// A value for each neuron of a family, over all tokens, of what it is where its group is computed.
fn by_slot(weights: &Weights, layer: usize, family: &Family, of: impl Fn(usize) -> f64) -> Vec<f32> {
    let values: Vec<f64> = (0..family.n_ff).map(of).collect();
    let shares = weights.shares(layer, family);
    shares.iter().flat_map(|share| values.iter().map(move |value| (share * value) as f32)).collect()
}

fn write_rows(
    weights: &Weights,
    pools: &mut Pools,
    (kind, tensor): (Kind, &Tensor),
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    let planned = &tensor.planned;
    let (n_cols, n_rows) = (planned.dims[0], planned.dims[1..].iter().product::<usize>());
    let row_bytes = planned.dtype.row_bytes(n_cols).context("rows are not whole blocks")?;
    let fill = weights.rows(pools, kind, (tensor.layer, tensor.family), planned.dtype, n_cols)?;
    let per_buffer = (BUFFER_BYTES / row_bytes).max(1);
    let mut buffer = vec![0; per_buffer.min(n_rows) * row_bytes];
    for first in (0..n_rows).step_by(per_buffer) {
        progress::check(progress)?;
        let buffer = &mut buffer[..per_buffer.min(n_rows - first) * row_bytes];
        parallel::each(buffer.chunks_mut(ROWS * row_bytes), |piece, out| {
            let mut values = vec![0.0; n_cols];
            for (i, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                fill(first + piece * ROWS + i, &mut values, out);
            }
        });
        writer.append(buffer)?;
        progress.advance(buffer.len() as u64);
    }
    Ok(())
}
