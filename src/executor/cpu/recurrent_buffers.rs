//! Memory of a pass through recurrent layers.

/// Where values go on their way through a recurrent layer, kept from layer to layer.
#[derive(Default)]
pub(super) struct RecurrentBuffers {
    /// `[n_tokens][n_projected]`: gate, channels and step widths.
    pub projected: Vec<f32>,
    /// Numbers of the tokens of one sequence.
    pub tokens: Vec<u32>,
    /// `[n_tokens][n_channels]`, of these.
    pub convolved: Vec<f32>,
    /// `[n_heads][n_tokens]`: step widths.
    pub delta: Vec<f32>,
    /// `[n_heads][n_tokens][head_dim]`.
    pub by_head: Vec<f32>,
    /// `[n_tokens][n_inner]`, of all tokens.
    pub mixed: Vec<f32>,
}
