//! Writes a synthetic model as a stream.

use super::header::{config, index, metadata};
use super::spec::{Layout, Spec};
use super::weights::{Norms, TensorKind, Weights};
use crate::gguf::write::{PlannedTensor, Writer};
use crate::model::arch::Llama;
use crate::model::spec::{Dims, PartSpec};
use crate::model::{Architecture, Role};
use crate::parallel;
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use crate::variant;
use anyhow::{Context, Result};
use std::path::Path;

/// Bytes of rows that are held at a time.
const BUFFER_BYTES: usize = 8 << 20;
/// Rows that a thread converts at a time.
const ROWS: usize = 16;
/// Alignment of tensors where the metadata say nothing.
const ALIGNMENT: usize = 32;

/// What a tensor holds.
#[derive(Debug, Clone, Copy)]
enum Content {
    Rows(TensorKind),
    AttnNorm,
    FfnNorm,
    OutputNorm,
    Ids,
    Rates,
    Mass,
}

struct Tensor {
    planned: PlannedTensor,
    content: Content,
    layer: usize,
}

/// Bytes of the tensors of `spec`'s file.
///
/// # Errors
/// When rows are not whole blocks.
pub fn n_bytes(spec: &Spec, layout: Layout) -> Result<u64> {
    let sizes = tensors(spec, layout).into_iter().map(|t| t.planned.n_bytes());
    Ok(sizes.sum::<Result<usize>>()? as u64)
}

/// Writes `spec`'s file to `path`, whole or not at all.
///
/// # Errors
/// When it cannot be written, or the user stops it; no file is left then.
pub fn write(spec: &Spec, layout: Layout, path: &Path, progress: &dyn Progress) -> Result<()> {
    let tensors = tensors(spec, layout);
    let planned: Vec<_> = tensors.iter().map(|t| t.planned.clone()).collect();
    progress.begin("writing", n_bytes(spec, layout)?);
    let weights = Weights::new(spec, layout)?;
    let (rates, mass) = index(&weights.rates, &weights.units);
    let n_hot = variant::planned_hot(&rates);
    let mut writer = Writer::create(path, &metadata(spec, layout, n_hot), &planned, ALIGNMENT, progress)?;
    let n_embd = spec.sized.shape.n_embd;
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    for Tensor { planned, content, layer } in &tensors {
        let bytes = match content {
            Content::Rows(kind) => {
                write_rows(&weights, *kind, *layer, planned, &mut writer, progress)?;
                continue;
            }
            Content::AttnNorm => floats(&Norms::new(spec, *layer, false).weights(n_embd, false)),
            Content::FfnNorm => floats(&Norms::new(spec, *layer, true).weights(n_embd, true)),
            Content::OutputNorm => floats(&Norms::new(spec, spec.sized.n_layer, false).weights(n_embd, false)),
            Content::Ids => weights.ids(*layer).iter().flat_map(|id| id.to_le_bytes()).collect(),
            Content::Rates => floats(&rates),
            Content::Mass => floats(&mass),
        };
        writer.append(&bytes)?;
        progress.advance(bytes.len() as u64);
    }
    progress::check(progress)?;
    writer.finish()
}

/// All tensors, in llama.cpp's usual order: those of the architecture, in this layout.
fn tensors(spec: &Spec, layout: Layout) -> Vec<Tensor> {
    let config = config(spec);
    let beside = Llama.parts(&config);
    let (before, behind): (Vec<_>, Vec<_>) = beside.iter().partition(|part| part.role == Role::TokenEmbd);
    let mut out: Vec<Tensor> = before.into_iter().filter_map(|part| tensor(spec, None, part)).collect();
    for layer in 0..config.n_layer {
        let of_layer = Llama.layer(&config, layer);
        out.extend(of_layer.parts.iter().filter_map(|part| tensor(spec, Some(layer), part)));
        for group in &of_layer.groups {
            for part in group.parts(config.n_embd) {
                if part.role == Role::FfnDown && layout == Layout::Variant {
                    out.extend(down_by_rows(spec, layer));
                } else {
                    out.extend(tensor(spec, Some(layer), &part));
                }
            }
        }
    }
    out.extend(behind.into_iter().filter_map(|part| tensor(spec, None, part)));
    out
}

/// The tensor of a part; none where synthetic models have no such part.
fn tensor(spec: &Spec, layer: Option<usize>, part: &PartSpec) -> Option<Tensor> {
    let content = content(part.role)?;
    let stem = part.role.tensor();
    let name = layer.map_or_else(|| format!("{stem}.weight"), |layer| format!("blk.{layer}.{stem}.weight"));
    let (dtype, dims) = match part.dims {
        Dims::Vector(n) => (GgmlType::F32, vec![n]),
        Dims::Vectors { n_rows, n_cols } => (GgmlType::F32, vec![n_cols, n_rows]),
        Dims::Matrix { n_rows, n_cols } => (spec.matrix_type(layer.is_none()), vec![n_cols, n_rows]),
    };
    Some(Tensor { planned: PlannedTensor { name, dtype, dims }, content, layer: layer.unwrap_or(0) })
}

fn content(role: Role) -> Option<Content> {
    match role {
        Role::TokenEmbd => Some(Content::Rows(TensorKind::TokenEmbd)),
        Role::OutputNorm => Some(Content::OutputNorm),
        Role::Output => Some(Content::Rows(TensorKind::Output)),
        Role::AttnNorm => Some(Content::AttnNorm),
        Role::FfnNorm => Some(Content::FfnNorm),
        Role::AttnQ => Some(Content::Rows(TensorKind::AttnQ)),
        Role::AttnK => Some(Content::Rows(TensorKind::AttnK)),
        Role::AttnV => Some(Content::Rows(TensorKind::AttnV)),
        Role::AttnOutput => Some(Content::Rows(TensorKind::AttnOutput)),
        Role::FfnGate => Some(Content::Rows(TensorKind::FfnGate)),
        Role::FfnUp => Some(Content::Rows(TensorKind::FfnUp)),
        Role::FfnDown => Some(Content::Rows(TensorKind::FfnDown)),
        Role::RopeFreqs
        | Role::RopeFactorsLong
        | Role::RopeFactorsShort
        | Role::AttnNorm2
        | Role::PositionEmbd
        | Role::PostAttnNorm
        | Role::PostFfnNorm
        | Role::AttnQNorm
        | Role::AttnKNorm
        | Role::AttnKvA
        | Role::AttnKvANorm
        | Role::AttnKvB
        | Role::AttnSinks
        | Role::SsmConv
        | Role::SsmDt
        | Role::SsmA
        | Role::SsmD
        | Role::SsmNorm
        | Role::RouterBias
        | Role::SsmIn
        | Role::SsmOut
        | Role::LatentDown
        | Role::LatentUp
        | Role::Router => None,
    }
}

/// `ffn_down` of a variant, with the index of its neurons.
fn down_by_rows(spec: &Spec, layer: usize) -> [Tensor; 4] {
    let s = spec.sized.shape;
    let tensor = |name: &str, content, dtype, dims: &[usize]| Tensor {
        planned: PlannedTensor { name: format!("blk.{layer}.{name}"), dtype, dims: dims.to_vec() },
        content,
        layer,
    };
    let down = Content::Rows(TensorKind::FfnDown);
    [
        tensor("ffn_down_t.weight", down, spec.matrix_type(false), &[s.n_embd, s.n_ff]),
        tensor("ffn_neuron_id", Content::Ids, GgmlType::I32, &[s.n_ff]),
        tensor("ffn_neuron_rate", Content::Rates, GgmlType::F32, &[s.n_ff]),
        tensor("ffn_neuron_mass", Content::Mass, GgmlType::F32, &[s.n_ff]),
    ]
}

fn write_rows(
    weights: &Weights,
    kind: TensorKind,
    layer: usize,
    planned: &PlannedTensor,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    let (n_cols, n_rows) = (planned.dims[0], planned.dims[1]);
    let row_bytes = planned.dtype.row_bytes(n_cols).context("rows are not whole blocks")?;
    let fill = weights.rows(kind, layer, planned.dtype)?;
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
