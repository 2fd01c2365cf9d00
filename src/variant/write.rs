//! Writes a variant as a stream: some 70 MiB of memory at most, whatever the size of the model.

use super::carried;
use super::counted::GroupDraft;
use super::draft::{DownLayout, Draft};
use super::lossless::QuantizedDown;
use super::pack;
use super::recipe::is_whole_matrix;
use super::rows::{BUFFER_BYTES, write_rows};
use super::transpose;
use crate::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{
    CHOSEN_KEY, CONSECUTIVE_KEY, ColdQuantiles, Down, Model, NeuronId, PROFILE_KEY, Role, SYNTHETIC_KEY, THRESHOLD,
    THRESHOLDS_KEY, Tensor,
};
use crate::profile::experts::Hits;
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use crate::quant::blocks::QK;
use anyhow::{Context, Result};
use std::collections::HashMap;
use std::path::Path;

/// Version of the layout in docs/formats.md.
pub(crate) const VERSION: u32 = 1;
/// The same where `ffn_down` is lossless: what knows the first only refuses it.
const VERSION_LOSSLESS: u32 = 2;
/// The same where a layer has several groups of neurons.
pub(crate) const VERSION_GROUPS: u32 = 3;

/// A share of all choices of experts, for sets of several sizes: its name in keys, and what it is.
type Share = (&'static str, fn(&(usize, Hits)) -> f32);

/// What is written of a profile's choices.
const HITS: [Share; 5] = [
    ("sets", |(one_in, _)| 1.0 / *one_in as f32),
    ("fixed_hits", |(_, hits)| hits.fixed as f32),
    ("held_out_hits", |(_, hits)| hits.held_out.unwrap_or(hits.fixed) as f32),
    ("cache_hits", |(_, hits)| hits.cache as f32),
    ("cache_hits_at_most", |(_, hits)| hits.cache_at_most as f32),
];

/// In names of tensors of PowerInfer's files.
const BY_NEURONS: &str = ".ffn_down_t";

enum Content<'a> {
    /// Rows in the source's order, or in that of the neurons of these groups, one group behind the other.
    Rows(&'a TensorInfo, Vec<usize>),
    /// A value per neuron of these groups.
    Values(&'a TensorInfo, Vec<usize>),
    /// What the draft says of these groups, one behind the other.
    Drafted(Vec<usize>, fn(&GroupDraft, &mut Vec<u8>)),
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
    let held = Held::of(model);
    for tensor in gguf.tensors().iter().filter(|tensor| !carried::is_predictor(model, tensor)) {
        plan_tensor(&held, draft, tensor, &mut tensors)?;
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
    let mut writer = Writer::create(path, &metadata(model, draft, predictor)?, &planned, gguf.alignment(), progress)?;
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
            Content::Drafted(groups, of) => {
                let mut bytes = Vec::new();
                groups.iter().for_each(|group| of(&draft.groups[*group], &mut bytes));
                writer.append(&bytes)?;
                progress.advance(bytes.len() as u64);
            }
            Content::Transposed(source, groups, dtype) => {
                let parts = groups.iter().enumerate().map(|(i, group)| {
                    let part = part_of(source, i, groups.len());
                    (part, &*draft.groups[*group].order)
                });
                transpose::write(gguf, &parts.collect::<Vec<_>>(), *dtype, &mut writer, progress)?;
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

/// What tensors of the source are to neurons, by name: the groups that they hold a part of, by number, which part that is,
/// and whether it is `down` with a row for each neuron. Of the weights; biases lie beside them.
struct Held<'m>(HashMap<&'m str, (Vec<usize>, Role, bool)>);

impl<'m> Held<'m> {
    fn of(model: &'m Model) -> Self {
        let mut found: HashMap<&str, (Vec<usize>, Role, bool)> = HashMap::new();
        for (number, (_, group)) in model.weights.groups().enumerate() {
            for part in group.parts() {
                let name: &'m str = match &part.tensor {
                    Tensor::Matrix(matrix) | Tensor::Down(Down::Columns(matrix) | Down::Rows(matrix)) => matrix.name(),
                    Tensor::Down(Down::Lossless(_)) | Tensor::Vector(_) => continue,
                };
                let by_neurons = matches!(part.tensor, Tensor::Down(Down::Rows(_)));
                found.entry(name).or_insert_with(|| (Vec::new(), part.role, by_neurons)).0.push(number);
            }
        }
        Self(found)
    }

    /// The groups of a tensor, which part of them it is, and whether it is a bias.
    fn find(&self, tensor: &str) -> Option<(Vec<usize>, Role, bool)> {
        let weight = tensor.strip_suffix(".bias").map(|stem| format!("{stem}.weight"));
        let (groups, role, _) = self.0.get(weight.as_deref().unwrap_or(tensor))?;
        Some((groups.clone(), *role, weight.is_some()))
    }

    fn is_by_neurons(&self, tensor: &str) -> bool {
        self.0.get(tensor).is_some_and(|(_, _, by_neurons)| *by_neurons)
    }
}

fn plan_tensor<'a>(
    held: &Held,
    draft: &Draft,
    tensor: &'a TensorInfo,
    out: &mut Vec<(PlannedTensor, Content<'a>)>,
) -> Result<()> {
    let (name, dims) = (tensor.name.clone(), tensor.dims.clone());
    let matrix = |dtype| PlannedTensor { name: name.clone(), dtype, dims: dims.clone() };
    match held.find(&tensor.name) {
        Some((groups, Role::FfnDown, false)) => {
            plan_down(draft, tensor, groups, held.is_by_neurons(&tensor.name), out)?;
        }
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
    by_neurons: bool,
    out: &mut Vec<(PlannedTensor, Content<'a>)>,
) -> Result<()> {
    let stem = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
    let (layer, suffix) =
        stem.split_once(BY_NEURONS).or_else(|| stem.split_once(".ffn_down")).context("ffn_down has another name")?;
    let rows = tensor.n_rows() / groups.len();
    let (n_ff, n_embd) = if by_neurons { (rows, tensor.n_cols()) } else { (tensor.n_cols(), rows) };
    let several = if groups.len() > 1 { vec![groups.len()] } else { Vec::new() };
    let mut push = |name: &str, end: &str, dtype, dims: &[usize], content| {
        let name = format!("{layer}.{name}{suffix}{end}");
        out.push((PlannedTensor { name, dtype, dims: [dims, &several].concat() }, content));
    };
    match draft.down[groups[0]] {
        DownLayout::Rows(dtype) => {
            // Files of PowerInfer's and of SmallThinker's makers have it by neurons already.
            let content = match by_neurons {
                true => Content::Rows(tensor, groups.clone()),
                false => Content::Transposed(tensor, groups.clone(), dtype),
            };
            push("ffn_down_t", ".weight", dtype, &[n_embd, n_ff], content);
        }
        DownLayout::Lossless(_) => {
            let bytes = QuantizedDown::new(&[], tensor).neuron_bytes(n_embd);
            push("ffn_down_t_q", "", GgmlType::I8, &[bytes, n_ff], Content::Quants(tensor, groups[0]));
            push("ffn_down_scale", "", GgmlType::F16, &[n_embd, n_ff / QK], Content::Scales(tensor));
        }
    }
    let drafted = |of| Content::Drafted(groups.clone(), of);
    let put_ids =
        |g: &GroupDraft, out: &mut Vec<u8>| out.extend(g.order.iter().flat_map(|id| (id.0 as i32).to_le_bytes()));
    push("ffn_neuron_id", "", GgmlType::I32, &[n_ff], drafted(put_ids));
    push("ffn_neuron_rate", "", GgmlType::F32, &[n_ff], drafted(|g, out| put(&g.rates, out)));
    push("ffn_neuron_mass", "", GgmlType::F32, &[n_ff], drafted(|g, out| put(&g.mass, out)));
    let all = || groups.iter().map(|group| &draft.groups[*group]);
    if all().all(|g| g.open_rates.is_some()) {
        let put_open = |g: &GroupDraft, out: &mut Vec<u8>| g.open_rates.iter().for_each(|open| put(open, out));
        push("ffn_neuron_open_rate", "", GgmlType::F32, &[n_ff], drafted(put_open));
    }
    let cold: Option<Vec<&ColdQuantiles>> = all().map(|g| g.cold.as_ref()).collect();
    if let Some(first) = cold.as_ref().and_then(|cold| cold.first()) {
        let (n_points, n_quantiles) = (first.n_hot.len(), first.fired.first().map_or(0, Vec::len));
        let put_cold = |g: &GroupDraft, out: &mut Vec<u8>| {
            g.cold.iter().flat_map(|cold| &cold.fired).for_each(|fired| put(fired, out));
        };
        push("ffn_cold_fired", "", GgmlType::F32, &[n_quantiles, n_points], drafted(put_cold));
    }
    Ok(())
}

fn put(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The source's metadata byte for byte, but for what no longer holds, then our own keys.
fn metadata(model: &Model, draft: &Draft, predictor: Option<&Gguf>) -> Result<MetadataBuilder> {
    let source = model.gguf.metadata();
    let mut out = MetadataBuilder::default();
    let ours = |key: &str| key.starts_with("powerinfer.") && !key.starts_with(SYNTHETIC_KEY);
    let replaced = |key: &str| ours(key) || (draft.recipe.is_some() && key == "general.file_type");
    for entry in source.copied().filter(|e| !replaced(&e.key)) {
        out.add_raw(&entry.key, entry.value_type, source.raw_value(entry));
    }
    if let Some(file_type) = draft.file_type(model) {
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
        out.add(PROFILE_KEY, &Value::Str(sha256.clone()));
        out.add("powerinfer.profile_tokens", &Value::U64(*n_tokens));
    }
    let n_hot = draft.groups.iter().map(|g| g.n_hot as u32).collect();
    out.add("powerinfer.n_hot", &Value::ArrayU32(n_hot));
    if draft.groups.iter().any(|g| g.chosen.is_some()) {
        let chosen = draft.groups.iter().map(|g| g.chosen.unwrap_or(1.0)).collect();
        out.add(CHOSEN_KEY, &Value::ArrayF32(chosen));
    }
    let consecutive: Option<Vec<_>> = draft.groups.iter().map(|g| g.consecutive).collect();
    if let Some(consecutive) = consecutive.filter(|all| !all.is_empty()) {
        out.add(CONSECUTIVE_KEY, &Value::ArrayF32(consecutive.into_flattened()));
    }
    for (name, of) in HITS {
        if !draft.hits.is_empty() {
            out.add(&format!("powerinfer.experts.{name}"), &Value::ArrayF32(draft.hits.iter().map(of).collect()));
        }
    }
    if let Some(thresholds) = &draft.thresholds {
        out.add(THRESHOLDS_KEY, &Value::ArrayF32(thresholds.by_group().to_vec()));
    }
    match predictor {
        Some(predictor) => pack::add_keys(predictor, model, &mut out)?,
        None => carried::add_keys(model, &mut out),
    }
    Ok(out)
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
