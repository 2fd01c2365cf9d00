//! Conversion of the matrices of a plain file, whatever its architecture.

use super::choices::Choices;
use super::importance::Importance;
use super::mixture::mixed;
use super::outline::Outline;
use super::recipe::{Recipe, fitting, is_float, misfits, refuse_quantized};
use super::rows::write_weighted_rows;
use crate::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::check_tensors;
use crate::progress::{self, Progress};
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// `general.quantization_version` of ggml's present blocks.
const QUANTIZATION_VERSION: u32 = 2;

/// Parts of the names of matrices that stay as they are: routers, embeddings of places, convolutions and the like,
/// which few bytes hold and much depends on. Source: `tensor_allows_quantization` of llama.cpp's `llama-quant.cpp`.
const KEPT: [&str; 37] = [
    "_norm.weight",
    "ffn_gate_inp",
    "ffn_gate_tid2eid",
    "position_embd",
    "pos_embd",
    "token_types",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj",
    "indexer.q_proj",
    "rope_",
    "attn_rel_b",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "time_mix_first",
    "time_mix_w0",
    "time_mix_w1",
    "time_mix_w2",
    "time_mix_a0",
    "time_mix_a1",
    "time_mix_a2",
    "time_mix_v0",
    "time_mix_v1",
    "time_mix_v2",
    "time_mix_g1",
    "time_mix_g2",
    "time_mix_decay",
    "time_mix_lerp",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
    // Predictors of PowerInfer's.
    ".fc1.",
];

/// What [`quantize`] will write.
pub struct Conversion {
    /// Name, dimensions and type of all tensors, in the order of the file.
    pub tensors: Vec<PlannedTensor>,
    /// Matrices that are converted, by type in the order of the file.
    pub types: Vec<(GgmlType, usize)>,
    /// Bytes of all tensors.
    pub n_bytes: u64,
    /// Number in `general.file_type`; see [`Recipe::file_type_of`].
    pub file_type: Option<u32>,
    /// Things the user should know.
    pub notes: Vec<String>,
    importance: Option<Importance>,
}

impl Conversion {
    /// Decides on the types of `gguf`'s matrices.
    ///
    /// # Errors
    /// When the file is a variant, holds quantized tensors or no matrices.
    pub fn new(gguf: &Gguf, recipe: Recipe, choices: &Choices) -> Result<Self> {
        check_convertible(gguf, recipe, choices).with_context(|| gguf.source().name().to_owned())?;
        let tied = gguf.tensor("output.weight").is_none();
        let converted = |t: &TensorInfo| is_converted(t, choices);
        let mut outline = Outline::of(gguf, |t| converted(t) && choices.of(&t.name, tied).is_none());
        outline.has_importance = choices.importance.is_some();
        let mut n_weighted = 0;
        let mut types: Vec<(GgmlType, usize)> = Vec::new();
        let (mut pairs, mut matrices, mut tensors) = (Vec::new(), Vec::new(), Vec::new());
        for tensor in gguf.tensors() {
            let name = &tensor.name;
            let mut dtype = tensor.dtype;
            if converted(tensor) {
                let wanted = choices.of(name, tied).unwrap_or_else(|| match choices.pure {
                    true => recipe.base(),
                    false => mixed(recipe, name, &outline),
                });
                dtype = fitting(wanted, tensor.dtype, tensor.n_cols());
                pairs.push((wanted, dtype));
                matrices.push((&**name, dtype, tensor.n_rows() * tensor.n_cols()));
                if let Some(importance) = &choices.importance {
                    n_weighted += usize::from(importance.of(tensor)?.is_some());
                }
                match types.iter_mut().find(|(t, _)| *t == dtype) {
                    Some((_, n)) => *n += 1,
                    None => types.push((dtype, 1)),
                }
            }
            tensors.push(PlannedTensor { name: name.clone(), dtype, dims: tensor.dims.clone() });
        }
        let n_bytes = tensors.iter().map(PlannedTensor::n_bytes).sum::<Result<usize>>()? as u64;
        let file_type = recipe.file_type_of(matrices.into_iter());
        let mut notes: Vec<String> = misfits(pairs.into_iter()).into_iter().collect();
        if file_type != recipe.file_type()
            && let Some(number) = file_type
        {
            notes.push(format!("no matrix of a layer is {}, so general.file_type is {number}", recipe.base()));
        }
        if let Some(importance) = &choices.importance {
            ensure!(n_weighted > 0, "{}: knows none of the matrices that are converted", importance.file());
            let n: usize = types.iter().map(|(_, n)| n).sum();
            notes.push(format!(
                "{}: tells of {n_weighted} of {n} matrices how much their columns count",
                importance.file()
            ));
        }
        let importance = choices.importance.clone();
        Ok(Self { tensors, types, n_bytes, file_type, notes, importance })
    }
}

/// Writes `gguf` to `path` with its matrices converted as `conversion` of it says; everything else, but for
/// `general.file_type` and `general.quantization_version`, is copied.
///
/// # Errors
/// When weights are not numbers or the file cannot be written; no file is left then.
pub fn quantize(gguf: &Gguf, conversion: &Conversion, path: &Path, progress: &dyn Progress) -> Result<()> {
    check_tensors(gguf, progress)?;
    progress.begin("writing", conversion.n_bytes);
    let metadata = metadata(gguf, conversion);
    let mut writer = Writer::create(path, &metadata, &conversion.tensors, gguf.alignment(), progress)?;
    for (source, target) in gguf.tensors().iter().zip(&conversion.tensors) {
        let importance = conversion.importance.as_ref().filter(|_| source.dtype != target.dtype);
        let columns = importance.map(|importance| importance.of(source)).transpose()?.flatten();
        write_weighted_rows(gguf, source, None, (target.dtype, columns), &mut writer, progress)?;
    }
    progress::check(progress)?;
    writer.finish()
}

fn check_convertible(gguf: &Gguf, recipe: Recipe, choices: &Choices) -> Result<()> {
    recipe.check()?;
    ensure!(
        !gguf.is_pwri(),
        "is one of PowerInfer's files, which --quantize-only does not write; split it with --type"
    );
    let transposed = gguf.tensors().iter().any(|t| t.name.contains(".ffn_down_t"));
    let variant = transposed || gguf.metadata().has("powerinfer.version");
    ensure!(!variant, "is a variant, which stays one; quantize the model it was made from, or split that with --type");
    if choices.requantize {
        for tensor in gguf.tensors().iter().filter(|t| is_converted(t, choices)) {
            convert::dequantizer(tensor.dtype).with_context(|| tensor.name.clone())?;
        }
    } else if let Err(error) = refuse_quantized(gguf) {
        bail!("{error}, or --allow-requantize, which loses more");
    }
    let any = gguf.tensors().iter().any(|t| is_converted(t, choices));
    let kinds = if choices.requantize { "matrix" } else { "F32, F16 or BF16 matrix" };
    ensure!(any, "holds no {kinds} to convert");
    Ok(())
}

/// Matrices, and stacks of them.
fn is_converted(tensor: &TensorInfo, choices: &Choices) -> bool {
    let name = &tensor.name;
    let n_dims = tensor.dims.iter().rposition(|n| *n > 1).map_or(0, |last| last + 1);
    let readable = is_float(tensor.dtype) || (choices.requantize && tensor.dtype.block_len() > 1);
    let kept = KEPT.iter().any(|part| name.contains(part)) || (choices.keep_head && name == "output.weight");
    n_dims > 1 && readable && name.ends_with("weight") && !kept
}

fn metadata(gguf: &Gguf, conversion: &Conversion) -> MetadataBuilder {
    let source = gguf.metadata();
    let replaced = |key: &str| {
        let how = ["general.file_type", "general.quantization_version"];
        how.contains(&key) || key.starts_with("quantize.imatrix.")
    };
    let mut out = MetadataBuilder::default();
    for entry in source.copied().filter(|e| !replaced(&e.key)) {
        out.add_raw(&entry.key, entry.value_type, source.raw_value(entry));
    }
    if let Some(file_type) = conversion.file_type {
        out.add("general.file_type", &Value::U32(file_type));
    }
    out.add("general.quantization_version", &Value::U32(QUANTIZATION_VERSION));
    if let Some(importance) = &conversion.importance {
        out.add("quantize.imatrix.file", &Value::Str(importance.file().to_owned()));
        out.add("quantize.imatrix.entries_count", &Value::U32(importance.n_matrices() as u32));
    }
    out
}
