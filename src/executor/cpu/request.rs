//! What another device asks of the processor in the middle of a pass.

use crate::model::{Groups, Role};
use std::ops::Range;

/// What the other device has found out about cold neurons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum Found {
    /// Nothing: the processor looks for itself.
    Nothing,
    /// Those that fire, with their activations.
    Fired,
    /// Those that a predictor names.
    Named,
}

/// What comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum Input {
    /// What the step reads.
    Ready,
    /// The residual stream, which this norm makes that of.
    Residual(Role),
}

/// A piece of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::executor) enum Request {
    /// A layer's attention; the answer is what it gives.
    Attention { layer: usize, input: Input },
    /// A layer's FFN; the answer is what it gives.
    Ffn { layer: usize, input: Input },
    /// What a layer's router chooses of its input, which later requests for the layer's FFN go by. The answer is what each of its
    /// rows counts for each token, 0 where it is not chosen.
    Router { layer: usize },
    /// Of what the router has chosen before for any token, the groups that are named, by group of the layer, with all of their
    /// neurons; the answer is their sum.
    Named { layer: usize, groups: Vec<bool> },
    /// The cold neurons of the groups that a router on the other device has chosen, and where `groups` has them of those that are
    /// computed for every token: by group of the layer, those from `n_hot` on. The answer is their sum.
    Routed { layer: usize, groups: Groups, n_hot: Vec<usize> },
    /// The cold neurons of a group; the answer is their sum.
    Cold { layer: usize, group: usize, n_hot: usize, found: Found },
    /// Whole layers, of the residual stream: the answer is the new one.
    Layers(Range<usize>),
    /// What comes behind the other device's last part: the answer is the same residual stream.
    Tail,
}
