//! `split --quantize-only --imatrix`: columns that count more have smaller errors.

use crate::support::{ModelFile, Outcome, Tensor, Value, refused, tool};
use powerinfer::gguf::Gguf;
use powerinfer::quant::{GgmlType, convert};
use std::path::Path;
use std::process::Command;

const DOWN: &str = "blk.0.ffn_down.weight";
const N_FF: usize = 512;

fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = tool("split");
    command.current_dir(folder).arg("--quantize-only").args(words);
    command
}

fn quantize(folder: &Path, words: &[&str]) -> Outcome {
    Outcome::from(command(folder, words).output().unwrap()).ok()
}

/// The weights of a matrix.
fn weights(folder: &Path, file: &str, name: &str) -> Vec<f32> {
    let gguf = Gguf::open(&folder.join(file)).unwrap();
    let tensor = gguf.tensor(name).unwrap();
    let mut values = vec![0.0; tensor.n_rows() * tensor.n_cols()];
    convert::dequantizer(tensor.dtype).unwrap()(gguf.data(tensor), &mut values);
    values
}

/// Sums of squared errors of the even and of the odd columns of `DOWN`.
fn errors(folder: &Path, file: &str) -> [f64; 2] {
    let mut errors = [0.0; 2];
    for (i, (a, b)) in weights(folder, "in.gguf", DOWN).iter().zip(weights(folder, file, DOWN)).enumerate() {
        errors[i % N_FF % 2] += f64::from((a - b) * (a - b));
    }
    errors
}

fn floats(name: &str, dims: &[usize], values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor { name: name.to_owned(), dtype: GgmlType::F32, dims: dims.to_vec(), bytes }
}

/// An importance matrix as llama-imatrix writes it: only odd columns of one matrix count, those as much as they are wanted to.
fn importance(odd: f32) -> ModelFile {
    let sums: Vec<f32> = (0..N_FF).map(|i| if i % 2 == 1 { odd } else { 0.02 }).collect();
    let mut file = ModelFile::default();
    file.set("general.type", Value::Str("imatrix".into()));
    file.push(floats(&format!("{DOWN}.in_sum2"), &[N_FF, 1], &sums));
    file.push(floats(&format!("{DOWN}.counts"), &[1, 1], &[2.0]));
    file
}

#[test]
fn columns_that_count_in_an_importance_matrix_of_llama_cpp_have_smaller_errors() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ModelFile::sized(256, N_FF).written(folder, "in.gguf");
    importance(2.0).written(folder, "i.gguf");
    quantize(folder, &["in.gguf", "plain.gguf", "q4_k_s"]);
    let outcome = quantize(folder, &["--imatrix", "i.gguf", "in.gguf", "out.gguf", "q4_k_s"]);
    assert_eq!(outcome.stderr, "note: i.gguf: tells of 1 of 15 matrices how much their columns count\n");
    let (plain, weighted) = (errors(folder, "plain.gguf"), errors(folder, "out.gguf"));
    assert!(weighted[1] < 0.9 * plain[1] && weighted[0] > plain[0], "{plain:?}, {weighted:?}");
    let other = "blk.1.ffn_down.weight";
    assert!(weights(folder, "plain.gguf", other) == weights(folder, "out.gguf", other));
    let written = Gguf::open(&folder.join("out.gguf")).unwrap();
    assert_eq!(written.metadata().str("quantize.imatrix.file").unwrap(), Some("i.gguf"));
    assert_eq!(written.metadata().u32("quantize.imatrix.entries_count").unwrap(), Some(1));
}

#[test]
fn a_profile_tells_how_much_neurons_count() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut model = ModelFile::sized(256, N_FF);
    // Neurons of even numbers never fire: what would open their gates is zero.
    let gate = model.tensor("blk.0.ffn_gate.weight");
    for row in gate.bytes.chunks_exact_mut(2 * 256 * 4) {
        row[..256 * 4].fill(0);
    }
    model.written(folder, "in.gguf");
    std::fs::write(folder.join("t.txt"), "once upon a time there was a little dog who liked to run\n").unwrap();
    quantize(folder, &["in.gguf", "plain.gguf", "q3_k_s"]);
    let plain = errors(folder, "plain.gguf");
    let up = "blk.0.ffn_up.weight";
    // With samples of the inputs, something is known of ffn_gate and ffn_up, too.
    for (samples, n) in [("0", 2), ("8", 6)] {
        let args = ["-m", "in.gguf", "-f", "t.txt", "-o", "p.profile", "--samples", samples];
        Outcome::from(tool("profile").current_dir(folder).args(args).output().unwrap()).ok();
        let outcome = quantize(folder, &["--imatrix", "p.profile", "in.gguf", "out.gguf", "q3_k_s"]);
        let note = format!("note: p.profile: tells of {n} of 15 matrices how much their columns count\n");
        assert_eq!(outcome.stderr, note);
        let weighted = errors(folder, "out.gguf");
        assert!(weighted[1] < 0.98 * plain[1] && weighted[0] > 1.2 * plain[0], "{plain:?}, {weighted:?}");
        assert_eq!(weights(folder, "out.gguf", up) == weights(folder, "plain.gguf", up), samples == "0");
    }
}

#[test]
fn what_tells_nothing_of_the_model_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ModelFile::sized(256, N_FF).written(folder, "in.gguf");
    let broken = |change: &dyn Fn(&mut ModelFile)| {
        let mut file = importance(2.0);
        change(&mut file);
        file
    };
    let sums = format!("{DOWN}.in_sum2");
    for (says, file) in [
        (
            "general.type",
            broken(&|file| {
                file.set("general.type", Value::Str("model".into()));
            }),
        ),
        (
            "column 3 counts -1",
            broken(&|file| {
                file.poke(&sums, 3, -2.0);
            }),
        ),
        (
            "column 5 counts NaN",
            broken(&|file| {
                file.poke(&sums, 5, f32::NAN);
            }),
        ),
        (".counts is missing", broken(&|file| file.tensors.truncate(1))),
        (
            "knows none of the matrices",
            broken(&|file| file.tensors.iter_mut().for_each(|t| t.name = format!("x{}", t.name))),
        ),
        ("of a matrix of 256 columns", {
            let mut file = broken(&|file| file.tensors.truncate(0));
            file.push(floats(&sums, &[256, 1], &[1.0; 256]));
            file.push(floats(&format!("{DOWN}.counts"), &[1, 1], &[2.0]));
            file
        }),
    ] {
        file.written(folder, "i.gguf");
        refused(&mut command(folder, &["--imatrix", "i.gguf", "in.gguf", "out.gguf", "q4_k_s"]), &["i.gguf", says]);
    }
    std::fs::write(folder.join("i.dat"), [7; 64]).unwrap();
    refused(&mut command(folder, &["--imatrix", "i.dat", "in.gguf", "out.gguf", "q4_k_s"]), &["i.dat"]);
    refused(&mut command(folder, &["--imatrix", "none", "in.gguf", "out.gguf", "q4_k_s"]), &["none"]);
    assert!(!folder.join("out.gguf").exists());
}
