//! Groups of neurons of old files, which have one tensor for each.

use super::{Loader, Share};
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
        let up = Role::FfnUp.tensor();
        let alone = |at: usize| format!("blk.{i}.{up}.{at}.weight");
        let all = format!("blk.{i}.{up}{}.weight", spec.suffix);
        if !(0..stack.of).any(|at| self.has(&alone(at))) {
            return Ok(stacked);
        }
        let one = alone(stack.at);
        ensure!(!self.has(&all), "{one}: stands beside {all}, which holds all experts; which one counts?");
        Ok((format!(".{}", stack.at), Share::from(None)))
    }
}
