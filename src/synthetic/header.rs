//! Metadata of a synthetic model, with a vocabulary of bytes.

use super::spec::{Layout, Spec, VERSION};
use super::types::recipe;
use super::weights::Weights;
use crate::gguf::write::{MetadataBuilder, Value};
use crate::model::{Gating, SYNTHETIC_KEY};
use crate::shapes::{ExpertShape, MambaShape, Shape};
use crate::variant;

/// `general.quantization_version`, which ggml requires of quantized files.
const QUANTIZATION_VERSION: u32 = 2;
const N_CTX_TRAIN: u32 = 8192;
const NORM_EPS: f32 = 1e-5;
/// Unknown, begin, end.
const N_SPECIAL: usize = 3;

/// Keys and values of `spec`'s file.
pub(super) fn metadata(spec: &Spec, layout: Layout, weights: &Weights) -> MetadataBuilder {
    let shape = spec.sized.shape;
    let mut out = MetadataBuilder::default();
    let text = |s: &str| Value::Str(s.to_owned());
    out.add("general.architecture", &text(shape.arch));
    out.add("general.name", &Value::Str(spec.name()));
    let file_type =
        recipe(&spec.sized).map_or_else(|| variant::file_type(spec.sized.dtype), |recipe| recipe.file_type());
    if let Some(file_type) = file_type {
        out.add("general.file_type", &Value::U32(file_type));
    }
    out.add("general.quantization_version", &Value::U32(QUANTIZATION_VERSION));
    Sizes { spec, out: &mut out }.add();
    vocabulary(shape.n_vocab, &mut out);
    // Of the others, the architecture tells.
    if layout == Layout::Variant || shape.arch == "llama" {
        out.add("powerinfer.activation", &text(spec.activation().name()));
    }
    out.add(SYNTHETIC_KEY, &Value::Bool(true));
    out.add(&format!("{SYNTHETIC_KEY}.version"), &Value::U32(VERSION));
    out.add(&format!("{SYNTHETIC_KEY}.seed"), &Value::U64(spec.seed));
    out.add(&format!("{SYNTHETIC_KEY}.density"), &Value::F32(spec.density() as f32));
    if shape.experts.is_some() {
        out.add(&format!("{SYNTHETIC_KEY}.popularity"), &Value::F32(spec.sized.popularity() as f32));
    }
    if layout == Layout::Variant {
        let version = if shape.experts.is_some() { variant::VERSION_GROUPS } else { variant::VERSION };
        out.add("powerinfer.version", &Value::U32(version));
        out.add("powerinfer.n_hot", &Value::ArrayU32(n_hot(spec, weights)));
    }
    out
}

/// Of each group of neurons, layer by layer, the planned hot prefix.
fn n_hot(spec: &Spec, weights: &Weights) -> Vec<u32> {
    let of_layer: Vec<u32> = weights
        .families
        .iter()
        .flat_map(|family| {
            let rates: Vec<f32> = family.rates.iter().map(|rate| *rate as f32).collect();
            vec![variant::planned_hot(&rates) as u32; family.n_groups]
        })
        .collect();
    let shape = spec.sized.shape;
    (0..spec.sized.n_layer)
        .filter(|layer| shape.kind(*layer).has_ffn())
        .flat_map(|_| of_layer.iter().copied())
        .collect()
}

/// The keys that say how large everything is.
struct Sizes<'a> {
    spec: &'a Spec,
    out: &'a mut MetadataBuilder,
}

impl Sizes<'_> {
    fn value(&mut self, key: &str, value: &Value) {
        self.out.add(&format!("{}.{key}", self.spec.sized.shape.arch), value);
    }

    fn number(&mut self, key: &str, value: usize) {
        self.value(key, &Value::U32(value as u32));
    }

    /// A number for each layer.
    fn by_layer(&mut self, key: &str, of: impl Fn(&Shape, usize) -> usize) {
        let shape = self.spec.sized.shape;
        self.value(key, &Value::ArrayU32((0..self.spec.sized.n_layer).map(|layer| of(shape, layer) as u32).collect()));
    }

    fn add(&mut self) {
        let shape = self.spec.sized.shape;
        self.number("vocab_size", shape.n_vocab);
        self.number("block_count", self.spec.sized.n_layer);
        self.number("context_length", N_CTX_TRAIN as usize);
        self.number("embedding_length", shape.n_embd);
        if shape.pattern.is_some() {
            self.by_layer("feed_forward_length", |shape, i| if shape.kind(i).has_ffn() { shape.n_ff } else { 0 });
            self.number("attention.head_count", shape.n_head);
            self.by_layer(
                "attention.head_count_kv",
                |shape, i| if shape.kind(i).attends() { shape.n_head_kv } else { 0 },
            );
        } else {
            self.number("feed_forward_length", shape.n_ff);
            self.number("attention.head_count", shape.n_head);
            self.number("attention.head_count_kv", shape.n_head_kv);
        }
        self.number("rope.dimension_count", shape.head_dim);
        self.value("rope.freq_base", &Value::F32(shape.rope_base));
        self.value("attention.layer_norm_rms_epsilon", &Value::F32(NORM_EPS));
        if shape.arch != "llama" {
            self.number("attention.key_length", shape.head_dim);
            self.number("attention.value_length", shape.head_dim);
        }
        if let Some(window) = shape.window {
            self.number("attention.sliding_window", window.n);
        }
        if let Some(experts) = &shape.experts {
            self.experts(experts);
        }
        if let Some(mamba) = &shape.mamba {
            self.recurrent(mamba);
        }
    }

    fn experts(&mut self, experts: &ExpertShape) {
        let shape = self.spec.sized.shape;
        self.number("expert_count", experts.n);
        self.number("expert_used_count", experts.router.n_used);
        if shape.arch == "llama" {
            return;
        }
        self.number("expert_feed_forward_length", shape.n_ff);
        self.number("expert_gating_func", if experts.router.gating == Gating::Sigmoid { 2 } else { 1 });
        if experts.n_ff_shared > 0 {
            self.number("expert_shared_count", 1);
            self.number("expert_shared_feed_forward_length", experts.n_ff_shared);
        }
        if shape.arch == "nemotron_h_moe" {
            self.value("expert_weights_norm", &Value::Bool(experts.router.normalised));
            self.value("expert_weights_scale", &Value::F32(experts.router.scale));
            self.number("expert_group_count", 1);
            self.number("expert_group_used_count", 1);
        }
        if let Some(latent) = experts.latent {
            self.number("moe_latent_size", latent);
        }
    }

    fn recurrent(&mut self, mamba: &MambaShape) {
        self.value("attention.layer_norm_epsilon", &Value::F32(NORM_EPS));
        self.number("ssm.conv_kernel", mamba.n_conv);
        self.number("ssm.inner_size", mamba.inner);
        self.number("ssm.state_size", mamba.state);
        self.number("ssm.time_step_rank", mamba.heads);
        self.number("ssm.group_count", mamba.groups);
    }
}

/// A SentencePiece vocabulary in which every byte is a token; the other tokens never occur, as no merges lead to them.
fn vocabulary(n_vocab: usize, out: &mut MetadataBuilder) {
    const NORMAL: i32 = 1;
    const BYTE: i32 = 6;
    let token = |id: usize| match id {
        0 => ("<unk>".to_owned(), 2),
        1 => ("<s>".to_owned(), 3),
        2 => ("</s>".to_owned(), 3),
        _ if id < N_SPECIAL + 256 => (format!("<0x{:02X}>", id - N_SPECIAL), BYTE),
        _ => (format!("<dummy_{id}>"), NORMAL),
    };
    let (tokens, types): (Vec<_>, Vec<_>) = (0..n_vocab).map(|id| (token(id).0.into_bytes(), token(id).1)).unzip();
    let scores = (0..n_vocab).map(|id| if id < N_SPECIAL + 256 { 0.0 } else { -(id as f32) }).collect();
    out.add("tokenizer.ggml.model", &Value::Str("llama".to_owned()));
    out.add("tokenizer.ggml.tokens", &Value::ArrayStr(tokens));
    out.add("tokenizer.ggml.scores", &Value::ArrayF32(scores));
    out.add("tokenizer.ggml.token_type", &Value::ArrayI32(types));
    for (key, id) in [("bos", 1), ("eos", 2), ("unknown", 0)] {
        out.add(&format!("tokenizer.ggml.{key}_token_id"), &Value::U32(id));
    }
}
