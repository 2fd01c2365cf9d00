//! The mixtures of llama.cpp: which types the recipes of its names give to which matrices. Its users compare files by these names.
//! Source: `llama_tensor_get_type_impl` of llama.cpp's `llama-quant.cpp`.

use super::outline::{Outline, is_down, makes_values};
use super::recipe::{Recipe, fitting};
use crate::quant::GgmlType;

/// What a matrix does, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Embedding,
    /// Values, alone or with keys and queries.
    Values,
    Keys,
    Output,
    Down,
    Other,
}

fn part(name: &str) -> Part {
    let has = |part: &str| name.contains(part);
    match name {
        "output.weight" => Part::Head,
        "token_embd.weight" | "per_layer_token_embd.weight" => Part::Embedding,
        _ if makes_values(name) => Part::Values,
        _ if has("attn_k.weight") => Part::Keys,
        _ if has("attn_output.weight") => Part::Output,
        _ if is_down(name) => Part::Down,
        _ => Part::Other,
    }
}

impl Recipe {
    /// Type that a variant's matrix of this name gets, if its rows are whole blocks of it: as in llama.cpp's files, but that one type
    /// is one type, of embeddings and head, too, except beside `Q4_0`, where these have `Q8_0`.
    pub fn wanted(self, name: &str, outline: &Outline) -> GgmlType {
        let outer = name == "token_embd.weight" || name == "output.weight";
        match self {
            // Few bytes, which cost the most quality.
            Self::Uniform(GgmlType::Q4_0) if outer => GgmlType::Q8_0,
            Self::Uniform(dtype) => dtype,
            _ => mixed(self, name, outline),
        }
    }

    /// Type that the matrix of this name gets in place of `source`: what is wanted, or what takes its place where rows of `n_cols` are
    /// not whole blocks of that.
    pub fn matrix_type(self, name: &str, source: GgmlType, n_cols: usize, outline: &Outline) -> GgmlType {
        fitting(self.wanted(name, outline), source, n_cols)
    }
}

/// Type that `recipe` gives to the matrix of this name, if its rows are whole blocks.
pub(super) fn mixed(recipe: Recipe, name: &str, outline: &Outline) -> GgmlType {
    let base = recipe.base();
    if base.block_len() == 1 {
        return base;
    }
    let eight_experts = outline.n_expert == 8;
    match part(name) {
        Part::Head => head(base, outline),
        Part::Embedding if outline.tied => head(base, outline),
        // Small beside eight experts.
        Part::Values | Part::Keys if eight_experts => GgmlType::Q8_0,
        Part::Values => {
            let dtype = values(recipe, name, outline).unwrap_or(base);
            // As many bits as cost next to nothing where eight heads share them.
            let few = [GgmlType::Q3_K, GgmlType::Q4_K].contains(&dtype);
            if outline.is_70b && few { GgmlType::Q5_K } else { dtype }
        }
        Part::Output => output(recipe, outline).unwrap_or(base),
        Part::Down => down(recipe, name, outline).unwrap_or(base),
        Part::Embedding | Part::Keys | Part::Other => base,
    }
}

fn head(base: GgmlType, outline: &Outline) -> GgmlType {
    if base == GgmlType::Q8_0 || outline.architecture == "falcon" { GgmlType::Q8_0 } else { GgmlType::Q6_K }
}

fn values(recipe: Recipe, name: &str, outline: &Outline) -> Option<GgmlType> {
    let (place, n) = outline.place_of_values(name);
    match recipe {
        Recipe::Q2K => Some(if outline.shares_keys { GgmlType::Q4_K } else { GgmlType::Q3_K }),
        Recipe::Q2KS if outline.shares_keys => Some(GgmlType::Q4_K),
        Recipe::Q3KM => Some(if place < 2 { GgmlType::Q5_K } else { GgmlType::Q4_K }),
        Recipe::Q3KL => Some(GgmlType::Q5_K),
        Recipe::IQ4NL | Recipe::IQ4XS if outline.shares_keys => Some(GgmlType::Q5_K),
        Recipe::Q4KM | Recipe::Q5KM if gets_more_bits(place, n) => Some(GgmlType::Q6_K),
        Recipe::Q4KS if place < 4 => Some(GgmlType::Q5_K),
        _ => None,
    }
}

fn output(recipe: Recipe, outline: &Outline) -> Option<GgmlType> {
    if outline.architecture == "falcon" {
        return (recipe == Recipe::Q3KL).then_some(GgmlType::Q4_K);
    }
    if outline.n_expert == 8 {
        let more = [Recipe::Q2K, Recipe::Q3KS, Recipe::Q3KM, Recipe::IQ4NL, Recipe::Q4KS, Recipe::Q4KM, Recipe::IQ4XS];
        return more.contains(&recipe).then_some(GgmlType::Q5_K);
    }
    match recipe {
        Recipe::Q2K => Some(GgmlType::Q3_K),
        Recipe::Q3KM => Some(GgmlType::Q4_K),
        Recipe::Q3KL => Some(GgmlType::Q5_K),
        _ => None,
    }
}

fn down(recipe: Recipe, name: &str, outline: &Outline) -> Option<GgmlType> {
    let (place, n) = (outline.place_of_down(name), outline.n_layer);
    let falcon = outline.architecture == "falcon";
    let (first_sixteenth, first_eighth, more) = (place < n / 16, place < n / 8, gets_more_bits(place, n));
    match recipe {
        Recipe::Q2K => Some(GgmlType::Q3_K),
        Recipe::Q2KS if first_eighth => Some(GgmlType::Q4_K),
        Recipe::Q3KM if first_sixteenth => Some(GgmlType::Q5_K),
        Recipe::Q3KM if falcon && !more => None,
        Recipe::Q3KM => Some(GgmlType::Q4_K),
        Recipe::Q3KL => Some(if falcon { GgmlType::Q4_K } else { GgmlType::Q5_K }),
        Recipe::Q4KM if falcon && !first_sixteenth => more.then_some(GgmlType::Q5_K),
        Recipe::Q4KM if falcon || more => Some(GgmlType::Q6_K),
        Recipe::Q5KM if more => Some(GgmlType::Q6_K),
        Recipe::IQ4NL | Recipe::IQ4XS if first_eighth && !outline.has_importance => Some(GgmlType::Q5_K),
        Recipe::Q4KS if first_eighth && !falcon => Some(GgmlType::Q5_K),
        Recipe::Uniform(GgmlType::Q4_0) if first_eighth && outline.has_importance => Some(GgmlType::Q4_1),
        Recipe::Uniform(GgmlType::Q5_0) if first_eighth && outline.has_importance => Some(GgmlType::Q5_1),
        _ => None,
    }
}

/// The first eighth, the last eighth, and every third between.
fn gets_more_bits(place: usize, n: usize) -> bool {
    let eighth = n / 8;
    place < eighth || place >= 7 * n / 8 || (place - eighth) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_that_of_llama_cpp() {
        let outline = Outline::of_layers(32, false);
        for (name, wanted) in [
            ("token_embd.weight", GgmlType::Q4_K),
            ("output.weight", GgmlType::Q6_K),
            ("blk.0.attn_q.weight", GgmlType::Q4_K),
            ("blk.0.attn_v.weight", GgmlType::Q6_K),
            ("blk.4.attn_v.weight", GgmlType::Q4_K),
            ("blk.6.ffn_down.weight", GgmlType::Q6_K),
            ("blk.7.ffn_down.weight", GgmlType::Q4_K),
            ("blk.31.ffn_up.weight", GgmlType::Q4_K),
        ] {
            assert_eq!(Recipe::Q4KM.wanted(name, &outline), wanted, "{name}");
        }
        let tied = Outline::of_layers(32, true);
        assert_eq!(Recipe::Q4KM.wanted("token_embd.weight", &tied), GgmlType::Q6_K);
    }

    #[test]
    fn half_of_the_layers_get_more_bits() {
        let more = |n: usize| (0..n).filter(|i| gets_more_bits(*i, n)).collect::<Vec<_>>();
        // What llama.cpp writes for 32 layers.
        assert_eq!(more(32), [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        assert_eq!(more(6), [2, 5]);
        assert_eq!(more(1), [0]);
    }
}
