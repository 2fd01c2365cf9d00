//! What must hold of every architecture whatever it computes, on the tiny models of tests/golden/arch; and what each of
//! them refuses.

use crate::support::compare::same_bits;
use crate::support::kind::split;
use crate::support::real::{golden_names, repository};
use crate::support::{ModelFile, Tensor, Value};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, check_card};
use powerinfer::gguf::Gguf;
use powerinfer::model::arch::KNOWN;
use powerinfer::model::{Activation, Keys, Model};
use powerinfer::placement::Placement;
use powerinfer::quant::GgmlType;
use std::path::{Path, PathBuf};

pub fn path(name: &str) -> PathBuf {
    repository(&format!("tests/golden/arch/{name}.gguf"))
}

pub fn open(path: &Path) -> Result<Model> {
    // ReLU, so that there is something to skip, unless the architecture itself has zeros.
    let own = Model::new(Gguf::open(path)?, None)?;
    if own.config.activation.activation.is_sparse() {
        return Ok(own);
    }
    Model::new(Gguf::open(path)?, Some(Activation::Relu))
}

const TOKENS: [u32; 12] = [3, 17, 5, 5, 0, 39, 21, 8, 13, 2, 30, 11];

/// Logits after each of the tokens, `n` at a time.
pub fn logits(model: &Model, mode: Mode, n_threads: usize, n: usize) -> Result<Vec<Vec<f32>>> {
    let (n_ctx, kv_type, n_ubatch, isa) = (TOKENS.len(), KvType::F32, 4, Isa::detect());
    let params = ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch, isa };
    let mut executor = Executor::new(model, Placement::all_cold(model), params)?;
    let mut all = Vec::new();
    for tokens in TOKENS.chunks(n) {
        let logits = executor.decode_several(tokens)?;
        all.extend(logits.chunks_exact(model.config.n_vocab).map(<[f32]>::to_vec));
    }
    Ok(all)
}

/// Whether all weights of a file are floats.
fn file_is_floats(path: &Path) -> Result<bool> {
    Ok(Gguf::open(path)?.tensors().iter().all(|tensor| tensor.dtype.block_len() == 1))
}

#[test]
fn every_architecture_gives_the_same_bits_in_every_mode_alone_and_together() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in golden_names()? {
        // Without its vocabulary, which says nothing of what is computed: `no_vocab` is nothing to split.
        let plain = ModelFile::opened(&path(&name))?.remove("tokenizer.").written(folder.path(), "plain.gguf");
        let plain = open(&plain)?;
        let variant = folder.path().join(format!("{name}.gguf"));
        split(&plain, &variant)?;
        let variant = Model::new(Gguf::open(&variant)?, None)?;
        assert!(variant.is_variant());
        for (model, file) in [(&plain, "plain"), (&variant, "variant")] {
            let alone = logits(model, Mode::Dense, 1, 1)?;
            for (mode, n_threads, n) in
                [(Mode::Exact, 1, 1), (Mode::Exact, 2, 1), (Mode::Exact, 2, 3), (Mode::Dense, 2, 5)]
            {
                let got = logits(model, mode, n_threads, n)?;
                same_bits(&alone, &got)
                    .with_context(|| format!("{name}, {file}, {}, {n_threads} threads, {n} at once", mode.name()))?;
            }
        }
        // Neurons lie elsewhere, so their sum has another order.
        let of = |model| -> Result<Vec<f32>> { Ok(logits(model, Mode::Exact, 1, 1)?.concat()) };
        let (plain, variant) = (of(&plain)?, of(&variant)?);
        let largest = plain.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let apart = plain.iter().zip(&variant).fold(0.0f32, |a, (p, v)| a.max((p - v).abs()));
        // What is not floats is quantized again, or has its activations rounded in other blocks.
        let tolerance = if file_is_floats(&path(&name))? { 1e-5 } else { 3e-2 };
        assert!(apart <= tolerance * largest, "{name}: the variant is {apart:e} apart of {largest}");
    }
    Ok(())
}

/// Each architecture has a golden model of its name. Keys that are read are known by that; the list of the others must not
/// hold one of them, as it would hide that it is no longer read.
#[test]
fn no_key_that_is_read_is_listed_as_harmless() -> Result<()> {
    for arch in KNOWN {
        let gguf = Gguf::open(&path(arch.name()))?;
        let n_vocab = gguf.tensor("token_embd.weight").context("an embedding")?.n_rows();
        let keys = Keys::new(&gguf, arch.name(), n_vocab, None);
        arch.config(&keys)?;
        let read = keys.read_so_far();
        assert!(read.iter().any(|key| key == "rope.scaling.yarn_beta_slow"), "{read:?}");
        let both: Vec<_> = read.iter().filter(|key| arch.harmless().contains(&key.as_str())).collect();
        assert!(both.is_empty(), "{}: {both:?}", arch.name());
        assert!(arch.harmless().is_sorted(), "{}", arch.name());
        assert_eq!(keys.unknown(arch.harmless()), [""; 0], "{}", arch.name());
    }
    Ok(())
}

/// What a card says of a golden model.
pub fn on_a_card(model: &Model) -> String {
    let (n_ctx, kv_type, n_ubatch, isa) = (8, KvType::F32, 4, Isa::detect());
    let params = ExecutorParams { n_threads: 1, n_ctx, kv_type, mode: Mode::Exact, n_ubatch, isa };
    check_card(model, &params).err().map(|e| format!("{e:#}")).unwrap_or_default()
}

#[test]
fn what_a_card_does_not_compute_is_named_before_it_is_asked() -> Result<()> {
    // They are narrow: tests/gpu/architectures.rs has wider ones.
    for (name, wanted) in [("qwen2", "output.weight"), ("gemma2", "a soft cap of attention")] {
        let line = on_a_card(&open(&path(name))?);
        assert!(line.contains(wanted), "{name}: {line}");
    }
    Ok(())
}

/// Changes a golden model, and gives the line that refuses it.
pub fn refusal(name: &str, change: impl FnOnce(&mut ModelFile)) -> Result<String> {
    let mut file = ModelFile::opened(&path(name))?;
    change(&mut file);
    let folder = tempfile::tempdir()?;
    match Model::new(Gguf::open(&file.written(folder.path(), "model.gguf"))?, None) {
        Ok(_) => panic!("{name}: the changed file is not refused"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Asserts that the golden model with that key is refused by a line that has the key and `wanted` in it.
#[track_caller]
pub fn refuses_key(name: &str, key: &str, value: Value, wanted: &str) {
    let line = refusal(name, |file| {
        file.set(key, value);
    });
    let line = line.unwrap();
    assert!(line.contains(key) && line.contains(wanted) && !line.contains('\n'), "{name}, {key}: {line}");
}

/// The same with a further tensor.
#[track_caller]
pub fn refuses_tensor(name: &str, tensor: &str, dims: &[usize]) {
    let line = refusal(name, |file| {
        file.push(Tensor::zeros(tensor, GgmlType::F32, dims));
    });
    let line = line.unwrap();
    assert!(line.contains(tensor) && line.contains("is not known for architecture"), "{name}: {line}");
}

/// The same with a tensor of another shape, or without it where there is no shape.
#[track_caller]
pub fn refuses_shape(name: &str, tensor: &str, dims: Option<&[usize]>) {
    let line = refusal(name, |file| match dims {
        Some(dims) => *file.tensor(tensor) = Tensor::zeros(tensor, GgmlType::F32, dims),
        None => file.tensors.retain(|t| t.name != tensor),
    });
    let wanted = if dims.is_some() { "follows from the metadata" } else { "the tensor is missing" };
    let line = line.unwrap();
    assert!(line.contains(tensor) && line.contains(wanted) && !line.contains('\n'), "{name}, {tensor}: {line}");
}

#[test]
fn qwen2_refuses_what_it_does_not_compute() {
    refuses_key("qwen2", "qwen2.expert_count", Value::U32(4), "mixture");
    refuses_key("qwen2", "qwen2.logit_scale", Value::F32(2.0), "scale");
    refuses_key("qwen2", "qwen2.rope.scaling.type", Value::Str("longrope".to_owned()), "longrope");
    refuses_tensor("qwen2", "blk.0.attn_q_norm.weight", &[6]);
    refuses_tensor("qwen2", "blk.0.ffn_up.bias", &[28]);
    refuses_tensor("qwen2", "blk.0.attn_output.bias", &[24]);
    refuses_tensor("qwen2-tied", "output.bias", &[40]);
    refuses_shape("qwen2", "blk.0.attn_k.bias", Some(&[24]));
    refuses_shape("qwen2", "blk.1.ffn_gate.weight", None);
}

#[test]
fn qwen3_refuses_what_it_does_not_compute() {
    refuses_key("qwen3", "qwen3.final_logit_softcapping", Value::F32(30.0), "soft caps");
    refuses_key("qwen3", "qwen3.embedding_scale", Value::F32(2.0), "scale");
    refuses_tensor("qwen3", "blk.0.attn_q_norm.bias", &[4]);
    refuses_tensor("qwen3", "blk.0.ffn_gate.bias", &[32]);
    refuses_shape("qwen3", "blk.4.attn_k_norm.weight", None);
    refuses_shape("qwen3", "blk.0.attn_q_norm.weight", Some(&[16]));
    refuses_shape("qwen3", "blk.0.attn_q_norm.weight", Some(&[4, 4]));
}

#[test]
fn granite_refuses_what_it_does_not_compute() {
    refuses_key("granite", "granite.expert_count", Value::U32(8), "mixture");
    refuses_key("granite", "granite.logit_scale", Value::F32(1e-40), "scales by inf");
    refuses_key("granite", "granite.residual_scale", Value::F32(f32::NAN), "not a finite number");
    refuses_key("granite", "granite.embedding_scale", Value::Str("12".to_owned()), "finite number");
    refuses_key("granite", "granite.residual_scale", Value::f32s(&[0.5, 0.25, 0.5]), "differs from layer to layer");
    refuses_key("granite", "granite.rope.scaling.finetuned", Value::F32(0.5), "true or false");
    refuses_key("granite", "granite.attention.scale", Value::F32(-0.5), "not positive");
    refuses_tensor("granite", "blk.0.ffn_gate_inp.weight", &[32, 8]);
    refuses_tensor("granite", "blk.0.ffn_up_shexp.weight", &[32, 36]);
    refuses_shape("granite", "blk.2.ffn_down.weight", Some(&[36, 24]));
}

#[test]
fn minicpm_refuses_what_it_does_not_compute() {
    refuses_key("minicpm", "minicpm.expert_count", Value::U32(8), "mixture");
    refuses_key("minicpm", "minicpm.rope.scaling.type", Value::Str("longrope".to_owned()), "longrope");
    refuses_key("minicpm", "minicpm.attention.q_lora_rank", Value::U32(8), "latent attention");
    refuses_tensor("minicpm", "rope_factors_long.weight", &[4]);
    refuses_shape("minicpm", "blk.1.attn_q.bias", Some(&[16]));
}

/// Without keys they are those of the makers' models: a file that says them gives the same.
#[test]
fn the_scales_of_old_minicpm_files_are_those_that_newer_ones_say() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut file = ModelFile::opened(&path("minicpm-old"))?;
    file.set("minicpm.embedding_scale", Value::F32(12.0));
    file.set("minicpm.residual_scale", Value::F32(1.4 / 2f32.sqrt()));
    file.set("minicpm.logit_scale", Value::F32(32.0 / 256.0));
    let newer = open(&file.written(folder.path(), "newer.gguf"))?;
    let old = open(&path("minicpm-old"))?;
    same_bits(&logits(&old, Mode::Exact, 1, 1)?, &logits(&newer, Mode::Exact, 1, 1)?)
}

#[test]
fn smollm3_refuses_what_it_does_not_compute() {
    refuses_key("smollm3", "smollm3.attention.rope_pattern", Value::i32s(&[1, 1, 0]), "layers without rotation");
    refuses_key("smollm3", "smollm3.residual_scale", Value::F32(0.5), "scale");
    refuses_tensor("smollm3", "blk.3.attn_q_norm.weight", &[4]);
    refuses_tensor("smollm3", "blk.0.ffn_down.bias", &[16]);
    refuses_shape("smollm3", "blk.8.ffn_norm.weight", None);
}

#[test]
fn nemotron_refuses_what_it_does_not_compute() {
    refuses_key("nemotron", "nemotron.rope.dimension_count", Value::U32(10), "cannot be rotated");
    refuses_key("nemotron", "nemotron.rope.dimension_count", Value::U32(5), "cannot be rotated");
    refuses_key("nemotron", "nemotron.attention.layer_norm_rms_epsilon", Value::F32(0.5), "another kind");
    refuses_key("nemotron", "nemotron.use_parallel_residual", Value::Bool(true), "parallel residual");
    refuses_tensor("nemotron", "blk.0.ffn_gate.weight", &[32, 36]);
    refuses_shape("nemotron", "blk.1.attn_norm.bias", None);
    refuses_shape("nemotron", "output_norm.bias", None);
    refuses_shape("nemotron", "output.weight", None);
    refuses_shape("nemotron-biases", "blk.0.ffn_up.bias", Some(&[32]));
}

#[test]
fn jais2_refuses_what_it_does_not_compute() {
    refuses_key("jais2", "jais2.attention.layer_norm_rms_epsilon", Value::F32(0.5), "another kind");
    refuses_key("jais2", "jais2.use_parallel_residual", Value::Bool(true), "parallel residual");
    refuses_tensor("jais2", "blk.0.ffn_gate.weight", &[24, 36]);
    refuses_tensor("jais2", "rope_freqs.weight", &[3]);
    for required in ["attn_norm", "attn_output", "ffn_norm", "ffn_up", "ffn_down"] {
        refuses_shape("jais2", &format!("blk.1.{required}.bias"), None);
    }
    refuses_shape("jais2", "output_norm.bias", None);
    refuses_shape("jais2", "blk.0.attn_q.bias", Some(&[12]));
    refuses_shape("jais2-own", "output.weight", Some(&[32, 41]));
}

#[test]
fn falcon_refuses_what_it_does_not_compute() -> Result<()> {
    refuses_key("falcon", "falcon.tensor_data_layout", Value::Str("original".to_owned()), "layout of tensors");
    refuses_key("falcon", "falcon.attention.max_alibi_bias", Value::F32(8.0), "ALiBi");
    refuses_key("falcon", "falcon.attention.layer_norm_rms_epsilon", Value::F32(0.5), "another kind");
    refuses_tensor("falcon", "blk.0.ffn_norm.weight", &[24]);
    refuses_tensor("falcon", "blk.1.attn_norm_2.weight", &[24]);
    refuses_tensor("falcon", "blk.0.attn_output.bias", &[24]);
    refuses_tensor("falcon", "blk.0.ffn_up.bias", &[36]);
    refuses_tensor("falcon", "rope_freqs.weight", &[3]);
    refuses_shape("falcon", "blk.0.attn_qkv.weight", Some(&[24, 48]));
    refuses_shape("falcon", "blk.1.attn_norm.bias", None);
    refuses_shape("falcon-two", "blk.1.attn_norm_2.weight", None);
    refuses_shape("falcon-two", "output_norm.bias", None);
    Ok(())
}

/// What saved files say of blocks says nothing, and a file without a word on its layout has the usual one.
#[test]
fn falcon_takes_files_that_say_more_or_less_than_converters_write() -> Result<()> {
    let expected = logits(&open(&path("falcon"))?, Mode::Exact, 1, 1)?;
    for parallel in [true, false] {
        let folder = tempfile::tempdir()?;
        let mut file = ModelFile::opened(&path("falcon"))?;
        file.set("falcon.use_parallel_residual", Value::Bool(parallel));
        file.remove("falcon.tensor_data_layout");
        let model = open(&file.written(folder.path(), "model.gguf"))?;
        same_bits(&expected, &logits(&model, Mode::Exact, 1, 1)?)?;
    }
    Ok(())
}

#[test]
fn olmo2_refuses_what_it_does_not_compute() {
    refuses_key("olmo2", "olmo2.rope.freq_base_swa", Value::F32(5.0), "a value for layers with a window");
    refuses_key("olmo2", "olmo2.attention.clamp_kqv", Value::F32(8.0), "clamped");
    refuses_tensor("olmo2", "blk.0.attn_norm.weight", &[32]);
    refuses_tensor("olmo2", "blk.2.ffn_norm.weight", &[32]);
    refuses_shape("olmo2", "blk.0.attn_k_norm.weight", Some(&[8]));
    refuses_shape("olmo2", "blk.1.post_ffw_norm.weight", None);
}

#[test]
fn mistral3_refuses_what_it_does_not_compute() {
    refuses_key("mistral3", "mistral3.attention.temperature_length", Value::U32(8), "depends on the position");
    refuses_key("mistral3", "mistral3.attention.temperature_scale", Value::F32(-0.5), "negative");
    refuses_key("mistral3", "mistral3.expert_count", Value::U32(8), "mixture");
    refuses_key("mistral3", "mistral3.rope.scaling.yarn_attn_factor", Value::F32(0.5), "another factor");
    refuses_tensor("mistral3", "blk.0.ffn_gate_inp.weight", &[16, 8]);
    refuses_shape("mistral3", "output_norm.weight", Some(&[20]));
}

#[test]
fn stablelm_refuses_what_it_does_not_compute() {
    refuses_key(
        "stablelm-parallel",
        "stablelm.use_parallel_residual",
        Value::Bool(false),
        "ffn_norm.weight is missing",
    );
    refuses_key("stablelm", "stablelm.use_parallel_residual", Value::F32(0.5), "true or false");
    refuses_key("stablelm", "stablelm.attention.layer_norm_rms_epsilon", Value::F32(0.5), "another kind");
    refuses_tensor("stablelm", "blk.1.attn_q_norm.weight", &[8, 4]);
    refuses_tensor("stablelm-heads", "blk.0.attn_q_norm.bias", &[8, 4]);
    refuses_shape("stablelm-heads", "blk.0.attn_k_norm.weight", None);
    refuses_shape("stablelm-heads", "blk.1.attn_q_norm.weight", Some(&[8]));
    refuses_shape("stablelm-heads", "blk.1.attn_q_norm.weight", Some(&[32]));
    refuses_tensor("stablelm-parallel", "blk.1.ffn_norm.weight", &[32]);
    refuses_shape("stablelm", "blk.1.ffn_norm.weight", None);
    refuses_shape("stablelm", "blk.1.attn_norm.bias", Some(&[16]));
}

#[test]
fn starcoder2_refuses_what_it_does_not_compute() -> Result<()> {
    refuses_key("starcoder2", "starcoder2.hidden_activation", Value::Str("gelu_cubic".to_owned()), "not known");
    refuses_key("starcoder2", "starcoder2.attention.causal", Value::Bool(false), "later tokens");
    refuses_tensor("starcoder2", "blk.0.ffn_gate.weight", &[32, 36]);
    refuses_tensor("starcoder2", "position_embd.weight", &[32, 512]);
    refuses_shape("starcoder2", "blk.2.ffn_down.bias", Some(&[36]));
    Ok(())
}

#[test]
fn exaone_refuses_what_it_does_not_compute() {
    refuses_key("exaone", "exaone.residual_scale", Value::F32(0.5), "scale");
    refuses_tensor("exaone", "blk.0.attn_q_norm.weight", &[4]);
    refuses_tensor("exaone", "blk.0.post_attention_norm.weight", &[32]);
    refuses_shape("exaone", "rope_freqs.weight", Some(&[4]));
}
