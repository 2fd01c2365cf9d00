//! Layers that recur: convolution, states, and the norm behind them.

use super::Test;
use super::memory::{Memory, SLACK, near};
use crate::cpu::ssm::{Sizes, plain};
use crate::gpu::Ptr;
use crate::gpu::ops::norm::{Acts, x8_bytes};
use crate::gpu::ops::recurrent::{GroupNorm, Mixer, Tokens, convolve, group_norm, scan};
use anyhow::Result;

/// More channels and elements than a block takes, and not a multiple of them.
const SIZES: Sizes = Sizes { n_heads: 4, head_dim: 40, n_groups: 2, n_state: 150, n_conv: 4 };
const N_TOKENS: usize = 3;
/// Relative to the largest value: sums of 150 products in another order.
const TOLERANCE: f64 = 2e-6;

pub(super) fn all(test: &mut Test) -> Result<()> {
    test.of("recurrent_convolve", |m| Mixed::new(m)?.convolved(m))?;
    test.of("recurrent_scan", |m| Mixed::new(m)?.scanned(m))?;
    test.of("recurrent_norm", normed)
}

fn close(what: &str, got: &[f32], expected: &[f32]) -> Result<()> {
    let largest = expected.iter().fold(0.0f64, |most, v| most.max(f64::from(v.abs())));
    near(what, got, expected.iter().map(|v| f64::from(*v)), |_| SLACK * TOLERANCE * largest)
}

/// A mixer with some tokens, here and on the card.
struct Mixed {
    mixer: Mixer,
    tokens: Tokens,
    projected: Vec<f32>,
    weights: [Vec<f32>; 5],
    conv: Vec<f32>,
    states: Vec<f32>,
}

impl Mixed {
    fn new(m: &mut Memory) -> Result<Self> {
        let sizes = SIZES;
        let (n, n_heads) = (sizes.n_channels(), sizes.n_heads);
        let [taps, bias] = [n * sizes.n_conv, n].map(|n| m.random.values(n));
        let [dt_bias, past] = [n_heads; 2].map(|n| m.random.values(n));
        // States decay.
        let rates: Vec<f32> = m.random.values(n_heads).iter().map(|v| v - 1.5).collect();
        let [projected, conv, states] =
            [N_TOKENS * sizes.n_projected(), sizes.n_conv_state(), sizes.n_states()].map(|n| m.random.values(n));
        let mixer = Mixer {
            sizes,
            taps: m.put(&taps)?,
            bias: m.put(&bias)?,
            dt_bias: m.put(&dt_bias)?,
            rates: m.put(&rates)?,
            past: m.put(&past)?,
            conv: m.put(&conv)?,
            heads: m.put(&states)?,
            apart: 0,
        };
        let tokens = Tokens { projected: m.put(&projected)?, n_tokens: N_TOKENS, token: Ptr::NULL, first: 5 };
        Ok(Self { mixer, tokens, projected, weights: [taps, bias, dt_bias, rates, past], conv, states })
    }

    /// Lets the tokens through the mixer here.
    fn mix(&mut self) -> Vec<f32> {
        let [taps, bias, dt_bias, rates, past] = &self.weights;
        let weights = plain::Weights { taps, bias, dt_bias, rates, past };
        let mut y = vec![0.0; N_TOKENS * SIZES.n_inner()];
        for (of, y) in self.projected.chunks_exact(SIZES.n_projected()).zip(y.chunks_exact_mut(SIZES.n_inner())) {
            plain::mix(SIZES, &weights, of, &mut self.conv, &mut self.states, y);
        }
        y
    }

    /// Channels as the convolution leaves them, of all tokens.
    fn channels(&self) -> Vec<f32> {
        let (n, n_conv) = (SIZES.n_channels(), SIZES.n_conv);
        let taps: Vec<f32> =
            (0..n_conv).flat_map(|k| self.weights[0].iter().skip(k).step_by(n_conv).copied()).collect();
        let own = |of: &'_ [f32]| of[SIZES.n_inner()..][..n].to_vec();
        let rows = self.projected.chunks_exact(SIZES.n_projected()).map(own);
        let all: Vec<Vec<f32>> = self.conv.chunks_exact(n).map(<[f32]>::to_vec).chain(rows).collect();
        let mut out = vec![0.0; N_TOKENS * n];
        for (window, out) in all.windows(n_conv).zip(out.chunks_exact_mut(n)) {
            let window: Vec<&[f32]> = window.iter().map(|u| &**u).collect();
            plain::convolve(&taps, &self.weights[1], &window, out);
        }
        out
    }

    fn convolved(&mut self, m: &mut Memory) -> Result<()> {
        convolve(&m.kernels, &m.stream, &self.mixer, &self.tokens)?;
        let got = m.get::<f32>(self.tokens.projected, self.projected.len())?;
        let own = got.chunks_exact(SIZES.n_projected()).flat_map(|of| &of[SIZES.n_inner()..][..SIZES.n_channels()]);
        close("channel", &own.copied().collect::<Vec<_>>(), &self.channels())?;
        self.mix();
        close("remembered channel", &m.get::<f32>(self.mixer.conv, self.conv.len())?, &self.conv)
    }

    /// Only the second kernel: what the first one gives is put there.
    fn scanned(&mut self, m: &mut Memory) -> Result<()> {
        let channels = self.channels();
        let mut convolved = self.projected.clone();
        let own = convolved.chunks_exact_mut(SIZES.n_projected()).zip(channels.chunks_exact(SIZES.n_channels()));
        own.for_each(|(of, channels)| of[SIZES.n_inner()..][..channels.len()].copy_from_slice(channels));
        let tokens = Tokens { projected: m.put(&convolved)?, ..self.tokens };
        let y = m.room_of::<f32>(N_TOKENS * SIZES.n_inner())?;
        scan(&m.kernels, &m.stream, &self.mixer, &tokens, y)?;
        let expected = self.mix();
        close("value", &m.get::<f32>(y, expected.len())?, &expected)?;
        close("state", &m.get::<f32>(self.mixer.heads, self.states.len())?, &self.states)
    }
}

fn normed(m: &mut Memory) -> Result<()> {
    const GROUPS: usize = 3;
    const N: usize = 1056;
    const EPS: f32 = 1e-5;
    let (x, weight) = (m.random.values(2 * GROUPS * N), m.random.values(GROUPS * N));
    let norm = GroupNorm { n_groups: GROUPS, n: N, weight: m.put(&weight)?, eps: EPS };
    let (there, x8) = (m.put(&x)?, m.room(2 * x8_bytes(GROUPS * N))?);
    group_norm(&m.kernels, &m.stream, &norm, there, 2, Acts { f32: there, x8 })?;
    let scale = |piece: &[f32]| {
        let square = piece.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / N as f64;
        1.0 / (square as f32 + EPS).sqrt()
    };
    let pieces = x.chunks_exact(N).zip(weight.chunks_exact(N).cycle());
    let expected = pieces.flat_map(|(x, w)| {
        let scale = scale(x);
        x.iter().zip(w).map(move |(x, w)| x * scale * w).collect::<Vec<_>>()
    });
    let (got, expected) = (m.get::<f32>(there, x.len())?, expected.collect::<Vec<_>>());
    close("value", &got, &expected)?;
    for (token, values) in got.chunks_exact(GROUPS * N).enumerate() {
        m.check_quantized(x8.offset(token as u64 * x8_bytes(GROUPS * N)), values)?;
    }
    Ok(())
}
