//! Files that say one thing in their keys and another in their tensors are refused by name.

use crate::support::{ModelFile, Outcome, Tensor, Value, refused_by, tool};
use powerinfer::quant::GgmlType;
use std::path::Path;

const N_FF: usize = 64;

#[track_caller]
fn is_refused(model: &ModelFile, wanted: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = model.written(folder.path(), "model.gguf");
    refused_by("run", &[&"-m", &path, &"-p", &"x", &"-n", &"1"], wanted);
}

fn run(model: &ModelFile, args: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = model.written(folder.path(), "model.gguf");
    let mut command = tool("run");
    command.arg("-m").arg(&path).args(["-p", "once", "-t", "1", "--device", "cpu"]).args(args);
    Outcome::from(command.output().unwrap()).ok()
}

/// A vocabulary of so many tokens, all of which are in that of the tiny model or behind it.
fn tokens(tiny: &mut ModelFile, n: usize) {
    let all = tiny.keys.iter().find(|(key, _)| key == "tokenizer.ggml.tokens");
    let Some((_, Value::Strings(tokens))) = all else { panic!("no tokens") };
    let mut tokens = tokens.clone();
    let more = (tokens.len()..n).map(|id| format!("more{id}"));
    tokens.extend(more);
    tokens.truncate(n);
    tiny.set("tokenizer.ggml.tokens", Value::Strings(tokens));
    tiny.remove("tokenizer.ggml.scores").remove("tokenizer.ggml.token_type");
}

#[test]
fn more_tokens_than_rows_are_refused_and_fewer_are_never_sampled() {
    let mut more = ModelFile::tiny();
    tokens(&mut more, 287);
    is_refused(&more, &["model.gguf", "tokenizer.ggml.tokens: 287 tokens", "token_embd.weight has 286 rows"]);
    let mut fewer = ModelFile::tiny();
    tokens(&mut fewer, 280);
    for temperature in ["0", "100"] {
        let keep_all = ["--top-k", "0", "--top-p", "1", "--min-p", "0"];
        let args =
            [&["-n", "50", "--ignore-eos", "--json", "--seed", "1", "--temp", temperature][..], &keep_all].concat();
        let json: serde_json::Value = serde_json::from_str(&run(&fewer, &args).stdout).unwrap();
        let ids: Vec<u64> = json["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert!(ids.len() == 50 && ids.iter().all(|id| *id < 280), "{ids:?}");
    }
    fewer.set("llama.vocab_size", Value::U32(280));
    let note = run(&fewer, &["-n", "1"]).stderr;
    assert!(note.contains("286 rows for 280 tokens"), "{note}");
    fewer.set("llama.vocab_size", Value::U32(281));
    is_refused(&fewer, &["llama.vocab_size: 281", "286 rows", "280 tokens"]);
}

#[test]
fn a_padding_row_that_would_win_is_not_sampled() {
    let mut tiny = ModelFile::tiny();
    tokens(&mut tiny, 280);
    // The last row is the one that the head prefers by far, whatever the state: it is as long as the others are short.
    for row in 0..280 {
        for column in 0..32 {
            tiny.poke("token_embd.weight", 32 * row + column, 0.01 * ((row * 7 + column * 3) % 11) as f32);
        }
    }
    for column in 0..32 {
        tiny.poke("token_embd.weight", 32 * 285 + column, 50.0);
        tiny.poke("token_embd.weight", 32 * 284 + column, -50.0);
    }
    let json: serde_json::Value =
        serde_json::from_str(&run(&tiny, &["-n", "8", "--temp", "0", "--ignore-eos", "--json"]).stdout).unwrap();
    let shown = json["tokens"].to_string();
    assert!(!shown.contains("285") && !shown.contains("284"), "{shown}");
}

#[test]
fn a_vocabulary_of_words_without_merges_is_refused() {
    let mut words = ModelFile::tiny();
    words.set("tokenizer.ggml.model", Value::Str("gpt2".into())).set("tokenizer.ggml.pre", Value::Str("gpt-2".into()));
    words.remove("tokenizer.ggml.scores").remove("tokenizer.ggml.token_type");
    let wanted = &["tokenizer.ggml.merges: 0 merges"];
    is_refused(&words, wanted);
    words.set("tokenizer.ggml.merges", Value::strings(&[]));
    is_refused(&words, wanted);
    words.set("tokenizer.ggml.merges", Value::strings(&["no such", "nor these"]));
    is_refused(&words, &["tokenizer.ggml.merges: 2 merges, of which none can be used"]);
    // Letters alone need none.
    let letters: Vec<String> = (0..286u32).map(|id| char::from_u32(0x21 + id).unwrap().to_string()).collect();
    let mut bytes = words.clone();
    bytes.set("tokenizer.ggml.tokens", Value::Strings(letters)).remove("tokenizer.ggml.merges");
    run(&bytes, &["-n", "1"]);
}

#[test]
fn tensors_lie_one_behind_the_other() {
    let patched = |name: &str, offset: u64, wanted: &[&str]| {
        let mut bytes = ModelFile::tiny().bytes();
        crate::support::patch_tensor(&mut bytes, name, None, None, Some(offset));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        refused_by("run", &[&"-m", &path, &"-p", &"x", &"-n", &"1"], wanted);
    };
    patched("token_embd.weight", 32, &["token_embd.weight: offset 32", "begins at 0"]);
    patched("blk.0.attn_norm.weight", 64, &["blk.0.attn_norm.weight: offset 64", "token_embd.weight", "ends at 36608"]);
    // Another type behind the writer's back: what follows is no longer where it should be.
    let mut bytes = ModelFile::tiny().bytes();
    crate::support::patch_tensor(&mut bytes, "blk.0.ffn_up.weight", None, Some(1), None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let wanted = ["blk.0.ffn_down.weight: offset", "blk.0.ffn_up.weight before it, F16 of [32, 64]"];
    refused_by("run", &[&"-m", &path, &"-p", &"x", &"-n", &"1"], &wanted);
}

/// A tiny model as a variant with a network as predictor in both layers, as `split` would write it.
fn variant() -> ModelFile {
    let mut tiny = ModelFile::tiny();
    let floats = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}");
        let down = tiny.tensor(&name("ffn_down.weight"));
        down.name = name("ffn_down_t.weight");
        down.dims.reverse();
        let mut add = |part: &str, dtype, dims: &[usize], bytes| {
            tiny.push(Tensor { bytes, ..Tensor::zeros(&name(part), dtype, dims) });
        };
        let ids = (0..N_FF as i32).flat_map(i32::to_le_bytes).collect();
        add("ffn_neuron_id", GgmlType::I32, &[N_FF], ids);
        add("ffn_neuron_rate", GgmlType::F32, &[N_FF], floats(vec![0.5; N_FF]));
        add("ffn_neuron_mass", GgmlType::F32, &[N_FF], floats(vec![0.25; N_FF]));
        add("ffn_pred_in.weight", GgmlType::F32, &[32, 8], Vec::new());
        add("ffn_pred_in.bias", GgmlType::F32, &[8], Vec::new());
        add("ffn_pred_out.weight", GgmlType::F32, &[8, N_FF], Vec::new());
        add("ffn_pred_bias", GgmlType::F32, &[N_FF], Vec::new());
    }
    tiny.set("powerinfer.version", Value::U32(1)).set("powerinfer.n_hot", Value::u32s(&[10, 10]));
    tiny.set("powerinfer.predictor.version", Value::U32(1));
    tiny.set("powerinfer.predictor.kinds", Value::strings(&["mlp", "mlp"]));
    for name in ["target", "recall", "recall_count", "precision", "active", "fired"] {
        tiny.set(&format!("powerinfer.predictor.{name}"), Value::f32s(&[0.5, 0.25]));
    }
    tiny
}

#[test]
fn what_split_has_written_is_held_against_the_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let run = |model: &Path| {
        let mut command = tool("run");
        command.arg("-m").arg(model).args(["-p", "x", "-n", "1", "-t", "1", "--mode", "predicted", "--device", "cpu"]);
        Outcome::from(command.output().unwrap())
    };
    run(&variant().written(folder.path(), "good.gguf")).ok();
    let set = |key: &str, value: Value, wanted: &[&str]| {
        let mut model = variant();
        model.set(key, value);
        is_refused(&model, wanted);
    };
    let kinds = "powerinfer.predictor.kinds";
    set(kinds, Value::strings(&["mlp"]), &["powerinfer.predictor.kinds: 1 values for 2"]);
    set(kinds, Value::strings(&["mlp", "lowrank"]), &["powerinfer.predictor.kinds: ", "\"lowrank\"", "\"mlp\""]);
    set(kinds, Value::strings(&["none", "mlp"]), &["powerinfer.predictor.kinds: ", "\"none\"", "blk.0."]);
    set(kinds, Value::strings(&["mlp", "\x1b[31m"]), &["powerinfer.predictor.kinds: ", "\\u{1b}[31m"]);
    set(kinds, Value::u32s(&[1, 2]), &["powerinfer.predictor.kinds: ", "U32"]);
    set(kinds, Value::Str("mlp".into()), &["powerinfer.predictor.kinds: "]);
    set("powerinfer.predictor.version", Value::U32(1 << 31), &["powerinfer.predictor.version: 2147483648"]);
    set("powerinfer.predictor.version", Value::U32(0), &["powerinfer.predictor.version: 0"]);
    for name in ["target", "recall", "recall_count", "precision", "active", "fired"] {
        let key = format!("powerinfer.predictor.{name}");
        let named = format!("{key}: ");
        for wrong in [
            Value::f32s(&[0.5]),
            Value::f32s(&[0.5, 1.5]),
            Value::f32s(&[0.5, f32::NAN]),
            Value::u32s(&[0, 1]),
            Value::F32(0.5),
            Value::strings(&["a", "b"]),
        ] {
            set(&key, wrong, &[&named]);
        }
    }
    let n_hot = "powerinfer.n_hot";
    set(n_hot, Value::i32s(&[-1, 10]), &["powerinfer.n_hot: -1 is not a number of neurons"]);
    set(n_hot, Value::u32s(&[65, 10]), &["powerinfer.n_hot: ", "65", "64 neurons of blk.0."]);
    set(n_hot, Value::u32s(&[1]), &["powerinfer.n_hot: 1 values for 2"]);
    set(n_hot, Value::f32s(&[1.0, 2.0]), &["powerinfer.n_hot: ", "F32"]);
    set(n_hot, Value::U32(3), &["powerinfer.n_hot: "]);
    for (key, wrong) in [
        ("powerinfer.source_fingerprint", Value::U32(1)),
        ("powerinfer.profile_sha256", Value::u32s(&[1])),
        ("powerinfer.profile_tokens", Value::I32(-1)),
        ("powerinfer.synthetic", Value::Str("yes".into())),
        ("powerinfer.activation", Value::U32(1)),
        ("powerinfer.version", Value::Str("1".into())),
    ] {
        set(key, wrong, &[&format!("{key}: ")]);
    }
    // A plain file has no hot neurons.
    let mut plain = ModelFile::tiny();
    plain.set(n_hot, Value::u32s(&[1, 1]));
    is_refused(&plain, &["powerinfer.n_hot: a hot prefix of 1", "blk.0.ffn_neuron_id is missing"]);
    // A bias less makes factors of a network.
    let mut model = variant();
    model.tensors.retain(|t| t.name != "blk.1.ffn_pred_in.bias");
    is_refused(&model, &["powerinfer.predictor.kinds: ", "\"mlp\"", "blk.1.", "\"lowrank\""]);
    let mut model = variant();
    model.tensors.retain(|t| !t.name.starts_with("blk.1.ffn_pred_"));
    is_refused(&model, &["powerinfer.predictor.kinds: ", "\"mlp\"", "blk.1.", "\"none\""]);
    // What is wrong is named by its own tensor.
    for (tensor, value) in [("rate", 1.5), ("rate", f32::NAN), ("rate", 0.75), ("mass", -1.0), ("mass", f32::INFINITY)]
    {
        let name = format!("blk.1.ffn_neuron_{tensor}");
        let mut model = variant();
        model.poke(&name, 3, value);
        is_refused(&model, &[&format!("{name}: ")]);
    }
}
