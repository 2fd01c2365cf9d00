//! Models whose layers have two groups of neurons instead of one.

use anyhow::Result;
use powerinfer::model::{Down, Matrix, Model, NeuronGroup, NeuronIndex, Part, Predictor, Scores, Tensor};
use std::path::Path;

/// The variant `model` once more, each of its groups cut in two behind about a third of its neurons: whole blocks of
/// every type.
pub fn in_two(model: &Model, open: impl Fn(&Path) -> Result<Model>) -> Result<Model> {
    let mut two = open(Path::new(model.gguf.source().name()))?;
    let mut number = 0;
    for layer in &mut two.weights.layers {
        let groups = std::mem::take(&mut layer.groups);
        layer.first_group = number;
        for group in groups {
            let cut = group.n_ff() / 3 / 32 * 32;
            layer.groups.push(slice(&group, 0, cut)?);
            layer.groups.push(slice(&group, cut, group.n_ff() - cut)?);
        }
        number += layer.groups.len();
    }
    Ok(two)
}

fn slice(group: &NeuronGroup, first: usize, n: usize) -> Result<NeuronGroup> {
    let rows = |part: &Part| Part { tensor: Tensor::Matrix(part.matrix().slice(first, n)), ..part.clone() };
    let Down::Rows(down) = group.ffn_down() else { anyhow::bail!("down is not stored by rows") };
    let down = Part { tensor: Tensor::Down(Down::Rows(down.slice(first, n))), ..group.down.clone() };
    let index = group.index.as_ref().map(|index| {
        let (rates, mass) = (index.rates[first..first + n].to_vec(), index.mass[first..first + n].to_vec());
        NeuronIndex::new((0..n as i32).collect(), rates, mass, n / 2)
    });
    let predictor = match &group.predictor {
        Some(Predictor { scores: Scores::Factors { input, bias, output }, bias: biases, .. }) => {
            let output: Matrix = output.slice(first, n);
            let scores = Scores::Factors { input: input.clone(), bias: bias.clone(), output };
            Some(Predictor::new(scores, biases[first..first + n].to_vec())?)
        }
        Some(_) => anyhow::bail!("signs cannot be cut"),
        None => None,
    };
    let (gate, up) = (group.gate.as_ref().map(rows), rows(&group.up));
    Ok(NeuronGroup { gate, up, down, index: index.transpose()?, predictor, ..group.clone() })
}
