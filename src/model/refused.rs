//! Keys that would make another model of a file, and that nothing here computes.

use super::config::Config;
use super::keys::Keys;
use anyhow::{Result, bail, ensure};

/// Where only nothing means nothing.
const ZERO: &[f64] = &[0.0];
/// A factor: llama.cpp takes 0 for absent.
const FACTOR: &[f64] = &[0.0, 1.0];

/// Keys, the values with which they change nothing, and what others would mean.
const REFUSED: &[(&[&str], &[f64], &str)] = &[
    (&["attention.causal"], &[1.0], "attention to later tokens is"),
    (&["attn_logit_softcapping", "final_logit_softcapping"], ZERO, "soft caps are"),
    (&["attention.clamp_kqv"], ZERO, "clamped queries, keys and values are"),
    (&["attention.max_alibi_bias"], ZERO, "ALiBi is"),
    (&["logit_scale", "embedding_scale", "residual_scale"], FACTOR, "another scale than 1 is"),
    (&["attention.output_scale", "attention.value_scale"], FACTOR, "another scale than 1 is"),
    (&["use_parallel_residual"], ZERO, "a parallel residual is"),
    (&["swin_norm"], ZERO, "another order of norms is"),
    (&["expert_count", "expert_used_count", "expert_shared_count"], ZERO, "a mixture of experts is"),
    (&["rope.dimension_sections"], ZERO, "rotation in sections is"),
    (&["rope.scaling.alpha"], ZERO, "this scaling of the rotation is"),
    (&["rope.scaling.yarn_attn_factor"], FACTOR, "(in place of rope.scaling.attn_factor) another factor than 1 is"),
    (&["attention.q_lora_rank", "attention.kv_lora_rank"], ZERO, "latent attention is"),
    (&["attention.key_length_mla", "attention.value_length_mla"], ZERO, "latent attention is"),
    (&["attention.relative_buckets_count"], ZERO, "a bias by distance is"),
    (&["attention.shared_kv_layers"], ZERO, "keys and values shared by layers are"),
    (&["full_attention_interval"], ZERO, "another mixer than attention is"),
    (&["nextn_predict_layers"], ZERO, "layers that predict further tokens are"),
    (&["embedding_length_per_layer_input"], ZERO, "embeddings of each layer are"),
    (&["activation_sparsity_scale"], ZERO, "a threshold that is worked out for each token is"),
    (&["rescale_every_n_layers"], ZERO, "rescaling between layers is"),
];

/// Of all keys that begin so.
const REFUSED_PREFIX: (&str, &str) = ("attention.temperature_", "a temperature that depends on the position is");

/// What the end of a key says that is for layers with a window alone.
const OF_WINDOWED_LAYERS: &str = "_swa";

/// Layouts of tensors that are the usual one: rotated pairs side by side, as LLaMA's first files had them.
const LAYOUTS: [&str; 3] = ["", "reference", "Meta AI original pth"];

/// Refuses what is in the file and `config` does not say.
///
/// # Errors
/// Names the first key that would make another model.
pub(super) fn check(keys: &Keys, config: &Config) -> Result<()> {
    for (suffixes, neutral, what) in REFUSED {
        keys.refuse(suffixes, neutral, what)?;
    }
    let (prefix, what) = REFUSED_PREFIX;
    for suffix in keys.suffixes().filter(|suffix| suffix.starts_with(prefix)) {
        keys.refuse(&[suffix], ZERO, what)?;
    }
    for suffix in keys.suffixes().filter(|suffix| suffix.ends_with(OF_WINDOWED_LAYERS)) {
        let usual = match suffix.trim_end_matches(OF_WINDOWED_LAYERS) {
            "rope.freq_base" => f64::from(config.rope.base),
            "rope.dimension_count" => config.rope.n_dims as f64,
            "attention.key_length" | "attention.value_length" => config.head_dim as f64,
            _ => 0.0,
        };
        keys.refuse(&[suffix], &[0.0, usual], "a value for layers with a window is")?;
    }
    if let Some(layout) = keys.str("tensor_data_layout")?
        && !LAYOUTS.contains(&layout)
    {
        let (name, shown) = (keys.name("tensor_data_layout"), layout.chars().take(60).collect::<String>());
        bail!("{name}: \"{}\": another layout of tensors is not supported yet", shown.escape_debug());
    }
    Ok(())
}

/// Tokens that a token may look back on, itself among them; `None` where that is not limited.
///
/// # Errors
/// When it is less than the context that the model was trained for.
pub(super) fn window(keys: &Keys, n_ctx_train: usize) -> Result<Option<usize>> {
    const KEY: &str = "attention.sliding_window";
    let Some(numbers) = keys.numbers(KEY)? else { return Ok(None) };
    // As u64, -1 and NaN are 0 or nothing sensible: neither is taken for a window that is wide enough.
    let enough = |n: f64| n == 0.0 || (n >= n_ctx_train as f64 && n <= f64::from(u32::MAX));
    if let Some(n) = numbers.iter().copied().find(|n| !enough(*n)) {
        bail!(
            "{}: {n}: a window that is shorter than the context of {n_ctx_train} is not supported yet",
            keys.name(KEY)
        );
    }
    Ok(numbers.into_iter().filter(|n| *n != 0.0).map(|n| n as usize).min())
}

/// Refuses an epsilon for norms of the other kind, unless it says nothing.
///
/// # Errors
/// When it is neither 0 nor `eps`.
pub(super) fn other_eps(keys: &Keys, suffix: &str, eps: f32) -> Result<()> {
    let Some(other) = keys.f32(suffix)? else { return Ok(()) };
    let known = other == 0.0 || other == eps;
    ensure!(known, "{}: {other}: norms of this architecture are of another kind", keys.name(suffix));
    Ok(())
}
