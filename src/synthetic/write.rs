//! Writes a synthetic model as a stream.

use super::header::{index, metadata};
use super::spec::{Layout, Spec};
use super::weights::{Norms, TensorKind, Weights};
use crate::gguf::write::{PlannedTensor, Writer};
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use crate::variant;
use anyhow::{Context, Result};
use rayon::prelude::*;
use std::path::Path;

/// Of the weights: another one gives other numbers for the same seed.
pub(super) const VERSION: u32 = 1;
/// Bytes of rows that are held at a time.
const BUFFER_BYTES: usize = 8 << 20;
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
    let mut writer = Writer::create(path, &metadata(spec, layout, n_hot), &planned, ALIGNMENT)?;
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

/// All tensors, in llama.cpp's usual order.
fn tensors(spec: &Spec, layout: Layout) -> Vec<Tensor> {
    let s = spec.sized.shape;
    let mut out = Vec::new();
    let mut add = |layer: usize, name: String, content: Content, dtype: GgmlType, dims: &[usize]| {
        out.push(Tensor { planned: PlannedTensor { name, dtype, dims: dims.to_vec() }, content, layer });
    };
    let (outer, inner, float) = (spec.matrix_type(true), spec.matrix_type(false), GgmlType::F32);
    add(0, "token_embd.weight".to_owned(), Content::Rows(TensorKind::TokenEmbd), outer, &[s.n_embd, s.n_vocab]);
    for layer in 0..spec.sized.n_layer {
        let mut add = |name: &str, content: Content, dtype: GgmlType, dims: &[usize]| {
            add(layer, format!("blk.{layer}.{name}"), content, dtype, dims);
        };
        add("attn_norm.weight", Content::AttnNorm, float, &[s.n_embd]);
        add("attn_q.weight", Content::Rows(TensorKind::AttnQ), inner, &[s.n_embd, s.n_embd]);
        add("attn_k.weight", Content::Rows(TensorKind::AttnK), inner, &[s.n_embd, s.n_kv()]);
        add("attn_v.weight", Content::Rows(TensorKind::AttnV), inner, &[s.n_embd, s.n_kv()]);
        add("attn_output.weight", Content::Rows(TensorKind::AttnOutput), inner, &[s.n_embd, s.n_embd]);
        add("ffn_norm.weight", Content::FfnNorm, float, &[s.n_embd]);
        add("ffn_gate.weight", Content::Rows(TensorKind::FfnGate), inner, &[s.n_embd, s.n_ff]);
        add("ffn_up.weight", Content::Rows(TensorKind::FfnUp), inner, &[s.n_embd, s.n_ff]);
        match layout {
            Layout::Plain => add("ffn_down.weight", Content::Rows(TensorKind::FfnDown), inner, &[s.n_ff, s.n_embd]),
            Layout::Variant => {
                add("ffn_down_t.weight", Content::Rows(TensorKind::FfnDown), inner, &[s.n_embd, s.n_ff]);
                add("ffn_neuron_id", Content::Ids, GgmlType::I32, &[s.n_ff]);
                add("ffn_neuron_rate", Content::Rates, float, &[s.n_ff]);
                add("ffn_neuron_mass", Content::Mass, float, &[s.n_ff]);
            }
        }
    }
    add(0, "output_norm.weight".to_owned(), Content::OutputNorm, float, &[s.n_embd]);
    add(0, "output.weight".to_owned(), Content::Rows(TensorKind::Output), outer, &[s.n_embd, s.n_vocab]);
    out
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
        buffer
            .par_chunks_exact_mut(row_bytes)
            .enumerate()
            .for_each_init(|| vec![0.0; n_cols], |values, (i, out)| fill(first + i, values, out));
        writer.append(buffer)?;
        progress.advance(buffer.len() as u64);
    }
    Ok(())
}
