//! The library, called from outside: files, tokens, and logits against other ways to compute them.

mod architecture_experts;
mod architecture_forms;
mod architecture_hybrid;
mod architectures;
mod batches;
mod converter;
mod exact;
mod fused_qkv;
mod gemma;
mod golden;
mod groups;
mod hostile_gguf;
mod large_profiles;
mod latent;
mod long_rope;
mod mixed_groups;
mod model_kinds;
mod models_doc;
mod positions;
mod pre_tokenizers;
mod predicted;
mod prefill_sizes;
mod pwri;
mod pwri_architectures;
mod pwri_variants;
mod recipes;
mod recurrent;
mod registry;
mod routed_profiles;
#[path = "../support/mod.rs"]
mod support;
mod synthetic_experts;
mod templates;
mod tokenizer;
mod versions;
mod windows;
