//! Tiny models, and what the commands do with one.

use crate::support::kind::{Kind, Pairing};
use crate::support::{ModelFile, Tensor, Value};
use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::{Gguf, Source};
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::profile::Fingerprint;
use powerinfer::quant::GgmlType;

pub const N_VOCAB: usize = 6;

/// Two layers with a few neurons each.
pub fn kind() -> Kind {
    Kind {
        name: "tiny",
        n_vocab: N_VOCAB,
        n_embd: 8,
        n_ff: vec![8, 8],
        n_head: 2,
        n_head_kv: 1,
        head_dim: 4,
        n_rot: 4,
        tied: true,
        ..Kind::default()
    }
}

/// The same, as wide as a block of the quantized types is long.
pub fn wide() -> Kind {
    Kind { n_embd: 32, n_ff: vec![32], n_head: 1, head_dim: 32, n_rot: 32, ..kind() }
}

/// The vocabulary of a SentencePiece model.
fn add_letters(file: &mut ModelFile) {
    file.set("tokenizer.ggml.model", Value::Str("llama".to_owned()));
    file.set("tokenizer.ggml.tokens", Value::strings(&["<unk>", "<s>", "</s>", "\u{2581}", "a", "<0x62>"]));
    file.set("tokenizer.ggml.scores", Value::f32s(&[0.0, 0.0, 0.0, -1.0, -2.0, -3.0]));
    file.set("tokenizer.ggml.token_type", Value::i32s(&[2, 3, 3, 1, 1, 6]));
    file.set("tokenizer.ggml.bos_token_id", Value::U32(1));
    file.set("tokenizer.ggml.add_space_prefix", Value::Bool(true));
}

/// That of a byte-level one.
fn add_merges(file: &mut ModelFile) {
    file.set("tokenizer.ggml.model", Value::Str("gpt2".to_owned()));
    file.set("tokenizer.ggml.pre", Value::Str("gpt-2".to_owned()));
    file.set("tokenizer.ggml.tokens", Value::strings(&["a", "b", "\u{120}", "ab", "\u{120}ab", "<|im_end|>"]));
    file.set("tokenizer.ggml.merges", Value::strings(&["a b", "\u{120} ab"]));
    file.set("tokenizer.ggml.eos_token_id", Value::U32(5));
}

pub fn file(kind: &Kind) -> ModelFile {
    let mut file = kind.file(&kind.weights(1));
    add_letters(&mut file);
    file
}

/// A model of the other architecture that is known.
fn arcee() -> ModelFile {
    let mut file = file(&Kind { activation: "relu2", ..kind() });
    file.tensors.retain(|tensor| !tensor.name.contains("ffn_gate"));
    for (key, value) in &mut file.keys {
        *key = key.replace("llama.", "arcee.");
        if key == "general.architecture" {
            *value = Value::Str("arcee".to_owned());
        }
    }
    file
}

/// A model of two experts, one of which is chosen: in one tensor, or in one each, as old files have them.
pub fn experts(kind: &Kind, stacked: bool) -> ModelFile {
    let mut file = file(kind);
    file.set("llama.expert_count", Value::U32(2)).set("llama.expert_used_count", Value::U32(1));
    let (neurons, mut rest): (Vec<_>, Vec<_>) =
        file.tensors.into_iter().partition(|t| t.name.contains("ffn_") && !t.name.contains("norm"));
    for tensor in neurons {
        let stem = tensor.name.trim_end_matches(".weight");
        if stacked {
            let (mut dims, bytes) = (tensor.dims.clone(), tensor.bytes.repeat(2));
            dims.push(2);
            rest.push(Tensor { name: format!("{stem}_exps.weight"), dims, bytes, ..tensor.clone() });
        } else {
            rest.extend((0..2).map(|expert| Tensor { name: format!("{stem}.{expert}.weight"), ..tensor.clone() }));
        }
    }
    let router = |i: usize| Tensor::zeros(&format!("blk.{i}.ffn_gate_inp.weight"), GgmlType::F32, &[kind.n_embd, 2]);
    rest.extend((0..kind.n_ff.len()).map(router));
    file.tensors = rest;
    file
}

/// Plain files.
pub fn plain() -> Vec<ModelFile> {
    let mut merges = kind().file(&kind().weights(1));
    add_merges(&mut merges);
    let scaled = Kind { rope_factor: 2.0, rope_freqs: true, biases: true, tied: false, n_ff: vec![8, 6], ..kind() };
    let mut bare = kind().file(&kind().weights(1));
    bare.remove("general.name");
    let mut published = bare.clone();
    published.set("general.name", Value::Str("ReluLLaMA".to_owned())).remove("llama.hidden_activation");
    assert!(kind().rope == Pairing::Interleaved, "what llama is");
    vec![
        file(&kind()),
        merges,
        file(&scaled),
        bare,
        published,
        arcee(),
        experts(&kind(), true),
        experts(&kind(), false),
    ]
}

pub fn open(bytes: &[u8]) -> Result<Gguf> {
    Gguf::from_source(Source::from_bytes("input", bytes.to_vec()))
}

/// Looks at everything, and computes a few tokens.
///
/// # Errors
/// When the model cannot be run.
pub fn try_out(model: &Model) -> Result<()> {
    let fingerprint = Fingerprint::of(model)?;
    assert_eq!(fingerprint.hex().len(), 64);
    let placement = if model.is_variant() { Placement::planned(model)? } else { Placement::all_cold(model) };
    let mode = if model.has_predictor() { Mode::Predicted } else { Mode::Exact };
    let params = ExecutorParams { n_threads: 1, n_ctx: 4, kv_type: KvType::F32, mode, n_ubatch: 2, isa: Isa::detect() };
    let mut executor = Executor::new(model, placement, params)?;
    executor.prefill(&[0, 0])?;
    let logits = executor.decode(0)?;
    assert_eq!(logits.len(), model.config.n_vocab);
    Ok(())
}
