//! Writes a variant as a stream: some 70 MiB of memory at most, whatever the size of the model.

use super::carried;
use super::draft::{DownLayout, Draft};
use super::lossless::QuantizedDown;
use super::pack;
use super::recipe::is_whole_matrix;
use super::rows::{BUFFER_BYTES, write_rows};
use crate::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{ColdQuantiles, Down, Model, NeuronId, Role, SYNTHETIC_KEY, THRESHOLD, THRESHOLDS_KEY, Tensor};
use crate::parallel;
use crate::progress::{self, Progress};
use crate::quant::blocks::QK;
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result};
use std::path::Path;

/// Bytes of transposed floats that are held at a time. The source's matrix is read once for each such buffer, so it is
/// larger: a 7B model's layer takes three.
const TRANSPOSE_BYTES: usize = 64 << 20;
/// Version of the layout in docs/formats.md.
pub(crate) const VERSION: u32 = 1;
/// The same where `ffn_down` is lossless: what knows the first only refuses it.
const VERSION_LOSSLESS: u32 = 2;
/// The same where a layer has several groups of neurons.
pub(crate) const VERSION_GROUPS: u32 = 3;

/// In names of tensors of PowerInfer's files.
const BY_NEURONS: &str = ".ffn_down_t";

enum Content<'a> {
    /// Rows in the source's order, or in that of the neurons of these groups, one group behind the other.
    Rows(&'a TensorInfo, Vec<usize>),
    /// A value per neuron of these groups.
    Values(&'a TensorInfo, Vec<usize>),
    /// `ffn_down` of these groups, each transposed.
    Transposed(&'a TensorInfo, Vec<usize>, GgmlType),
    /// The quants of `ffn_down` of this group, transposed.
    Quants(&'a TensorInfo, usize),
    /// The scales of this `ffn_down`, as the source has them, transposed.
    Scales(&'a TensorInfo),
    /// A part of this group's predictor; its rows are neurons, or not.
    Predictor(&'a Gguf, &'a TensorInfo, Option<usize>),
    Bytes(Vec<u8>),
}

/// Writes the variant of `model` that `draft` describes to `path`, whole or not at all, with the predictor of the file
/// `predictor` packed in.
///
/// # Errors
/// When it cannot be written, or the user stops it; no file is left then.
pub fn write(
    model: &Model,
    draft: &Draft,
    predictor: Option<&Gguf>,
    path: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let gguf = &model.gguf;
    let mut tensors = Vec::new();
    for tensor in gguf.tensors().iter().filter(|tensor| !carried::is_predictor(model, tensor)) {
        plan_tensor(model, draft, tensor, &mut tensors)?;
    }
    if predictor.is_none() {
        for part in carried::parts(model) {
            let content = match part.content {
                carried::Content::Matrix(tensor, by_neuron) => {
                    Content::Rows(tensor, if by_neuron { vec![part.group] } else { Vec::new() })
                }
                carried::Content::Floats(values) => Content::Bytes(bytes_of(values)),
            };
            tensors.push((part.planned, content));
        }
    }
    if let Some(predictor) = predictor {
        pack::check_layers(model, predictor)?;
        for (layer, weights) in model.weights.layers.iter().enumerate() {
            for (tensor, by_neuron) in pack::tensors(predictor, layer) {
                let content = Content::Predictor(predictor, tensor, by_neuron.then_some(weights.first_group));
                tensors.push((pack::planned(tensor), content));
            }
        }
    }
    let planned: Vec<_> = tensors.iter().map(|(t, _)| t.clone()).collect();
    let total = planned.iter().map(PlannedTensor::n_bytes).sum::<Result<usize>>()?;
    progress.begin("writing", total as u64);
    let mut writer = Writer::create(path, &metadata(model, draft, predictor), &planned, gguf.alignment(), progress)?;
    for (target, content) in &tensors {
        match content {
            Content::Rows(source, groups) => {
                let order = (!groups.is_empty()).then(|| order_of(draft, groups));
                write_rows(gguf, source, order.as_deref(), target.dtype, &mut writer, progress)?;
            }
            Content::Values(source, groups) => {
                let bytes = source.dtype.block_bytes();
                let value = |at: usize| gguf.data(source)[at * bytes..][..bytes].iter().copied();
                writer.append(&order_of(draft, groups).into_iter().flat_map(value).collect::<Vec<u8>>())?;
            }
            Content::Transposed(source, groups, dtype) => {
                for (i, group) in groups.iter().enumerate() {
                    let part = part_of(source, i, groups.len());
                    write_transposed(gguf, &part, &draft.groups[*group].order, *dtype, &mut writer, progress)?;
                }
            }
            Content::Quants(source, group) => {
                write_quants(gguf, source, &draft.groups[*group].order, &mut writer, progress)?;
            }
            Content::Scales(source) => write_scales(gguf, source, &mut writer, progress)?,
            Content::Predictor(predictor, tensor, layer) => {
                let order = layer.map(|group| &*draft.groups[group].order);
                pack::write_part(predictor, tensor, order, &mut writer, progress)?;
            }
            Content::Bytes(bytes) => writer.append(bytes)?,
        }
    }
    progress::check(progress)?;
    writer.finish()
}

/// Rows of the neurons of `groups`, which lie one behind the other, in their new order.
fn order_of(draft: &Draft, groups: &[usize]) -> Vec<usize> {
    let mut out = Vec::new();
    for group in groups {
        let first = out.len();
        out.extend(draft.groups[*group].order.iter().map(|id| first + id.0 as usize));
    }
    out
}

/// Number `i` of `n` equal parts of a tensor along its outermost dimension.
fn part_of(tensor: &TensorInfo, i: usize, n: usize) -> TensorInfo {
    let bytes = tensor.data.len() / n;
    let start = tensor.data.start + i * bytes;
    TensorInfo { dims: tensor.dims.iter().take(2).copied().collect(), data: start..start + bytes, ..tensor.clone() }
}

/// What a tensor of the source is to neurons: the groups that it holds a part of, by number, which part that is, and
/// whether it is the bias.
fn held<'m>(model: &'m Model, tensor: &str) -> Option<(Vec<usize>, Role, bool)> {
    let mut found: Option<(Vec<usize>, Role, bool)> = None;
    for (number, (_, group)) in model.weights.groups().enumerate() {
        for part in group.parts() {
            let name: &'m str = match &part.tensor {
                Tensor::Matrix(matrix) | Tensor::Down(Down::Columns(matrix) | Down::Rows(matrix)) => matrix.name(),
                Tensor::Down(Down::Lossless(_)) | Tensor::Vector(_) => continue,
            };
            let is_bias = tensor.strip_suffix(".bias").is_some_and(|stem| name.strip_suffix(".weight") == Some(stem));
            if name == tensor || is_bias {
                found.get_or_insert_with(|| (Vec::new(), part.role, is_bias)).0.push(number);
            }
        }
    }
    found
}

fn plan_tensor<'a>(
    model: &Model,
    draft: &Draft,
    tensor: &'a TensorInfo,
    out: &mut Vec<(PlannedTensor, Content<'a>)>,
) -> Result<()> {
    let (name, dims) = (tensor.name.clone(), tensor.dims.clone());
    let matrix = |dtype| PlannedTensor { name: name.clone(), dtype, dims: dims.clone() };
    match held(model, &tensor.name) {
        Some((groups, Role::FfnDown, false)) => plan_down(draft, tensor, groups, out)?,
        Some((groups, Role::FfnGate | Role::FfnUp, false)) => {
            let dtype = draft.matrix_type(&tensor.name, tensor.dtype, tensor.n_cols());
            out.push((matrix(dtype), Content::Rows(tensor, groups)));
        }
        Some((groups, Role::FfnGate | Role::FfnUp, true)) => {
            out.push((matrix(tensor.dtype), Content::Values(tensor, groups)));
        }
        // One value per output.
        Some((_, Role::FfnDown, true)) => {
            let name = name.replace(BY_NEURONS, ".ffn_down");
            out.push((PlannedTensor { name, ..matrix(tensor.dtype) }, Content::Rows(tensor, Vec::new())));
        }
        // What is no group's is not per neuron.
        Some((
            _,
            Role::TokenEmbd
            | Role::OutputNorm
            | Role::PositionEmbd
            | Role::Output
            | Role::RopeFreqs
            | Role::RopeFactorsLong
            | Role::RopeFactorsShort
            | Role::AttnNorm
            | Role::AttnNorm2
            | Role::PostAttnNorm
            | Role::FfnNorm
            | Role::PostFfnNorm
            | Role::AttnQ
            | Role::AttnK
            | Role::AttnV
            | Role::AttnQNorm
            | Role::AttnKNorm
            | Role::AttnKvA
            | Role::AttnKvANorm
            | Role::AttnKvB
            | Role::AttnOutput
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
            | Role::Router,
            _,
        ))
        | None => {
            let dtype = match is_whole_matrix(tensor) {
                true => draft.matrix_type(&tensor.name, tensor.dtype, tensor.n_cols()),
                false => tensor.dtype,
            };
            out.push((matrix(dtype), Content::Rows(tensor, Vec::new())));
        }
    }
    Ok(())
}

/// `ffn_down` of `groups` becomes its transpose and the index of the neurons. Where there are several groups, their
/// tensors lie one behind the other in a further dimension.
fn plan_down<'a>(
    draft: &Draft,
    tensor: &'a TensorInfo,
    groups: Vec<usize>,
    out: &mut Vec<(PlannedTensor, Content<'a>)>,
) -> Result<()> {
    let stem = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
    // PowerInfer's files have it by neurons already.
    let by_neurons = stem.split_once(BY_NEURONS);
    let (layer, suffix) = by_neurons.or_else(|| stem.split_once(".ffn_down")).context("ffn_down has another name")?;
    let rows = tensor.n_rows() / groups.len();
    let (n_ff, n_embd) = if by_neurons.is_some() { (rows, tensor.n_cols()) } else { (tensor.n_cols(), rows) };
    let several = if groups.len() > 1 { vec![groups.len()] } else { Vec::new() };
    let mut push = |name: &str, end: &str, dtype, dims: &[usize], content| {
        let name = format!("{layer}.{name}{suffix}{end}");
        out.push((PlannedTensor { name, dtype, dims: [dims, &several].concat() }, content));
    };
    match draft.down[groups[0]] {
        DownLayout::Rows(dtype) => {
            let content = match by_neurons {
                Some(_) => Content::Rows(tensor, groups.clone()),
                None => Content::Transposed(tensor, groups.clone(), dtype),
            };
            push("ffn_down_t", ".weight", dtype, &[n_embd, n_ff], content);
        }
        DownLayout::Lossless(_) => {
            let bytes = QuantizedDown::new(&[], tensor).neuron_bytes(n_embd);
            push("ffn_down_t_q", "", GgmlType::I8, &[bytes, n_ff], Content::Quants(tensor, groups[0]));
            push("ffn_down_scale", "", GgmlType::F16, &[n_embd, n_ff / QK], Content::Scales(tensor));
        }
    }
    let all = || groups.iter().map(|group| &draft.groups[*group]);
    let ids = all().flat_map(|g| g.order.iter().flat_map(|id| (id.0 as i32).to_le_bytes())).collect();
    push("ffn_neuron_id", "", GgmlType::I32, &[n_ff], Content::Bytes(ids));
    let rates = all().flat_map(|g| bytes_of(&g.rates)).collect();
    push("ffn_neuron_rate", "", GgmlType::F32, &[n_ff], Content::Bytes(rates));
    let mass = all().flat_map(|g| bytes_of(&g.mass)).collect();
    push("ffn_neuron_mass", "", GgmlType::F32, &[n_ff], Content::Bytes(mass));
    let open: Option<Vec<&Vec<f32>>> = all().map(|g| g.open_rates.as_ref()).collect();
    if let Some(open) = open {
        let bytes = open.iter().flat_map(|rates| bytes_of(rates)).collect();
        push("ffn_neuron_open_rate", "", GgmlType::F32, &[n_ff], Content::Bytes(bytes));
    }
    let cold: Option<Vec<&ColdQuantiles>> = all().map(|g| g.cold.as_ref()).collect();
    if let Some(cold) = cold
        && let Some(first) = cold.first()
    {
        let (n_points, n_quantiles) = (first.n_hot.len(), first.fired.first().map_or(0, Vec::len));
        let bytes = cold.iter().flat_map(|cold| bytes_of(&cold.fired.concat())).collect();
        push("ffn_cold_fired", "", GgmlType::F32, &[n_quantiles, n_points], Content::Bytes(bytes));
    }
    Ok(())
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The source's metadata byte for byte, but for what no longer holds, then our own keys.
fn metadata(model: &Model, draft: &Draft, predictor: Option<&Gguf>) -> MetadataBuilder {
    let source = model.gguf.metadata();
    let mut out = MetadataBuilder::default();
    let ours = |key: &str| key.starts_with("powerinfer.") && !key.starts_with(SYNTHETIC_KEY);
    let replaced = |key: &str| ours(key) || (draft.recipe.is_some() && key == "general.file_type");
    for entry in source.copied().filter(|e| !replaced(&e.key)) {
        out.add_raw(&entry.key, entry.value_type, source.raw_value(entry));
    }
    if let Some(file_type) = draft.recipe.and_then(|recipe| recipe.file_type()) {
        out.add("general.file_type", &Value::U32(file_type));
    }
    let lossless = draft.down.iter().any(|down| matches!(down, DownLayout::Lossless(_)));
    let several = model.weights.layers.iter().any(|layer| layer.groups.len() != 1);
    let version = match lossless {
        _ if several => VERSION_GROUPS,
        true => VERSION_LOSSLESS,
        false => VERSION,
    };
    out.add("powerinfer.version", &Value::U32(version));
    let activation = model.config.activation.activation;
    out.add("powerinfer.activation", &Value::Str(activation.name().to_owned()));
    if let Some(threshold) = activation.threshold() {
        out.add(THRESHOLD, &Value::F32(threshold.get()));
    }
    out.add("powerinfer.source_fingerprint", &Value::Str(draft.fingerprint.clone()));
    if let Some((sha256, n_tokens)) = &draft.profile {
        out.add("powerinfer.profile_sha256", &Value::Str(sha256.clone()));
        out.add("powerinfer.profile_tokens", &Value::U64(*n_tokens));
    }
    let n_hot = draft.groups.iter().map(|g| g.n_hot as u32).collect();
    out.add("powerinfer.n_hot", &Value::ArrayU32(n_hot));
    if let Some(thresholds) = &draft.thresholds {
        out.add(THRESHOLDS_KEY, &Value::ArrayF32(thresholds.by_group().to_vec()));
    }
    match predictor {
        Some(predictor) => pack::add_keys(predictor, &mut out),
        None => carried::add_keys(model, &mut out),
    }
    out
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
        let pairs = bytes.chunks_mut(row_bytes).zip(neurons.chunks(n_embd));
        parallel::each(pairs, |_, (out, neuron)| quantize(neuron, out));
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
    let blocks = QuantizedDown::new(gguf.data(source), source);
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
    let blocks = QuantizedDown::new(gguf.data(source), source);
    for block in 0..source.n_cols() / QK {
        progress::check(progress)?;
        let bytes = blocks.scales(block, source.n_rows());
        writer.append(&bytes)?;
        progress.advance(bytes.len() as u64);
    }
    Ok(())
}
