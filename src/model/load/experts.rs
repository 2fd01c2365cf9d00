//! Groups of neurons of old files, which have one tensor for each.

use super::{Loader, Share};
use crate::model::down::Down;
use crate::model::part::Role;
use crate::model::spec::GroupSpec;
use anyhow::{Result, ensure};

impl Loader<'_> {
    /// What names of the tensors of a group of layer `i` have behind that of the role, and the share of them that is the
    /// group's. Files from before 2024-04 hold each expert by itself: `blk.N.ffn_up.E.weight`.
    ///
    /// # Errors
    /// When a file has both forms.
    pub(super) fn place_of(&self, i: usize, spec: &GroupSpec) -> Result<(String, Share)> {
        let stacked = (spec.suffix.to_owned(), Share::from(spec.stack));
        let Some(stack) = spec.stack else { return Ok(stacked) };
        let alone = |role: Role, at: usize| format!("blk.{i}.{}.{at}.weight", role.tensor());
        let all = format!("blk.{i}.{}{}.weight", Role::FfnUp.tensor(), spec.suffix);
        // Some may be missing, which is said of them then.
        let is_there = |at: &usize| [Role::FfnUp, Role::FfnDown].iter().any(|role| self.has(&alone(*role, *at)));
        if ![0, stack.at, stack.of - 1].iter().any(is_there) {
            return Ok(stacked);
        }
        let one = alone(Role::FfnUp, stack.at);
        let both = self.has(&all) && self.has(&one);
        ensure!(!both, "{one}: stands beside {all}, which holds all experts; which one counts?");
        if self.has(&all) {
            return Ok(stacked);
        }
        Ok((format!(".{}", stack.at), Share::from(None)))
    }

    /// `down` of a group whose rows lie in the model's own order. SmallThinker's makers write that of experts with a row for
    /// each neuron, which only its shape tells.
    ///
    /// # Errors
    /// When the tensor is missing, or of neither shape.
    pub(super) fn plain_down(&mut self, name: &str, n_ff: usize, width: usize, share: Share) -> Result<Down> {
        let by_neuron = share.dims(&[width, n_ff]);
        if share.of > 1 && n_ff != width && self.gguf.tensor(name).is_some_and(|tensor| tensor.dims == by_neuron) {
            return Ok(Down::Rows(self.matrix(name, n_ff, width, share)?));
        }
        Ok(Down::Columns(self.matrix(name, width, n_ff, share)?))
    }
}
