//! PowerInfer's own files: GGUF with the magic `PWRI`, `ffn_down` by neurons, and a predictor of two matrices per layer.

use super::activation::Activation;
use super::resolved::ResolvedActivation;
use crate::gguf::value::ValueType;
use crate::gguf::{Gguf, Metadata};
use anyhow::{Context, Result, ensure};

/// The score from which on a neuron counts as active.
const THRESHOLD: &str = "powerinfer.sparse_threshold";

/// Architecture of the file beside a model that lists the neurons for a card.
pub(crate) const INDEX_ARCHITECTURE: &str = "generic.gpu_index";

/// Names of a layer's predictor: `[n_hidden][n_embd]`, and `[n_ff][n_hidden]` by neuron.
pub(super) fn predictor_names(layer: usize) -> [String; 2] {
    ["fc1", "fc2"].map(|matrix| format!("blk.{layer}.{matrix}.weight"))
}

/// The score from which on a neuron is active, in a file of PowerInfer's with predictors, of which each layer then has one:
/// 0 where the file does not say. It may be infinite.
///
/// # Errors
/// When it is no number.
pub(super) fn threshold(gguf: &Gguf) -> Result<Option<f32>> {
    let is_predictor = |name: &str| name.ends_with(".fc1.weight") || name.ends_with(".fc2.weight");
    if !gguf.is_pwri() {
        return Ok(None);
    }
    let threshold = stated_threshold(gguf.metadata())?.unwrap_or(0.0);
    Ok(gguf.tensors().iter().any(|tensor| is_predictor(&tensor.name)).then_some(threshold))
}

fn stated_threshold(metadata: &Metadata) -> Result<Option<f32>> {
    let Some(entry) = metadata.entries().iter().find(|entry| entry.key == THRESHOLD) else { return Ok(None) };
    if entry.value_type != ValueType::F32 {
        return metadata.f32(THRESHOLD);
    }
    let bytes = metadata.raw_value(entry).try_into().context(THRESHOLD)?;
    let threshold = f32::from_le_bytes(bytes);
    ensure!(!threshold.is_nan(), "{THRESHOLD}: {threshold} is not a number");
    Ok(Some(threshold))
}

/// The activation where nothing names one: `default`, that of architecture `arch`, unless PowerInfer computes another.
pub(super) fn default_activation(is_pwri: bool, arch: &str, default: Activation) -> ResolvedActivation {
    if is_pwri && !default.is_sparse() {
        return ResolvedActivation { activation: Activation::Relu, from: "PowerInfer, whose file it is".to_owned() };
    }
    ResolvedActivation { activation: default, from: format!("default of architecture {arch}") }
}

/// Refuses the list of neurons in place of the model that it belongs to.
pub(super) fn refuse_index(gguf: &Gguf) -> Result<()> {
    let is_index = gguf.metadata().str("general.architecture")? == Some(INDEX_ARCHITECTURE);
    ensure!(
        !is_index,
        "is PowerInfer's list of neurons for a card and no model; powerinfer-split --gpu-index reads it"
    );
    Ok(())
}
