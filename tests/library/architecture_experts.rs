//! Architectures whose FFNs are mixtures of experts: the forms in which files have them, and what they refuse.

use crate::architecture_forms::{logits, open, path, refusal, refuses_key, refuses_shape, refuses_tensor};
use crate::architectures;
use crate::support::compare::same_bits;
use crate::support::real::repository;
use crate::support::{ModelFile, Tensor, Value};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::{Down, Model};
use powerinfer::placement::Placement;
use powerinfer::quant::GgmlType;

/// Logits of the golden model as `change` leaves it, decoded in exact mode.
fn changed(name: &str, change: impl FnOnce(&mut ModelFile)) -> Result<Vec<Vec<f32>>> {
    let mut file = ModelFile::opened(&path(name))?;
    change(&mut file);
    let folder = tempfile::tempdir()?;
    logits(&open(&file.written(folder.path(), "model.gguf"))?, Mode::Exact, 1, 1)
}

fn model(name: &str, change: impl FnOnce(&mut ModelFile)) -> Result<Model> {
    let mut file = ModelFile::opened(&path(name))?;
    change(&mut file);
    let folder = tempfile::tempdir()?;
    open(&file.written(folder.path(), "model.gguf"))
}

/// The golden model with `n_layers` layers whose experts' tensors are made of those that it has.
fn rearranged(file: &mut ModelFile, stem: &str, make: impl Fn(&[Tensor]) -> Tensor) {
    let n_layers = file.tensors.iter().filter(|t| t.name.ends_with("ffn_gate_inp.weight")).count();
    for layer in 0..n_layers {
        let prefix = format!("blk.{layer}.{stem}");
        let (parts, rest): (Vec<_>, Vec<_>) = file.tensors.drain(..).partition(|t| t.name.starts_with(&prefix));
        file.tensors = rest;
        file.tensors.push(make(&parts));
    }
}

#[test]
fn files_with_a_tensor_for_each_expert_give_the_bits_of_those_with_one_for_all() -> Result<()> {
    let expected = changed("llama-experts-old", |_| {})?;
    let got = changed("llama-experts-old", |file| {
        for matrix in ["ffn_gate", "ffn_up", "ffn_down"] {
            rearranged(file, &format!("{matrix}."), |experts| {
                let (layer, n) = (experts[0].name.split('.').nth(1).unwrap(), experts.len());
                let mut dims = experts[0].dims.clone();
                dims.push(n);
                let bytes = experts.iter().flat_map(|expert| expert.bytes.clone()).collect();
                Tensor { name: format!("blk.{layer}.{matrix}_exps.weight"), dtype: GgmlType::F32, dims, bytes }
            });
        }
    })?;
    same_bits(&expected, &got)
}

#[test]
fn gate_and_up_of_experts_in_one_tensor_give_the_bits_of_two() -> Result<()> {
    let expected = changed("qwen3moe-fused", |_| {})?;
    let got = changed("qwen3moe-fused", |file| {
        for (half, matrix) in ["ffn_gate", "ffn_up"].into_iter().enumerate() {
            let fused: Vec<Tensor> = file.tensors.iter().filter(|t| t.name.contains("gate_up_exps")).cloned().collect();
            for tensor in fused {
                let name = tensor.name.replace("ffn_gate_up", matrix);
                let (dims, n) = (vec![tensor.dims[0], tensor.dims[1] / 2, tensor.dims[2]], tensor.dims[2]);
                let experts = tensor.bytes.chunks_exact(tensor.bytes.len() / n);
                let bytes = experts.flat_map(|e| e.chunks_exact(e.len() / 2).nth(half).unwrap()).copied().collect();
                file.push(Tensor { name, dtype: GgmlType::F32, dims, bytes });
            }
        }
        file.tensors.retain(|t| !t.name.contains("gate_up_exps"));
    })?;
    same_bits(&expected, &got)
}

/// What SmallThinker's makers write: each expert's down with a row for each neuron.
fn transpose_down(file: &mut ModelFile) {
    for tensor in file.tensors.iter_mut().filter(|t| t.name.ends_with("ffn_down_exps.weight")) {
        let (n_ff, n_embd) = (tensor.dims[0], tensor.dims[1]);
        let experts = tensor.bytes.chunks_exact(4 * n_ff * n_embd);
        let of_expert = |bytes: &[u8]| -> Vec<u8> {
            let at = |neuron: usize, row: usize| bytes[4 * (row * n_ff + neuron)..][..4].to_vec();
            (0..n_ff).flat_map(|neuron| (0..n_embd).flat_map(move |row| at(neuron, row))).collect()
        };
        tensor.bytes = experts.flat_map(of_expert).collect();
        tensor.dims.swap(0, 1);
    }
}

#[test]
fn experts_whose_down_has_a_row_for_each_neuron_are_known_by_its_shape() -> Result<()> {
    let usual = changed("smallthinker", |_| {})?;
    let got = changed("smallthinker", transpose_down)?;
    let largest = usual.iter().flatten().fold(0.0f32, |a, b| a.max(b.abs()));
    let apart = usual.iter().flatten().zip(got.iter().flatten()).fold(0.0f32, |a, (p, v)| a.max((p - v).abs()));
    assert!(apart <= 1e-5 * largest, "{apart:e} of {largest}");
    let transposed = model("smallthinker", transpose_down)?;
    assert!(transposed.weights.groups().all(|(_, group)| matches!(group.ffn_down(), Down::Rows(_))));
    same_bits(&got, &logits(&transposed, Mode::Dense, 2, 3)?)
}

#[test]
fn layers_of_smallthinker_slide_or_stand_still_as_its_makers_have_it() -> Result<()> {
    let none = model("smallthinker", |_| {})?.config;
    assert!(none.windows.iter().all(Option::is_none) && none.rotated.iter().all(|r| *r));
    // The key says 3.
    let some = model("smallthinker-window", |_| {})?.config;
    let every_fourth = [None, Some(4096), Some(4096), Some(4096), None];
    assert_eq!(some.windows, every_fourth);
    assert_eq!(some.rotated, [false, true, true, true, false]);
    let pattern = model("smallthinker-pattern", |_| {})?.config;
    assert_eq!(pattern.windows, [None, Some(4096), Some(4096), None, Some(4096)]);
    assert_eq!(pattern.rotated, [false, true, true, true, false], "whatever the pattern");
    assert!((pattern.rope_of(1).base, pattern.rope_of(3).base) == (5.0, 20.0));
    let key = "smallthinker.attention.sliding_window_pattern";
    let every_third = model("smallthinker-window", |file| {
        file.set(key, Value::U32(3));
    })?
    .config;
    assert_eq!(every_third.windows, [None, Some(4096), Some(4096), None, Some(4096)]);
    let all = model("smallthinker-window", |file| {
        file.set(key, Value::U32(0));
    })?
    .config;
    assert!(all.windows.iter().all(|window| *window == Some(4096)));
    Ok(())
}

/// llama.cpp writes these into what it saves, and does not read them there.
#[test]
fn what_saved_files_say_of_weights_that_always_add_up_changes_nothing() -> Result<()> {
    for (name, arch) in [("llama-experts", "llama"), ("qwen3moe", "qwen3moe"), ("smallthinker-window", "smallthinker")]
    {
        let expected = changed(name, |_| {})?;
        let got = changed(name, |file| {
            file.set(&format!("{arch}.expert_weights_norm"), Value::Bool(false));
            file.set(&format!("{arch}.expert_weights_scale"), Value::F32(0.0));
            file.set(&format!("{arch}.expert_shared_feed_forward_length"), Value::U32(0));
            file.set(&format!("{arch}.expert_group_count"), Value::U32(0));
        })?;
        same_bits(&expected, &got).context(name)?;
    }
    let expected = changed("llama-experts", |_| {})?;
    let got = changed("llama-experts", |file| {
        file.set("llama.expert_gating_func", Value::U32(0));
        file.set("llama.expert_feed_forward_length", Value::U32(0));
    })?;
    same_bits(&expected, &got)
}

/// Largest difference relative to the largest logit, where activations are rounded to 8 bits. Measured: 1.2e-2.
const QUANTIZED_TOLERANCE: f64 = 3e-2;

#[test]
fn quantized_experts_are_within_the_noise_of_rounded_activations() -> Result<()> {
    for name in ["qwen3moe-q8", "gpt-oss-mxfp4"] {
        let golden = architectures::golden(name)?;
        let model = Model::new(Gguf::open(&repository(&format!("tests/golden/arch/{name}.gguf")))?, None)?;
        for (mode, isa) in [(Mode::Dense, Isa::Plain), (Mode::Exact, Isa::detect())] {
            let (n_ctx, kv_type, n_ubatch) = (golden.tokens.len(), KvType::F32, 4);
            let params = ExecutorParams { n_threads: 1, n_ctx, kv_type, mode, n_ubatch, isa };
            let mut executor = Executor::new(&model, Placement::all_cold(&model), params)?;
            let mut decoded = Vec::new();
            for token in &golden.tokens {
                decoded.push(executor.decode(*token)?.to_vec());
            }
            let apart = architectures::difference(&golden.logits, &decoded);
            println!("{name}, {}: {apart:e}", mode.name());
            assert!(apart <= QUANTIZED_TOLERANCE, "{name}, {}: {apart:e}", mode.name());
        }
    }
    Ok(())
}

#[test]
fn counts_of_experts_that_make_no_sense_are_refused_by_their_key() {
    for (name, arch) in [
        ("llama-experts", "llama"),
        ("llama-experts-old", "llama"),
        ("smallthinker", "smallthinker"),
        ("qwen3moe", "qwen3moe"),
        ("granitemoe-shared", "granitemoe"),
        ("gpt-oss", "gpt-oss"),
    ] {
        let key = |suffix: &str| format!("{arch}.{suffix}");
        refuses_key(name, &key("expert_used_count"), Value::U32(7), "7 experts chosen, but");
        refuses_key(name, &key("expert_used_count"), Value::U32(0), "0 of 6 experts chosen");
        refuses_key(name, &key("expert_used_count"), Value::Str("2".to_owned()), "whole number");
        refuses_key(name, &key("expert_count"), Value::U32(u32::MAX), "at most");
        refuses_key(name, &key("expert_count"), Value::I32(-1), "expert_count");
        refuses_key(name, &key("expert_gating_func"), Value::U32(9), "9 is not known");
        refuses_key(name, &key("expert_group_count"), Value::U32(4), "groups of experts");
        refuses_key(name, &key("moe_latent_size"), Value::U32(8), "not supported");
        refuses_key(name, &key("expert_weights_scale"), Value::F32(f32::NAN), "not a finite number");
    }
}

/// Asserts that the golden model as `change` leaves it is refused by one line with all of `wanted`.
#[track_caller]
fn refuses(name: &str, change: impl FnOnce(&mut ModelFile), wanted: &[&str]) {
    let line = refusal(name, change).unwrap();
    assert!(wanted.iter().all(|w| line.contains(w)) && !line.contains('\n'), "{name}: {line}");
}

#[test]
fn experts_that_keys_and_tensors_do_not_agree_on_are_refused() {
    let count = |n| {
        move |file: &mut ModelFile| {
            file.set("llama.expert_count", Value::U32(n));
        }
    };
    refuses("llama-experts", count(5), &["ffn_gate_inp.weight", "6", "5", "llama.expert_count"]);
    refuses("llama-experts", count(8), &["ffn_gate_inp.weight", "6", "8", "llama.expert_count"]);
    refuses("llama-experts-old", count(5), &["ffn_gate_inp.weight", "llama.expert_count"]);
    let no_key = |file: &mut ModelFile| {
        file.remove("llama.expert_count");
    };
    refuses("llama-experts", no_key, &["llama.expert_count", "blk.0.ffn_gate_inp.weight"]);
    refuses("llama-experts-old", no_key, &["llama.expert_count", "blk.0.ffn_gate_inp.weight"]);
    let no_used = |file: &mut ModelFile| {
        file.remove("llama.expert_used_count");
    };
    refuses("llama-experts", no_used, &["llama.expert_used_count", "missing"]);
    // Of a dense model.
    let keys_only = |file: &mut ModelFile| {
        file.set("llama.expert_count", Value::U32(6));
        file.set("llama.expert_used_count", Value::U32(2));
    };
    refuses("llama", keys_only, &["blk.0.ffn_gate_inp.weight", "missing", "llama.expert_count"]);
    let used_only = |file: &mut ModelFile| {
        file.set("llama.expert_used_count", Value::U32(2));
    };
    refuses("llama", used_only, &["llama.expert_used_count"]);
    let none = |file: &mut ModelFile| file.tensors.retain(|t| !t.name.contains("_exps"));
    refuses("llama-experts", none, &["blk.0.ffn_gate_exps.weight", "missing"]);
    for (name, key) in [("smallthinker", "smallthinker.expert_count"), ("qwen3moe", "qwen3moe.expert_count")] {
        refuses(
            name,
            |file| {
                file.remove(key);
            },
            &[key, "missing"],
        );
        refuses(
            name,
            |file| {
                file.set(key, Value::U32(0));
            },
            &[key, "all layers of architecture"],
        );
    }
}

#[test]
fn routers_and_experts_of_another_shape_are_refused() {
    refuses_shape("smallthinker", "blk.0.ffn_gate_inp.weight", Some(&[12, 6]));
    refuses_shape("smallthinker", "blk.1.ffn_gate_inp.weight", None);
    refuses_shape("smallthinker", "blk.1.ffn_up_exps.weight", Some(&[16, 12, 5]));
    refuses_shape("smallthinker", "blk.1.ffn_up_exps.weight", Some(&[16, 72]));
    refuses_shape("smallthinker", "blk.1.ffn_down_exps.weight", Some(&[12, 16, 7]));
    refuses_shape("smallthinker", "blk.1.ffn_down_exps.weight", Some(&[16, 12, 7]));
    refuses_shape("qwen3moe", "blk.0.ffn_down_exps.weight", None);
    refuses_shape("qwen3moe-fused", "blk.0.ffn_gate_up_exps.weight", Some(&[16, 10, 6]));
    for expert in [0, 3, 5] {
        refuses_shape("llama-experts-old", &format!("blk.1.ffn_up.{expert}.weight"), None);
        refuses_shape("llama-experts-old", &format!("blk.2.ffn_down.{expert}.weight"), None);
    }
    refuses_shape("llama-experts-old", "blk.1.ffn_gate.2.weight", Some(&[12, 16]));
    refuses_tensor("llama-experts-old", "blk.1.ffn_up.6.weight", &[16, 12]);
    refuses_tensor("llama-experts", "blk.0.ffn_up_shexp.weight", &[16, 12]);
    refuses_tensor("llama-experts", "blk.0.exp_probs_b.bias", &[6]);
    let both = |file: &mut ModelFile| {
        file.push(Tensor::zeros("blk.0.ffn_up.0.weight", GgmlType::F32, &[16, 12]));
    };
    refuses("llama-experts", both, &["blk.0.ffn_up.0.weight", "stands beside blk.0.ffn_up_exps.weight"]);
}

#[test]
fn granitemoe_and_gpt_oss_refuse_what_they_do_not_compute() {
    refuses_key("granitemoe", "granitemoe.expert_shared_count", Value::U32(1), "says 0");
    refuses_key("granitemoe-shared", "granitemoe.expert_shared_count", Value::U32(2), "says 20");
    refuses_key("granitemoe", "granitemoe.expert_gating_func", Value::U32(2), "has Softmax");
    refuses_shape("granitemoe-shared", "blk.1.ffn_up_shexp.weight", None);
    refuses_shape("granitemoe-shared", "blk.1.ffn_down_shexp.weight", Some(&[12, 16]));
    refuses_tensor("granitemoe", "blk.0.ffn_up_shexp.weight", &[16, 20]);
    refuses_key("gpt-oss", "gpt-oss.attention.sliding_window", Value::U32(0), "has a window");
    refuses_key("gpt-oss", "gpt-oss.expert_gating_func", Value::U32(1), "has SoftmaxOfChosen");
    refuses_shape("gpt-oss", "blk.0.attn_sinks.weight", Some(&[6]));
    refuses_shape("gpt-oss", "blk.0.attn_sinks.weight", None);
    refuses_shape("gpt-oss", "blk.1.ffn_up_exps.bias", Some(&[12, 5]));
    refuses_shape("gpt-oss", "blk.1.ffn_down_exps.bias", None);
    refuses_shape("gpt-oss", "blk.1.ffn_gate_inp.bias", None);
    refuses_shape("gpt-oss", "output.weight", None);
    refuses_key("smallthinker", "smallthinker.expert_gating_func", Value::U32(3), "3 is not of this architecture");
    refuses_key("smallthinker", "smallthinker.expert_gating_func", Value::U32(0), "1 is softmax, 2 sigmoid");
    refuses_key(
        "smallthinker-window",
        "smallthinker.attention.sliding_window_pattern",
        Value::u32s(&[1, 0]),
        "2 values for 5 layers",
    );
    refuses_key("llama-experts", "llama.expert_gating_func", Value::U32(2), "has Softmax");
}
