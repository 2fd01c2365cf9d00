//! Recipes: which type each matrix of a model gets.

use super::outline::layer_and_part;
use crate::gguf::{Gguf, TensorInfo};
use crate::model::Role;
use crate::quant::{GgmlType, convert};
use anyhow::{Result, bail};
use std::fmt;
use std::str::FromStr;

/// What `--type` asks for: one type, or a mixture that llama.cpp has a name for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// One type, but for the head, which gets more bits.
    Uniform(GgmlType),
    /// `Q2_K`, and `Q3_K` where it matters.
    Q2K,
    /// `Q2_K`, and `Q4_K` where it matters most.
    Q2KS,
    /// `Q3_K`.
    Q3KS,
    /// `Q3_K`, and `Q4_K` or `Q5_K` where it matters.
    Q3KM,
    /// `Q3_K`, and `Q5_K` where it matters.
    Q3KL,
    /// `Q4_K`, and `Q5_K` in the first layers.
    Q4KS,
    /// `Q4_K`, and `Q6_K` where it matters most.
    Q4KM,
    /// `Q5_K`.
    Q5KS,
    /// `Q5_K`, and `Q6_K` where it matters most.
    Q5KM,
    /// `Q6_K`.
    Q6K,
    /// `IQ4_NL`, and `Q5_K` where it matters most.
    IQ4NL,
    /// `IQ4_XS`, and `Q5_K` where it matters most.
    IQ4XS,
}

/// A recipe, its names, of which the first is its own, and its number in `general.file_type` (llama.cpp's `llama_ftype`).
type Entry = (Recipe, &'static [&'static str], u32);

const RECIPES: [Entry; 20] = [
    (Recipe::Uniform(GgmlType::F32), &["f32"], 0),
    (Recipe::Uniform(GgmlType::F16), &["f16"], 1),
    (Recipe::Uniform(GgmlType::BF16), &["bf16"], 32),
    (Recipe::Uniform(GgmlType::Q8_0), &["q8_0"], 7),
    (Recipe::Uniform(GgmlType::Q4_0), &["q4_0"], 2),
    (Recipe::Uniform(GgmlType::Q4_1), &["q4_1"], 3),
    (Recipe::Uniform(GgmlType::Q5_0), &["q5_0"], 8),
    (Recipe::Uniform(GgmlType::Q5_1), &["q5_1"], 9),
    (Recipe::Q2K, &["q2_k"], 10),
    (Recipe::Q2KS, &["q2_k_s"], 21),
    (Recipe::Q3KS, &["q3_k_s"], 11),
    (Recipe::Q3KM, &["q3_k_m", "q3_k"], 12),
    (Recipe::Q3KL, &["q3_k_l"], 13),
    (Recipe::Q4KS, &["q4_k_s"], 14),
    (Recipe::Q4KM, &["q4_k_m", "q4_k"], 15),
    (Recipe::Q5KS, &["q5_k_s"], 16),
    (Recipe::Q5KM, &["q5_k_m", "q5_k"], 17),
    (Recipe::Q6K, &["q6_k"], 18),
    (Recipe::IQ4NL, &["iq4_nl"], 25),
    (Recipe::IQ4XS, &["iq4_xs"], 30),
];

impl FromStr for Recipe {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let named = |(_, names, file_type): &&Entry| {
            names.iter().any(|n| n.eq_ignore_ascii_case(name)) || file_type.to_string() == name
        };
        match RECIPES.iter().find(named) {
            Some((recipe, ..)) => Ok(*recipe),
            None => bail!("is no recipe; {} are", Self::names()),
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (RECIPES.iter().find(|(recipe, ..)| recipe == self), self) {
            (Some((_, names, _)), _) => f.write_str(names[0]),
            (None, Self::Uniform(dtype)) => write!(f, "{dtype}"),
            (None, _) => write!(f, "{self:?}"),
        }
    }
}

impl Recipe {
    /// The names of all, separated by commas.
    pub fn names() -> String {
        RECIPES.map(|(_, names, _)| names[0]).join(", ")
    }

    /// The type that gives the recipe its name.
    pub fn base(self) -> GgmlType {
        match self {
            Self::Uniform(dtype) => dtype,
            Self::Q2K | Self::Q2KS => GgmlType::Q2_K,
            Self::Q3KS | Self::Q3KM | Self::Q3KL => GgmlType::Q3_K,
            Self::Q4KS | Self::Q4KM => GgmlType::Q4_K,
            Self::Q5KS | Self::Q5KM => GgmlType::Q5_K,
            Self::Q6K => GgmlType::Q6_K,
            Self::IQ4NL => GgmlType::IQ4_NL,
            Self::IQ4XS => GgmlType::IQ4_XS,
        }
    }

    /// Whether weights lose more than the last bits of a 16-bit float.
    pub fn is_lossy(self) -> bool {
        !is_float(self.base())
    }

    /// Number in `general.file_type`.
    pub fn file_type(self) -> Option<u32> {
        RECIPES
            .iter()
            .find(|(recipe, ..)| *recipe == self)
            .map_or_else(|| file_type(self.base()), |entry| Some(entry.2))
    }

    /// Number in `general.file_type` of a file with matrices of these names, types and numbers of weights: the recipe's, unless no
    /// matrix of a layer got the type that it is named for. Then it is that of the type that most of their weights have.
    pub fn file_type_of<'a>(self, matrices: impl Iterator<Item = (&'a str, GgmlType, usize)>) -> Option<u32> {
        let mut weights: Vec<(GgmlType, usize)> = Vec::new();
        for (_, dtype, n) in matrices.filter(|(name, ..)| layer_and_part(name).is_some()) {
            match weights.iter_mut().find(|(t, _)| *t == dtype) {
                Some((_, sum)) => *sum += n,
                None => weights.push((dtype, n)),
            }
        }
        if weights.is_empty() || weights.iter().any(|(dtype, _)| *dtype == self.base()) {
            return self.file_type();
        }
        weights.iter().max_by_key(|(_, n)| *n).and_then(|(dtype, _)| file_type(*dtype))
    }

    /// Refuses types that cannot be written.
    pub(super) fn check(self) -> Result<()> {
        convert::quantizer(self.base()).map(drop)
    }
}

/// What a matrix with rows of `n_cols` gets where `wanted` is meant for it, as in llama.cpp: the next type with blocks of 32, or 16-bit
/// floats where rows are not whole blocks of that either (those of the source, if it has such).
/// Source: `tensor_type_fallback` of llama.cpp's `llama-quant.cpp`.
pub(super) fn fitting(wanted: GgmlType, source: GgmlType, n_cols: usize) -> GgmlType {
    let shorter = match wanted {
        GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        other => other,
    };
    let half = if source == GgmlType::BF16 { source } else { GgmlType::F16 };
    [wanted, shorter].into_iter().find(|t| t.row_bytes(n_cols).is_some()).unwrap_or(half)
}

/// Which types matrices got in place of wanted ones, given as pairs of both, as a note to the user.
pub(super) fn misfits(types: impl Iterator<Item = (GgmlType, GgmlType)>) -> Option<String> {
    let mut kinds: Vec<((GgmlType, GgmlType), usize)> = Vec::new();
    for pair in types.filter(|(wanted, got)| wanted != got) {
        match kinds.iter_mut().find(|(p, _)| *p == pair) {
            Some((_, n)) => *n += 1,
            None => kinds.push((pair, 1)),
        }
    }
    let n: usize = kinds.iter().map(|(_, n)| n).sum();
    let matrices = if n == 1 { "matrix has" } else { "matrices have" };
    let each: Vec<_> = kinds.iter().map(|((wanted, got), n)| format!("{n} {got} for {wanted}")).collect();
    (n > 0).then(|| {
        format!("{n} {matrices} rows that are not whole blocks of the type meant for them: {}", each.join(", "))
    })
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

/// Number in `general.file_type` of a file whose matrices mostly have this type, if llama.cpp's `llama_ftype` has one.
pub(crate) fn file_type(dtype: GgmlType) -> Option<u32> {
    let of_type = |entry: &&Entry| match entry.0 {
        Recipe::Q2KS | Recipe::Q3KM | Recipe::Q3KL | Recipe::Q4KM | Recipe::Q5KM => false,
        recipe => recipe.base() == dtype,
    };
    RECIPES.iter().find(of_type).map(|entry| entry.2)
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
    fn rows_that_are_not_whole_blocks_get_the_next_type_that_fits() {
        for (wanted, shorter) in [
            (GgmlType::Q2_K, GgmlType::Q4_0),
            (GgmlType::Q3_K, GgmlType::Q4_0),
            (GgmlType::Q4_K, GgmlType::Q5_0),
            (GgmlType::Q5_K, GgmlType::Q5_1),
            (GgmlType::Q6_K, GgmlType::Q8_0),
            (GgmlType::IQ4_XS, GgmlType::IQ4_NL),
            (GgmlType::Q4_0, GgmlType::Q4_0),
        ] {
            assert_eq!(fitting(wanted, GgmlType::F32, 512), wanted);
            assert_eq!(fitting(wanted, GgmlType::F32, 96), shorter);
            assert_eq!(fitting(wanted, GgmlType::F32, 100), GgmlType::F16);
            assert_eq!(fitting(wanted, GgmlType::BF16, 100), GgmlType::BF16);
        }
    }

    #[test]
    fn the_number_of_a_file_is_that_of_what_it_holds() {
        let of = |recipe: Recipe, dtypes: &[GgmlType]| {
            let names = ["blk.0.ffn_up.weight", "blk.0.ffn_down.weight", "blk.1.attn_q.weight"];
            let matrices = names.into_iter().zip(dtypes).map(|(name, dtype)| (name, *dtype, 100));
            recipe.file_type_of(matrices.chain([("token_embd.weight", GgmlType::F16, 1000)]))
        };
        assert_eq!(of(Recipe::Q4KM, &[GgmlType::Q5_0, GgmlType::Q4_K, GgmlType::Q5_0]), Some(15));
        assert_eq!(of(Recipe::Q4KM, &[GgmlType::Q5_0, GgmlType::Q8_0, GgmlType::Q5_0]), Some(8));
        assert_eq!(of(Recipe::Q3KL, &[GgmlType::Q4_K, GgmlType::Q4_K]), Some(14));
        assert_eq!(of(Recipe::Q6K, &[]), Some(18));
    }

    #[test]
    fn names_are_read_back() {
        for (recipe, names, number) in RECIPES {
            for name in names {
                assert_eq!(name.parse::<Recipe>().unwrap(), recipe);
                assert_eq!(name.to_uppercase().parse::<Recipe>().unwrap(), recipe);
            }
            assert_eq!(number.to_string().parse::<Recipe>().unwrap(), recipe);
            assert_eq!(recipe.to_string(), names[0]);
            assert_eq!(recipe.file_type(), Some(number));
            assert!(recipe.check().is_ok());
        }
        for unknown in ["iq2_xs", "q4", "4_0", "", "16777216", "copy"] {
            assert!(unknown.parse::<Recipe>().is_err(), "{unknown}");
        }
    }
}
