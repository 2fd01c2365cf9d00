//! Writes a variant as a stream: some 70 MiB of memory at most, whatever the size of the model.

use super::lossless::Blocks;
use super::pack;
use super::plan::{DownPlan, Plan};
use super::recipe::layer_and_part;
use crate::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{Model, NeuronId, SYNTHETIC_KEY};
use crate::progress::{self, Progress};
use crate::quant::blocks::QK;
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Error, Result};
use rayon::prelude::*;
use std::path::Path;

/// Bytes of rows that are held at a time.
const BUFFER_BYTES: usize = 8 << 20;
/// Bytes of transposed floats that are held at a time. The source's matrix is read once for each such buffer, so it is
/// larger: a 7B model's layer takes three.
const TRANSPOSE_BYTES: usize = 64 << 20;
/// Version of the layout in docs/formats.md.
pub(crate) const VERSION: u32 = 1;
/// The same where `ffn_down` is lossless: what knows the first only refuses it.
const VERSION_LOSSLESS: u32 = 2;

enum Content<'a> {
    /// Rows in the source's order, or permuted.
    Rows(&'a TensorInfo, Option<usize>),
    /// `ffn_down` of this layer, transposed.
    Transposed(&'a TensorInfo, usize, GgmlType),
    /// The quants of `ffn_down` of this layer, transposed.
    Quants(&'a TensorInfo, usize),
    /// The scales of this `ffn_down`, as the source has them, transposed.
    Scales(&'a TensorInfo),
    /// A part of this layer's predictor; its rows are neurons, or not.
    Predictor(&'a Gguf, &'a TensorInfo, Option<usize>),
    Bytes(Vec<u8>),
}

/// Writes the variant of `model` that `plan` describes to `path`, whole or not at all, with the predictor of the file
/// `predictor` packed in.
///
/// # Errors
/// When it cannot be written, or the user stops it; no file is left then.
pub fn write(model: &Model, plan: &Plan, predictor: Option<&Gguf>, path: &Path, progress: &dyn Progress) -> Result<()> {
    let gguf = &model.gguf;
    let mut tensors = Vec::new();
    for tensor in gguf.tensors() {
        plan_tensor(plan, tensor, &mut tensors);
    }
    if let Some(predictor) = predictor {
        for layer in 0..plan.layers.len() {
            for (tensor, by_neuron) in pack::tensors(predictor, layer) {
                let content = Content::Predictor(predictor, tensor, by_neuron.then_some(layer));
                tensors.push((pack::planned(tensor), content));
            }
        }
    }
    let planned: Vec<_> = tensors.iter().map(|(t, _)| t.clone()).collect();
    let total = planned.iter().map(PlannedTensor::n_bytes).sum::<Result<usize>>()?;
    progress.begin("writing", total as u64);
    let mut writer = Writer::create(path, &metadata(model, plan, predictor), &planned, gguf.alignment())?;
    for (target, content) in &tensors {
        match content {
            Content::Rows(source, layer) => {
                let order = layer.map(|l| plan.layers[l].order.iter().map(|id| id.0 as usize).collect::<Vec<_>>());
                write_rows(gguf, source, order.as_deref(), target.dtype, &mut writer, progress)?;
            }
            Content::Transposed(source, layer, dtype) => {
                write_transposed(gguf, source, &plan.layers[*layer].order, *dtype, &mut writer, progress)?;
            }
            Content::Quants(source, layer) => {
                write_quants(gguf, source, &plan.layers[*layer].order, &mut writer, progress)?;
            }
            Content::Scales(source) => write_scales(gguf, source, &mut writer, progress)?,
            Content::Predictor(predictor, tensor, layer) => {
                let order = layer.map(|l| &*plan.layers[l].order);
                pack::write_part(predictor, tensor, order, &mut writer, progress)?;
            }
            Content::Bytes(bytes) => writer.append(bytes)?,
        }
    }
    progress::check(progress)?;
    writer.finish()
}

fn plan_tensor<'a>(plan: &Plan, tensor: &'a TensorInfo, out: &mut Vec<(PlannedTensor, Content<'a>)>) {
    let (name, dims) = (tensor.name.clone(), tensor.dims.clone());
    let matrix = |dtype| PlannedTensor { name: name.clone(), dtype, dims: dims.clone() };
    match layer_and_part(&tensor.name) {
        Some((layer, "ffn_down.weight")) => {
            let (n_embd, n_ff) = (tensor.n_rows(), tensor.n_cols());
            let mut push = |name: &str, dtype, dims, content| {
                let name = format!("blk.{layer}.{name}");
                out.push((PlannedTensor { name, dtype, dims }, content));
            };
            match plan.down[layer] {
                DownPlan::Rows(dtype) => {
                    let content = Content::Transposed(tensor, layer, dtype);
                    push("ffn_down_t.weight", dtype, vec![n_embd, n_ff], content);
                }
                DownPlan::Lossless(_) => {
                    let bytes = Blocks::new(&[], tensor).neuron_bytes(n_embd);
                    push("ffn_down_t_q", GgmlType::I8, vec![bytes, n_ff], Content::Quants(tensor, layer));
                    push("ffn_down_scale", GgmlType::F16, vec![n_embd, n_ff / QK], Content::Scales(tensor));
                }
            }
            let l = &plan.layers[layer];
            let ids = l.order.iter().flat_map(|id| (id.0 as i32).to_le_bytes()).collect();
            let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
            for (what, dtype, bytes) in [
                ("id", GgmlType::I32, ids),
                ("rate", GgmlType::F32, floats(&l.rates)),
                ("mass", GgmlType::F32, floats(&l.mass)),
            ] {
                let (name, dims) = (format!("blk.{layer}.ffn_neuron_{what}"), vec![l.order.len()]);
                out.push((PlannedTensor { name, dtype, dims }, Content::Bytes(bytes)));
            }
            if let Some(cold) = &l.cold {
                let (name, quantiles) = (format!("blk.{layer}.ffn_cold_fired"), cold.fired.concat());
                let dims = vec![quantiles.len() / cold.n_hot.len(), cold.n_hot.len()];
                out.push((PlannedTensor { name, dtype: GgmlType::F32, dims }, Content::Bytes(floats(&quantiles))));
            }
        }
        Some((layer, "ffn_gate.weight" | "ffn_up.weight")) => {
            let dtype = plan.matrix_type(&tensor.name, tensor.dtype, tensor.n_cols());
            out.push((matrix(dtype), Content::Rows(tensor, Some(layer))));
        }
        _ => {
            let dtype = match tensor.dims.len() {
                1 => tensor.dtype,
                _ => plan.matrix_type(&tensor.name, tensor.dtype, tensor.n_cols()),
            };
            out.push((matrix(dtype), Content::Rows(tensor, None)));
        }
    }
}

/// The source's metadata byte for byte, but for what no longer holds, then our own keys.
fn metadata(model: &Model, plan: &Plan, predictor: Option<&Gguf>) -> MetadataBuilder {
    let source = model.gguf.metadata();
    let mut out = MetadataBuilder::default();
    let ours = |key: &str| key.starts_with("powerinfer.") && !key.starts_with(SYNTHETIC_KEY);
    let replaced = |key: &str| ours(key) || (plan.recipe.is_some() && key == "general.file_type");
    for entry in source.entries().iter().filter(|e| !replaced(&e.key)) {
        out.add_raw(&entry.key, entry.value_type, source.raw_value(entry));
    }
    if let Some(file_type) = plan.recipe.and_then(|recipe| recipe.file_type()) {
        out.add("general.file_type", &Value::U32(file_type));
    }
    let lossless = plan.down.iter().any(|down| matches!(down, DownPlan::Lossless(_)));
    let version = if lossless { VERSION_LOSSLESS } else { VERSION };
    out.add("powerinfer.version", &Value::U32(version));
    out.add("powerinfer.activation", &Value::Str(model.config.activation.activation.to_string()));
    out.add("powerinfer.source_fingerprint", &Value::Str(plan.fingerprint.clone()));
    out.add("powerinfer.profile_sha256", &Value::Str(plan.profile_sha256.clone()));
    out.add("powerinfer.profile_tokens", &Value::U64(plan.profile_tokens));
    let n_hot = plan.layers.iter().map(|l| l.n_hot as u32).collect();
    out.add("powerinfer.n_hot", &Value::ArrayU32(n_hot));
    if let Some(predictor) = predictor {
        pack::add_keys(predictor, &mut out);
    }
    out
}

/// Appends the rows of `source`, in this order where there is one, as `dtype`; rows that have it already are copied.
pub(super) fn write_rows(
    gguf: &Gguf,
    source: &TensorInfo,
    order: Option<&[usize]>,
    dtype: GgmlType,
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
    let per_buffer = (BUFFER_BYTES / row_bytes).max(1);
    let mut buffer = vec![0; per_buffer.min(n_rows) * row_bytes];
    for first in (0..n_rows).step_by(per_buffer) {
        progress::check(progress)?;
        let n = per_buffer.min(n_rows - first);
        let buffer = &mut buffer[..n * row_bytes];
        buffer.par_chunks_mut(row_bytes).enumerate().for_each_init(
            || vec![0.0; n_cols],
            |values, (i, out)| {
                let row = order.map_or(first + i, |o| o[first + i]);
                let row = &data[row * source_bytes..][..source_bytes];
                match converters {
                    None => out.copy_from_slice(row),
                    Some((dequantize, quantize)) => {
                        dequantize(row, values);
                        quantize(values, out);
                    }
                }
            },
        );
        writer.append(buffer)?;
        progress.advance(buffer.len() as u64);
    }
    Ok(())
}

/// Transposes first, then quantizes: blocks must run along a neuron's own vector.
fn write_transposed(
    gguf: &Gguf,
    source: &TensorInfo,
    order: &[NeuronId],
    dtype: GgmlType,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    let (n_embd, n_ff) = (source.n_rows(), source.n_cols());
    let data = gguf.data(source);
    let source_bytes = data.len() / n_embd;
    let row_bytes = dtype.row_bytes(n_embd).context("rows are not whole blocks")?;
    let (dequantize, quantize) = (convert::dequantizer(source.dtype)?, convert::quantizer(dtype)?);
    let per_buffer = (TRANSPOSE_BYTES / (4 * n_embd)).max(1);
    let mut row = vec![0.0; n_ff];
    let mut neurons = vec![0.0; per_buffer.min(n_ff) * n_embd];
    let mut bytes = vec![0; per_buffer.min(n_ff) * row_bytes];
    for ids in order.chunks(per_buffer) {
        for (r, source_row) in data.chunks_exact(source_bytes).enumerate() {
            progress::check(progress)?;
            dequantize(source_row, &mut row);
            for (neuron, id) in neurons.chunks_exact_mut(n_embd).zip(ids) {
                neuron[r] = row[id.0 as usize];
            }
        }
        let bytes = &mut bytes[..ids.len() * row_bytes];
        let pairs = bytes.par_chunks_mut(row_bytes).zip(neurons.par_chunks(n_embd));
        pairs.for_each(|(out, neuron)| quantize(neuron, out));
        writer.append(bytes)?;
        progress.advance(bytes.len() as u64);
    }
    Ok(())
}

fn write_quants(
    gguf: &Gguf,
    source: &TensorInfo,
    order: &[NeuronId],
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    let blocks = Blocks::new(gguf.data(source), source);
    let n_embd = source.n_rows();
    for ids in order.chunks((BUFFER_BYTES / n_embd).max(1)) {
        progress::check(progress)?;
        let bytes = blocks.quants(ids, n_embd);
        writer.append(&bytes)?;
        progress.advance(bytes.len() as u64);
    }
    Ok(())
}

fn write_scales(gguf: &Gguf, source: &TensorInfo, writer: &mut Writer, progress: &dyn Progress) -> Result<()> {
    let blocks = Blocks::new(gguf.data(source), source);
    for block in 0..source.n_cols() / QK {
        progress::check(progress)?;
        let bytes = blocks.scales(block, source.n_rows());
        writer.append(&bytes)?;
        progress.advance(bytes.len() as u64);
    }
    Ok(())
}
