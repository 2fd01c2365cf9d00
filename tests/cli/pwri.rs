//! PowerInfer's own files on the command line: every command takes them, and what is wrong with them is one line.

use crate::support::pwri::noise;
use crate::support::real::repository;
use crate::support::{ModelFile, Outcome, Tensor, Value, refused, refused_by, tool};
use powerinfer::measure::STORY;
use powerinfer::quant::GgmlType;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The tiny model as PowerInfer has it: 2 layers, 32 wide, 64 neurons each; predictors with 8 hidden values.
fn tiny() -> ModelFile {
    let mut file = ModelFile::tiny().by_neurons().with_scores(2, |_| noise(32, 8, 64));
    file.remove("powerinfer.activation");
    file
}

fn written(file: &ModelFile) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = file.written_as_pwri(folder.path(), "model.powerinfer.gguf");
    (folder, path)
}

/// Every command refuses the file in one line that holds all of `wanted`.
#[track_caller]
fn is_refused(file: &ModelFile, wanted: &[&str]) {
    let (folder, model) = written(file);
    let (text, out) = (folder.path().join("story.txt"), folder.path().join("out"));
    std::fs::write(&text, "once upon a time").unwrap();
    let line = refused_by("run", &[&"-m", &model, &"-p", &"x", &"-n", &"1"], wanted);
    assert!(line.contains("model.powerinfer.gguf"), "{line}");
    refused_by("bench", &[&"-m", &model, &"-p", &"4", &"-n", &"1", &"-r", &"1"], wanted);
    refused_by("profile", &[&"-m", &model, &"-f", &text, &"-o", &out], wanted);
    assert!(!out.exists());
}

fn run(model: &Path, mode: &str) -> Outcome {
    let mut command = tool("run");
    let args = ["-p", "once upon a time", "-n", "24", "--temp", "0", "--ignore-eos", "-t", "2", "--mode", mode];
    Outcome::from(command.arg("-m").arg(model).args(args).output().unwrap()).ok()
}

#[test]
fn the_real_model_says_the_same_in_powerinfers_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = repository("models/tiny-stories-f16.gguf");
    let plain = ModelFile::opened(&path).unwrap();
    let file = plain.by_neurons().with_scores(6, |_| noise(256, 32, 1024)).threshold(f32::NEG_INFINITY);
    let model = file.written_as_pwri(folder.path(), "model.powerinfer.gguf");
    let expected = run(&path, "exact").stdout;
    for mode in ["dense", "exact", "predicted"] {
        let said = run(&model, mode);
        assert_eq!(said.stdout, expected, "{mode}");
        assert!(!said.stderr.contains("plain file"), "{}", said.stderr);
    }
    let text = folder.path().join("story.txt");
    std::fs::write(&text, STORY).unwrap();
    let mut bench = tool("bench");
    bench.arg("-m").arg(&model).arg("--kl").arg(&text).args(["-c", "64", "--chunks", "1", "-o", "json"]);
    let out = Outcome::from(bench.args(["--mode", "exact,predicted"]).output().unwrap()).ok().stdout;
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    for row in 0..2 {
        assert_eq!(rows[row]["kl_max"].as_f64(), Some(0.0), "{out}");
    }
    // A profile of one is a profile of the other.
    let profile = |model: &Path, name: &str| {
        let out = folder.path().join(name);
        let mut command = tool("profile");
        command.arg("-m").arg(model).arg("-f").arg(&text).arg("-o").arg(&out).args(["--tokens", "256"]);
        Outcome::from(command.output().unwrap()).ok();
        out
    };
    let (ours, theirs) = (profile(&path, "a.profile"), profile(&model, "b.profile"));
    let mut compare = tool("profile");
    let compared = Outcome::from(compare.arg("--compare").arg(&ours).arg(&theirs).output().unwrap()).ok();
    assert!(!compared.stdout.is_empty());
}

#[test]
fn the_activation_and_where_it_is_from_are_told() {
    let (_folder, model) = written(&tiny());
    let told = run(&model, "exact").stderr;
    assert!(told.contains("activation relu (from PowerInfer, whose file it is)"), "{told}");
}

#[test]
fn files_without_predictors_are_run_but_not_predicted() {
    let mut file = ModelFile::tiny().by_neurons();
    let (_folder, model) = written(&file);
    run(&model, "exact");
    refused_by("run", &[&"-m", &model, &"-p", &"x", &"-n", &"1", &"--mode", &"predicted"], &["no predictor"]);
    // A threshold alone says nothing.
    file.set("powerinfer.sparse_threshold", Value::F32(0.5));
    let (_folder, model) = written(&file);
    run(&model, "exact");
}

#[test]
fn what_contradicts_itself_is_refused_by_name() {
    let without = |name: &str| {
        let mut file = tiny();
        file.tensors.retain(|tensor| tensor.name != name);
        file
    };
    for name in ["blk.0.fc1.weight", "blk.1.fc2.weight", "blk.1.ffn_down_t.weight", "blk.0.ffn_gate.weight"] {
        is_refused(&without(name), &[name, "missing"]);
    }
    let mut lacking = tiny();
    lacking.tensors.retain(|tensor| !tensor.name.starts_with("blk.1.fc"));
    is_refused(&lacking, &["blk.1.fc1.weight", "missing"]);

    let shaped = |name: &str, dims: &[usize]| {
        let mut file = tiny();
        *file.tensor(name) = Tensor::zeros(name, GgmlType::F32, dims);
        file
    };
    is_refused(
        &shaped("blk.0.fc2.weight", &[7, 64]),
        &["blk.0.fc2.weight", "rows of 7", "blk.0.fc1.weight", "8 values"],
    );
    is_refused(&shaped("blk.0.fc2.weight", &[8, 63]), &["blk.0.fc2.weight", "[8, 63]", "[8, 64]"]);
    is_refused(&shaped("blk.1.fc1.weight", &[31, 8]), &["blk.1.fc1.weight", "[31, 8]", "[32, 8]"]);
    is_refused(&shaped("blk.1.fc1.weight", &[32, 2, 4]), &["blk.1.fc1.weight", "[32, 2, 4]"]);
    is_refused(&shaped("blk.1.ffn_down_t.weight", &[64, 32]), &["blk.1.ffn_down_t.weight", "[64, 32]", "[32, 64]"]);
    is_refused(&shaped("blk.0.ffn_down_t.weight", &[32, 64, 2]), &["blk.0.ffn_down_t.weight", "[32, 64, 2]"]);

    let mut integers = tiny();
    let fc1 = integers.tensor("blk.0.fc1.weight");
    fc1.dtype = GgmlType::from_name("I32").unwrap();
    is_refused(&integers, &["blk.0.fc1.weight", "I32"]);
}

#[test]
fn keys_that_make_no_sense_are_refused_by_name() {
    let keyed = |key: &str, value: Value| {
        let mut file = tiny();
        file.set(key, value);
        file
    };
    const THRESHOLD: &str = "powerinfer.sparse_threshold";
    is_refused(&keyed(THRESHOLD, Value::F32(f32::NAN)), &[THRESHOLD, "NaN"]);
    is_refused(&keyed(THRESHOLD, Value::Str("low".to_owned())), &[THRESHOLD, "low"]);
    is_refused(&keyed(THRESHOLD, Value::f32s(&[0.0, 0.0])), &[THRESHOLD, "array"]);
    is_refused(&keyed("llama.expert_count", Value::U32(8)), &["llama.expert_count", "mixture of experts"]);
    is_refused(&keyed("general.architecture", Value::Str("moe.gpu_idx".to_owned())), &["moe.gpu_idx", "supported"]);
    is_refused(&keyed("powerinfer.n_hot", Value::u32s(&[3, 0])), &["powerinfer.n_hot", "ffn_neuron_id"]);
}

#[test]
fn names_of_the_other_format_are_refused() {
    // PowerInfer's magic over a plain file, and over a variant's tensors.
    is_refused(&ModelFile::tiny(), &["blk.0.ffn_down_t.weight", "missing"]);
    let mut index = tiny();
    index.push(Tensor::zeros("blk.0.ffn_neuron_id", GgmlType::from_name("I32").unwrap(), &[64]));
    is_refused(&index, &["blk.0.ffn_neuron_id", "not known"]);
    let mut both = tiny();
    both.push(Tensor::zeros("blk.0.ffn_down.weight", GgmlType::F32, &[64, 32]));
    is_refused(&both, &["blk.0.ffn_down.weight", "not known"]);
    // The other way round: without the magic it is a plain file, which has no such tensors.
    let folder = tempfile::tempdir().unwrap();
    let model = tiny().written(folder.path(), "model.gguf");
    refused_by("run", &[&"-m", &model, &"-p", &"x"], &["model.gguf", "blk.0.ffn_neuron_id"]);
}

#[test]
fn a_file_that_is_cut_short_is_refused_wherever_it_ends() {
    let (folder, model) = written(&tiny());
    let bytes = std::fs::read(&model).unwrap();
    let cut = folder.path().join("cut.gguf");
    for n in [0, 3, 4, 7, 20, 1000, bytes.len() / 2, bytes.len() - 40, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..n]).unwrap();
        refused_by("run", &[&"-m", &cut, &"-p", &"x", &"-n", &"1"], &["cut.gguf"]);
    }
}

#[test]
fn only_split_makes_another_file_of_it() {
    let (folder, model) = written(&tiny());
    let out = folder.path().join("out.gguf");
    let mut command = tool("split");
    command.arg("-m").arg(&model).arg("-o").arg(&out).args(["--type", "q8_0", "--quantize-only"]);
    refused(&mut command, &["PowerInfer", "--quantize-only"]);
    assert!(!out.exists());
}
