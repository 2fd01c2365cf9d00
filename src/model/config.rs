//! Sizes and kinds of a model, as data.

use super::experts::Experts;
use super::positions::Positions;
use super::presence::Presence;
use super::resolved::ResolvedActivation;
use crate::cpu::ssm::Sizes;

/// Kind of normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, no mean, no bias.
    Rms,
    /// Mean and variance, with a bias where the file has one.
    Layer,
}

impl NormKind {
    /// Whether such norms have biases.
    pub fn bias(self) -> Presence {
        match self {
            Self::Rms => Presence::Absent,
            Self::Layer => Presence::Optional,
        }
    }
}

/// How rotary embedding pairs the elements of a head (RoFormer, arXiv 2104.09864).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// Element `2i` with `2i + 1`.
    Interleaved,
    /// Element `i` with `i + n/2`.
    Halves,
    /// No rotary embedding.
    None,
}

/// Rotary embedding of one model.
#[derive(Debug, Clone)]
pub struct Rope {
    /// Pairing of elements.
    pub kind: RopeKind,
    /// Base of the frequencies.
    pub base: f32,
    /// Elements of a head that are rotated.
    pub n_dims: usize,
    /// Elements of a head before those.
    pub first: usize,
    /// Positions are multiplied by this (linear scaling: 1 / factor).
    pub scale: f32,
    /// What is rotated is multiplied by this, too.
    pub magnitude: f32,
    /// Which pairs are not scaled, or in part; without it all are.
    pub yarn: Option<Yarn>,
    /// Contexts of more tokens take their divisors of frequencies from `rope_factors_long`, others from `rope_factors_short`;
    /// `None` where there are no such.
    pub long_from: Option<usize>,
}

impl Rope {
    /// A rotation that nothing scales.
    pub fn plain(kind: RopeKind, base: f32, n_dims: usize) -> Self {
        Self { kind, base, n_dims, first: 0, scale: 1.0, magnitude: 1.0, yarn: None, long_from: None }
    }

    /// Radians per position of each pair (`[n_dims / 2]`); `divisors` are those of [`Weights::rope_divisors`](super::Weights),
    /// one per pair, where the model has them.
    pub fn frequencies(&self, divisors: Option<&[f32]>) -> Vec<f32> {
        let n = self.n_dims;
        let of_pair = |i: usize| {
            let base = f64::from(self.base).powf(-2.0 * i as f64 / n as f64) as f32;
            let unscaled = base / divisors.map_or(1.0, |d| d[i]);
            match &self.yarn {
                None => unscaled * self.scale,
                Some(yarn) => {
                    let kept = yarn.kept(i, n, self.base);
                    unscaled * (self.scale * (1.0 - kept) + kept)
                }
            }
        };
        (0..n / 2).map(of_pair).collect()
    }
}

/// YaRN (arXiv 2309.00071): pairs that turn often within the original context keep their frequency, those that turn less
/// than about once are scaled, and between the two it passes from one to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// How much of it is done: 1 is all, 0 linear scaling.
    pub share: f32,
    /// The original context in tokens.
    pub n_ctx: usize,
    /// Turns within the original context from which on nothing is scaled.
    pub beta_fast: f32,
    /// Turns within the original context up to which all is.
    pub beta_slow: f32,
}

impl Yarn {
    /// What queries and keys are multiplied by where positions are divided by `factor`; `log_multiplier` is that of what
    /// attention is divided by elsewhere, 0 where it is not.
    pub fn magnitude(factor: f32, log_multiplier: f32) -> f32 {
        let of = |multiplier: f32| match factor > 1.0 {
            true => 1.0 + 0.1 * f64::from(multiplier) * f64::from(factor).ln(),
            false => 1.0,
        };
        let divisor = if log_multiplier == 0.0 { 1.0 } else { of(log_multiplier) };
        (of(1.0) / divisor) as f32
    }

    /// The share of the frequency of pair `i`, of `n_dims` elements, that is not scaled.
    fn kept(&self, i: usize, n_dims: usize, base: f32) -> f32 {
        let n = n_dims as f64;
        let pair_that_turns = |times: f32| {
            let length = self.n_ctx as f64 / (f64::from(times) * std::f64::consts::TAU);
            n * length.ln() / (2.0 * f64::from(base).ln())
        };
        let low = pair_that_turns(self.beta_fast).floor().max(0.0);
        let high = pair_that_turns(self.beta_slow).ceil().min(n - 1.0);
        // Where the two meet it is a step.
        let ramp = (i as f64 - low) / (high - low).max(0.001);
        self.share * (1.0 - ramp.clamp(0.0, 1.0)) as f32
    }
}

/// Queries that are scaled by their position: by `1 + scale * ln(1 + floor(position / n_ctx))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// How much.
    pub scale: f32,
    /// Tokens after which it grows.
    pub n_ctx: usize,
}

impl Temperature {
    /// What the query at `position` is multiplied by.
    pub fn at(&self, position: usize) -> f32 {
        let times = (1 + position / self.n_ctx) as f32;
        1.0 + self.scale * times.ln()
    }
}

/// What a model multiplies by on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// Embeddings, before the first layer.
    pub embedding: f32,
    /// What blocks give, before it is added to the residual stream.
    pub residual: f32,
    /// Logits.
    pub logits: f32,
}

impl Scales {
    /// Of a model that does not.
    pub const NONE: Self = Self { embedding: 1.0, residual: 1.0, logits: 1.0 };
}

/// What values stay below: of a cap `c`, `x` becomes `c * tanh(x / c)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Caps {
    /// Scores of attention, once they are scaled.
    pub scores: Option<f32>,
    /// Logits.
    pub logits: Option<f32>,
}

impl Caps {
    /// Of a model that has none.
    pub const NONE: Self = Self { scores: None, logits: None };

    /// Applies a cap.
    pub fn apply(cap: f32, values: &mut [f32]) {
        values.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
}

/// Sizes and kinds of a model. [`Keys`](super::Keys) reads them from a file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Value of `general.architecture`.
    pub arch: String,
    /// Value of `general.name`, or the architecture where there is none; what could command a terminal is escaped.
    pub name: String,
    /// Entries of the vocabulary: rows of `token_embd`.
    pub n_vocab: usize,
    /// Entries that are tokens: rows beyond are padding, and are never sampled.
    pub n_tokens: usize,
    /// Context the model was trained for, in tokens.
    pub n_ctx_train: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// What `feed_forward_length` says of each layer.
    pub n_ff: Vec<usize>,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads (grouped-query attention where fewer than `n_head`).
    pub n_head_kv: usize,
    /// Elements of each head of queries and keys.
    pub head_dim: usize,
    /// Elements of each head of values.
    pub value_dim: usize,
    /// Elements of the narrow vector that keys and values are made from, where there is one.
    pub n_latent: Option<usize>,
    /// What scores of attention are multiplied by.
    pub attention_scale: f32,
    /// What they are multiplied by beside that, where it depends on the position of the query.
    pub temperature: Option<Temperature>,
    /// Other factors.
    pub scales: Scales,
    /// Soft caps.
    pub caps: Caps,
    /// Kind of every normalisation.
    pub norm: NormKind,
    /// Whether norms of queries and keys have weights of their own for each head, which is normalised alone.
    pub own_head_norms: bool,
    /// Epsilon of every normalisation.
    pub norm_eps: f32,
    /// Whether attention and FFN read the same input, for architectures that have layers of both kinds.
    pub parallel: bool,
    /// Rotary embedding.
    pub rope: Rope,
    /// Whether each layer rotates its queries and keys.
    pub rotated: Vec<bool>,
    /// Of each layer: tokens that a token looks back on, itself among them, where that is limited.
    pub windows: Vec<Option<usize>>,
    /// Rotary embedding of layers with a window, where it is another one.
    pub window_rope: Option<Rope>,
    /// Activation of the FFN, and why this one.
    pub activation: ResolvedActivation,
    /// Whether attention and FFN of parallel blocks have a norm each, for architectures that have models of both kinds.
    pub two_norms: bool,
    /// Learned embeddings of positions, where there are any.
    pub positions: Option<Positions>,
    /// Groups of neurons that a router chooses among, where there are any.
    pub experts: Option<Experts>,
    /// What mixes the tokens in each layer.
    pub mixers: Vec<Mixer>,
    /// Sizes of recurrent mixers, where there are any.
    pub ssm: Option<Ssm>,
}

/// What mixes the tokens in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixer {
    /// Attention.
    Attention,
    /// A state space model.
    Recurrent,
    /// Nothing: the layer is an FFN alone.
    None,
}

/// Sizes of a state space model (Mamba-2, arXiv 2405.21060).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ssm {
    /// Tokens that its convolution looks at, the last one among them.
    pub n_conv: usize,
    /// Elements of all heads.
    pub n_inner: usize,
    /// Elements of the state that each element of a head has.
    pub n_state: usize,
    /// Heads.
    pub n_heads: usize,
    /// Groups of heads that share what goes into the state and what is read out of it.
    pub n_groups: usize,
}

impl Ssm {
    /// Channels that are convolved.
    pub fn n_channels(&self) -> usize {
        self.n_inner + 2 * self.n_groups * self.n_state
    }

    /// Rows of `ssm_in`.
    pub fn n_in(&self) -> usize {
        self.n_inner + self.n_channels() + self.n_heads
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.n_inner / self.n_heads
    }

    /// The same for kernels.
    pub fn sizes(&self) -> Sizes {
        let Self { n_conv, n_state, n_heads, n_groups, .. } = *self;
        Sizes { n_heads, head_dim: self.head_dim(), n_groups, n_state, n_conv }
    }
}

impl Config {
    /// Its experts.
    ///
    /// # Panics
    /// Where there are none: of an architecture that always has some, [`Architecture::config`](super::arch::Architecture)
    /// has seen to it.
    pub fn experts(&self) -> &Experts {
        self.experts.as_ref().unwrap_or_else(|| panic!("{}: a model without experts", self.arch))
    }

    /// What scores are multiplied by where nothing else is said.
    pub fn usual_attention_scale(head_dim: usize) -> f32 {
        1.0 / (head_dim as f32).sqrt()
    }

    /// How layer number `layer` rotates, if it does.
    pub fn rope_of(&self, layer: usize) -> &Rope {
        self.window_rope.as_ref().filter(|_| self.windows[layer].is_some()).unwrap_or(&self.rope)
    }

    /// Whether a context may be longer than `n_ctx` tokens.
    pub fn has_room_beyond(&self, n_ctx: usize) -> bool {
        self.positions.is_none_or(|positions| n_ctx < positions.n)
    }

    /// Elements of all query heads.
    pub fn n_q(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Elements of all key heads.
    pub fn n_kv(&self) -> usize {
        self.n_head_kv * self.head_dim
    }

    /// Elements of all value heads.
    pub fn n_values(&self) -> usize {
        self.n_head_kv * self.value_dim
    }

    /// Elements of what all query heads make of the values.
    pub fn n_attended(&self) -> usize {
        self.n_head * self.value_dim
    }
}
