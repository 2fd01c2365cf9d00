//! `split --type q4_k_m` and `split --quantize-only`.

use crate::support::{ModelFile, Outcome, Tensor, Value, names_in, refused, tool, usage_error};
use powerinfer::gguf::Gguf;
use powerinfer::quant::{GgmlType, convert};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn story_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-stories-f16.gguf")
}

fn quantize(model: &Path, out: &Path, recipe: &str) -> Command {
    let mut command = tool("split");
    command.arg("-m").arg(model).arg("-o").arg(out).args(["--quantize-only", "-t", "2", "--type", recipe]);
    command
}

fn types(gguf: &Gguf) -> BTreeMap<&str, GgmlType> {
    gguf.tensors().iter().map(|t| (&*t.name, t.dtype)).collect()
}

fn runs(model: &Path, mode: &str) -> String {
    let args = ["-p", "Once upon a time", "-n", "16", "--temp", "0", "--ignore-eos", "-t", "2", "--mode", mode];
    Outcome::from(tool("run").arg("-m").arg(model).args(args).output().unwrap()).ok().stdout
}

#[test]
fn a_story_model_is_quantized_to_ordinary_files_that_run() {
    let folder = tempfile::tempdir().unwrap();
    let source = Gguf::open(&story_model()).unwrap();
    let n_layer = source.tensors().iter().filter(|t| t.name.ends_with(".ffn_up.weight")).count();
    for (recipe, file_type) in [("q8_0", 7), ("q4_k_m", 15)] {
        let out = folder.path().join(format!("{recipe}.gguf"));
        let outcome = Outcome::from(quantize(&story_model(), &out, recipe).output().unwrap()).ok();
        assert!(outcome.stdout.contains(&format!("{recipe}.gguf: ")), "{}", outcome.stdout);
        assert_eq!(outcome.stderr, "");
        let text = runs(&out, "dense");
        assert!(text.len() > 30, "{text}");
        assert_eq!(text, runs(&out, "exact"));
        let written = Gguf::open(&out).unwrap();
        assert_eq!(written.metadata().u32("general.file_type").unwrap(), Some(file_type));
        assert_eq!(written.metadata().u32("general.quantization_version").unwrap(), Some(2));
        for (from, to) in source.tensors().iter().zip(written.tensors()) {
            assert_eq!((&from.name, &from.dims), (&to.name, &to.dims));
            let mut expected = source.data(from).to_vec();
            if from.dtype != to.dtype {
                let mut values = vec![0.0; from.dims.iter().product()];
                convert::dequantizer(from.dtype).unwrap()(&expected, &mut values);
                expected = vec![0; to.data.len()];
                convert::quantizer(to.dtype).unwrap()(&values, &mut expected);
            }
            assert!(written.data(to) == expected, "{recipe}: {}", from.name);
            assert_eq!(from.dtype != to.dtype, from.dims.len() == 2, "{}", from.name);
        }
        let types = types(&written);
        if recipe == "q8_0" {
            assert!(types.values().all(|t| [GgmlType::Q8_0, GgmlType::F32].contains(t)), "{types:?}");
        } else {
            let is = |name: &str| types[name];
            assert_eq!(is("blk.0.ffn_gate.weight"), GgmlType::Q4_K);
            let last = format!("blk.{}.ffn_down.weight", n_layer - 1);
            assert_eq!(types[&*last], GgmlType::Q6_K);
            let head = if types.contains_key("output.weight") { "output.weight" } else { "token_embd.weight" };
            assert_eq!(is(head), GgmlType::Q6_K);
        }
    }
    assert_eq!(names_in(folder.path()), ["q4_k_m.gguf", "q8_0.gguf"]);
}

#[test]
fn a_model_of_an_unknown_architecture_is_quantized() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = ModelFile::sized(256, 512);
    model.set("general.architecture", Value::Str("whatever".into()));
    model.set("whatever.thing", Value::u32s(&[1, 2, 3]));
    model.set("general.file_type", Value::U32(0));
    let mut add = |name: &str, dtype: GgmlType, dims: &[usize]| {
        model.push(Tensor::zeros(name, dtype, dims));
    };
    let i8 = GgmlType::from_name("I8").unwrap();
    let kept = [
        ("blk.0.ffn_gate_inp.weight", GgmlType::F32, &[256, 8][..]),
        ("blk.0.ssm_conv1d.weight", GgmlType::F32, &[4, 256]),
        ("position_embd.weight", GgmlType::BF16, &[256, 64]),
        ("blk.0.attn_q_norm.weight", GgmlType::F32, &[256, 2]),
        ("blk.0.attn_q.bias", GgmlType::F32, &[256]),
        ("blk.0.table.weight", i8, &[256, 2]),
        ("blk.0.flat.weight", GgmlType::F32, &[256, 1]),
    ];
    kept.iter().for_each(|(name, dtype, dims)| add(name, *dtype, dims));
    add("blk.0.ssm_in.weight", GgmlType::BF16, &[256, 96]);
    add("blk.0.ffn_up_exps.weight", GgmlType::F16, &[256, 32, 4]);
    add("blk.0.cube.weight", GgmlType::F32, &[256, 2, 2]);
    add("blk.0.narrow.weight", GgmlType::F16, &[96, 4]);
    add("blk.0.odd.weight", GgmlType::F32, &[100, 4]);
    let model = model.written(folder.path(), "whatever.gguf");
    let out = folder.path().join("out.gguf");
    let outcome = Outcome::from(quantize(&model, &out, "q4_k_m").output().unwrap()).ok();
    let note = "note: 2 matrices have rows that are not whole blocks of the type meant for them: 1 Q5_0 for Q4_K, 1 F16 for Q4_K\n";
    assert_eq!(outcome.stderr, note);
    let (source, written) = (Gguf::open(&model).unwrap(), Gguf::open(&out).unwrap());
    let types = types(&written);
    for (name, dtype, _) in kept {
        assert_eq!(types[name], dtype, "{name}");
    }
    for (name, dtype) in [
        ("blk.0.ssm_in.weight", GgmlType::Q4_K),
        ("blk.0.ffn_up_exps.weight", GgmlType::Q4_K),
        ("blk.0.cube.weight", GgmlType::Q4_K),
        ("blk.0.narrow.weight", GgmlType::Q5_0),
        ("blk.0.odd.weight", GgmlType::F16),
        ("blk.1.attn_v.weight", GgmlType::Q6_K),
        ("token_embd.weight", GgmlType::Q6_K),
    ] {
        assert_eq!(types[name], dtype, "{name}");
    }
    for entry in source.metadata().entries() {
        let theirs = written.metadata().entries().iter().find(|e| e.key == entry.key).unwrap();
        let same = source.metadata().raw_value(entry) == written.metadata().raw_value(theirs);
        assert_eq!(same, entry.key != "general.file_type", "{}", entry.key);
    }
    let n_new = written.metadata().entries().len() - source.metadata().entries().len();
    assert_eq!(n_new, 1, "general.quantization_version");
}

#[test]
fn what_cannot_be_quantized_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (plain, q8, out) = (ModelFile::tiny().written(folder.path(), "tiny.gguf"), at("q8.gguf"), at("out.gguf"));
    Outcome::from(quantize(&plain, &q8, "q8_0").output().unwrap()).ok();
    refused(
        &mut quantize(&q8, &out, "q4_0"),
        &["q8.gguf", "token_embd.weight", "Q8_0 already", "--type needs", "--allow-requantize"],
    );
    let variant = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-stories-q8_0-variant.gguf");
    refused(&mut quantize(&variant, &out, "q8_0"), &["variant.gguf", "is a variant"]);
    let vocabulary = ModelFile::vocabulary_only().written(folder.path(), "vocabulary.gguf");
    refused(&mut quantize(&vocabulary, &out, "q8_0"), &["vocabulary.gguf", "no F32, F16 or BF16 matrix"]);
    let mut broken = ModelFile::tiny();
    broken.poke("blk.1.ffn_up.weight", 40, f32::NAN);
    let broken = broken.written(folder.path(), "broken.gguf");
    refused(&mut quantize(&broken, &out, "q8_0"), &["broken.gguf", "blk.1.ffn_up.weight", "row 1, column 8", "NaN"]);
    refused(&mut quantize(&plain, &plain, "q8_0"), &["tiny.gguf", "overwritten"]);
    let all = ["-m", "a", "-o", "b", "--quantize-only", "--type", "q8_0"];
    usage_error("split", &all[..5], "--type");
    for more in [&["--profile", "x"][..], &["--down", "same"], &["--no-kl"], &["--activation", "relu"]] {
        usage_error("split", &[&all, more].concat(), more[0]);
    }
    assert!(!out.exists());
}

#[test]
fn a_narrow_model_gets_shorter_blocks_in_place_of_the_mix_with_one_note() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (model, text, profile, out) =
        (ModelFile::tiny().written(folder.path(), "tiny.gguf"), at("t.txt"), at("p"), at("variant.gguf"));
    std::fs::write(&text, "once upon a time there was a little dog who liked to run\n").unwrap();
    let mut command = tool("profile");
    Outcome::from(command.arg("-m").arg(&model).arg("-f").arg(&text).arg("-o").arg(&profile).output().unwrap()).ok();
    let mut command = tool("split");
    command.arg("-m").arg(&model).arg("--profile").arg(&profile).arg("-o").arg(&out).args(["--type", "q4_k_m"]);
    let outcome = Outcome::from(command.output().unwrap()).ok();
    let notes: Vec<_> = outcome.stderr.lines().filter(|l| l.starts_with("note: ")).collect();
    // 7 in each of the 2 layers, and the embeddings.
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains("15 matrices have rows that are not whole blocks of the type meant for them"),
        "{notes:?}"
    );
    let written = Gguf::open(&out).unwrap();
    assert_eq!(types(&written)["blk.0.ffn_down_t.weight"], GgmlType::Q5_0);
    assert_eq!(types(&written)["blk.1.ffn_down_t.weight"], GgmlType::Q8_0);
    // No matrix of a layer is Q4_K: the number is that of Q5_0.
    assert_eq!(written.metadata().u32("general.file_type").unwrap(), Some(8));
    assert_eq!(runs(&out, "dense"), runs(&out, "exact"));
}
