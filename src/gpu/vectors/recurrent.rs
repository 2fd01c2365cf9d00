//! How long a recurrent layer takes between its two matrices.

use super::{FLOAT, Timed, Vectors};
use crate::gpu::memory::{Arena, Ptr};
use crate::gpu::meter::{Copies, POSITIVE};
use crate::gpu::ops::norm::{Acts, x8_bytes};
use crate::gpu::ops::recurrent::{GroupNorm, Mixer, Tokens, convolve, group_norm, scan};
use crate::placement::budget::aligned;
use anyhow::Result;

impl Vectors<'_> {
    /// Its three kernels, where the model has such layers; each launch of the second with states of its own.
    pub(super) fn recurrent(&mut self) -> Result<()> {
        let Some(ssm) = &self.token.config.ssm else { return Ok(()) };
        let (sizes, meter) = (ssm.sizes(), self.meter);
        let (kernels, stream) = (&meter.kernels, &meter.stream);
        let (n, n_inner, n_heads) = (sizes.n_channels(), sizes.n_inner(), sizes.n_heads);
        let floats = [n * sizes.n_conv, n, n_heads, n_heads, n_heads, sizes.n_conv_state(), sizes.n_projected()];
        let needed = floats.into_iter().chain([n_inner; 2]).map(|n| aligned(FLOAT * n as u64)).sum::<u64>();
        let mut memory = Arena::new(meter.device(), needed + aligned(x8_bytes(n_inner)), "measuring")?;
        stream.fill(memory.buffer().ptr(), POSITIVE, memory.buffer().len())?;
        let mut take = |n: usize| memory.take(FLOAT * n as u64, "a recurrent layer");
        let (taps, bias, dt_bias) = (take(n * sizes.n_conv)?, take(n)?, take(n_heads)?);
        let (rates, past, conv) = (take(n_heads)?, take(n_heads)?, take(sizes.n_conv_state())?);
        let (projected, y, weight) = (take(sizes.n_projected())?, take(n_inner)?, take(n_inner)?);
        let x8 = memory.take(x8_bytes(n_inner), "a recurrent layer")?;
        let mixer = Mixer { sizes, taps, bias, dt_bias, rates, past, conv, heads: Ptr::NULL, apart: 0 };
        let tokens = Tokens { projected, n_tokens: 1, token: Ptr::NULL, first: 1 };
        // Taps, what is remembered both ways, channels both ways.
        let bytes = FLOAT * (n * sizes.n_conv + 2 * sizes.n_conv_state() + 2 * n) as u64;
        self.time("recurrent_convolve", format!("{} tokens of {n}", sizes.n_conv), bytes, || {
            convolve(kernels, stream, &mixer, &tokens)
        })?;
        let state = FLOAT * sizes.n_states() as u64;
        let states = Copies::new(meter, state)?;
        let of = |i: usize| Mixer { heads: states.at(i), ..mixer };
        let times = meter.per_launch(|i| scan(kernels, stream, &of(i), &tokens, y))?;
        let (part, n_copies) = (format!("{n_inner} x {}", sizes.n_state), states.n);
        // Read and written.
        let bytes = 2 * state;
        self.measured.push(Timed { kernel: "recurrent_scan", part, dtype: None, bytes, times, n_copies });
        let piece = n_inner / sizes.n_groups;
        let norm = GroupNorm { n_groups: sizes.n_groups, n: piece, weight, eps: self.token.config.norm_eps };
        self.time("recurrent_norm", format!("{} of {piece}", sizes.n_groups), 2 * FLOAT * n_inner as u64, || {
            group_norm(kernels, stream, &norm, y, 1, Acts { f32: y, x8 })
        })
    }
}
