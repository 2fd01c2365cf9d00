//! Recipes: which type each matrix of a model gets.

use crate::gguf::{Gguf, TensorInfo};
use crate::model::Role;
use crate::quant::{GgmlType, convert};
use anyhow::{Result, bail};
use std::fmt;
use std::str::FromStr;

/// What `--type` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// One type, but for embeddings and head beside `Q4_0`, which get `Q8_0`.
    Uniform(GgmlType),
    /// llama.cpp's mix of that name: `Q4_K`, and `Q6_K` where it matters most.
    Q4KM,
}

/// Names that `--type` takes.
const NAMES: [(&str, Recipe); 5] = [
    ("f16", Recipe::Uniform(GgmlType::F16)),
    ("bf16", Recipe::Uniform(GgmlType::BF16)),
    ("q8_0", Recipe::Uniform(GgmlType::Q8_0)),
    ("q4_0", Recipe::Uniform(GgmlType::Q4_0)),
    ("q4_k_m", Recipe::Q4KM),
];

/// `general.file_type` of [`Recipe::Q4KM`] (llama.cpp's `LLAMA_FTYPE_MOSTLY_Q4_K_M`).
const MOSTLY_Q4_K_M: u32 = 15;

impl FromStr for Recipe {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, recipe)) => Ok(*recipe),
            None => bail!("f16, bf16, q8_0, q4_0 and q4_k_m are possible"),
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, r)| r == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{self:?}"),
        }
    }
}

/// What a recipe must know of a model.
#[derive(Debug, Clone, Copy)]
pub struct Outline {
    /// Number of layers.
    pub n_layer: usize,
    /// Whether `token_embd` is the head as well.
    pub tied: bool,
}

impl Outline {
    /// As the names of the tensors tell, whatever the architecture.
    pub fn of(gguf: &Gguf) -> Self {
        let layers = gguf.tensors().iter().filter_map(|t| layer_and_part(&t.name));
        let n_layer = layers.map(|(layer, _)| layer + 1).max().unwrap_or(0);
        Self { n_layer, tied: gguf.tensor("output.weight").is_none() }
    }
}

impl Recipe {
    /// Whether weights lose more than the last bits of a 16-bit float.
    pub fn is_lossy(self) -> bool {
        !matches!(self, Self::Uniform(t) if is_float(t))
    }

    /// Type of the matrix of this name, if its rows are whole blocks of it.
    pub fn wanted(self, name: &str, outline: Outline) -> GgmlType {
        let outer = name == "token_embd.weight" || name == "output.weight";
        match self {
            // Few bytes, which cost the most quality.
            Self::Uniform(GgmlType::Q4_0) if outer => GgmlType::Q8_0,
            Self::Uniform(dtype) => dtype,
            Self::Q4KM => q4_k_m(name, outline),
        }
    }

    /// Type that the matrix of this name gets in place of `source`. Where rows of `n_cols` are not whole blocks of
    /// what is wanted: `Q8_0`, or 16-bit floats where they are not whole blocks of that either.
    pub fn matrix_type(self, name: &str, source: GgmlType, n_cols: usize, outline: Outline) -> GgmlType {
        let wanted = self.wanted(name, outline);
        let half = if source == GgmlType::BF16 { source } else { GgmlType::F16 };
        [wanted, GgmlType::Q8_0].into_iter().find(|t| t.row_bytes(n_cols).is_some()).unwrap_or(half)
    }

    /// How many matrices of these names and row lengths get another type than the wanted one, as a note to the user.
    pub(super) fn misfits<'a>(
        self,
        matrices: impl Iterator<Item = (&'a str, usize)>,
        outline: Outline,
    ) -> Option<String> {
        let misfit = |(name, n_cols): (&str, usize)| self.wanted(name, outline).row_bytes(n_cols).is_none();
        let n = matrices.filter(|m| misfit(*m)).count();
        let (matrices, get) = if n == 1 { ("matrix has", "it gets") } else { ("matrices have", "they get") };
        (n > 0)
            .then(|| format!("{n} {matrices} rows that are not whole blocks for {self}; {get} Q8_0 or 16-bit floats"))
    }

    /// Number in `general.file_type` (llama.cpp's `llama_ftype`).
    pub fn file_type(self) -> Option<u32> {
        match self {
            Self::Uniform(dtype) => file_type(dtype),
            Self::Q4KM => Some(MOSTLY_Q4_K_M),
        }
    }

    /// Refuses types that cannot be written.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::Uniform(dtype) => convert::quantizer(dtype).map(drop),
            Self::Q4KM => Ok(()),
        }
    }
}

/// Source: `llama_tensor_get_type` of llama.cpp's `llama-quant.cpp`, without its exceptions for single models.
fn q4_k_m(name: &str, outline: Outline) -> GgmlType {
    let (layer, part) = layer_and_part(name).map_or((None, name), |(layer, part)| (Some(layer), part));
    let more = layer.is_some_and(|layer| gets_more_bits(layer, outline.n_layer));
    match Role::of_name(name) {
        Some(Role::Output) => GgmlType::Q6_K,
        Some(Role::TokenEmbd) if outline.tied => GgmlType::Q6_K,
        Some(Role::AttnV | Role::FfnDown) if more => GgmlType::Q6_K,
        Some(
            Role::TokenEmbd
            | Role::OutputNorm
            | Role::PositionEmbd
            | Role::RopeFreqs
            | Role::RopeFactorsLong
            | Role::RopeFactorsShort
            | Role::AttnNorm
            | Role::AttnNorm2
            | Role::PostAttnNorm
            | Role::FfnNorm
            | Role::PostFfnNorm
            | Role::AttnQ
            | Role::AttnK
            | Role::AttnV
            | Role::AttnQNorm
            | Role::AttnKNorm
            | Role::AttnKvA
            | Role::AttnKvANorm
            | Role::AttnKvB
            | Role::AttnOutput
            | Role::AttnSinks
            | Role::SsmConv
            | Role::SsmDt
            | Role::SsmA
            | Role::SsmD
            | Role::SsmNorm
            | Role::RouterBias
            | Role::SsmIn
            | Role::SsmOut
            | Role::LatentDown
            | Role::LatentUp
            | Role::Router
            | Role::FfnGate
            | Role::FfnUp
            | Role::FfnDown,
        ) => GgmlType::Q4_K,
        // Files of any architecture are converted, so there are names without a role here.
        None if part == "attn_qkv.weight" => GgmlType::Q5_K,
        None => GgmlType::Q4_K,
    }
}

/// The first eighth of the layers, the last eighth, and every third between.
fn gets_more_bits(layer: usize, n_layer: usize) -> bool {
    let eighth = n_layer / 8;
    layer < eighth || layer >= 7 * n_layer / 8 || (layer - eighth) % 3 == 2
}

/// `blk.3.ffn_up.weight` is layer 3 and `ffn_up.weight`.
pub(super) fn layer_and_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse::<u32>().ok()? as usize, part))
}

/// Quantizing what has been quantized loses twice.
pub(super) fn refuse_quantized(gguf: &Gguf) -> Result<()> {
    match gguf.tensors().iter().find(|t| t.dtype.block_len() > 1) {
        Some(t) => bail!("{}: is {} already; --type needs an F32, F16 or BF16 source", t.name, t.dtype),
        None => Ok(()),
    }
}

pub(super) fn is_float(dtype: GgmlType) -> bool {
    [GgmlType::F32, GgmlType::F16, GgmlType::BF16].contains(&dtype)
}

/// Number of a uniform type in `general.file_type` (llama.cpp's `llama_ftype`).
pub(crate) fn file_type(dtype: GgmlType) -> Option<u32> {
    let known =
        [(GgmlType::F32, 0), (GgmlType::F16, 1), (GgmlType::Q4_0, 2), (GgmlType::Q8_0, 7), (GgmlType::BF16, 32)];
    known.iter().find(|(t, _)| *t == dtype).map(|(_, n)| *n)
}

/// Whether `--type` may convert a tensor: neither a vector, of which a stack has two dimensions, too, nor a router, whose
/// rounding would choose others, nor embeddings of positions, which few bytes hold and every token depends on, nor a predictor
/// of PowerInfer's, whose rows may be no whole blocks.
pub(super) fn is_whole_matrix(tensor: &TensorInfo) -> bool {
    let bias = tensor.name.ends_with(".bias");
    let predictor = [".fc1.weight", ".fc2.weight"].iter().any(|end| tensor.name.ends_with(end));
    let kept = matches!(
        Role::of_name(&tensor.name),
        Some(Role::Router | Role::PositionEmbd | Role::SsmConv | Role::SsmA | Role::SsmD | Role::SsmNorm)
    );
    tensor.dims.len() > 1 && !bias && !predictor && !kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_layers_get_more_bits() {
        let more = |n: usize| (0..n).filter(|i| gets_more_bits(*i, n)).collect::<Vec<_>>();
        // What llama.cpp writes for 32 layers.
        assert_eq!(more(32), [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        assert_eq!(more(6), [2, 5]);
        assert_eq!(more(1), [0]);
    }

    #[test]
    fn the_mix_is_that_of_llama_cpp() {
        let outline = Outline { n_layer: 32, tied: false };
        for (name, wanted) in [
            ("token_embd.weight", GgmlType::Q4_K),
            ("output.weight", GgmlType::Q6_K),
            ("blk.0.attn_q.weight", GgmlType::Q4_K),
            ("blk.0.attn_v.weight", GgmlType::Q6_K),
            ("blk.4.attn_v.weight", GgmlType::Q4_K),
            ("blk.6.ffn_down.weight", GgmlType::Q6_K),
            ("blk.7.ffn_down.weight", GgmlType::Q4_K),
            ("blk.31.ffn_up.weight", GgmlType::Q4_K),
            ("blk.31.attn_qkv.weight", GgmlType::Q5_K),
        ] {
            assert_eq!(Recipe::Q4KM.wanted(name, outline), wanted, "{name}");
        }
        let tied = Outline { tied: true, ..outline };
        assert_eq!(Recipe::Q4KM.wanted("token_embd.weight", tied), GgmlType::Q6_K);
    }

    #[test]
    fn rows_that_are_not_whole_blocks_get_the_next_type_that_fits() {
        let outline = Outline { n_layer: 1, tied: false };
        let fits = |source, n_cols| Recipe::Q4KM.matrix_type("blk.0.ffn_up.weight", source, n_cols, outline);
        assert_eq!(fits(GgmlType::F32, 512), GgmlType::Q4_K);
        assert_eq!(fits(GgmlType::F32, 96), GgmlType::Q8_0);
        assert_eq!(fits(GgmlType::F32, 100), GgmlType::F16);
        assert_eq!(fits(GgmlType::BF16, 100), GgmlType::BF16);
    }

    #[test]
    fn names_are_read_back() {
        for (name, recipe) in NAMES {
            assert_eq!(name.parse::<Recipe>().unwrap(), recipe);
            assert_eq!(recipe.to_string(), name);
            assert!(recipe.file_type().is_some());
        }
        assert!("q5_k".parse::<Recipe>().is_err());
    }
}
