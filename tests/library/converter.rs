//! scripts/convert_hf_to_gguf.py gives back what scripts/make_hf_checkpoint.py took apart, and refuses the rest in one line.
//!
//! Needs Python with NumPy and the `gguf` package, as PYTHON or python3; without them it says so and passes.

use crate::support::real::repository;
use anyhow::{Context, Result, ensure};
use powerinfer::gguf::Gguf;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Models that differ in what the converter does: pairs side by side and in halves, both kinds of tokenizers, 1 added to norms,
/// fields within another object, norms behind the blocks, scales, layers of several kinds.
const MODELS: [&str; 10] = [
    "llama-biases",
    "llama-yarn",
    "qwen2",
    "nemotron",
    "mistral3",
    "olmo2",
    "opt",
    "falcon-two",
    "nemotron_h-biases",
    "nemotron_h_moe-latent",
];

/// The interpreter, where it has what the scripts import.
fn python() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("PYTHON").unwrap_or("python3".into()));
    let has_all =
        Command::new(&path).args(["-c", "import numpy, gguf"]).output().is_ok_and(|done| done.status.success());
    if !has_all {
        println!("not run: {} has no numpy or no gguf", path.display());
    }
    has_all.then_some(path)
}

fn script<S: AsRef<OsStr>>(python: &Path, name: &str, arguments: impl IntoIterator<Item = S>) -> Result<Output> {
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(repository("scripts").join(name)).args(arguments);
    command.output().with_context(|| name.to_owned())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn model(name: &str) -> PathBuf {
    repository("tests/golden/arch").join(format!("{name}.gguf"))
}

/// The folders of `names`, as the hub would have them.
fn folders(python: &Path, out: &Path, names: &[&str]) -> Result<()> {
    let mut arguments = vec!["--out".into(), out.to_owned()];
    arguments.extend(names.iter().map(|name| model(name)));
    let done = script(python, "make_hf_checkpoint.py", arguments)?;
    ensure!(done.status.success(), "{}", text(&done));
    Ok(())
}

#[test]
fn what_was_taken_apart_comes_back() -> Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    folders(&python, folder.path(), &MODELS)?;
    for name in MODELS {
        let (taken_apart, out) = (folder.path().join(name), folder.path().join(format!("{name}.gguf")));
        let arguments = [taken_apart.as_os_str(), "-o".as_ref(), out.as_os_str(), "--outtype=f32".as_ref()];
        let done = script(&python, "convert_hf_to_gguf.py", arguments)?;
        ensure!(done.status.success(), "{name}: {}", text(&done));
        let (before, after) = (Gguf::open(&model(name))?, Gguf::open(&out)?);
        assert_eq!(before.tensors().len(), after.tensors().len(), "{name}");
        for tensor in before.tensors() {
            let found = after.tensor(&tensor.name).with_context(|| format!("{name}: {}", tensor.name))?;
            assert_eq!((&tensor.dims, tensor.dtype), (&found.dims, found.dtype), "{name}: {}", tensor.name);
            // Of nemotron's norms, 1 was taken away and added again; how states fade was a logarithm.
            let (old, new) = (before.data(tensor), after.data(found));
            let float = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let near = |(a, b): (&[u8], &[u8])| (float(a) - float(b)).abs() < 1e-6;
            let changed = name == "nemotron" && tensor.name.ends_with("norm.weight") || tensor.name.ends_with("ssm_a");
            let same = if changed { old.chunks(4).zip(new.chunks(4)).all(near) } else { old == new };
            assert!(same, "{name}: {}", tensor.name);
        }
        let arch = before.metadata().str("general.architecture")?.context("no architecture")?;
        for entry in before.metadata().entries() {
            // Files say how much rotates where nothing does.
            let says_nothing = arch.starts_with("nemotron_h") && entry.key.ends_with(".rope.dimension_count");
            if entry.key.starts_with(&format!("{arch}.")) && !says_nothing {
                let found = after.metadata().numbers(&entry.key).ok().flatten();
                assert_eq!(before.metadata().numbers(&entry.key).ok().flatten(), found, "{name}: {}", entry.key);
            }
        }
        powerinfer::model::Model::new(after, None)?;
    }
    Ok(())
}

/// What is wrong with a folder, and words that its message has to have: none where it is to be converted all the same.
struct Case {
    name: &'static str,
    config: fn(&mut Value),
    folder: fn(&Path) -> std::io::Result<()>,
    words: &'static [&'static str],
}

const AS_IT_IS: fn(&mut Value) = |_| {};
const UNTOUCHED: fn(&Path) -> std::io::Result<()> = |_| Ok(());

fn of_config(name: &'static str, config: fn(&mut Value), words: &'static [&'static str]) -> Case {
    Case { name, config, folder: UNTOUCHED, words }
}

fn of_files(name: &'static str, folder: fn(&Path) -> std::io::Result<()>, words: &'static [&'static str]) -> Case {
    Case { name, config: AS_IT_IS, folder, words }
}

/// Rewrites the object in a file.
fn edited(path: &Path, edit: impl Fn(&mut Value)) -> std::io::Result<()> {
    let mut value: Value = serde_json::from_slice(&fs::read(path)?)?;
    edit(&mut value);
    fs::write(path, value.to_string())
}

fn cases() -> Vec<Case> {
    vec![
        of_config(
            "architecture",
            |c| *c = json!({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}),
            &["gpt2", "llama", "nemotron"],
        ),
        // `model_type` says it, too.
        of_config("no list", |c| c["architectures"] = json!(7), &[]),
        of_config("activation", |c| c["hidden_act"] = json!("mish"), &["mish", "relu2"]),
        of_config("no threshold", |c| c["hidden_act"] = json!("fatrelu"), &["fatrelu", "hidden_act_param"]),
        of_config("heads", |c| c["num_attention_heads"] = json!(0), &["num_attention_heads", "0"]),
        of_config("number", |c| c["rms_norm_eps"] = json!("a"), &["rms_norm_eps"]),
        of_config("scaling", |c| c["rope_scaling"] = json!({"rope_type": "dynamic"}), &["dynamic", "yarn"]),
        of_config("quantized", |c| c["quantization_config"] = json!({"quant_method": "gptq"}), &["gptq", "quant"]),
        of_config("experts", |c| c["num_experts"] = json!(8), &["num_experts", "8"]),
        of_config("layers", |c| c["layer_types"] = json!(vec!["linear_attention"; 3]), &["linear_attention"]),
        of_config("sizes", |c| c["vocab_size"] = json!(100), &["model.embed_tokens.weight", "100"]),
        of_files("no weights", |f| fs::remove_file(f.join("model.safetensors")), &["safetensors"]),
        of_files(
            "pickled",
            |f| fs::rename(f.join("model.safetensors"), f.join("pytorch_model.bin")),
            &["pytorch_model.bin", "save_pretrained"],
        ),
        of_files("cut off", |f| fs::write(f.join("model.safetensors"), [9, 0, 0]), &["model.safetensors"]),
        of_files(
            "shard",
            |f| fs::write(f.join("model.safetensors.index.json"), r#"{"weight_map": {"a": "model-1.safetensors"}}"#),
            &["model-1.safetensors", "missing"],
        ),
        of_files("no tokenizer", |f| fs::remove_file(f.join("tokenizer.json")), &["tokenizer.json"]),
        of_files(
            "kind of tokenizer",
            |f| edited(&f.join("tokenizer.json"), |t| t["model"]["type"] = json!("Unigram")),
            &["Unigram", "BPE"],
        ),
        of_files(
            "words",
            |f| edited(&f.join("tokenizer.json"), |t| t["pre_tokenizer"] = json!({"type": "Whitespace"})),
            &["pre_tokenizer", "--pre"],
        ),
        of_files(
            "tokens",
            |f| edited(&f.join("tokenizer.json"), |t| t["model"]["vocab"]["x"] = json!(-1)),
            &["tokenizer.json", "-1"],
        ),
    ]
}

/// What config.json of a model whose layers are of several kinds has, what stands in its place, and words of the message. (It
/// holds numbers that are none of JSON's.)
const OF_KINDS: [(&str, &str, &[&str]); 7] = [
    ("\"EM*E\"", "\"EM*X\"", &["hybrid_override_pattern", "EM*X"]),
    ("\"EM*E\"", "\"EM*\"", &["hybrid_override_pattern", "3 layers", "4"]),
    ("\"EM*E\"", "\"EM*-\"", &["hybrid_override_pattern", "experts"]),
    ("\"mamba_num_heads\": 4", "\"mamba_num_heads\": 0.5", &["mamba_num_heads", "0.5"]),
    ("\"n_groups\": 2", "\"n_groups\": 5", &["n_groups", "5"]),
    ("\"n_group\": 1", "\"n_group\": 4", &["n_group", "groups of experts"]),
    ("Infinity", "0.5", &["time_step_limit", "0.5"]),
];

#[test]
fn layers_of_unknown_kinds_are_refused_in_one_line() -> Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let home = tempfile::tempdir()?;
    folders(&python, home.path(), &["nemotron_h_moe-latent"])?;
    let (config, out) = (home.path().join("nemotron_h_moe-latent/config.json"), home.path().join("m.gguf"));
    let whole = fs::read_to_string(&config)?;
    for (before, after, words) in OF_KINDS {
        assert!(whole.contains(before), "{before}: {whole}");
        fs::write(&config, whole.replace(before, after))?;
        let folder = config.parent().context("no folder")?;
        let done = script(&python, "convert_hf_to_gguf.py", [folder.as_os_str(), "-o".as_ref(), out.as_os_str()])?;
        let message = text(&done);
        assert_eq!((done.status.code(), message.lines().count()), (Some(1), 1), "{after}: {message}");
        assert!(words.iter().all(|word| message.contains(word)) && !out.exists(), "{after}: {message}");
    }
    Ok(())
}

#[test]
fn what_no_command_opens_is_refused_in_one_line_and_leaves_no_file() -> Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let home = tempfile::tempdir()?;
    folders(&python, home.path(), &["qwen2"])?;
    let (folder, out) = (home.path().join("case"), home.path().join("out"));
    fs::create_dir(&out)?;
    for case in cases() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)?;
        for entry in fs::read_dir(home.path().join("qwen2"))? {
            let entry = entry?;
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
        edited(&folder.join("config.json"), case.config)?;
        (case.folder)(&folder)?;
        let target = out.join("m.gguf");
        let arguments = [folder.as_os_str(), "--outfile".as_ref(), target.as_os_str()];
        let done = script(&python, "convert_hf_to_gguf.py", arguments)?;
        if case.words.is_empty() {
            assert!(done.status.success(), "{}: {}", case.name, text(&done));
            fs::remove_file(&target)?;
            continue;
        }
        let message = text(&done);
        assert_eq!(done.status.code(), Some(1), "{}: {message}", case.name);
        assert_eq!(message.lines().count(), 1, "{}: {message}", case.name);
        for word in case.words {
            assert!(message.contains(word), "{}: \"{word}\" is not in: {message}", case.name);
        }
        assert_eq!(fs::read_dir(&out)?.count(), 0, "{}", case.name);
    }
    Ok(())
}
