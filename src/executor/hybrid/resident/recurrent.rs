//! Layers that recur, in the card's memory.

use super::CardLinear;
use crate::cpu::ssm::Sizes;
use crate::executor::recurrent::State;
use crate::gpu::ops::recurrent::{GroupNorm, Mixer};
use crate::gpu::{Ptr, Stream};
use crate::model::{Config, Role};
use crate::placement::budget::aligned;
use anyhow::{Context, Result};

/// Where the floats of a part are.
#[derive(Clone, Copy)]
pub(super) struct Floats {
    pub role: Role,
    pub weight: Ptr,
    /// [`Ptr::NULL`] where there is none.
    pub bias: Ptr,
}

/// The recurrent mixer of a layer.
pub(in crate::executor::hybrid) struct CardRecurrent {
    pub input: CardLinear,
    pub output: CardLinear,
    pub mixer: Mixer,
    pub norm: GroupNorm,
}

impl CardRecurrent {
    /// Puts together what was loaded of a layer; what sequences remember of it begins at `state`.
    pub(super) fn new(
        config: &Config,
        floats: &[Floats],
        state: Ptr,
        linear: impl Fn(Role) -> Result<CardLinear>,
    ) -> Result<Self> {
        let sizes = config.ssm.context("a layer that recurs, without sizes")?.sizes();
        let part = |role: Role| {
            let found = floats.iter().find(|floats| floats.role == role);
            found.with_context(|| format!("{} is missing", role.tensor()))
        };
        let (conv, norm) = (part(Role::SsmConv)?, part(Role::SsmNorm)?);
        let mixer = Mixer {
            sizes,
            taps: conv.weight,
            bias: conv.bias,
            dt_bias: part(Role::SsmDt)?.weight,
            rates: part(Role::SsmA)?.weight,
            past: part(Role::SsmD)?.weight,
            conv: state,
            heads: state.offset((size_of::<f32>() * sizes.n_conv_state()) as u64),
            apart: aligned((size_of::<f32>() * (sizes.n_conv_state() + sizes.n_states())) as u64),
        };
        let Sizes { n_groups, .. } = sizes;
        let norm = GroupNorm { n_groups, n: sizes.n_inner() / n_groups, weight: norm.weight, eps: config.norm_eps };
        Ok(Self { input: linear(Role::SsmIn)?, output: linear(Role::SsmOut)?, mixer, norm })
    }

    /// What sequence number `sequence` remembers of the layer, into `state`, which is of the same sizes.
    pub fn save(&self, stream: &Stream, sequence: usize, state: &mut State) -> Result<()> {
        let mixer = self.mixer.of_sequence(sequence);
        stream.read(mixer.conv, &mut state.conv)?;
        stream.read(mixer.heads, &mut state.heads)
    }

    /// Makes what it remembers of the layer `state`.
    pub fn restore(&self, stream: &Stream, sequence: usize, state: &State) -> Result<()> {
        let mixer = self.mixer.of_sequence(sequence);
        stream.write(mixer.conv, &state.conv)?;
        stream.write(mixer.heads, &state.heads)
    }
}
