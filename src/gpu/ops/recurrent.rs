//! `kernels/recurrent.cu`: what a layer that recurs does between its two matrices.

use super::norm::Acts;
use crate::cpu::ssm::Sizes;
use crate::gpu::{Args, Kernels, Ptr, Stream};
use crate::quant::blocks::QK;
use anyhow::{Result, ensure};

/// Tokens that a convolution sees at the most.
pub const MAX_TAPS: usize = 16;
/// Heads at the most: a grid has no more along y.
const MAX_HEADS: usize = 65_535;
/// Channels of a block that convolves, and its threads.
const CHANNELS: usize = 128;
/// Elements of a head that a block takes through its tokens.
const ELEMENTS: usize = 32;
/// Threads of the other blocks.
const THREADS: u32 = 256;

/// A layer's state-space model on the card: floats, as the file has them.
#[derive(Debug, Clone, Copy)]
pub struct Mixer {
    /// Its sizes: the letters below are those of [`crate::cpu::ssm`].
    pub sizes: Sizes,
    /// `[C][K]` for `C` channels.
    pub taps: Ptr,
    /// `[C]`: added to what is convolved.
    pub bias: Ptr,
    /// `[M]`: added to step widths.
    pub dt_bias: Ptr,
    /// `[M]`: how fast states decay, `a`.
    pub rates: Ptr,
    /// `[M]`: what goes past the state, `d`.
    pub past: Ptr,
    /// `[K - 1][C]`: what the sequence remembers of channels.
    pub conv: Ptr,
    /// `[M][N][P]`: what it remembers of states.
    pub heads: Ptr,
    /// Bytes from what is remembered of the first sequence, above, to that of the next one.
    pub apart: u64,
}

impl Mixer {
    /// That of sequence number `sequence`, where tokens do not say which they are of.
    pub fn of_sequence(&self, sequence: usize) -> Self {
        let offset = sequence as u64 * self.apart;
        Self { conv: self.conv.offset(offset), heads: self.heads.offset(offset), ..*self }
    }
}

/// Some tokens of one sequence on their way through a mixer.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// What the input projection gave: `[n_tokens][2 M P + 2 G N + M]`.
    pub projected: Ptr,
    /// How many they are.
    pub n_tokens: usize,
    /// State of the token whose position is that of the first one, and whose sequence it is, or [`Ptr::NULL`] for position 0 of
    /// the sequence that the mixer is of.
    pub token: Ptr,
    /// Added to that position. At position 0 nothing is remembered, whatever is there.
    pub first: usize,
}

/// Whether there are kernels for all that such a layer does.
///
/// # Errors
/// Says which size is too large, or is no multiple of what it must be.
pub fn check(sizes: Sizes) -> Result<()> {
    check_mixer(sizes)?;
    check_piece(sizes.n_inner() / sizes.n_groups)
}

/// Whether values of so many in a group can be normalised.
fn check_piece(n: usize) -> Result<()> {
    let whole = n > 0 && n.is_multiple_of(QK);
    ensure!(whole, "groups of {n} values are normalised; multiples of {QK} are possible on a card");
    Ok(())
}

fn check_mixer(sizes: Sizes) -> Result<()> {
    let Sizes { n_heads, n_groups, n_conv, .. } = sizes;
    ensure!(
        (1..=MAX_TAPS).contains(&n_conv),
        "a convolution of {n_conv} tokens; up to {MAX_TAPS} are possible on a card"
    );
    ensure!(n_heads <= MAX_HEADS, "{n_heads} heads; up to {MAX_HEADS} are possible on a card");
    ensure!(n_groups > 0 && n_heads.is_multiple_of(n_groups), "{n_heads} heads in {n_groups} groups");
    Ok(())
}

/// Enqueues the convolution of the tokens' channels, which go where they were.
///
/// # Errors
/// When sizes are not possible on the card; when the card has failed.
pub fn convolve(kernels: &Kernels, stream: &Stream, mixer: &Mixer, tokens: &Tokens) -> Result<()> {
    check_mixer(mixer.sizes)?;
    let Mixer { sizes, taps, bias, conv, .. } = *mixer;
    let (n, stride) = (sizes.n_channels(), sizes.n_projected());
    let channels = tokens.projected.offset((size_of::<f32>() * sizes.n_inner()) as u64);
    let args = Args::new().ptr(channels).n(stride).n(n).n(sizes.n_conv).ptr(taps).ptr(bias).ptr(conv);
    let args = args.ptr(tokens.token).n(tokens.first).n(tokens.n_tokens).u32(u32::try_from(mixer.apart)?);
    let grid = [u32::try_from(n.div_ceil(CHANNELS))?, 1, 1];
    kernels.launch(stream, "recurrent_convolve", grid, [CHANNELS as u32, 1, 1], args)
}

/// Enqueues the way of the tokens, whose channels are convolved, through the states of all heads: `y` (`[n_tokens][M P]`) is what
/// they give, gated.
///
/// # Errors
/// As [`convolve`].
pub fn scan(kernels: &Kernels, stream: &Stream, mixer: &Mixer, tokens: &Tokens, y: Ptr) -> Result<()> {
    check_mixer(mixer.sizes)?;
    let Mixer { sizes, dt_bias, rates, past, heads, .. } = *mixer;
    let Sizes { n_heads, head_dim, n_groups, n_state, .. } = sizes;
    let args = Args::new().ptr(tokens.projected).n(sizes.n_projected()).n(n_heads).n(head_dim).n(n_groups).n(n_state);
    let args = args.ptr(dt_bias).ptr(rates).ptr(past).ptr(heads).ptr(y);
    let args = args.ptr(tokens.token).n(tokens.first).n(tokens.n_tokens).u32(u32::try_from(mixer.apart)?);
    let grid = [u32::try_from(head_dim.div_ceil(ELEMENTS))?, u32::try_from(n_heads)?, 1];
    kernels.launch(stream, "recurrent_scan", grid, [THREADS, 1, 1], args)
}

/// Weights of the norm behind a mixer, on the card.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm {
    /// Groups, which are normalised each by itself.
    pub n_groups: usize,
    /// Values of a group, a multiple of 32.
    pub n: usize,
    /// `[n_groups][n]`.
    pub weight: Ptr,
    /// Added to the mean square.
    pub eps: f32,
}

/// Enqueues the norm of `[n_tokens][n_groups][n]` values `x`, which may go where they are.
///
/// # Errors
/// When `n` is not a multiple of 32; when the card has failed.
pub fn group_norm(
    kernels: &Kernels,
    stream: &Stream,
    norm: &GroupNorm,
    x: Ptr,
    n_tokens: usize,
    out: Acts,
) -> Result<()> {
    let GroupNorm { n_groups, n, weight, eps } = *norm;
    check_piece(n)?;
    let args = Args::new().ptr(x).n(n).ptr(weight).f32(eps).ptr(out.f32).ptr(out.x8);
    let grid = [u32::try_from(n_groups)?, u32::try_from(n_tokens)?, 1];
    kernels.launch(stream, "recurrent_norm", grid, [THREADS, 1, 1], args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_without_kernels_are_refused() {
        let nano = Sizes { n_heads: 64, head_dim: 64, n_groups: 8, n_state: 128, n_conv: 4 };
        assert!(check(nano).is_ok());
        for (sizes, why) in [
            (Sizes { n_conv: 17, ..nano }, "of 17 tokens"),
            (Sizes { n_heads: 65_536, ..nano }, "65536 heads"),
            (Sizes { n_groups: 7, ..nano }, "in 7 groups"),
            (Sizes { head_dim: 6, ..nano }, "groups of 48 values"),
        ] {
            let error = check(sizes).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
