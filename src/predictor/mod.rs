//! Predictors: which neurons of a layer will fire, told from its input without its mask matrix.

pub mod mlp;
