//! The neurons of a layer: how often each fires, and how much all of them add.

use super::popularity::Choice;
use super::rates::Unit;
use super::spec::Spec;
use crate::placement::rates::power_law;
use crate::shapes::{LayerKind, Shape};

/// What all FFNs together add to the variance of the residual stream, which begins at 1: little, so that its norm
/// hardly depends on the token, and the constant remains a constant when normalised.
pub(super) const FFN_GROWTH: f64 = 0.5;

/// Groups of neurons that lie in the same tensors: a dense FFN, the experts that are chosen, or the one that all tokens have.
#[derive(Debug, Clone)]
pub(super) struct Family {
    /// What the names of its tensors have behind the role.
    pub suffix: &'static str,
    /// Groups, in a further dimension where there may be several.
    pub n_groups: usize,
    /// Whether a router chooses them.
    pub routed: bool,
    /// Number of the first group in its layer.
    pub first: usize,
    /// Number of the first neuron in its layer.
    pub first_neuron: usize,
    /// Neurons of a group.
    pub n_ff: usize,
    /// Elements of what neurons read and give.
    pub width: usize,
    /// Whether there is a gate.
    pub gated: bool,
    /// Share of the tokens that have a group for which each of its neurons fires, by slot.
    pub rates: Vec<f64>,
    /// By slot.
    pub units: Vec<Unit>,
    /// Variance of what the neurons of a layer add, per element.
    pub growth: f64,
}

impl Family {
    /// Dimensions of a tensor whose rows have `n_cols` elements, with `n_rows` for each group.
    pub fn dims(&self, n_cols: usize, n_rows: usize) -> Vec<usize> {
        if self.routed { vec![n_cols, n_rows, self.n_groups] } else { vec![n_cols, n_rows] }
    }

    /// Dimensions of a tensor with a value for each neuron.
    pub fn index_dims(&self) -> Vec<usize> {
        if self.routed { vec![self.n_ff, self.n_groups] } else { vec![self.n_ff] }
    }

    /// Mean of what a neuron's `down` vector is multiplied with, by slot.
    pub fn mean_factor(&self, slot: usize) -> f64 {
        // The mean absolute value of standard normal numbers, which `up` gives.
        let up = std::f64::consts::FRAC_2_PI.sqrt();
        if self.gated { self.units[slot].mean.max(0.0) * up } else { self.units[slot].square.max(0.0) }
    }

    /// Sum of the variances of what the `down` vectors of a group are multiplied with.
    fn power(&self) -> f64 {
        let of = |unit: &Unit| if self.gated { unit.square } else { unit.fourth - unit.square.powi(2) };
        self.units.iter().map(of).sum()
    }

    /// Sum of squares of a `down` vector without its constant, of `n_data` elements.
    pub fn down_square(&self, n_data: usize) -> f64 {
        self.growth / self.power() * n_data as f64
    }
}

/// Layers of `spec` that have neurons.
pub(super) fn n_ffn(spec: &Spec) -> usize {
    let shape = spec.sized.shape;
    (0..spec.sized.n_layer).filter(|layer| shape.kind(*layer).has_ffn()).count()
}

/// The families of every layer that has neurons; sizes do not depend on `choice`, which layers with experts have.
pub(super) fn families(spec: &Spec, choice: Option<&Choice>) -> Vec<Family> {
    let shape = spec.sized.shape;
    let growth = FFN_GROWTH / n_ffn(spec).max(1) as f64;
    let family = |suffix, n_ff: usize, growth: f64| {
        let rates = power_law(n_ff, spec.density());
        let units = rates.iter().map(|rate| Unit::firing(*rate)).collect();
        Family {
            suffix,
            n_groups: 1,
            routed: false,
            first: 0,
            first_neuron: 0,
            n_ff,
            width: shape.n_embd,
            gated: shape.gated,
            rates,
            units,
            growth,
        }
    };
    let Some(experts) = &shape.experts else { return vec![family("", shape.n_ff, growth)] };
    let share = if experts.n_ff_shared > 0 { 0.5 } else { 1.0 };
    let routed = Family {
        n_groups: experts.n,
        routed: true,
        width: width(shape),
        ..family("_exps", shape.n_ff, share * growth / choice.map_or(1.0, |choice| choice.squares))
    };
    let (first, first_neuron) = (experts.n, experts.n * shape.n_ff);
    let shared = (experts.n_ff_shared > 0).then(|| Family {
        first,
        first_neuron,
        ..family("_shexp", experts.n_ff_shared, (1.0 - share) * growth)
    });
    [routed].into_iter().chain(shared).collect()
}

/// Elements of what chosen experts read and give.
pub(super) fn width(shape: &Shape) -> usize {
    shape.experts.and_then(|experts| experts.latent).unwrap_or(shape.n_embd)
}

/// Layers of each kind before `layer`.
pub(super) fn count(spec: &Spec, layer: usize, of: fn(LayerKind) -> bool) -> usize {
    (0..layer).filter(|layer| of(spec.sized.shape.kind(*layer))).count()
}
