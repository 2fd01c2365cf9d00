//! Predictors on their way into a variant: their rows come by neuron and leave by slot.

use super::rows::write_rows;
use crate::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{Model, NeuronId};
use crate::progress::{self, Progress};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// Keys of predictors in their own files and in variants.
const KEYS: &str = "powerinfer.predictor.";

/// Those by which a predictor's file is matched with a model.
const OF_SOURCE: [&str; 2] = ["source_family", "source_samples"];

/// What a layer's predictor consists of, and whether its rows are neurons.
const PARTS: [(&str, bool); 5] =
    [("sign", true), ("in.weight", false), ("in.bias", false), ("out.weight", true), ("bias", true)];

/// The tensors of one layer's predictor in its file.
pub(super) fn tensors(predictor: &Gguf, layer: usize) -> impl Iterator<Item = (&TensorInfo, bool)> {
    PARTS.iter().filter_map(move |(part, by_neuron)| {
        Some((predictor.tensor(&format!("blk.{layer}.ffn_pred_{part}"))?, *by_neuron))
    })
}

/// The same as they will be written.
pub(super) fn planned(tensor: &TensorInfo) -> PlannedTensor {
    PlannedTensor { name: tensor.name.clone(), dtype: tensor.dtype, dims: tensor.dims.clone() }
}

/// Appends a predictor's tensor, its rows in `order` where they are neurons.
pub(super) fn write_part(
    predictor: &Gguf,
    tensor: &TensorInfo,
    order: Option<&[NeuronId]>,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(order) = order else {
        return write_rows(predictor, tensor, None, tensor.dtype, writer, progress);
    };
    let data = predictor.data(tensor);
    ensure!(data.len().is_multiple_of(order.len()), "{}: not a row per neuron", tensor.name);
    let row_bytes = data.len() / order.len();
    for ids in order.chunks(4096) {
        progress::check(progress)?;
        let row = |id: &NeuronId| data.get(id.0 as usize * row_bytes..)?.get(..row_bytes);
        let rows: Option<Vec<&[u8]>> = ids.iter().map(row).collect();
        let rows = rows.with_context(|| format!("{}: has fewer rows than neurons", tensor.name))?;
        writer.append(&rows.concat())?;
        progress.advance((ids.len() * row_bytes) as u64);
    }
    Ok(())
}

/// Copies what the predictor's file says of it, but for what only tells whose it is.
/// Its arrays have a value for each layer, those of a variant one for each group of neurons.
///
/// # Errors
/// When an array is not what it has to be.
pub(super) fn add_keys(predictor: &Gguf, model: &Model, out: &mut MetadataBuilder) -> Result<()> {
    let metadata = predictor.metadata();
    let layers = &model.weights.layers;
    let one_each = layers.iter().all(|layer| layer.groups.len() == 1);
    let kept = |key: &str| key.strip_prefix(KEYS).is_some_and(|key| !OF_SOURCE.contains(&key));
    for entry in metadata.copied().filter(|e| kept(&e.key)) {
        let array = if one_each || !metadata.is_array(&entry.key) { None } else { metadata.array(&entry.key)? };
        let Some(array) = array else {
            out.add_raw(&entry.key, entry.value_type, metadata.raw_value(entry));
            continue;
        };
        // Of layers with several groups, or none, the file says nothing that holds for one of them.
        let groups = || model.weights.groups().map(|(layer, _)| (layer, layers[layer].groups.len() == 1));
        let value = if entry.key.ends_with(".kinds") {
            let kinds = array.strings().with_context(|| entry.key.clone())?;
            ensure!(kinds.len() == layers.len(), "{}: {} values for {} layers", entry.key, kinds.len(), layers.len());
            let of = |(layer, alone): (usize, bool)| if alone { kinds[layer].to_vec() } else { b"none".to_vec() };
            Value::ArrayStr(groups().map(of).collect())
        } else {
            let values = array.floats().with_context(|| entry.key.clone())?;
            ensure!(values.len() == layers.len(), "{}: {} values for {} layers", entry.key, values.len(), layers.len());
            let computed = if entry.key.ends_with(".fired") { 0.0 } else { 1.0 };
            Value::ArrayF32(groups().map(|(layer, alone)| if alone { values[layer] } else { computed }).collect())
        };
        out.add(&entry.key, &value);
    }
    Ok(())
}

/// Predictors are of layers with one group of neurons.
///
/// # Errors
/// Names the first layer that has a predictor and another number of groups.
pub(super) fn check_layers(model: &Model, predictor: &Gguf) -> Result<()> {
    for (i, layer) in model.weights.layers.iter().enumerate() {
        let n_groups = layer.groups.len();
        if n_groups != 1 && tensors(predictor, i).next().is_some() {
            let file = predictor.source().name();
            bail!("{file}: layer {i} of the model has {n_groups} groups of neurons; predictors are for one");
        }
    }
    Ok(())
}

/// Writes the variant `model` again, whole or not at all, with `predictor` packed in; one that it has is replaced.
///
/// # Errors
/// When the model is no variant, the file cannot be written, or the user stops it; no file is left then.
pub fn pack(model: &Model, predictor: &Gguf, path: &Path, progress: &dyn Progress) -> Result<()> {
    let gguf = &model.gguf;
    if !model.is_variant() {
        bail!("{}: is no variant; give --profile to make one with a predictor", gguf.source().name());
    }
    check_layers(model, predictor)?;
    let mut metadata = MetadataBuilder::default();
    for entry in gguf.metadata().copied().filter(|e| !e.key.starts_with(KEYS)) {
        metadata.add_raw(&entry.key, entry.value_type, gguf.metadata().raw_value(entry));
    }
    add_keys(predictor, model, &mut metadata)?;
    let kept: Vec<&TensorInfo> = gguf.tensors().iter().filter(|t| !t.name.contains(".ffn_pred_")).collect();
    let parts = || {
        let layers = model.weights.layers.iter().enumerate();
        layers.flat_map(|(i, layer)| tensors(predictor, i).map(move |(tensor, by_neuron)| (tensor, by_neuron, layer)))
    };
    let all: Vec<PlannedTensor> = kept.iter().copied().chain(parts().map(|(t, ..)| t)).map(planned).collect();
    progress.begin("writing", all.iter().map(PlannedTensor::n_bytes).sum::<Result<usize>>()? as u64);
    let mut writer = Writer::create(path, &metadata, &all, gguf.alignment(), progress)?;
    for tensor in kept {
        for piece in gguf.data(tensor).chunks(8 << 20) {
            progress::check(progress)?;
            writer.append(piece)?;
            progress.advance(piece.len() as u64);
        }
    }
    for (tensor, by_neuron, layer) in parts() {
        let index = layer.groups.first().and_then(|group| group.index.as_ref());
        let order = index.filter(|_| by_neuron).map(|index| index.ids());
        write_part(predictor, tensor, order, &mut writer, progress)?;
    }
    progress::check(progress)?;
    writer.finish()
}
