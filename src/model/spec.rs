//! What an architecture says of its tensors before there is a file: roles, shapes, what may be missing.

use super::config::Config;
use super::part::Role;
pub use super::presence::Presence;
use super::router::Router;
use super::step::Step;

/// Sizes of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dims {
    /// `[n]`, read as floats.
    Vector(usize),
    /// `[n_rows][n_cols]`, read as floats, one row behind the other.
    Vectors {
        /// Outer size.
        n_rows: usize,
        /// Row length.
        n_cols: usize,
    },
    /// `[n_rows][n_cols]`.
    Matrix {
        /// Outer size.
        n_rows: usize,
        /// Row length.
        n_cols: usize,
    },
}

/// A tensor and its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartSpec {
    /// What it is for.
    pub role: Role,
    /// Its shape.
    pub dims: Dims,
    /// Whether it has to be there.
    pub weight: Presence,
    /// Whether its bias has to be there: one value per row or element.
    pub bias: Presence,
}

impl PartSpec {
    /// A required matrix without a bias.
    pub const fn matrix(role: Role, n_rows: usize, n_cols: usize) -> Self {
        let (weight, bias) = (Presence::Required, Presence::Absent);
        Self { role, dims: Dims::Matrix { n_rows, n_cols }, weight, bias }
    }

    /// A required vector without a bias.
    pub const fn vector(role: Role, n: usize) -> Self {
        Self { role, dims: Dims::Vector(n), weight: Presence::Required, bias: Presence::Absent }
    }

    /// The same where the tensor may be missing.
    pub const fn optional(self) -> Self {
        Self { weight: Presence::Optional, ..self }
    }

    /// The same with a bias.
    pub const fn with_bias(self, bias: Presence) -> Self {
        Self { bias, ..self }
    }
}

/// A group's share of tensors that hold several, one behind the other along their outermost dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Which of them it is.
    pub at: usize,
    /// How many there are, all of the same size.
    pub of: usize,
}

/// A group of neurons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    /// Number of neurons.
    pub n_ff: usize,
    /// Elements of what each reads and gives, where these are others than the residual stream's.
    pub width: Option<usize>,
    /// Whether there is a gate.
    pub gated: bool,
    /// Whether gate and up have biases.
    pub bias: Presence,
    /// Whether down has one.
    pub down_bias: Presence,
    /// What the names of its tensors have behind that of the role: nothing, or `_exps`.
    pub suffix: &'static str,
    /// Where it lies in tensors that hold several groups.
    pub stack: Option<Stack>,
    /// Whether gate and up are one tensor, named as up, with the rows of gate first.
    pub fused: bool,
    /// Whether the router chooses it: groups that it chooses are numbered in their order.
    pub routed: bool,
}

impl GroupSpec {
    /// The only group of a layer, without biases.
    pub fn dense(n_ff: usize, gated: bool) -> Self {
        let (bias, down_bias) = (Presence::Absent, Presence::Absent);
        Self { n_ff, width: None, gated, bias, down_bias, suffix: "", stack: None, fused: false, routed: false }
    }

    /// `n` groups that a router chooses among, of `n_ff` neurons each: their tensors end in `_exps`, and hold all groups.
    pub fn experts(n: usize, n_ff: usize, gated: bool) -> Vec<Self> {
        let expert = |at| {
            let stack = Some(Stack { at, of: n });
            Self { suffix: "_exps", stack, routed: true, ..Self::dense(n_ff, gated) }
        };
        (0..n).map(expert).collect()
    }

    /// The group that stands beside those and is computed for every token: its tensors end in `_shexp`.
    pub fn shared_expert(n_ff: usize, gated: bool) -> Self {
        Self { suffix: "_shexp", ..Self::dense(n_ff, gated) }
    }

    /// The same in vectors of another width.
    pub fn of_width(self, width: Option<usize>) -> Self {
        Self { width, ..self }
    }

    /// The same with biases of all its matrices.
    pub fn with_biases(self, bias: Presence) -> Self {
        Self { bias, down_bias: bias, ..self }
    }

    /// The same with a gate in one tensor with up.
    pub fn with_gate_above_up(self) -> Self {
        Self { gated: true, fused: true, ..self }
    }

    /// Its tensors, as a plain file has them one by one: gate where there is one, up, down.
    pub fn parts(&self, n_embd: usize) -> impl Iterator<Item = PartSpec> + use<> {
        let width = self.width.unwrap_or(n_embd);
        let rows = |role| PartSpec::matrix(role, self.n_ff, width).with_bias(self.bias);
        let gate = self.gated.then(|| rows(Role::FfnGate));
        let down = PartSpec::matrix(Role::FfnDown, width, self.n_ff).with_bias(self.down_bias);
        gate.into_iter().chain([rows(Role::FfnUp), down])
    }
}

/// A layer.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// Its tensors, but for those of neurons, in llama.cpp's usual order.
    pub parts: Vec<PartSpec>,
    /// Its groups of neurons.
    pub groups: Vec<GroupSpec>,
    /// How groups are chosen.
    pub router: Option<Router>,
    /// What happens to the residual stream.
    pub steps: Vec<Step>,
}

/// A norm of the residual stream: with a bias where norms of the model have one.
pub fn norm(config: &Config, role: Role) -> PartSpec {
    PartSpec::vector(role, config.n_embd).with_bias(config.norm.bias())
}

/// A norm of each head of queries or keys.
pub fn head_norm(config: &Config, role: Role) -> PartSpec {
    PartSpec::vector(role, config.head_dim)
}

/// A norm of `n_heads` heads of queries or keys, with weights of its own for each.
pub fn own_head_norm(config: &Config, role: Role, n_heads: usize) -> PartSpec {
    PartSpec { dims: Dims::Vectors { n_rows: n_heads, n_cols: config.head_dim }, ..PartSpec::vector(role, 0) }
}

/// Query, key, value and output matrices. Biases are taken where a file has them.
pub fn attention(config: &Config) -> [PartSpec; 4] {
    let (n_embd, n_q, n_kv) = (config.n_embd, config.n_q(), config.n_kv());
    let matrix = |role, n_rows, n_cols| PartSpec::matrix(role, n_rows, n_cols).with_bias(Presence::Optional);
    [
        matrix(Role::AttnQ, n_q, n_embd),
        matrix(Role::AttnK, n_kv, n_embd),
        matrix(Role::AttnV, n_kv, n_embd),
        matrix(Role::AttnOutput, n_embd, n_q),
    ]
}

/// What all models have beside their layers: embedding, norm, and a head where it is not the embedding; divisors of the
/// rotary frequencies where the file has them.
pub fn around_layers(config: &Config) -> Vec<PartSpec> {
    let embd = |role| PartSpec::matrix(role, config.n_vocab, config.n_embd);
    let divisors = |role| PartSpec::vector(role, config.rope.n_dims / 2);
    let mut parts = vec![embd(Role::TokenEmbd), norm(config, Role::OutputNorm), embd(Role::Output).optional()];
    match config.rope.long_from {
        None => parts.push(divisors(Role::RopeFreqs).optional()),
        Some(_) => parts.extend([Role::RopeFactorsLong, Role::RopeFactorsShort].map(divisors)),
    }
    parts
}

/// The same of models whose last norm has a bias, and whose frequencies nothing divides.
pub fn around_biased_layers(config: &Config) -> Vec<PartSpec> {
    let mut parts = around_layers(config);
    parts.retain(|part| part.role != Role::RopeFreqs);
    for part in parts.iter_mut().filter(|part| part.role == Role::OutputNorm) {
        part.bias = Presence::Required;
    }
    parts
}
