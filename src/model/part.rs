//! Parts: the tensors that a model is made of, each with what it is for and how it is read.
//!
//! Whatever loads, counts, accounts for, uploads or samples weights is a fold over parts, and matches roles without a
//! catch-all: a new role does not compile until every such place knows it.

use super::down::Down;
use super::matrix::Matrix;
use std::sync::Arc;

/// The roles, each with the name of its tensor in GGUF without `blk.N.` and `.weight`.
macro_rules! roles {
    ($($(#[$doc:meta])* $role:ident = $tensor:literal,)*) => {
        /// What a tensor does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Role {
            $($(#[$doc])* $role,)*
        }

        impl Role {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$role,)*];

            /// Name of its tensor in GGUF, without `blk.N.` and `.weight`.
            pub fn tensor(self) -> &'static str {
                match self {
                    $(Self::$role => $tensor,)*
                }
            }
        }
    };
}

roles! {
    /// `[n_vocab][n_embd]`: the residual stream begins as the row of the token.
    TokenEmbd = "token_embd",
    /// `[positions][n_embd]`: that of its position is added to the row of the token.
    PositionEmbd = "position_embd",
    /// Normalises the residual stream before the head.
    OutputNorm = "output_norm",
    /// `[n_vocab][n_embd]`: the head. Where a file has none it is [`Role::TokenEmbd`].
    Output = "output",
    /// Divisors of the rotary frequencies (`[n_dims / 2]`, LLaMA 3.1 and later).
    RopeFreqs = "rope_freqs",
    /// The same for contexts that are longer than the original one.
    RopeFactorsLong = "rope_factors_long",
    /// The same for others.
    RopeFactorsShort = "rope_factors_short",
    /// Normalises what the mixer reads; with a parallel residual and one norm, what the FFN reads, too.
    AttnNorm = "attn_norm",
    /// With a parallel residual and two norms: normalises what attention reads, [`Role::AttnNorm`] what the FFN does.
    AttnNorm2 = "attn_norm_2",
    /// Normalises what attention adds.
    PostAttnNorm = "post_attention_norm",
    /// Normalises what the FFN reads.
    FfnNorm = "ffn_norm",
    /// Normalises what the FFN adds.
    PostFfnNorm = "post_ffw_norm",
    /// `[n_head * head_dim][n_embd]`.
    AttnQ = "attn_q",
    /// `[n_head_kv * head_dim][n_embd]`.
    AttnK = "attn_k",
    /// `[n_head_kv * head_dim][n_embd]`.
    AttnV = "attn_v",
    /// Normalises queries before they are rotated: each head, or all of them together.
    AttnQNorm = "attn_q_norm",
    /// Normalises keys before they are rotated: each head, or all of them together.
    AttnKNorm = "attn_k_norm",
    /// `[n_narrow + n_dims][n_embd]`: a narrow vector that keys and values are made from, then the end of the keys that is
    /// rotated and that all heads share.
    AttnKvA = "attn_kv_a_mqa",
    /// Normalises the narrow vector.
    AttnKvANorm = "attn_kv_a_norm",
    /// `[n_head * (head_dim - n_dims + value_dim)][n_narrow]`: of each head the other part of its keys, then its values.
    AttnKvB = "attn_kv_b",
    /// `[n_embd][n_head * head_dim]`.
    AttnOutput = "attn_output",
    /// `[n_head]`: what joins the sum of each head's softmax without a value of its own.
    AttnSinks = "attn_sinks",
    /// `[2 n_inner + 2 n_groups n_state + n_heads][n_embd]`: gate, what is convolved, and time steps of a recurrent mixer.
    SsmIn = "ssm_in",
    /// `[n_inner + 2 n_groups n_state][n_conv]`: its convolution, the oldest token first.
    SsmConv = "ssm_conv1d",
    /// `[n_heads]`: added to its time steps.
    SsmDt = "ssm_dt",
    /// `[n_heads]`: how fast its state decays, below 0.
    SsmA = "ssm_a",
    /// `[n_heads]`: how much of its input goes past the state.
    SsmD = "ssm_d",
    /// `[n_groups][n_inner / n_groups]`: normalises what it gives.
    SsmNorm = "ssm_norm",
    /// `[n_embd][n_inner]`.
    SsmOut = "ssm_out",
    /// `[n_groups][n_embd]`: scores of the groups that are chosen per token.
    Router = "ffn_gate_inp",
    /// `[n_groups]`: added to what they are chosen by, and not to what they count.
    RouterBias = "exp_probs_b",
    /// `[n_latent][n_embd]`: what chosen groups read.
    LatentDown = "ffn_latent_down",
    /// `[n_embd][n_latent]`: what they give, as wide as the residual stream.
    LatentUp = "ffn_latent_up",
    /// `[n_ff][n_embd]`, a row per neuron.
    FfnGate = "ffn_gate",
    /// `[n_ff][n_embd]`, a row per neuron.
    FfnUp = "ffn_up",
    /// From `[n_ff]` back to `[n_embd]`, a column or a row per neuron.
    FfnDown = "ffn_down",
}

impl Role {
    /// What the name of its tensor has behind that of the role.
    pub fn ending(self) -> &'static str {
        match self {
            Self::SsmDt | Self::RouterBias => ".bias",
            Self::SsmA | Self::SsmD => "",
            _ => ".weight",
        }
    }

    /// Name of its tensor in GGUF, without `blk.N.`.
    pub fn file_name(self) -> String {
        format!("{}{}", self.tensor(), self.ending())
    }

    /// What some files call it instead, without the ending.
    pub fn alias(self) -> Option<&'static str> {
        match self {
            Self::LatentDown => Some("ffn_latent_in"),
            Self::LatentUp => Some("ffn_latent_out"),
            _ => None,
        }
    }

    /// The role of the tensor of this name, which may stand in a layer and may be a weight or a bias; `None` where no
    /// architecture that is known has it.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((_, name)) => name,
            None => name,
        };
        if let Some(role) = Self::ALL.iter().find(|role| role.ending().is_empty() && role.tensor() == name) {
            return Some(*role);
        }
        let stem = name.strip_suffix(".weight").or_else(|| name.strip_suffix(".bias"))?;
        // Those of experts, of a shared one, and of one expert alone in old files.
        let stem = stem.strip_suffix("_exps").or_else(|| stem.strip_suffix("_shexp")).unwrap_or(stem);
        let numbered = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
        let stem = stem.rsplit_once('.').filter(|(_, n)| numbered(n)).map_or(stem, |(stem, _)| stem);
        Self::ALL.iter().copied().find(|role| role.tensor() == stem || role.alias() == Some(stem))
    }
}

/// How much of a part one token reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All of it.
    Whole,
    /// The rows of the neurons that are computed.
    PerNeuron,
    /// One row.
    PerToken,
}

/// Small vectors are laid out at multiples of so many bytes where they lie one behind the other.
pub const SMALL_ALIGN: u64 = 16;

/// The weights of a part.
#[derive(Clone)]
pub enum Tensor {
    /// A few kilobytes that every use wants as floats: norms, divisors.
    Vector(Vec<f32>),
    /// A view into the file.
    Matrix(Matrix),
    /// `ffn_down` in one of its layouts.
    Down(Down),
}

/// A tensor with its bias.
#[derive(Clone)]
pub struct Part {
    /// What it is for.
    pub role: Role,
    /// Its weights.
    pub tensor: Tensor,
    /// Added to the product, or behind the norm: one value per row or element.
    pub bias: Option<Arc<[f32]>>,
    /// How much of it a token reads.
    pub access: Access,
}

impl Part {
    /// Its matrix.
    ///
    /// # Panics
    /// Where the part is no matrix, which its role says.
    pub fn matrix(&self) -> &Matrix {
        match &self.tensor {
            Tensor::Matrix(matrix) => matrix,
            Tensor::Vector(_) | Tensor::Down(_) => panic!("{:?} is no matrix", self.role),
        }
    }

    /// Its vector.
    ///
    /// # Panics
    /// Where the part is no vector, which its role says.
    pub fn vector(&self) -> &[f32] {
        match &self.tensor {
            Tensor::Vector(vector) => vector,
            Tensor::Matrix(_) | Tensor::Down(_) => panic!("{:?} is no vector", self.role),
        }
    }

    /// Bytes of the weights, without the bias.
    pub fn weight_bytes(&self) -> u64 {
        match &self.tensor {
            Tensor::Vector(vector) => size_of_val(&**vector) as u64,
            Tensor::Matrix(matrix) => matrix.n_bytes() as u64,
            Tensor::Down(down) => down.n_bytes() as u64,
        }
    }

    /// Bytes of the bias.
    pub fn bias_bytes(&self) -> u64 {
        self.bias.as_deref().map_or(0, |b| size_of_val(b) as u64)
    }

    /// Bytes that stand beside the matrices, as floats: those of a vector, and of any bias, each a multiple of
    /// [`SMALL_ALIGN`].
    pub fn small_bytes(&self) -> u64 {
        let weights = match &self.tensor {
            Tensor::Vector(_) => self.weight_bytes(),
            Tensor::Matrix(_) | Tensor::Down(_) => 0,
        };
        weights.next_multiple_of(SMALL_ALIGN) + self.bias_bytes().next_multiple_of(SMALL_ALIGN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_known_by_the_names_of_their_tensors() {
        for role in Role::ALL.iter().copied() {
            assert_eq!(Role::of_name(&format!("blk.7.{}", role.file_name())), Some(role));
        }
        assert_eq!(Role::of_name("output.weight"), Some(Role::Output));
        assert_eq!(Role::of_name("blk.0.ffn_up.bias"), Some(Role::FfnUp));
        assert_eq!(Role::of_name("blk.0.ffn_up_exps.weight"), Some(Role::FfnUp));
        assert_eq!(Role::of_name("blk.0.ffn_up.12.weight"), Some(Role::FfnUp));
        assert_eq!(Role::of_name("blk.0.ffn_latent_in.weight"), Some(Role::LatentDown));
        assert_eq!(Role::of_name("blk.0.shortconv.in_proj.weight"), None);
        assert_eq!(Role::of_name("blk.0.ffn_down_t_q"), None);
    }
}
