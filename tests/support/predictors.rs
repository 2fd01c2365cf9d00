//! Predictors made by hand, packed into a variant of the F16 source.

use super::real;
use anyhow::Result;
use powerinfer::gguf::Gguf;
use powerinfer::gguf::write::{MetadataBuilder, PlannedTensor, Value, Writer};
use powerinfer::model::{Matrix, Model, NeuronId};
use powerinfer::progress::Silent;
use powerinfer::quant::{GgmlType, convert};
use powerinfer::variant::{self, Options};
use std::path::Path;

/// Logits of real firings are far from zero; a predictor that repeats the mask matrix needs room for rounding.
pub const ROOM: f32 = 1e-3;

pub fn floats(matrix: &Matrix) -> Result<Vec<f32>> {
    let mut out = vec![0.0; matrix.n_rows * matrix.n_cols];
    let convert = convert::dequantizer(matrix.dtype())?;
    for (i, out) in out.chunks_exact_mut(matrix.n_cols).enumerate() {
        convert(matrix.row(i), out);
    }
    Ok(out)
}

pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// What a test says of a neuron's bias: by layer and neuron.
pub type Bias<'a> = &'a dyn Fn(usize, NeuronId) -> f32;

/// Tensors of a layer: part of the name, type, sizes, data.
pub type Parts = Vec<(&'static str, GgmlType, Vec<usize>, Vec<u8>)>;

/// Writes a predictor's file, rows by neuron.
pub fn write(model: &Model, path: &Path, bias: Bias, parts: impl Fn(&Matrix) -> Result<Parts>) -> Result<Gguf> {
    let mut metadata = MetadataBuilder::default();
    metadata.add("general.architecture", &Value::Str("powerinfer-predictor".to_owned()));
    let (mut planned, mut data) = (Vec::new(), Vec::new());
    for (i, layer) in model.weights.layers.iter().enumerate() {
        let group = &layer.groups[0];
        let n_ff = group.n_ff();
        let biases: Vec<f32> = (0..n_ff as u32).map(|id| bias(i, NeuronId(id))).collect();
        let all = parts(group.mask_matrix())?.into_iter();
        for (part, dtype, dims, bytes) in all.chain([("bias", GgmlType::F32, vec![n_ff], bytes(&biases))]) {
            planned.push(PlannedTensor { name: format!("blk.{i}.ffn_pred_{part}"), dtype, dims });
            data.push(bytes);
        }
    }
    let mut writer = Writer::create(path, &metadata, &planned, 32, &Silent)?;
    data.iter().try_for_each(|bytes| writer.append(bytes))?;
    writer.finish()?;
    Gguf::open(path)
}

/// The mask matrix itself in two factors, the first of which changes nothing.
pub fn oracle(matrix: &Matrix) -> Result<Parts> {
    let (n_ff, n) = (matrix.n_rows, matrix.n_cols);
    let identity: Vec<f32> = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
    Ok(vec![
        ("in.weight", GgmlType::F32, vec![n, n], bytes(&identity)),
        ("out.weight", GgmlType::F32, vec![n, n_ff], bytes(&floats(matrix)?)),
    ])
}

/// The same as a network of two layers: what is positive, and what is negative, of each input.
pub fn network(matrix: &Matrix) -> Result<Parts> {
    let (n_ff, n, weights) = (matrix.n_rows, matrix.n_cols, floats(matrix)?);
    let sign = |hidden: usize| if hidden < n { 1.0 } else { -1.0 };
    let input: Vec<f32> = (0..2 * n * n).map(|i| if i / n % n == i % n { sign(i / n) } else { 0.0 }).collect();
    let output: Vec<f32> = weights.chunks(n).flat_map(|w| w.iter().copied().chain(w.iter().map(|w| -w))).collect();
    Ok(vec![
        ("in.weight", GgmlType::F32, vec![n, 2 * n], bytes(&input)),
        ("in.bias", GgmlType::F32, vec![2 * n], bytes(&vec![0.0; 2 * n])),
        ("out.weight", GgmlType::F32, vec![2 * n, n_ff], bytes(&output)),
    ])
}

pub fn signs(matrix: &Matrix) -> Result<Parts> {
    let bits = |w: &[f32]| w.iter().rev().fold(0, |byte, w| byte << 1 | u8::from(*w < 0.0));
    let bytes = floats(matrix)?.chunks(8).map(bits).collect();
    Ok(vec![("sign", GgmlType::I8, vec![matrix.n_cols / 8, matrix.n_rows], bytes)])
}

/// A variant of the F16 source with the predictor packed in.
pub fn with_predictor(bias: Bias, parts: impl Fn(&Matrix) -> Result<Parts>) -> Result<(tempfile::TempDir, Model)> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let plain = real::split(real::source(), Options::default(), &at("variant.gguf"))?;
    let predictor = write(real::source(), &at("predictor.gguf"), bias, parts)?;
    variant::pack(&plain, &predictor, &at("packed.gguf"), &Silent)?;
    let model = real::open(&at("packed.gguf"))?;
    Ok((folder, model))
}
