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
    (&["attention.rope_pattern"], &[1.0], "layers without rotation are"),
    (&["attention.recurrent_layers", "hash_layer_count"], ZERO, "layers of another kind are"),
    (&["attention.output_group_count", "attention.output_lora_rank"], ZERO, "an output in groups is"),
    (&["attention.gate_lora_rank"], ZERO, "a gate of attention is"),
    (&["decoder_block_count"], ZERO, "an encoder is"),
    (&["token_shift_count"], FACTOR, "a shift of tokens is"),
    (&["attention.decay_lora_rank", "attention.iclr_lora_rank"], ZERO, "another mixer than attention is"),
    (&["attention.value_residual_mix_lora_rank"], ZERO, "a mix of values of several layers is"),
    (&["attention.value_expert_count", "attention.value_expert_used_count"], ZERO, "a mixture of experts is"),
    (&["attn_res.block_size"], ZERO, "another residual stream is"),
    (&["n_deepstack_layers"], ZERO, "embeddings of pictures are"),
];

/// Of all keys that begin so, with what any of them but 0 would mean.
const REFUSED_PREFIXES: &[(&str, &str)] = &[
    ("attention.compress_", "compressed attention is"),
    ("attention.indexer.", "sparse attention is"),
    ("attention.temperature_", "a temperature that depends on the position is"),
    ("hrm.", "layers that are gone through several times are"),
    ("hyper_connection.", "another residual stream is"),
    ("kda.", "another mixer than attention is"),
    ("ple.", "embeddings of each layer are"),
    ("shortconv.", "another mixer than attention is"),
    ("ssm.", "another mixer than attention is"),
    ("wkv.", "another mixer than attention is"),
];

/// The same of keys that say nothing as long as there are no experts.
const REFUSED_BESIDE_EXPERTS: &[(&str, &[f64], &str)] = &[
    ("expert_chunk_feed_forward_length", ZERO, "experts for some tokens of a group are"),
    ("experts_per_group", FACTOR, "experts that several others share are"),
    ("interleave_moe_layer_step", FACTOR, "layers without experts between the others are"),
    ("leading_dense_block_count", ZERO, "layers without experts in front of the others are"),
    ("moe_every_n_layers", FACTOR, "layers without experts between the others are"),
    ("router_logit_softcapping", ZERO, "a soft cap of the router's scores is"),
    ("swiglu_clamp_exp", ZERO, "a clamped activation of experts is"),
    ("swiglu_clamp_shexp", ZERO, "a clamped activation of experts is"),
];

/// Keys for other architectures all of which llama.cpp writes into every file that it saves, and converters do not.
const SAVED_MARKS: [&str; 4] = ["decoder_start_token_id", "rescale_every_n_layers", "swin_norm", "time_mix_extra_dim"];

/// What it writes there whatever the model, since it reads these keys for other architectures only; NaN is for no finite
/// number.
const SAVED: &[(&str, f64)] = &[
    ("attention.indexer.kpool_select_tail", 1.0),
    ("attn_logit_softcapping", 50.0),
    ("final_logit_softcapping", 30.0),
    ("kda.gate_lower_bound", f64::NAN),
    ("rope.freq_base_swa", 10_000.0),
    ("router_logit_softcapping", 30.0),
    ("token_shift_count", 2.0),
];

/// What the end of a key says that is for layers with a window alone.
const OF_WINDOWED_LAYERS: &str = "_swa";

/// Layouts of tensors that are the usual one: rotated pairs side by side, as LLaMA's first files had them.
const LAYOUTS: [&str; 3] = ["", "reference", "Meta AI original pth"];

/// Refuses what is in the file and `config` does not say, but for the keys that are `computed` by the architecture.
///
/// # Errors
/// Names the first key that would make another model.
pub(super) fn check(keys: &Keys, config: &Config, computed: &[&str]) -> Result<()> {
    let refuse = |suffix: &str, neutral: &[f64], what: &str| {
        if computed.contains(&suffix) { Ok(()) } else { refuse(keys, suffix, neutral, what) }
    };
    for (suffixes, neutral, what) in REFUSED {
        suffixes.iter().try_for_each(|suffix| refuse(suffix, neutral, what))?;
    }
    for suffix in keys.suffixes() {
        if let Some((_, what)) = REFUSED_PREFIXES.iter().find(|(prefix, _)| suffix.starts_with(prefix)) {
            refuse(suffix, ZERO, what)?;
        }
        if let Some(stem) = suffix.strip_suffix(OF_WINDOWED_LAYERS) {
            let usual = match stem {
                "rope.freq_base" => f64::from(config.rope.base),
                "rope.dimension_count" => config.rope.n_dims as f64,
                "attention.key_length" => config.head_dim as f64,
                // Where values have another width than keys, the architecture says so only later.
                "attention.value_length" => keys.whole(stem)?.unwrap_or(config.head_dim) as f64,
                _ => 0.0,
            };
            refuse(suffix, &[0.0, usual], "a value for layers with a window is")?;
        }
    }
    if !computed.contains(&"tensor_data_layout")
        && let Some(layout) = keys.str("tensor_data_layout")?
        && !LAYOUTS.contains(&layout)
    {
        let (name, shown) = (keys.name("tensor_data_layout"), layout.chars().take(60).collect::<String>());
        bail!("{name}: \"{}\": another layout of tensors is not supported yet", shown.escape_debug());
    }
    Ok(())
}

/// Refuses what experts would make another model with, where there are some.
///
/// # Errors
/// Names the first key that would.
pub(super) fn check_beside_experts(keys: &Keys) -> Result<()> {
    REFUSED_BESIDE_EXPERTS.iter().try_for_each(|(suffix, neutral, what)| refuse(keys, suffix, neutral, what))
}

/// Whether [`check_beside_experts`] looks at that key.
pub(super) fn is_checked_beside_experts(suffix: &str) -> bool {
    REFUSED_BESIDE_EXPERTS.iter().any(|(key, ..)| *key == suffix)
}

/// Refuses a key with another value than `neutral` ones, and than the one that llama.cpp writes whatever the model.
fn refuse(keys: &Keys, suffix: &str, neutral: &[f64], what: &str) -> Result<()> {
    if says_nothing_as_saved(keys, suffix) { Ok(()) } else { keys.refuse(&[suffix], neutral, what) }
}

/// Whether llama.cpp has saved the file, and the key holds what it writes into every one.
fn says_nothing_as_saved(keys: &Keys, suffix: &str) -> bool {
    if !SAVED_MARKS.iter().all(|mark| keys.has(mark)) {
        return false;
    }
    let Some((_, written)) = SAVED.iter().find(|(key, _)| *key == suffix) else { return false };
    let Ok(Some(numbers)) = keys.numbers(suffix) else { return false };
    numbers.iter().all(|n| n == written || (n.is_nan() && written.is_nan()))
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
