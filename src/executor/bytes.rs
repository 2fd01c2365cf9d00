//! Bytes of weights, and of states, that a pass touches.

use crate::model::{Access, Layer, Mixer, Model, NeuronGroup, Part, Role};

/// Bytes of weights that a dense pass over one batch of tokens touches: everything but the embedding rows of other
/// tokens.
pub fn dense_bytes(model: &Model) -> u64 {
    let groups = model.weights.groups().flat_map(|(_, group)| group.parts());
    outside_ffn(model) + groups.map(Part::weight_bytes).sum::<u64>()
}

/// Bytes of weights that a dense pass over one token touches: of groups that a router chooses, those that it has chosen.
pub fn dense_bytes_per_token(model: &Model) -> f64 {
    let of_layer = |layer: &Layer| {
        let n_routed = layer.groups.iter().filter(|group| group.is_routed()).count().max(1) as f64;
        let chosen = layer.router.map_or(1.0, |router| router.n_used as f64 / n_routed);
        let of_group = |group: &NeuronGroup| {
            let share = if group.is_routed() { chosen } else { 1.0 };
            share * group.parts().map(Part::weight_bytes).sum::<u64>() as f64
        };
        layer.groups.iter().map(of_group).sum::<f64>()
    };
    outside_ffn(model) as f64 + model.weights.layers.iter().map(of_layer).sum::<f64>()
}

/// Bytes of attention, recurrent layers with their states, norms, head and one embedding row.
pub(super) fn outside_ffn(model: &Model) -> u64 {
    let weights = &model.weights;
    let layers = weights.layers.iter().flat_map(|layer| &layer.parts);
    // The head may be the embedding, which is then read twice: a row, and as a whole.
    let tied = if weights.find(Role::Output).is_none() { weights.head_part().weight_bytes() } else { 0 };
    layers.chain(&weights.parts).map(outside).sum::<u64>() + tied + states(model)
}

/// States of recurrent layers: a token reads and writes all of them.
fn states(model: &Model) -> u64 {
    let Some(ssm) = &model.config.ssm else { return 0 };
    let n_layers = model.config.mixers.iter().filter(|mixer| **mixer == Mixer::Recurrent).count();
    let sizes = ssm.sizes();
    (2 * n_layers * (sizes.n_states() + sizes.n_conv_state()) * size_of::<f32>()) as u64
}

/// What a token reads of a part that is not of neurons.
fn outside(part: &Part) -> u64 {
    match part.role {
        // Divisors became frequencies when the model was loaded.
        Role::RopeFreqs | Role::RopeFactorsLong | Role::RopeFactorsShort => return 0,
        // Counted with the neurons that fire.
        Role::FfnGate | Role::FfnUp | Role::FfnDown => return 0,
        Role::TokenEmbd
        | Role::OutputNorm
        | Role::PositionEmbd
        | Role::Output
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
        | Role::Router => {}
    }
    match part.access {
        Access::Whole => part.weight_bytes() + part.bias_bytes(),
        Access::PerToken => part.matrix().row_bytes() as u64,
        Access::PerNeuron => 0,
    }
}
