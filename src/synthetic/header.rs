//! Metadata of a synthetic model, with a vocabulary of bytes.

use super::rates::Unit;
use super::spec::{Layout, Spec, VERSION};
use crate::gguf::write::{MetadataBuilder, Value};
use crate::model::arch::Llama;
use crate::model::{
    Activation, Architecture, Caps, Config, Mixer, NormKind, ResolvedActivation, Rope, RopeKind, SYNTHETIC_KEY, Scales,
};
use crate::variant;

/// `general.quantization_version`, which ggml requires of quantized files.
const QUANTIZATION_VERSION: u32 = 2;
const N_CTX_TRAIN: u32 = 8192;
const NORM_EPS: f32 = 1e-5;
/// Unknown, begin, end.
const N_SPECIAL: usize = 3;

/// The configuration that the keys of `spec`'s file stand for.
pub(super) fn config(spec: &Spec) -> Config {
    let shape = spec.sized.shape;
    let head_dim = shape.head_dim;
    Config {
        arch: Llama.name().to_owned(),
        name: spec.name(),
        n_vocab: shape.n_vocab,
        n_tokens: shape.n_vocab,
        n_ctx_train: N_CTX_TRAIN as usize,
        n_embd: shape.n_embd,
        n_layer: spec.sized.n_layer,
        n_ff: vec![shape.n_ff; spec.sized.n_layer],
        n_head: shape.n_head,
        n_head_kv: shape.n_head_kv,
        head_dim,
        value_dim: head_dim,
        n_latent: None,
        attention_scale: Config::usual_attention_scale(head_dim),
        temperature: None,
        scales: Scales::NONE,
        caps: Caps::NONE,
        norm: NormKind::Rms,
        own_head_norms: false,
        norm_eps: NORM_EPS,
        rope: Rope::plain(RopeKind::Interleaved, shape.rope_base, head_dim),
        parallel: false,
        rotated: vec![true; spec.sized.n_layer],
        windows: vec![None; spec.sized.n_layer],
        window_rope: None,
        activation: ResolvedActivation { activation: Activation::Relu, from: "powerinfer.activation".to_owned() },
        two_norms: false,
        positions: None,
        experts: None,
        mixers: vec![Mixer::Attention; spec.sized.n_layer],
        ssm: None,
    }
}

/// Keys and values of `spec`'s file; `n_hot` is the planned hot prefix of each layer.
pub(super) fn metadata(spec: &Spec, layout: Layout, n_hot: usize) -> MetadataBuilder {
    let shape = spec.sized.shape;
    let mut out = MetadataBuilder::default();
    let text = |s: &str| Value::Str(s.to_owned());
    out.add("general.architecture", &text("llama"));
    out.add("general.name", &Value::Str(spec.name()));
    if let Some(file_type) = variant::file_type(spec.sized.dtype) {
        out.add("general.file_type", &Value::U32(file_type));
    }
    out.add("general.quantization_version", &Value::U32(QUANTIZATION_VERSION));
    for (key, value) in [
        ("llama.vocab_size", shape.n_vocab),
        ("llama.block_count", spec.sized.n_layer),
        ("llama.context_length", N_CTX_TRAIN as usize),
        ("llama.embedding_length", shape.n_embd),
        ("llama.feed_forward_length", shape.n_ff),
        ("llama.attention.head_count", shape.n_head),
        ("llama.attention.head_count_kv", shape.n_head_kv),
        ("llama.rope.dimension_count", shape.head_dim),
    ] {
        out.add(key, &Value::U32(value as u32));
    }
    out.add("llama.rope.freq_base", &Value::F32(shape.rope_base));
    out.add("llama.attention.layer_norm_rms_epsilon", &Value::F32(NORM_EPS));
    vocabulary(shape.n_vocab, &mut out);
    out.add("powerinfer.activation", &text("relu"));
    out.add(SYNTHETIC_KEY, &Value::Bool(true));
    out.add(&format!("{SYNTHETIC_KEY}.version"), &Value::U32(VERSION));
    out.add(&format!("{SYNTHETIC_KEY}.seed"), &Value::U64(spec.seed));
    out.add(&format!("{SYNTHETIC_KEY}.density"), &Value::F32(spec.density() as f32));
    if layout == Layout::Variant {
        out.add("powerinfer.version", &Value::U32(variant::VERSION));
        out.add("powerinfer.n_hot", &Value::ArrayU32(vec![n_hot as u32; spec.sized.n_layer]));
    }
    out
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

/// By slot: rates, and the mean absolute factor of a neuron's `down` vector.
pub(super) fn index(rates: &[f64], units: &[Unit]) -> (Vec<f32>, Vec<f32>) {
    // The mean absolute value of standard normal numbers, which `up` gives.
    let up = std::f64::consts::FRAC_2_PI.sqrt();
    (rates.iter().map(|r| *r as f32).collect(), units.iter().map(|u| (u.mean.max(0.0) * up) as f32).collect())
}
