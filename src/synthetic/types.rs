//! The type of each matrix of a synthetic model.

use crate::quant::GgmlType;
use crate::shapes::Sized;
use crate::variant::{Outline, Recipe};
use anyhow::{Context, Result};

/// How the types of `sized`'s matrices are chosen: with experts, `Q4_K` is llama.cpp's mix of that name. Otherwise all have one
/// type, but for embeddings and head.
pub(super) fn recipe(sized: &Sized) -> Option<Recipe> {
    (sized.shape.experts.is_some() && sized.dtype == GgmlType::Q4_K).then_some(Recipe::Q4KM)
}

/// Type of the matrix of this name, whose rows have `n_cols` elements.
///
/// # Errors
/// When neither what is asked for nor what takes its place has blocks that fit.
pub(super) fn matrix_type(sized: &Sized, name: &str, n_cols: usize) -> Result<GgmlType> {
    let outer = ["token_embd.weight", "output.weight"].contains(&name);
    let wanted = match recipe(sized) {
        Some(recipe) => recipe.wanted(name, &Outline::of_layers(sized.n_layer, sized.shape.tied)),
        None if outer => sized.outer_type(),
        None => sized.dtype,
    };
    sized.type_of_rows(wanted, n_cols).with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_not_whole_blocks_get_what_llama_cpp_gives_them() {
        let of = |text: &str, name: &str, n_cols| matrix_type(&text.parse().unwrap(), name, n_cols).unwrap();
        let nano = "nemotron-3-nano:q4_k";
        assert_eq!(of(nano, "blk.1.ffn_up_exps.weight", 2688), GgmlType::Q5_0);
        assert_eq!(of(nano, "blk.1.ffn_down_exps.weight", 1856), GgmlType::Q8_0);
        assert_eq!(of(nano, "blk.10.ffn_down_exps.weight", 1856), GgmlType::Q5_0);
        assert_eq!(of(nano, "blk.0.ssm_out.weight", 4096), GgmlType::Q4_K);
        assert_eq!(of(nano, "output.weight", 2688), GgmlType::Q8_0);
        assert_eq!(of("nemotron-3-nano:q5_k", "blk.1.ffn_up_exps.weight", 2688), GgmlType::Q5_1);
        assert_eq!(of("smallthinker-4b:q4_k", "token_embd.weight", 1536), GgmlType::Q6_K);
        assert_eq!(of("smallthinker-4b:q4_k", "blk.31.ffn_down_exps.weight", 768), GgmlType::Q6_K);
        assert_eq!(of("smallthinker-4b", "token_embd.weight", 1536), GgmlType::Q8_0);
        // Without experts, all of a model has the type that is asked for.
        assert_eq!(of("7b:q4_k", "blk.0.ffn_down.weight", 4096), GgmlType::Q4_K);
        let refused = matrix_type(&"7b".parse().unwrap(), "blk.0.ffn_up.weight", 40).unwrap_err();
        let refused = format!("{refused:#}");
        assert!(refused.contains("blk.0.ffn_up.weight: rows of 40"), "{refused}");
    }
}
