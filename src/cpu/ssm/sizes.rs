//! Sizes of a layer's state-space model.

/// Sizes of a layer's state-space model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Heads, `M`.
    pub n_heads: usize,
    /// Elements of a head, `P`.
    pub head_dim: usize,
    /// Groups of heads, `G`, which divide them.
    pub n_groups: usize,
    /// Elements of `B` and `C`, `N`.
    pub n_state: usize,
    /// Tokens that the convolution sees, `K`.
    pub n_conv: usize,
}

impl Sizes {
    /// Elements of all heads.
    pub fn n_inner(self) -> usize {
        self.n_heads * self.head_dim
    }

    /// What goes through the convolution: `x` of all heads, then `B` of all groups, then `C`.
    pub fn n_channels(self) -> usize {
        self.n_inner() + 2 * self.n_groups * self.n_state
    }

    /// What the input projection gives: `z`, the channels, and a step width per head.
    pub fn n_projected(self) -> usize {
        self.n_inner() + self.n_channels() + self.n_heads
    }

    /// Floats of the state of one head.
    pub fn n_head_state(self) -> usize {
        self.head_dim * self.n_state
    }

    /// Floats of the states of all heads.
    pub fn n_states(self) -> usize {
        self.n_heads * self.n_head_state()
    }

    /// Floats of the channels of earlier tokens that the convolution sees.
    pub fn n_conv_state(self) -> usize {
        (self.n_conv - 1) * self.n_channels()
    }

    /// The group of a head.
    pub fn group_of(self, head: usize) -> usize {
        head / (self.n_heads / self.n_groups)
    }

    /// Of a token's channels behind the convolution: `x` of a head, with `B` and `C` of its group.
    pub fn of_head(self, v: &[f32], head: usize) -> (&[f32], &[f32], &[f32]) {
        let (group, n) = (self.group_of(head), self.n_state);
        let b = self.n_inner() + group * n;
        let c = b + self.n_groups * n;
        (&v[head * self.head_dim..][..self.head_dim], &v[b..][..n], &v[c..][..n])
    }
}
