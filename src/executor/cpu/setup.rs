//! A model as the processor computes it: what does not change from pass to pass.

use super::attention::Rotation;
use crate::executor::mask::MaskSource;
use crate::executor::params::ExecutorParams;
use crate::model::Model;
use crate::placement::Placement;

/// What a pass must know.
pub(super) struct Setup<'m> {
    pub model: &'m Model,
    pub params: ExecutorParams,
    pub placement: Placement,
    pub rotation: Rotation,
    /// Which neurons are active in exact mode.
    pub mask: Box<dyn MaskSource>,
    /// One in so many tokens is looked at for what predictors miss; 0 for none.
    pub audit_every: u64,
}
