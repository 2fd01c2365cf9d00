//! Files with experts and recurrent layers that are not what they say, and figures that such models had wrong.

use super::architectures::golden;
use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Value, refused_by, tool, usage_error};
use std::path::Path;

fn with(name: &str, key: &str, value: Value) -> ModelFile {
    let mut file = golden(name);
    file.set(key, value);
    file
}

#[track_caller]
fn is_refused(model: &ModelFile, wanted: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = model.written(folder.path(), "model.gguf");
    let wanted: Vec<&str> = ["model.gguf: "].iter().chain(wanted).copied().collect();
    refused_by("run", &[&"-m", &path, &"-p", &"dog", &"-n", &"1"], &wanted);
}

/// The perplexity of a text, and what is said on standard error.
fn perplexity(model: &ModelFile) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = model.written(folder.path(), "model.gguf");
    let story = folder.path().join("story.txt");
    std::fs::write(&story, "the dog ran along the road ".repeat(4)).unwrap();
    let mut command = tool("bench");
    command.arg("-m").arg(&path).arg("--perplexity").arg(&story);
    command.args(["-c", "32", "--chunks", "1", "-t", "1", "--cache-type", "f32", "--mode", "dense", "-o", "json"]);
    let outcome = Outcome::from(command.output().unwrap()).ok();
    let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    (rows[0]["perplexity"].to_string(), outcome.stderr)
}

#[test]
fn keys_that_mean_something_beside_experts_are_refused_there() {
    for name in ["llama-experts", "nemotron_h_moe"] {
        let arch = name.trim_end_matches("-experts");
        let key = |suffix: &str| format!("{arch}.{suffix}");
        for (suffix, value) in [
            ("expert_chunk_feed_forward_length", Value::U32(4)),
            ("expert_latent_length", Value::U32(8)),
            ("experts_per_group", Value::U32(2)),
            ("interleave_moe_layer_step", Value::U32(2)),
            ("leading_dense_block_count", Value::U32(1)),
            ("moe_every_n_layers", Value::U32(2)),
            ("router_logit_softcapping", Value::F32(30.0)),
            ("swiglu_clamp_exp", Value::f32s(&[0.0, 7.0])),
            ("swiglu_clamp_shexp", Value::F32(0.5)),
        ] {
            is_refused(&with(name, &key(suffix), value), &[&key(suffix), "not supported yet"]);
        }
        let mut neutral = golden(name);
        neutral
            .set(&key("expert_latent_length"), Value::U32(0))
            .set(&key("experts_per_group"), Value::U32(0))
            .set(&key("interleave_moe_layer_step"), Value::U32(1))
            .set(&key("leading_dense_block_count"), Value::U32(0))
            .set(&key("moe_every_n_layers"), Value::U32(0))
            .set(&key("moe_latent_size"), Value::U32(0))
            .set(&key("swiglu_clamp_exp"), Value::f32s(&[0.0; 5]))
            .set(&key("router_logit_softcapping"), Value::F32(0.0));
        let expected = perplexity(&golden(name)).0;
        let (got, stderr) = perplexity(&neutral);
        assert_eq!(got, expected, "{name}");
        assert!(!stderr.contains("not known"), "{stderr}");
        // As llama.cpp writes it into every file that it saves.
        neutral
            .set(&key("router_logit_softcapping"), Value::F32(30.0))
            .set(&key("swin_norm"), Value::Bool(false))
            .set(&key("decoder_start_token_id"), Value::I32(-1))
            .set(&key("rescale_every_n_layers"), Value::U32(0))
            .set(&key("time_mix_extra_dim"), Value::U32(0));
        assert_eq!(perplexity(&neutral).0, expected, "{name}");
        is_refused(neutral.set(&key("router_logit_softcapping"), Value::F32(5.0)), &["router_logit_softcapping: 5"]);
    }
    let expected = perplexity(&golden("nemotron_h_moe-latent")).0;
    let alike = with("nemotron_h_moe-latent", "nemotron_h_moe.expert_latent_length", Value::U32(9));
    assert_eq!(perplexity(&alike).0, expected);
}

/// llama.cpp reads the key for other members of the family only.
#[test]
fn granite_with_experts_rotates_whatever_the_key_says() {
    let still = with("granitemoe", "granitemoe.rope.scaling.finetuned", Value::Bool(false));
    assert_eq!(perplexity(&still).0, perplexity(&golden("granitemoe")).0);
}

#[test]
fn a_layer_that_chooses_no_expert_is_named() {
    let used = |counts: &[u32]| Value::u32s(counts);
    let wanted = ["expert_used_count: 0 of 6 experts chosen in layer "];
    is_refused(&with("smallthinker", "smallthinker.expert_used_count", used(&[2, 2, 2, 2, 0])), &wanted);
    is_refused(&with("nemotron_h_moe", "nemotron_h_moe.expert_used_count", used(&[0, 0, 0, 2, 0])), &wanted);
    is_refused(
        &with("smallthinker", "smallthinker.expert_gating_func", Value::U32(4)),
        &["expert_gating_func: 4 is not known", "3 (softmax of the chosen ones)"],
    );
}

#[test]
fn states_that_would_grow_are_refused_by_tensor() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf"), (1.0, "1: "), (f32::INFINITY, "inf")] {
        let mut file = golden("nemotron_h_moe");
        is_refused(file.poke("blk.0.ssm_a", 1, value), &["blk.0.ssm_a: ", shown, "fade"]);
    }
    // Rates that were too small for a float.
    perplexity(golden("nemotron_h_moe").poke("blk.0.ssm_a", 1, -0.0));
    let mut file = golden("nemotron_h_moe");
    is_refused(file.poke("blk.1.exp_probs_b.bias", 2, f32::NAN), &["blk.1.exp_probs_b.bias: NaN"]);
}

/// Experts that a router cannot weigh were left out, and nobody noticed.
#[test]
fn a_router_that_gives_no_numbers_shows_in_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["smallthinker", "nemotron_h_moe", "llama-experts"] {
        let mut file = golden(name);
        let path = file.poke("blk.1.ffn_gate_inp.weight", 1, f32::NAN).written(folder.path(), "nan.gguf");
        for mode in ["dense", "exact"] {
            let args: [&dyn AsRef<std::ffi::OsStr>; 8] = [&"-m", &path, &"-p", &"dog", &"-n", &"4", &"--mode", &mode];
            refused_by("run", &args, &["no token can be sampled"]);
        }
    }
}

const HARDWARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware/rtx-3060-ddr4.toml");

#[test]
fn shapes_whose_rows_are_no_blocks_are_planned_with_what_takes_their_place() {
    let plan = |shape: &str| {
        let mut command = tool("split");
        command.args(["--dry-run", "--hardware", HARDWARE, "--vram-budget", "1GiB", "--json", "--shape", shape]);
        let plan: serde_json::Value =
            serde_json::from_str(&Outcome::from(command.output().unwrap()).ok().stdout).unwrap();
        plan["weights_bytes"].as_u64().unwrap()
    };
    // Rows of 2,688: Q5_0 for Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K.
    let bytes = ["q4_0", "q4_k", "q5_k", "q6_k", "f16"].map(|dtype| plan(&format!("nemotron-3-nano-2:{dtype}")));
    assert!(bytes.is_sorted_by(|a, b| a < b), "{bytes:?}");
    for shape in ["nemotron-3-nano:q3_k", "nemotron-3-nano-2:iq4_xs:0.1"] {
        usage_error("split", &["--dry-run", "--hardware", HARDWARE, "--shape", shape], "rows of 2688");
    }
}

/// The profile of a short text.
fn profiled(folder: &Path, model: &Path, name: &str) -> std::path::PathBuf {
    let (text, out) = (folder.join("story.txt"), folder.join(name));
    std::fs::write(&text, "once upon a time there was a little dog ".repeat(6)).unwrap();
    let mut command = tool("profile");
    command.arg("-m").arg(model).arg("-f").arg(&text).arg("-o").arg(&out).args(["-c", "32"]);
    Outcome::from(command.output().unwrap()).ok();
    out
}

#[test]
fn a_profile_of_another_number_of_experts_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let more = golden("smallthinker").written(folder.path(), "six.gguf");
    let mut file = golden("smallthinker");
    file.set("smallthinker.expert_count", Value::U32(5));
    for tensor in
        file.tensors.iter_mut().filter(|tensor| tensor.name.contains("exps") || tensor.name.contains("gate_inp"))
    {
        let last = tensor.dims.last_mut().unwrap();
        *last = 5;
        tensor.bytes.truncate(tensor.bytes.len() / 6 * 5);
    }
    let fewer = file.written(folder.path(), "five.gguf");
    let profiles = [profiled(folder.path(), &more, "six.profile"), profiled(folder.path(), &fewer, "five.profile")];
    let out = folder.path().join("out");
    for (model, profile) in [(&more, &profiles[1]), (&fewer, &profiles[0])] {
        refused_by(
            "split",
            &[&"-m", model, &"--profile", profile, &"-o", &out],
            &["of another model", "experts, instead"],
        );
    }
    refused_by(
        "profile",
        &[&"--merge", &profiles[0], &profiles[1], &"-o", &out],
        &["five.profile", "300 neurons in 25 groups"],
    );
    refused_by("profile", &[&"--compare", &profiles[0], &profiles[1]], &["five.profile", "300 neurons in 25 groups"]);
    assert!(!out.exists());
}

#[test]
fn stats_say_how_much_of_what_was_chosen_is_hot() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("smallthinker").written(folder.path(), "model.gguf");
    let profile = profiled(folder.path(), &model, "a.profile");
    let variant = folder.path().join("variant.gguf");
    let mut split = tool("split");
    split.arg("-m").arg(&model).arg("--profile").arg(&profile).arg("-o").arg(&variant);
    Outcome::from(split.output().unwrap()).ok();
    let stats = |model: &Path| {
        let mut command = tool("run");
        command.arg("-m").arg(model).args(["-p", "once", "-n", "8", "--ignore-eos", "--stats", "--temp", "0"]);
        Outcome::from(command.output().unwrap()).ok().stderr
    };
    let said = stats(&variant);
    let line = said.lines().find(|line| line.starts_with("choices: ")).unwrap_or_else(|| panic!("{said}"));
    let shares: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(shares.len() == 3 && (shares.iter().sum::<f64>() - 100.0).abs() < 0.2, "{line}");
    assert!(!stats(&model).contains("choices: "), "a plain file has no hot neurons");
}

#[test]
fn layers_without_neurons_have_a_limit_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = golden("nemotron_h");
    // Its first layer alone recurs.
    let keep = |name: &str| !name.starts_with("blk.") || name.starts_with("blk.0.");
    file.tensors.retain(|tensor| keep(&tensor.name));
    file.set("nemotron_h.block_count", Value::U32(1));
    file.set("nemotron_h.feed_forward_length", Value::i32s(&[0]));
    file.set("nemotron_h.attention.head_count_kv", Value::i32s(&[0]));
    let model = file.written(folder.path(), "model.gguf");
    let mut command = tool("bench");
    command.arg("-m").arg(&model).args(["-p", "0", "-n", "2", "-r", "1", "-t", "1", "-o", "json"]);
    let outcome = Outcome::from(command.output().unwrap()).ok();
    let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(rows[0]["limit_gb_per_s"].as_f64().unwrap() > 0.0, "{}", outcome.stdout);
}

#[test]
fn models_without_a_vocabulary_are_profiled_and_split() {
    let folder = tempfile::tempdir().unwrap();
    // Their tokenizers are called `no_vocab`, and have no tokens.
    for name in ["nemotron_h_moe", "nemotron"] {
        let model = repository(&format!("tests/golden/arch/{name}.gguf"));
        let at = |ending: &str| folder.path().join(format!("{name}.{ending}"));
        let mut profile = tool("profile");
        profile.arg("-m").arg(&model).args(["--random-tokens", "48", "-c", "16", "-o"]).arg(at("profile"));
        Outcome::from(profile.output().unwrap()).ok();
        let mut split = tool("split");
        split.arg("-m").arg(&model).arg("--profile").arg(at("profile")).arg("-o").arg(at("gguf"));
        Outcome::from(split.output().unwrap()).ok();
        refused_by("run", &[&"-m", &at("gguf"), &"-p", &"x"], &["tokenizer.ggml.tokens"]);
    }
}

#[test]
fn without_a_profile_experts_are_taken_to_be_chosen_alike_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (name, is_said) in [("llama-experts", true), ("llama", false)] {
        let mut split = tool("split");
        split.arg("-m").arg(repository(&format!("tests/golden/arch/{name}.gguf"))).arg("--keep-order");
        let said = Outcome::from(split.arg("-o").arg(folder.path().join(name)).output().unwrap()).ok().stderr;
        assert_eq!(said.contains("every expert to be chosen as often as any other"), is_said, "{name}: {said}");
    }
}

#[test]
fn types_that_are_not_written_are_named_where_down_is_to_keep_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (repository("tests/golden/arch/gpt-oss-mxfp4.gguf"), folder.path().join("out"));
    let args: [&dyn AsRef<std::ffi::OsStr>; 7] = [&"-m", &model, &"--keep-order", &"--down", &"same", &"-o", &out];
    refused_by("split", &args, &["gpt-oss-mxfp4.gguf: --down same: blk.0.ffn_down_exps.weight is MXFP4", "q8_0"]);
    assert!(!out.exists());
}

#[test]
fn gaps_in_old_files_are_named() {
    for (gaps, named) in [(&[2][..], 2), (&[0, 5], 0), (&[1, 2, 3, 4], 1), (&[0, 1, 2, 3, 4, 5], 0)] {
        let mut file = golden("llama-experts-old");
        let names: Vec<String> = gaps.iter().map(|expert| format!("blk.1.ffn_up.{expert}.weight")).collect();
        file.tensors.retain(|tensor| !names.contains(&tensor.name));
        is_refused(&file, &[&format!("blk.1.ffn_up.{named}.weight: the tensor is missing")]);
    }
}

#[test]
fn prompts_and_answers_count_the_same_neurons() {
    let folder = tempfile::tempdir().unwrap();
    let story = folder.path().join("story.txt");
    std::fs::write(&story, "the dog ran along the road ".repeat(4)).unwrap();
    for name in ["smallthinker", "nemotron_h_moe", "nemotron_h_moe-latent"] {
        let model = golden(name).written(folder.path(), "model.gguf");
        let mut command = tool("bench");
        command.arg("-m").arg(&model).arg("--text").arg(&story);
        // A prompt of as many tokens as are decoded.
        command.args(["-p", "64", "-n", "64", "-r", "1", "-t", "1", "--mode", "exact", "-o", "json"]);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        let [prompt, answer] = [0, 1].map(|i| rows[i]["ffn_density"].as_f64().unwrap());
        assert!((prompt / answer - 1.0).abs() < 0.01, "{name}: {prompt} and {answer}");
    }
}
