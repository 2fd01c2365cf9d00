//! A model as the processor computes it: what does not change from pass to pass.

use super::attention::Rotation;
use crate::executor::mask::MaskSource;
use crate::executor::params::ExecutorParams;
use crate::model::{Chosen, Model};
use crate::placement::Placement;

/// What a pass must know.
pub(super) struct Setup<'m> {
    pub model: &'m Model,
    pub params: ExecutorParams,
    pub placement: Placement,
    pub rotation: Rotation,
    /// That of layers with a window, where it is another one.
    pub window_rotation: Option<Rotation>,
    /// Weights of convolutions, by layer: see `recurrent::taps`.
    pub taps: Vec<Vec<f32>>,
    /// By layer, when each of its groups is computed.
    pub chosen: Vec<Vec<Chosen>>,
    /// Whether routers choose any of them.
    pub routed: bool,
    /// Which neurons are active in exact mode.
    pub mask: Box<dyn MaskSource>,
    /// One in so many tokens is looked at for what predictors miss; 0 for none.
    pub audit_every: u64,
}

impl Setup<'_> {
    /// How layer number `layer` rotates, if it does.
    pub fn rotation_of(&self, layer: usize) -> &Rotation {
        let windowed = self.model.config.windows[layer].is_some();
        self.window_rotation.as_ref().filter(|_| windowed).unwrap_or(&self.rotation)
    }
}
