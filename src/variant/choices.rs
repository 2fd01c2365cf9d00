//! What decides about the types of a plain file's matrices beside the recipe.

use super::importance::Importance;
use crate::quant::{GgmlType, convert};
use anyhow::{Context, Result};
use fancy_regex::Regex;
use std::str::FromStr;

/// What `--quantize-only` takes beside a recipe. None of it by default.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Types of matrices by name; the first that matches decides.
    pub types: Vec<TensorType>,
    /// Type of the head.
    pub head: Option<GgmlType>,
    /// Type of the embeddings.
    pub embedding: Option<GgmlType>,
    /// The head stays as it is.
    pub keep_head: bool,
    /// All have the type that the recipe is named for.
    pub pure: bool,
    /// Quantized matrices are quantized again.
    pub requantize: bool,
    /// How much columns count.
    pub importance: Option<Importance>,
}

impl Choices {
    /// The type that is asked for by name.
    pub(super) fn of(&self, name: &str, tied: bool) -> Option<GgmlType> {
        let outer = match name {
            "output.weight" => self.head,
            "token_embd.weight" | "per_layer_token_embd.weight" => {
                self.embedding.or(self.head.filter(|_| tied && !self.pure))
            }
            _ => None,
        };
        outer.or_else(|| self.types.iter().find(|t| t.matches(name)).map(|t| t.dtype))
    }
}

/// A type for all matrices whose names have something that matches a regular expression.
#[derive(Debug, Clone)]
pub struct TensorType {
    pattern: Regex,
    dtype: GgmlType,
}

impl TensorType {
    /// An expression that takes too long to match does not.
    fn matches(&self, name: &str) -> bool {
        self.pattern.is_match(name).unwrap_or(false)
    }
}

impl FromStr for TensorType {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (pattern, dtype) = text.rsplit_once('=').context("is not REGEX=TYPE, as in ffn_down=q6_k")?;
        let pattern = Regex::new(pattern).with_context(|| format!("\"{pattern}\" is no regular expression"))?;
        Ok(Self { pattern, dtype: writable(dtype)? })
    }
}

/// The type of this name, in any case.
///
/// # Errors
/// When there is none, or it cannot be written.
pub fn writable(name: &str) -> Result<GgmlType> {
    let dtype =
        GgmlType::from_name(name).with_context(|| format!("\"{name}\" is no type of ggml, as q4_k or q8_0 are"))?;
    convert::quantizer(dtype).map(|_| dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_expression_that_matches_decides_but_for_the_outer_ones() {
        let of = |text: &str| text.parse::<TensorType>().unwrap();
        let mut choices =
            Choices { types: vec![of("blk\\.[0-3]\\.ffn_.*=q8_0"), of("ffn_down=Q6_K")], ..Choices::default() };
        assert_eq!(choices.of("blk.3.ffn_down.weight", false), Some(GgmlType::Q8_0));
        assert_eq!(choices.of("blk.4.ffn_down.weight", false), Some(GgmlType::Q6_K));
        assert_eq!(choices.of("blk.4.ffn_up.weight", false), None);
        choices.head = Some(GgmlType::Q5_0);
        assert_eq!(choices.of("output.weight", false), Some(GgmlType::Q5_0));
        assert_eq!(choices.of("token_embd.weight", true), Some(GgmlType::Q5_0));
        assert_eq!(choices.of("token_embd.weight", false), None);
        choices.embedding = Some(GgmlType::Q4_1);
        assert_eq!(choices.of("token_embd.weight", true), Some(GgmlType::Q4_1));
    }

    #[test]
    fn what_is_no_expression_or_no_type_is_refused_by_name() {
        for (text, says) in [
            ("ffn", "REGEX=TYPE"),
            ("a(=q8_0", "\"a(\""),
            ("a=q9", "\"q9\""),
            ("a=IQ2_XS", "IQ2_XS cannot be written"),
            ("a=", "\"\""),
        ] {
            let error = format!("{:#}", text.parse::<TensorType>().unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
