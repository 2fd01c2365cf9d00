//! Queries, keys and values, or gate and up, of files that hold them in one tensor.

use super::{Loader, Share};
use crate::model::part::{Part, Role, Tensor};
use crate::model::spec::{Dims, PartSpec, Presence};
use anyhow::{Result, ensure};

/// What stands in the one tensor, in this order.
const ROLES: [Role; 3] = [Role::AttnQ, Role::AttnK, Role::AttnV];
/// Its name, without `blk.N.` and `.weight`.
const TENSOR: &str = "attn_qkv";

impl Loader<'_> {
    /// The parts of the layer of `specs` that lie in its `attn_qkv`, as views on its rows; none where the file has one
    /// tensor for each. llama.cpp takes either from files of every architecture.
    ///
    /// # Errors
    /// When its shape or that of its bias does not follow from the three, or one of these is there as well.
    pub(super) fn fused_qkv(&mut self, prefix: &str, specs: &[PartSpec]) -> Result<Vec<Part>> {
        let (stem, whole) = (format!("{prefix}{TENSOR}"), Share::from(None));
        let name = format!("{stem}.weight");
        let mut wanted = Vec::new();
        for role in ROLES {
            let Some(spec) = specs.iter().find(|spec| spec.role == role) else { return Ok(Vec::new()) };
            let Dims::Matrix { n_rows, n_cols } = spec.dims else { return Ok(Vec::new()) };
            wanted.push((role, n_rows, n_cols, spec.bias));
        }
        let n_cols = wanted[0].2;
        if !self.has(&name) || wanted.iter().any(|(_, _, n, _)| *n != n_cols) {
            return Ok(Vec::new());
        }
        for role in ROLES {
            for end in ["weight", "bias"] {
                let single = format!("{prefix}{}.{end}", role.tensor());
                ensure!(!self.has(&single), "{single}: stands beside {name}, which has its place; which one counts?");
            }
        }
        let n_rows = wanted.iter().map(|(_, n, _, _)| n).sum();
        let matrix = self.matrix(&name, n_rows, n_cols, whole)?;
        let bias = self.bias(&stem, n_rows, presence(wanted.iter().map(|(_, _, _, bias)| *bias)), whole)?;
        let mut first = 0;
        let part = |(role, n, _, _): (Role, usize, usize, Presence)| {
            let rows = first..first + n;
            first = rows.end;
            let tensor = Tensor::Matrix(matrix.slice(rows.start, n));
            let bias = bias.as_ref().map(|bias| bias[rows].into());
            Part { role, tensor, bias, access: super::access(role) }
        };
        Ok(wanted.into_iter().map(part).collect())
    }
}

impl Loader<'_> {
    /// Gate and up of `n_ff` neurons of `width` elements each, as views on the rows of the `share` of the tensor `name`:
    /// those of gate come first.
    ///
    /// # Errors
    /// When its shape is another one.
    pub(super) fn fused_gate_and_up(
        &mut self,
        name: &str,
        n_ff: usize,
        width: usize,
        share: Share,
    ) -> Result<(Part, Part)> {
        let both = self.matrix(name, 2 * n_ff, width, share)?;
        let part = |role: Role, first: usize| {
            let tensor = Tensor::Matrix(both.slice(first, n_ff));
            Part { role, tensor, bias: None, access: super::access(role) }
        };
        Ok((part(Role::FfnGate, 0), part(Role::FfnUp, n_ff)))
    }
}

/// Whether the bias of all has to be there, given whether that of each has to be.
fn presence(all: impl Iterator<Item = Presence>) -> Presence {
    all.reduce(|a, b| match (a, b) {
        (Presence::Required, _) | (_, Presence::Required) => Presence::Required,
        (Presence::Optional, _) | (_, Presence::Optional) => Presence::Optional,
        (Presence::Absent, Presence::Absent) => Presence::Absent,
    })
    .unwrap_or(Presence::Absent)
}
