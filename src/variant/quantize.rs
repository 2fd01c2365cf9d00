//! Conversion of the matrices of a plain file, whatever its architecture.

use super::recipe::{Outline, Recipe, is_float, refuse_quantized};
use super::rows::write_rows;
use crate::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::check_tensors;
use crate::progress::{self, Progress};
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// `general.quantization_version` of ggml's present blocks.
const QUANTIZATION_VERSION: u32 = 2;

/// Parts of the names of matrices that stay as they are: routers, embeddings of places, convolutions and the like,
/// which few bytes hold and much depends on. Source: `tensor_allows_quantization` of llama.cpp's `llama-quant.cpp`.
const KEPT: [&str; 22] = [
    "norm",
    "ffn_gate_inp",
    "position_embd",
    "pos_embd",
    "token_types",
    "conv",
    "rope_",
    "attn_rel_b",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "time_mix_first",
    "time_mix_w1",
    "time_mix_w2",
    "time_mix_a1",
    "time_mix_a2",
    "time_mix_v1",
    "time_mix_v2",
    "time_mix_g1",
    "time_mix_g2",
    "time_mix_decay",
    "time_mix_lerp",
];

/// What [`quantize`] did.
pub struct Conversion {
    /// Matrices that were converted, by type in the order of the file.
    pub types: Vec<(GgmlType, usize)>,
    /// Bytes of all tensors written.
    pub n_bytes: u64,
    /// Things the user should know.
    pub notes: Vec<String>,
}

/// Writes `gguf` to `path` with its matrices converted as `recipe` says; everything else, but for
/// `general.file_type` and `general.quantization_version`, is copied.
///
/// # Errors
/// When the file is a variant, holds quantized tensors, no matrices, or weights that are not numbers, or cannot be written; no file is left then.
pub fn quantize(gguf: &Gguf, recipe: Recipe, path: &Path, progress: &dyn Progress) -> Result<Conversion> {
    check_convertible(gguf, recipe).with_context(|| gguf.source().name().to_owned())?;
    check_tensors(gguf, progress)?;
    let outline = Outline::of(gguf);
    let matrices = || gguf.tensors().iter().filter(|t| is_converted(t));
    let notes = recipe.misfits(matrices().map(|t| (&*t.name, t.n_cols())), outline).into_iter().collect();
    let mut types: Vec<(GgmlType, usize)> = Vec::new();
    let planned: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|t| {
            let mut dtype = t.dtype;
            if is_converted(t) {
                dtype = recipe.matrix_type(&t.name, t.dtype, t.n_cols(), outline);
                match types.iter_mut().find(|(t, _)| *t == dtype) {
                    Some((_, n)) => *n += 1,
                    None => types.push((dtype, 1)),
                }
            }
            PlannedTensor { name: t.name.clone(), dtype, dims: t.dims.clone() }
        })
        .collect();
    let n_bytes = planned.iter().map(PlannedTensor::n_bytes).sum::<Result<usize>>()? as u64;
    progress.begin("writing", n_bytes);
    let mut writer = Writer::create(path, &metadata(gguf, recipe), &planned, gguf.alignment(), progress)?;
    for (source, target) in gguf.tensors().iter().zip(&planned) {
        write_rows(gguf, source, None, target.dtype, &mut writer, progress)?;
    }
    progress::check(progress)?;
    writer.finish()?;
    Ok(Conversion { types, n_bytes, notes })
}

fn check_convertible(gguf: &Gguf, recipe: Recipe) -> Result<()> {
    recipe.check()?;
    ensure!(
        !gguf.is_pwri(),
        "is one of PowerInfer's files, which --quantize-only does not write; split it with --type"
    );
    let transposed = gguf.tensors().iter().any(|t| t.name.contains(".ffn_down_t"));
    let variant = transposed || gguf.metadata().has("powerinfer.version");
    ensure!(!variant, "is a variant, which stays one; quantize the model it was made from, or split that with --type");
    refuse_quantized(gguf)?;
    ensure!(gguf.tensors().iter().any(is_converted), "holds no F32, F16 or BF16 matrix to convert");
    Ok(())
}

/// Matrices, and the stacked ones of experts.
fn is_converted(tensor: &TensorInfo) -> bool {
    let name = &tensor.name;
    let matrix = tensor.dims.len() == 2 || (tensor.dims.len() == 3 && name.contains("_exps."));
    matrix && is_float(tensor.dtype) && name.ends_with(".weight") && !KEPT.iter().any(|part| name.contains(part))
}

fn metadata(gguf: &Gguf, recipe: Recipe) -> MetadataBuilder {
    let source = gguf.metadata();
    let replaced = ["general.file_type", "general.quantization_version"];
    let mut out = MetadataBuilder::default();
    for entry in source.copied().filter(|e| !replaced.contains(&&*e.key)) {
        out.add_raw(&entry.key, entry.value_type, source.raw_value(entry));
    }
    if let Some(file_type) = recipe.file_type() {
        out.add("general.file_type", &Value::U32(file_type));
    }
    out.add("general.quantization_version", &Value::U32(QUANTIZATION_VERSION));
    out
}
