//! What a recipe must know of a model: how many layers, heads and experts, and which of its matrices come where.

use crate::gguf::{Gguf, Metadata, TensorInfo};
use std::collections::HashMap;

/// What a recipe must know of a model, whatever its architecture.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    /// Number of layers.
    pub n_layer: usize,
    /// Whether `token_embd` is the head as well.
    pub tied: bool,
    /// Experts of a layer; 0 without.
    pub n_expert: u64,
    /// Whether four heads or more share a key and a value.
    pub shares_keys: bool,
    /// Whether heads share keys in a model of 80 layers, which those of 70 billion weights have.
    pub is_70b: bool,
    /// The architecture, which a few exceptions ask for.
    pub architecture: String,
    /// Whether an importance matrix is used.
    pub has_importance: bool,
    /// How many matrices of the whole file make values of attention; 0 where that is not known.
    n_values: usize,
    /// The place of each of those, and of each `ffn_down`, among its kind.
    place: HashMap<String, usize>,
}

impl Outline {
    /// Of a model of which no file is there, whose layers are all alike.
    pub fn of_layers(n_layer: usize, tied: bool) -> Self {
        Self { n_layer, tied, ..Self::default() }
    }

    /// As keys and names of tensors tell, when a recipe chooses the types of those that are `chosen`.
    pub fn of(gguf: &Gguf, chosen: impl Fn(&TensorInfo) -> bool) -> Self {
        let layers = gguf.tensors().iter().filter_map(|t| layer_and_part(&t.name));
        let seen = layers.map(|(layer, _)| layer + 1).max().unwrap_or(0);
        let metadata = gguf.metadata();
        let architecture = metadata.str("general.architecture").ok().flatten().unwrap_or_default().to_owned();
        // No more than a few thousand layers are believed.
        let n_layer = number(metadata, &architecture, "block_count").filter(|n| (1..1 << 16).contains(n));
        let n_layer = n_layer.map_or(seen, |n| n as usize);
        let heads = number(metadata, &architecture, "attention.head_count").unwrap_or(0);
        let heads_kv = number(metadata, &architecture, "attention.head_count_kv").unwrap_or(heads);
        let mut outline = Self {
            n_layer,
            tied: gguf.tensor("output.weight").is_none(),
            n_expert: number(metadata, &architecture, "expert_count").unwrap_or(0),
            shares_keys: heads_kv > 0 && heads / heads_kv >= 4,
            is_70b: match &*architecture {
                "llama" => n_layer == 80 && heads != heads_kv,
                "qwen2" | "deci" => n_layer == 80,
                "jais2" => n_layer == 68,
                _ => false,
            },
            n_values: gguf.tensors().iter().filter(|t| makes_values(&t.name)).count(),
            architecture,
            has_importance: false,
            place: HashMap::new(),
        };
        let mut names: Vec<&str> = gguf.tensors().iter().filter(|t| chosen(t)).map(|t| &*t.name).collect();
        names.sort_by_key(|name| (layer_and_part(name).map(|(layer, _)| layer), *name));
        for kind in [makes_values, is_down] {
            let places = names.iter().filter(|name| kind(name)).enumerate();
            outline.place.extend(places.map(|(i, name)| ((*name).to_owned(), i)));
        }
        outline
    }

    /// The place of a matrix that makes values among all that do, and how many there are.
    pub(super) fn place_of_values(&self, name: &str) -> (usize, usize) {
        (self.place_or_layer(name), if self.n_values == 0 { self.n_layer } else { self.n_values })
    }

    /// The place of an `ffn_down`: its layer where there are experts, of which a layer has several.
    pub(super) fn place_of_down(&self, name: &str) -> usize {
        match layer_and_part(name) {
            Some((layer, _)) if self.n_expert > 1 => layer,
            _ => self.place_or_layer(name),
        }
    }

    fn place_or_layer(&self, name: &str) -> usize {
        let layer = || layer_and_part(name).map_or(0, |(layer, _)| layer);
        self.place.get(name).copied().unwrap_or_else(layer)
    }
}

/// `blk.3.ffn_up.weight` is layer 3 and `ffn_up.weight`.
pub(super) fn layer_and_part(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse::<u32>().ok()? as usize, part))
}

/// Whether a matrix makes values of attention, alone or with keys and queries. `ffn_down` does not.
pub(super) fn makes_values(name: &str) -> bool {
    !is_down(name) && ["attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"].iter().any(|part| name.contains(part))
}

/// Whether it is a matrix that leads out of an FFN.
pub(super) fn is_down(name: &str) -> bool {
    name.contains("ffn_down")
}

/// The number of this key of the model's architecture, of its first layer where each has one.
fn number(metadata: &Metadata, architecture: &str, key: &str) -> Option<u64> {
    let key = format!("{architecture}.{key}");
    if metadata.is_array(&key) {
        return metadata.numbers(&key).ok().flatten()?.first().map(|n| *n as u64);
    }
    metadata.u64(&key).ok().flatten()
}
