//! PowerInfer's list of the neurons for a card (`*.generated.gpuidx`), read for the order that it gives them.

use crate::gguf::{Gguf, TensorInfo};
use crate::model::{INDEX_ARCHITECTURE, Model, NeuronId};
use crate::quant::GgmlType;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;

/// Layers from which on PowerInfer takes one layer's counts for another's: it sorts their files by name.
const SORTED_WRONGLY: usize = 11;

/// Which neurons of each layer are for a card.
pub struct GpuIndex {
    /// By layer and neuron.
    marked: Vec<Vec<bool>>,
}

impl GpuIndex {
    /// Reads the list of a model's neurons.
    ///
    /// # Errors
    /// Names the file and the tensor that is missing, of another size or type, or contradicts another; when it is of
    /// another number of layers, or the model has layers of several groups.
    pub fn read(gguf: &Gguf, model: &Model) -> Result<Self> {
        Self::of(gguf, model).with_context(|| gguf.source().name().to_owned())
    }

    fn of(gguf: &Gguf, model: &Model) -> Result<Self> {
        const KEY: &str = "general.architecture";
        let metadata = gguf.metadata();
        let arch = metadata.str(KEY)?.with_context(|| format!("{KEY}: the key is missing"))?;
        ensure!(
            arch == INDEX_ARCHITECTURE,
            "{KEY}: \"{}\", but PowerInfer's lists of neurons for a card are of \"{INDEX_ARCHITECTURE}\"",
            arch.chars().take(60).collect::<String>().escape_debug()
        );
        let n_layer = model.config.n_layer;
        let key = format!("{INDEX_ARCHITECTURE}.block_count");
        if let Some(stated) = metadata.u32(&key)? {
            ensure!(stated as usize == n_layer, "{key}: {stated}, but the model has {n_layer} layers");
        }
        let marked = (0..n_layer).map(|layer| marked(gguf, model, layer)).collect::<Result<_>>()?;
        let known: HashSet<String> = (0..n_layer).flat_map(names).collect();
        if let Some(other) = gguf.tensors().iter().find(|tensor| !known.contains(&tensor.name)) {
            bail!("{}: is of none of the model's {n_layer} layers", other.name);
        }
        Ok(Self { marked })
    }

    /// The neurons of a layer, those for a card first and each part by rising id, and how many these are.
    pub(super) fn order(&self, layer: usize) -> (Vec<NeuronId>, usize) {
        let marked = &self.marked[layer];
        let of = |wanted: bool| (0u32..).zip(marked).filter(move |(_, m)| **m == wanted).map(|(id, _)| NeuronId(id));
        let n_hot = of(true).count();
        (of(true).chain(of(false)).collect(), n_hot)
    }

    /// What the user should know of the list.
    pub(super) fn note(&self) -> Option<String> {
        (self.marked.len() >= SORTED_WRONGLY).then(|| {
            format!(
                "of {} layers, PowerInfer chooses the neurons of most by another layer's counts (it sorts their files by \
                 name); a profile is better",
                self.marked.len()
            )
        })
    }
}

/// A flag for each neuron of a layer; the ids of those that are set, by rising id, which newer files lack.
fn names(layer: usize) -> [String; 2] {
    [format!("blk.{layer}.gpu_idx"), format!("blk.{layer}.gpu_bucket")]
}

fn marked(gguf: &Gguf, model: &Model, layer: usize) -> Result<Vec<bool>> {
    let [flags, ids] = names(layer);
    let groups = &model.weights.layers[layer].groups;
    ensure!(groups.len() == 1, "{flags}: layer {layer} of the model has {} groups of neurons", groups.len());
    let n_ff = groups[0].n_ff();
    let tensor = gguf.tensor(&flags).with_context(|| format!("{flags}: the tensor is missing"))?;
    let values = integers(gguf, tensor)?;
    ensure!(
        tensor.dims == [n_ff],
        "{flags}: shape {:?}, but layer {layer} of the model has {n_ff} neurons",
        tensor.dims
    );
    let wrong = values.iter().find(|value| !(0..=1).contains(*value));
    ensure!(wrong.is_none(), "{flags}: {} is neither 0 nor 1", wrong.unwrap_or(&0));
    let marked: Vec<bool> = values.into_iter().map(|value| value == 1).collect();
    if let Some(tensor) = gguf.tensor(&ids) {
        let listed = integers(gguf, tensor)?;
        let set = (0i32..).zip(&marked).filter(|(_, marked)| **marked).map(|(id, _)| id);
        ensure!(set.eq(listed), "{ids}: does not list the neurons that are set in {flags}");
    }
    Ok(marked)
}

fn integers(gguf: &Gguf, tensor: &TensorInfo) -> Result<Vec<i32>> {
    let name = &tensor.name;
    ensure!(tensor.dtype == GgmlType::I32, "{name}: has type {} where I32 is wanted", tensor.dtype);
    let bytes = gguf.data(tensor).chunks_exact(4);
    Ok(bytes.map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
