//! `split --quantize-only` by llama-quantize's words and flags.

use crate::support::{ModelFile, Outcome, names_in, refused, tool, usage_error};
use powerinfer::gguf::Gguf;
use powerinfer::quant::GgmlType;
use std::path::Path;

fn quantize(folder: &Path, words: &[&str]) -> Outcome {
    Outcome::from(tool("split").current_dir(folder).arg("--quantize-only").args(words).output().unwrap())
}

fn type_of(folder: &Path, file: &str, name: &str) -> GgmlType {
    Gguf::open(&folder.join(file)).unwrap().tensor(name).unwrap().dtype
}

fn file_type(folder: &Path, file: &str) -> Option<u32> {
    Gguf::open(&folder.join(file)).unwrap().metadata().u32("general.file_type").unwrap()
}

#[test]
fn the_words_of_llama_quantize_mean_what_they_mean_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ModelFile::sized(256, 512).written(folder, "in.gguf");
    for (words, out, number) in [
        (&["in.gguf", "out.gguf", "Q4_K_M"][..], "out.gguf", 15),
        (&["in.gguf", "out-18.gguf", "18", "2"], "out-18.gguf", 18),
        (&["in.gguf", "q5_0"], "ggml-model-Q5_0.gguf", 8),
        (&["in.gguf", "Q3_K", "1"], "ggml-model-Q3_K.gguf", 12),
        (&["--pure", "in.gguf", "pure.gguf", "iq4_xs"], "pure.gguf", 30),
    ] {
        let outcome = quantize(folder, words).ok();
        assert!(outcome.stdout.starts_with(&format!("{out}: ")), "{}", outcome.stdout);
        assert_eq!(outcome.stderr, "");
        assert_eq!(file_type(folder, out), Some(number));
    }
    assert_eq!(type_of(folder, "out.gguf", "blk.1.ffn_down.weight"), GgmlType::Q6_K);
    assert_eq!(type_of(folder, "pure.gguf", "token_embd.weight"), GgmlType::IQ4_XS);
    let same = ["-m", "in.gguf", "-o", "flags.gguf", "--type", "q4_k_m"];
    quantize(folder, &same).ok();
    let [words, flags] = ["out.gguf", "flags.gguf"].map(|name| std::fs::read(folder.join(name)).unwrap());
    assert!(words == flags);
}

#[test]
fn all_recipes_are_written_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ModelFile::layered(1, 256, 256).written(folder, "in.gguf");
    for recipe in ["f32", "q4_1", "q5_1", "q2_k", "q2_k_s", "q3_k_s", "q3_k_l", "q4_k_s", "q5_k_m", "iq4_nl", "iq4_xs"]
    {
        quantize(folder, &["in.gguf", "out.gguf", recipe]).ok();
        let args = ["-m", "out.gguf", "-p", "a", "-n", "2", "-t", "1", "--ignore-eos"];
        Outcome::from(tool("run").current_dir(folder).args(args).output().unwrap()).ok();
    }
}

#[test]
fn types_of_matrices_are_chosen_by_name_and_shown_without_writing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ModelFile::sized(256, 512).written(folder, "in.gguf");
    let chosen = ["--tensor-type", "ffn_down=q8_0", "--tensor-type", "ffn_=q5_0", "--token-embedding-type", "bf16"];
    let shown =
        quantize(folder, &[&chosen[..], &["--dry-run", "--json", "in.gguf", "out.gguf", "q4_k_s"]].concat()).ok();
    assert_eq!(names_in(folder), ["in.gguf"]);
    quantize(folder, &[&chosen[..], &["in.gguf", "out.gguf", "q4_k_s"]].concat()).ok();
    for (name, dtype) in [
        ("blk.0.ffn_down.weight", GgmlType::Q8_0),
        ("blk.1.ffn_up.weight", GgmlType::Q5_0),
        ("blk.0.attn_q.weight", GgmlType::Q4_K),
        ("token_embd.weight", GgmlType::BF16),
    ] {
        assert_eq!(type_of(folder, "out.gguf", name), dtype, "{name}");
    }
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&shown["file_type"], &shown["recipe"]), (&14.into(), &"q4_k_s".into()));
    let written = Gguf::open(&folder.join("out.gguf")).unwrap();
    for (shown, written) in shown["tensors"].as_array().unwrap().iter().zip(written.tensors()) {
        assert_eq!(shown["name"], *written.name);
        assert_eq!(shown["type"], written.dtype.name());
        assert_eq!(shown["bytes"], written.data.len());
    }
    let table = quantize(folder, &["--dry-run", "in.gguf", "q4_k_s"]).ok().stdout;
    let line = table.lines().find(|line| line.starts_with("blk.0.attn_norm.weight")).unwrap();
    assert!(line.contains("F32") && line.contains("stays"), "{line}");
    assert!(table.lines().last().unwrap().contains("matrices: "), "{table}");
}

#[test]
fn what_is_quantized_is_quantized_again_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ModelFile::sized(256, 512).written(folder, "in.gguf");
    quantize(folder, &["in.gguf", "q8.gguf", "q8_0"]).ok();
    refused(
        tool("split").current_dir(folder).args(["--quantize-only", "q8.gguf", "q4.gguf", "q4_0"]),
        &["q8.gguf", "Q8_0 already", "--allow-requantize"],
    );
    quantize(folder, &["--allow-requantize", "--leave-output-tensor", "q8.gguf", "q4.gguf", "q4_0"]).ok();
    assert_eq!(type_of(folder, "q4.gguf", "blk.0.ffn_up.weight"), GgmlType::Q4_0);
}

#[test]
fn words_that_mean_nothing_are_wrong_usage() {
    usage_error("split", &["--quantize-only", "in.gguf", "out.gguf", "q9_0"], "\"q9_0\" is no recipe; f32, f16");
    usage_error("split", &["--quantize-only", "in.gguf", "out.gguf"], "TYPE is missing");
    usage_error(
        "split",
        &["--quantize-only", "in.gguf", "out.gguf", "q4_0", "many"],
        "\"many\" is no number of threads",
    );
    usage_error("split", &["--quantize-only", "in.gguf", "q4_0", "2", "3"], "\"3\"");
    usage_error("split", &["in.gguf", "out.gguf", "q4_0"], "--quantize-only");
    for (flag, value) in [("--tensor-type", "ffn=q9"), ("--tensor-type", "a(=q8_0"), ("--output-tensor-type", "IQ1_S")]
    {
        usage_error("split", &["--quantize-only", flag, value, "in.gguf", "out.gguf", "q4_0"], value);
    }
    usage_error("split", &["--pure", "-m", "in.gguf", "-o", "out.gguf", "--keep-order"], "--quantize-only");
}
