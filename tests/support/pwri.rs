//! PowerInfer's own files, made of plain ones.

use super::model_file::{ModelFile, Tensor, Value};
use super::predictors::{bytes, floats};
use anyhow::Result;
use powerinfer::model::{Model, NormKind, Step};
use powerinfer::quant::{GgmlType, convert};
use std::path::{Path, PathBuf};

/// What a layer's scores are computed from: `[n_hidden][n_embd]` and `[n_ff][n_hidden]`.
pub struct Scores {
    pub n_hidden: usize,
    pub inner: Vec<f32>,
    pub outer: Vec<f32>,
}

impl ModelFile {
    /// `ffn_down` by neurons; its bias has the new name, too. The matrices are of floats.
    pub fn by_neurons(mut self) -> Self {
        for tensor in &mut self.tensors {
            if tensor.name.ends_with(".ffn_down.weight") {
                let (size, [n_ff, n_embd]) = (tensor.dtype.block_bytes(), [tensor.dims[0], tensor.dims[1]]);
                let element = |at: usize| &tensor.bytes[at * size..][..size];
                let places = (0..n_ff).flat_map(|neuron| (0..n_embd).map(move |row| row * n_ff + neuron));
                tensor.bytes = places.flat_map(|at| element(at).to_vec()).collect();
                tensor.dims = vec![n_embd, n_ff];
            }
            tensor.name = tensor.name.replace(".ffn_down.", ".ffn_down_t.");
        }
        self
    }

    /// With predictors of `n_layer` layers, as floats.
    pub fn with_scores(mut self, n_layer: usize, scores: impl Fn(usize) -> Scores) -> Self {
        for layer in 0..n_layer {
            let Scores { n_hidden, inner, outer } = scores(layer);
            let (n_embd, n_ff) = (inner.len() / n_hidden, outer.len() / n_hidden);
            for (name, dims, values) in [("fc1", [n_embd, n_hidden], inner), ("fc2", [n_hidden, n_ff], outer)] {
                let name = format!("blk.{layer}.{name}.weight");
                self.push(Tensor { name, dtype: GgmlType::F32, dims: dims.to_vec(), bytes: bytes(&values) });
            }
        }
        self
    }

    /// The score from which on a neuron is active.
    pub fn threshold(mut self, threshold: f32) -> Self {
        self.set("powerinfer.sparse_threshold", Value::F32(threshold));
        self
    }

    /// With all matrices of floats in another type.
    pub fn in_type(mut self, dtype: GgmlType) -> Result<Self> {
        for tensor in self.tensors.iter_mut().filter(|tensor| tensor.dims.len() > 1) {
            let (n_cols, n_rows) = (tensor.dims[0], tensor.dims[1]);
            let mut values = vec![0.0; n_cols * n_rows];
            convert::dequantizer(tensor.dtype)?(&tensor.bytes, &mut values);
            tensor.dtype = dtype;
            tensor.bytes = vec![0; dtype.row_bytes(n_cols).expect("whole blocks") * n_rows];
            convert::quantizer(dtype)?(&values, &mut tensor.bytes);
        }
        Ok(self)
    }

    /// The whole file with PowerInfer's magic.
    pub fn bytes_as_pwri(&self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes[..4].copy_from_slice(b"PWRI");
        bytes
    }

    /// The same, in that folder.
    pub fn written_as_pwri(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.bytes_as_pwri()).expect("room on the disk");
        path
    }
}

/// Scores whose signs are those of the mask matrix's products: without biases, the norm before the FFN only scales what its
/// weights are multiplied with, after the mean has been taken off in a layer norm.
pub fn oracle(model: &Model, layer: usize) -> Result<Scores> {
    let layer = &model.weights.layers[layer];
    let n = model.config.n_embd;
    let ffn = layer.steps.iter().position(|step| matches!(step, Step::Ffn { .. })).expect("an FFN");
    let norm = layer.steps[..ffn].iter().rev().find_map(|step| match step {
        Step::Norm { of, to, .. } if *to == layer.steps[ffn].reads() => Some(layer.part(*of)),
        _ => None,
    });
    assert!(norm.is_none_or(|norm| norm.bias.iter().flat_map(|bias| &**bias).all(|b| *b == 0.0)), "a bias");
    let mean = if norm.is_some() && model.config.norm == NormKind::Layer { 1.0 / n as f32 } else { 0.0 };
    let sign = |hidden: usize| if hidden < n { 1.0 } else { -1.0 };
    let inner = (0..2 * n * n).map(|i| {
        let (hidden, column) = (i / n, i % n);
        let weight = norm.map_or(1.0, |norm| norm.vector()[hidden % n]);
        sign(hidden) * weight * (if hidden % n == column { 1.0 - mean } else { -mean })
    });
    let weights = floats(layer.groups[0].mask_matrix())?;
    let outer = weights.chunks(n).flat_map(|row| row.iter().copied().chain(row.iter().map(|w| -w))).collect();
    Ok(Scores { n_hidden: 2 * n, inner: inner.collect(), outer })
}

/// Scores that say nothing.
pub fn noise(n_embd: usize, n_hidden: usize, n_ff: usize) -> Scores {
    let mut random = super::Random::new(5);
    let mut values = |n: usize| random.values(n);
    Scores { n_hidden, inner: values(n_hidden * n_embd), outer: values(n_ff * n_hidden) }
}
