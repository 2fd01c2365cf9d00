//! Predictors that the source has itself, on their way into its variant: those of PowerInfer's files.

use crate::gguf::TensorInfo;
use crate::gguf::write::{MetadataBuilder, PlannedTensor, Value};
use crate::model::{INPUT_KEY, Model, NeuronGroup, Predictor, Scores};
use crate::quant::GgmlType;

/// Of predictors that look at something else than what the FFN reads: what knows the first version only refuses them.
const VERSION: u32 = 2;

/// A tensor of a group's predictor.
pub(super) struct Part<'a> {
    pub planned: PlannedTensor,
    /// Number of the group.
    pub group: usize,
    pub content: Content<'a>,
}

pub(super) enum Content<'a> {
    /// A matrix of the source, and whether its rows are neurons.
    Matrix(&'a TensorInfo, bool),
    Floats(&'a [f32]),
}

/// The two matrices, where the predictor is of such.
fn factors(predictor: &Predictor) -> Option<[&str; 2]> {
    match &predictor.scores {
        Scores::Factors { input, output, .. } => Some([input.name(), output.name()]),
        Scores::Signs(_) => None,
    }
}

fn predicted(model: &Model) -> impl Iterator<Item = (usize, usize, &NeuronGroup, &Predictor)> {
    let groups = model.weights.groups().enumerate();
    groups.filter_map(|(number, (layer, group))| Some((number, layer, group, group.predictor.as_ref()?)))
}

/// Whether a tensor of the source is a predictor's.
pub(super) fn is_predictor(model: &Model, tensor: &TensorInfo) -> bool {
    predicted(model).any(|(.., predictor)| factors(predictor).is_some_and(|names| names.contains(&&*tensor.name)))
}

/// The tensors of all predictors, by the names that variants have for them.
pub(super) fn parts(model: &Model) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for (group, layer, _, predictor) in predicted(model) {
        let Scores::Factors { bias, .. } = &predictor.scores else { continue };
        let mut push = |name: &str, dtype: GgmlType, dims: Vec<usize>, content| {
            let planned = PlannedTensor { name: format!("blk.{layer}.ffn_pred_{name}"), dtype, dims };
            parts.push(Part { planned, group, content });
        };
        let matrices = factors(predictor).into_iter().flatten().filter_map(|name| model.gguf.tensor(name));
        for ((name, by_neuron), tensor) in [("in.weight", false), ("out.weight", true)].into_iter().zip(matrices) {
            push(name, tensor.dtype, tensor.dims.clone(), Content::Matrix(tensor, by_neuron));
        }
        // All neurons have the same bias, so their order does not matter.
        for (name, values) in [("in.bias", bias.as_ref()), ("bias", Some(&predictor.bias))] {
            if let Some(values) = values {
                push(name, GgmlType::F32, vec![values.len()], Content::Floats(values));
            }
        }
    }
    parts
}

/// What a variant's keys say of them.
pub(super) fn add_keys(model: &Model, out: &mut MetadataBuilder) {
    let Some((.., first)) = predicted(model).next() else { return };
    let kind = |(_, group): (usize, &NeuronGroup)| {
        group.predictor.as_ref().map_or("none", Predictor::kind).as_bytes().to_vec()
    };
    out.add("powerinfer.predictor.version", &Value::U32(VERSION));
    out.add("powerinfer.predictor.kinds", &Value::ArrayStr(model.weights.groups().map(kind).collect()));
    out.add(INPUT_KEY, &Value::Str(first.reads.name().to_owned()));
}
