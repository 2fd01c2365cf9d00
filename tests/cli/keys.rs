//! Keys of an architecture: those that change the model are computed or refused by name, and no other goes unnamed.

use crate::support::{ModelFile, Outcome, Tensor, Value, refused_by, tool};
use powerinfer::quant::GgmlType;

/// Neither 0 nor a default of anything.
const F: Value = Value::F32(0.5);
const U: Value = Value::U32(3);
const TRUE: Value = Value::Bool(true);

fn text(text: &str) -> Value {
    Value::Str(text.to_owned())
}

/// What `bench` says of the perplexity of a text, or that it fails; and what it says on standard error.
fn bench(model: &ModelFile) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = model.written(folder.path(), "model.gguf");
    let story = folder.path().join("story.txt");
    std::fs::write(&story, "once upon a time there was a little dog ".repeat(4)).unwrap();
    let mut command = tool("bench");
    command.arg("-m").arg(&path).arg("--perplexity").arg(&story);
    command.args(["-c", "64", "-t", "1", "--cache-type", "f32", "--mode", "dense", "-o", "json", "--device", "cpu"]);
    let outcome = Outcome::from(command.output().unwrap()).ok();
    let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    (rows[0]["perplexity"].to_string(), outcome.stderr)
}

fn with(key: &str, value: Value) -> ModelFile {
    let mut tiny = ModelFile::tiny();
    tiny.set(&format!("llama.{key}"), value);
    tiny
}

#[track_caller]
fn is_refused(model: &ModelFile, wanted: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = model.written(folder.path(), "model.gguf");
    refused_by("run", &[&"-m", &path, &"-p", &"x", &"-n", &"1"], wanted);
}

#[test]
fn keys_that_would_make_another_model_are_refused_by_name() {
    for (key, value) in [
        ("attention.causal", Value::Bool(false)),
        ("attention.sliding_window", Value::I32(-1)),
        ("attention.sliding_window", Value::u32s(&[64, 32, 64])),
        ("attn_logit_softcapping", F),
        ("final_logit_softcapping", F),
        ("attention.clamp_kqv", F),
        ("attention.max_alibi_bias", F),
        ("attention.temperature_length", U),
        ("attention.temperature_scale", F),
        ("attention.temperature_of_some_other_kind", F),
        ("attention.rope_pattern", Value::i32s(&[1, 0])),
        ("attention.recurrent_layers", Value::i32s(&[0, 1])),
        ("attention.output_group_count", U),
        ("attention.output_lora_rank", U),
        ("attention.gate_lora_rank", U),
        ("attention.indexer.top_k", U),
        ("attention.compress_ratios", Value::f32s(&[1.0, 4.0])),
        ("attention.output_scale", F),
        ("attention.value_scale", F),
        ("attention.value_length", Value::U32(8)),
        ("attention.q_lora_rank", U),
        ("attention.kv_lora_rank", U),
        ("attention.key_length_mla", U),
        ("attention.value_length_mla", U),
        ("attention.relative_buckets_count", U),
        ("attention.shared_kv_layers", U),
        ("attention.key_length_swa", U),
        ("attention.scale", Value::F32(-1.0)),
        ("attention.layer_norm_epsilon", F),
        ("logit_scale", F),
        ("embedding_scale", F),
        ("residual_scale", F),
        ("residual_scale", Value::f32s(&[1.0, 0.5])),
        ("use_parallel_residual", TRUE),
        ("swin_norm", TRUE),
        ("tensor_data_layout", text("jploski")),
        ("expert_count", U),
        ("expert_count", Value::u32s(&[0, 8])),
        ("expert_used_count", U),
        ("expert_shared_count", U),
        ("nextn_predict_layers", U),
        ("full_attention_interval", U),
        ("embedding_length_per_layer_input", U),
        ("activation_sparsity_scale", Value::f32s(&[1.6, 0.0])),
        ("rescale_every_n_layers", U),
        ("hash_layer_count", U),
        ("decoder_block_count", U),
        ("attention.decay_lora_rank", U),
        ("attention.iclr_lora_rank", U),
        ("attention.value_residual_mix_lora_rank", U),
        ("attention.value_expert_count", U),
        ("attention.value_expert_used_count", U),
        ("attn_res.block_size", U),
        ("n_deepstack_layers", U),
        ("token_shift_count", U),
        ("hrm.h_cycles", U),
        ("hyper_connection.count", U),
        ("kda.head_dim", U),
        ("ple.layers", U),
        ("shortconv.l_cache", U),
        ("ssm.state_size", U),
        ("wkv.head_size", U),
        ("vocab_size", Value::U32(284)),
        ("vocab_size", Value::U32(287)),
        ("rope.dimension_sections", Value::i32s(&[4, 2, 2, 0])),
        ("rope.dimension_count_swa", Value::U32(8)),
        ("rope.freq_base_swa", Value::F32(500.0)),
        ("rope.scaling.type", text("longrope")),
        ("rope.scaling.type", text("dynamic")),
        ("rope.scaling.alpha", F),
        ("rope.scaling.attn_factor", Value::F32(-1.0)),
        ("rope.scaling.yarn_attn_factor", F),
        ("rope.scaling.yarn_beta_fast", Value::F32(0.0)),
        ("rope.scaling.yarn_beta_slow", Value::F32(-1.0)),
    ] {
        let name = format!("llama.{key}: ");
        is_refused(&with(key, value), &["model.gguf", &name]);
    }
}

#[test]
fn values_that_change_nothing_are_taken_without_a_word() {
    let (expected, _) = bench(&ModelFile::tiny());
    let neutral = [
        ("attention.causal", TRUE),
        ("attention.sliding_window", Value::U32(0)),
        ("attention.sliding_window", Value::U32(64)),
        ("attention.sliding_window", Value::u32s(&[0, 4096])),
        ("attention.sliding_window_pattern", Value::U32(6)),
        ("attn_logit_softcapping", Value::F32(0.0)),
        ("final_logit_softcapping", Value::F32(0.0)),
        ("attention.clamp_kqv", Value::F32(0.0)),
        ("attention.max_alibi_bias", Value::F32(0.0)),
        ("attention.temperature_scale", Value::F32(0.0)),
        ("attention.scale", Value::F32(0.0)),
        ("attention.scale", Value::F32(0.25)),
        ("attention.rope_pattern", Value::i32s(&[1, 1])),
        ("ssm.state_size", Value::U32(0)),
        ("attention.value_length", Value::U32(16)),
        ("attention.key_length", Value::u32s(&[16, 16])),
        ("attention.layer_norm_epsilon", Value::F32(0.0)),
        ("attention.layer_norm_epsilon", Value::F32(1e-5)),
        ("logit_scale", Value::F32(1.0)),
        ("embedding_scale", Value::F32(0.0)),
        ("residual_scale", Value::f32s(&[1.0, 1.0])),
        ("use_parallel_residual", Value::Bool(false)),
        ("tensor_data_layout", text("Meta AI original pth")),
        ("expert_count", Value::U32(0)),
        ("expert_used_count", Value::u32s(&[0, 0])),
        ("expert_gating_func", Value::U32(2)),
        ("expert_weights_norm", TRUE),
        ("nextn_predict_layers", Value::U32(0)),
        ("pooling_type", Value::U32(u32::MAX)),
        ("vocab_size", Value::U32(286)),
        ("rope.dimension_sections", Value::i32s(&[0, 0, 0, 0])),
        ("rope.dimension_count", Value::U32(16)),
        ("rope.freq_base_swa", Value::F32(10_000.0)),
        ("rope.scaling.type", text("none")),
        ("rope.scaling.type", text("yarn")),
        ("rope.scaling.finetuned", TRUE),
        ("rope.scaling.original_context_length", Value::U32(0)),
        ("rope.scaling.attn_factor", Value::F32(1.0)),
        ("rope.scaling.yarn_attn_factor", Value::F32(1.0)),
        ("rope.scaling.yarn_ext_factor", Value::F32(-1.0)),
        ("rope.scaling.yarn_beta_fast", Value::F32(8.0)),
        ("rope.scaling.yarn_log_multiplier", Value::F32(0.1)),
    ];
    // Two at a time would hide which; all at once is one run.
    let mut all = ModelFile::tiny();
    for (key, value) in &neutral {
        all.set(&format!("llama.{key}"), value.clone());
    }
    let one_by_one = neutral.into_iter().map(|(key, value)| with(key, value));
    for model in one_by_one.chain([all]) {
        let (got, stderr) = bench(&model);
        let (key, _) = model.keys.last().unwrap();
        assert_eq!(got, expected, "{key}");
        assert!(!stderr.contains("not known"), "{key}: {stderr}");
    }
}

/// llama.cpp writes keys of all architectures into the files that it saves, some with values that would mean something if
/// they were read.
#[test]
fn files_that_llama_cpp_has_saved_are_taken() {
    let zero = || Value::U32(0);
    let odd = [
        ("attn_logit_softcapping", Value::F32(50.0)),
        ("final_logit_softcapping", Value::F32(30.0)),
        ("router_logit_softcapping", Value::F32(30.0)),
        ("rope.freq_base_swa", Value::F32(10_000.0)),
        ("token_shift_count", Value::U32(2)),
        ("kda.gate_lower_bound", Value::F32(f32::NEG_INFINITY)),
        ("attention.indexer.kpool_select_tail", TRUE),
    ];
    let mut saved = ModelFile::tiny();
    saved.set("llama.rope.freq_base", Value::F32(500.0));
    let (expected, _) = bench(&saved);
    for (key, value) in odd.clone() {
        saved.set(&format!("llama.{key}"), value);
    }
    for key in ["rescale_every_n_layers", "time_mix_extra_dim", "hrm.h_cycles", "ssm.inner_size", "dense_2_feat_in"] {
        saved.set(&format!("llama.{key}"), zero());
    }
    saved.set("llama.swin_norm", Value::Bool(false)).set("llama.decoder_start_token_id", Value::I32(-1));
    saved
        .set("llama.swiglu_clamp_exp", Value::f32s(&[0.0, 0.0]))
        .set("llama.classifier.output_labels", Value::strings(&[]));
    let (got, stderr) = bench(&saved);
    assert_eq!(got, expected);
    assert!(!stderr.contains("not known"), "{stderr}");
    // Other values mean something there, too; and these do elsewhere.
    for (key, other) in
        [("attn_logit_softcapping", 30.0), ("final_logit_softcapping", 50.0), ("rope.freq_base_swa", 20.0)]
    {
        let mut model = saved.clone();
        is_refused(model.set(&format!("llama.{key}"), Value::F32(other)), &[&format!("llama.{key}: {other}")]);
    }
    saved.remove("llama.swin_norm");
    is_refused(&saved, &["llama.attn_logit_softcapping: 50"]);
    for (key, value) in odd {
        if key == "router_logit_softcapping" || key == "rope.freq_base_swa" {
            continue;
        }
        is_refused(&with(key, value), &[&format!("llama.{key}: ")]);
    }
}

#[test]
fn keys_that_are_computed_change_the_model() {
    let (plain, _) = bench(&ModelFile::tiny());
    let yarn = |model: &mut ModelFile| {
        model.set("llama.rope.scaling.type", text("yarn"));
        model.set("llama.rope.scaling.factor", Value::F32(4.0));
        model.set("llama.rope.scaling.original_context_length", Value::U32(512));
    };
    let mut scaled = ModelFile::tiny();
    yarn(&mut scaled);
    let mut seen = vec![plain, bench(&scaled).0];
    for (key, value) in [
        ("attention.scale", F),
        ("rope.scaling.attn_factor", Value::F32(1.5)),
        ("rope.scaling.factor", Value::F32(4.0)),
        ("rope.scale_linear", Value::F32(2.0)),
        ("rope.freq_base", Value::F32(500.0)),
        ("rope.dimension_count", Value::U32(8)),
        ("attention.layer_norm_rms_epsilon", Value::F32(0.25)),
    ] {
        seen.push(bench(&with(key, value)).0);
    }
    for (key, value) in [
        ("rope.scaling.original_context_length", Value::U32(64)),
        ("rope.scaling.yarn_ext_factor", F),
        ("rope.scaling.yarn_beta_fast", Value::F32(4.0)),
        ("rope.scaling.yarn_beta_slow", Value::F32(0.125)),
        ("rope.scaling.yarn_log_multiplier", Value::F32(1.0)),
    ] {
        let mut model = scaled.clone();
        seen.push(bench(model.set(&format!("llama.{key}"), value)).0);
    }
    let n = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), n, "two keys do the same, or one does nothing: {seen:?}");
}

#[test]
fn arrays_of_equal_values_are_taken_and_others_are_refused_by_name() {
    let (expected, _) = bench(&ModelFile::tiny());
    for (key, one) in [
        ("attention.head_count", 2u32),
        ("attention.head_count_kv", 2),
        ("attention.key_length", 16),
        ("attention.value_length", 16),
        ("rope.dimension_count", 16),
        ("feed_forward_length", 64),
        ("vocab_size", 286),
        ("context_length", 64),
        ("embedding_length", 32),
    ] {
        assert_eq!(bench(&with(key, Value::u32s(&[one, one]))).0, expected, "{key}");
        assert_eq!(bench(&with(key, Value::i32s(&[one as i32, one as i32]))).0, expected, "{key}");
        let name = format!("llama.{key}: ");
        for other in [&[][..], &[one as i32], &[one as i32; 3], &[one as i32, -1], &[-2, -2]] {
            is_refused(&with(key, Value::i32s(other)), &[&name]);
        }
        if key != "feed_forward_length" {
            is_refused(&with(key, Value::u32s(&[one, one / 2])), &[&name, "differs from layer to layer"]);
        }
        is_refused(&with(key, Value::strings(&["2", "2"])), &[&name]);
    }
    let eps = "attention.layer_norm_rms_epsilon";
    assert_eq!(bench(&with(eps, Value::f32s(&[1e-5, 1e-5]))).0, expected);
    is_refused(&with(eps, Value::f32s(&[1e-5, 1e-6])), &["llama.attention.layer_norm_rms_epsilon: "]);
    is_refused(&with(eps, Value::f32s(&[f32::NAN, f32::NAN])), &["llama.attention.layer_norm_rms_epsilon: "]);
}

#[test]
fn keys_that_are_not_known_are_named_in_one_note() {
    let mut tiny = ModelFile::tiny();
    tiny.set("llama.colour", text("blue")).set("llama.attention.mood\x1b[31m\n", Value::U32(7));
    tiny.set("general.author", text("nobody")).set("llamas.block_count", Value::U32(9));
    let (got, stderr) = bench(&tiny);
    assert_eq!(got, bench(&ModelFile::tiny()).0);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("not known")).collect();
    let [line] = lines[..] else { panic!("{stderr}") };
    assert!(line.starts_with("note: ") && line.contains("llama.colour, llama.attention.mood\\u{1b}[31m\\n"), "{line}");
    assert!(!stderr.contains("author") && !stderr.contains("llamas"), "{stderr}");
    // However many there are, it is one line that can be read.
    for i in 0..1000 {
        tiny.set(&format!("llama.{i}.{}", "x".repeat(1000)), Value::U32(0));
    }
    let (_, stderr) = bench(&tiny);
    let line = stderr.lines().find(|line| line.contains("not known")).unwrap();
    assert!(line.len() < 20_000 && line.contains("902 more"), "{}: {line}", line.len());
}

/// It is computed, and it is another model.
#[test]
fn a_context_may_be_longer_than_a_window() {
    let (plain, _) = bench(&ModelFile::tiny());
    let (windowed, _) = bench(&with("attention.sliding_window", Value::U32(2)));
    assert_ne!(plain, windowed);
}

/// Biases of neurons that are all zero change no bit; those that are not do.
#[test]
fn biases_of_neurons_and_of_attention_are_added() {
    let n_embd = 32;
    let n = |part: &str| match part {
        "ffn_gate" | "ffn_up" => 64,
        _ => n_embd,
    };
    let (expected, _) = bench(&ModelFile::tiny());
    let mut zeros = ModelFile::tiny();
    for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        for (layer, dims) in [(0, vec![n(part)]), (1, vec![n(part), 1])] {
            zeros.push(Tensor::zeros(&format!("blk.{layer}.{part}.bias"), GgmlType::F32, &dims));
        }
    }
    assert_eq!(bench(&zeros).0, expected);
    let mut seen = vec![expected];
    for part in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"] {
        let mut model = zeros.clone();
        let values = (0..n(part)).flat_map(|i| (i as f32 / 20.0 - 0.5).to_le_bytes()).collect();
        model.tensor(&format!("blk.1.{part}.bias")).bytes = values;
        seen.push(bench(&model).0);
    }
    // One for all heads of a query changes nothing in the softmax, so that of keys may print the same.
    seen.sort();
    seen.dedup();
    assert!(seen.len() >= 7, "{seen:?}");
    let mut wrong = zeros.clone();
    wrong.tensor("blk.0.ffn_up.bias").dims = vec![63];
    is_refused(&wrong, &["blk.0.ffn_up.bias: shape [63]", "[64]"]);
    // Norms may have a further dimension of 1, too.
    let mut folded = ModelFile::tiny();
    folded.tensor("output_norm.weight").dims = vec![n_embd, 1];
    folded.tensor("blk.0.attn_norm.weight").dims = vec![n_embd, 1, 1];
    assert_eq!(bench(&folded).0, bench(&ModelFile::tiny()).0);
    folded.tensor("output_norm.weight").dims = vec![1, n_embd];
    is_refused(&folded, &["output_norm.weight: shape [1, 32]"]);
}
