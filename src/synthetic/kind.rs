//! The kinds of random numbers.

/// Which tensor, or which of the choices behind them: part of the key of its random numbers, so new ones come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    TokenEmbd,
    Output,
    AttnQ,
    AttnK,
    AttnV,
    AttnOutput,
    FfnGate,
    FfnUp,
    /// Columns or rows of neurons, depending on the layout.
    FfnDown,
    /// The order of neurons.
    Order,
    /// Signs of channels in the gates.
    Signs,
    /// The pools: rows as long as the residual stream, rows as long as all heads, and rows of `ffn_down_t`.
    Inputs,
    Heads,
    Down,
    Router,
    /// The order of experts.
    Experts,
    LatentDown,
    LatentUp,
    SsmIn,
    SsmConv,
    /// Decays and time steps.
    SsmHeads,
    SsmOut,
    /// Signs of the last norm, where the head is the embedding.
    HeadSigns,
}
