//! `split` on PowerInfer's own files: with a profile, without one, and by their list of neurons for a card.

use crate::support::pwri::noise;
use crate::support::{ModelFile, Outcome, Tensor, Value, names_in, refused, tool, usage_error};
use powerinfer::quant::GgmlType;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The tiny model has 2 layers of so many neurons.
const N_FF: usize = 64;

struct Place {
    folder: TempDir,
    model: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = ModelFile::tiny().by_neurons().with_scores(2, |_| noise(32, 8, N_FF));
        let model = file.written_as_pwri(folder.path(), "model.powerinfer.gguf");
        Self { folder, model }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn split(&self, flags: &[&str]) -> Command {
        let mut command = tool("split");
        command.arg("-m").arg(&self.model).arg("-o").arg(self.at("variant.gguf")).args(flags);
        command
    }

    fn list(&self, list: &ModelFile) -> PathBuf {
        list.written_as_pwri(self.folder.path(), "model.generated.gpuidx")
    }

    fn split_by(&self, list: &ModelFile) -> Command {
        let mut command = self.split(&[]);
        command.arg("--gpu-index").arg(self.list(list));
        command
    }
}

/// PowerInfer's list, in which these neurons of each layer are for a card.
fn list(neurons: &[&[u32]]) -> ModelFile {
    let mut file = ModelFile::default();
    file.set("general.architecture", Value::Str("generic.gpu_index".to_owned()));
    file.set("generic.gpu_index.block_count", Value::U32(neurons.len() as u32));
    file.set("split.vram_capacity", Value::U64(1 << 20));
    let i32s = |name: String, values: Vec<i32>| Tensor {
        name,
        dtype: GgmlType::from_name("I32").unwrap(),
        dims: vec![values.len()],
        bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    };
    for (layer, neurons) in neurons.iter().enumerate() {
        let flags = (0..N_FF as u32).map(|id| i32::from(neurons.contains(&id))).collect();
        file.push(i32s(format!("blk.{layer}.gpu_idx"), flags));
        file.push(i32s(format!("blk.{layer}.gpu_bucket"), neurons.iter().map(|id| *id as i32).collect()));
    }
    file
}

fn said(model: &Path, mode: &str) -> String {
    let mut command = tool("run");
    let args = ["-p", "once upon", "-n", "16", "--temp", "0", "--ignore-eos", "--cache-type", "f32", "--mode", mode];
    Outcome::from(command.arg("-m").arg(model).args(args).output().unwrap()).ok().stdout
}

fn i32s(file: &ModelFile, name: &str) -> Vec<i32> {
    let tensor = file.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    tensor.bytes.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn variants_with_and_without_a_profile_say_the_same() {
    let place = Place::new();
    let (text, profile) = (place.at("story.txt"), place.at("a.profile"));
    std::fs::write(&text, "once upon a time there was a dog ".repeat(8)).unwrap();
    let mut command = tool("profile");
    command.arg("-m").arg(&place.model).arg("-f").arg(&text).arg("-o").arg(&profile);
    Outcome::from(command.output().unwrap()).ok();
    let expected = ["dense", "exact", "predicted"].map(|mode| said(&place.model, mode));
    assert_eq!(expected[0], expected[1]);
    let flags: [(&[&str], &str); 2] =
        [(&["--profile", profile.to_str().unwrap()], ""), (&["--keep-order"], "no profile")];
    for (flags, note) in flags {
        let told = Outcome::from(place.split(flags).output().unwrap()).ok();
        assert!(told.stderr.contains("predictors are carried over") && told.stderr.contains(note), "{}", told.stderr);
        let variant = place.at("variant.gguf");
        for (mode, expected) in ["dense", "exact", "predicted"].iter().zip(&expected) {
            assert_eq!(said(&variant, mode), *expected, "{flags:?}, {mode}");
        }
        refused(tool("split").arg("-m").arg(&variant).arg("-o").arg(place.at("x")).args(flags), &["variant already"]);
    }
    assert!(!place.at("x").exists());
}

#[test]
fn a_plain_file_needs_no_profile_either() {
    let folder = tempfile::tempdir().unwrap();
    let (model, variant) = (ModelFile::tiny().written(folder.path(), "tiny.gguf"), folder.path().join("variant.gguf"));
    let mut split = tool("split");
    split.arg("-m").arg(&model).arg("-o").arg(&variant).arg("--keep-order");
    let told = Outcome::from(split.output().unwrap()).ok();
    assert!(told.stderr.contains("no profile") && !told.stderr.contains("predictors"), "{}", told.stderr);
    assert!(told.stdout.contains("if 10 % of neurons fire"), "{}", told.stdout);
    for mode in ["dense", "exact"] {
        assert_eq!(said(&variant, mode), said(&model, mode));
    }
    let written = ModelFile::opened(&variant).unwrap();
    assert_eq!(i32s(&written, "blk.1.ffn_neuron_id"), (0..N_FF as i32).collect::<Vec<_>>());
    assert!(!written.keys.iter().any(|(key, _)| key.starts_with("powerinfer.profile")));
}

#[test]
fn neurons_that_powerinfer_chose_for_a_card_come_first() {
    let place = Place::new();
    let chosen: [&[u32]; 2] = [&[3, 10, 63], &[0, 1]];
    let told = Outcome::from(place.split_by(&list(&chosen)).output().unwrap()).ok();
    assert!(told.stderr.contains("no profile"), "{}", told.stderr);
    let variant = ModelFile::opened(&place.at("variant.gguf")).unwrap();
    for (layer, chosen) in chosen.iter().enumerate() {
        let ids = i32s(&variant, &format!("blk.{layer}.ffn_neuron_id"));
        let others = (0..N_FF as u32).filter(|id| !chosen.contains(id));
        let expected: Vec<i32> = chosen.iter().copied().chain(others).map(|id| id as i32).collect();
        assert_eq!(ids, expected);
    }
    let n_hot = variant.keys.iter().find(|(key, _)| key == "powerinfer.n_hot");
    let Some((_, Value::Array(_, 2, bytes))) = n_hot else { panic!("no n_hot") };
    assert_eq!(bytes[..], [3u32, 2].map(u32::to_le_bytes).concat());
    for mode in ["dense", "exact", "predicted"] {
        assert_eq!(said(&place.at("variant.gguf"), mode), said(&place.model, mode), "{mode}");
    }
    // Lists without the ids, and with a layer that a card gets nothing of.
    let mut flags_only = list(&chosen);
    flags_only.tensors.retain(|tensor| tensor.name.ends_with("gpu_idx"));
    Outcome::from(place.split_by(&flags_only).output().unwrap()).ok();
    Outcome::from(place.split_by(&list(&[&[], &[5]])).output().unwrap()).ok();
    Outcome::from(place.split_by(&list(&[&[], &[]])).output().unwrap()).ok();
}

#[test]
fn lists_of_another_model_and_lists_that_make_no_sense_are_refused() {
    let place = Place::new();
    let good = || list(&[&[3, 10], &[0]]);
    let before = names_in(place.folder.path());
    let is_refused = |file: &ModelFile, wanted: &[&str]| {
        let line = refused(&mut place.split_by(file), wanted);
        assert!(line.contains("model.generated.gpuidx"), "{line}");
    };
    is_refused(&list(&[&[3]]), &["block_count: 1", "2 layers"]);
    is_refused(&list(&[&[3], &[3], &[3]]), &["block_count: 3", "2 layers"]);
    for (layers, wanted) in [(&[&[3u32][..]][..], "blk.1.gpu_idx"), (&[&[3], &[3], &[3]], "blk.2.gpu_idx")] {
        let mut file = list(layers);
        file.remove("generic.gpu_index.block_count");
        is_refused(&file, &[wanted]);
    }
    let mut narrow = good();
    *narrow.tensor("blk.1.gpu_idx") = Tensor::zeros("blk.1.gpu_idx", GgmlType::from_name("I32").unwrap(), &[63]);
    is_refused(&narrow, &["blk.1.gpu_idx", "[63]", "64 neurons"]);
    let mut floats = good();
    floats.tensor("blk.0.gpu_idx").dtype = GgmlType::F32;
    is_refused(&floats, &["blk.0.gpu_idx", "F32", "I32"]);
    let mut two = good();
    two.tensor("blk.0.gpu_idx").bytes[8] = 2;
    is_refused(&two, &["blk.0.gpu_idx", "2 is neither 0 nor 1"]);
    let mut other = good();
    other.tensor("blk.0.gpu_bucket").bytes[0] = 4;
    is_refused(&other, &["blk.0.gpu_bucket", "blk.0.gpu_idx"]);
    let mut named = good();
    named.set("general.architecture", Value::Str("moe.gpu_idx".to_owned()));
    is_refused(&named, &["moe.gpu_idx", "generic.gpu_index"]);
    let mut nameless = good();
    nameless.remove("general.architecture");
    is_refused(&nameless, &["general.architecture", "missing"]);
    is_refused(&ModelFile::tiny(), &["llama", "generic.gpu_index"]);

    let path = place.list(&good());
    let bytes = std::fs::read(&path).unwrap();
    for n in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..n]).unwrap();
        refused(place.split(&[]).arg("--gpu-index").arg(&path), &["model.generated.gpuidx"]);
    }
    // In place of a model it is told from one.
    std::fs::write(&path, &bytes).unwrap();
    refused(tool("run").arg("-m").arg(&path).args(["-p", "x"]), &["no model", "--gpu-index"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(names_in(place.folder.path()), before);
}

#[test]
fn only_one_order_can_be_asked_for() {
    usage_error("split", &["-m", "a", "-o", "b", "--keep-order", "--profile", "c"], "--keep-order");
    usage_error("split", &["-m", "a", "-o", "b", "--gpu-index", "c", "--profile", "d"], "--gpu-index");
    usage_error("split", &["-m", "a", "-o", "b", "--gpu-index", "c", "--keep-order"], "--gpu-index");
}

#[test]
fn predictors_of_our_own_take_their_place() {
    let place = Place::new();
    let (text, profile, predictor) = (place.at("story.txt"), place.at("a.profile"), place.at("a.predictor"));
    std::fs::write(&text, "once upon a time there was a dog ".repeat(8)).unwrap();
    let mut command = tool("profile");
    command.arg("-m").arg(&place.model).arg("-f").arg(&text).arg("-o").arg(&profile).args(["--samples", "512"]);
    Outcome::from(command.output().unwrap()).ok();
    let mut fit = tool("profile");
    fit.arg("-m").arg(&place.model).arg("--samples-from").arg(&profile).arg("-o").arg(&predictor);
    Outcome::from(fit.args(["--predictor", "sign"]).output().unwrap()).ok();
    let packed = |flags: &[&str]| {
        let told = Outcome::from(place.split(flags).arg("--predictor").arg(&predictor).output().unwrap()).ok();
        assert!(told.stderr.contains("predictors are left out"), "{}", told.stderr);
        let variant = ModelFile::opened(&place.at("variant.gguf")).unwrap();
        assert!(variant.tensors.iter().any(|tensor| tensor.name == "blk.1.ffn_pred_sign"));
        assert!(!variant.tensors.iter().any(|tensor| tensor.name.contains("fc") || tensor.name.contains("pred_in")));
        assert!(!variant.keys.iter().any(|(key, _)| key == "powerinfer.predictor.input"));
        said(&place.at("variant.gguf"), "predicted");
    };
    packed(&["--profile", profile.to_str().unwrap()]);
    packed(&["--keep-order"]);
    // Into the variant that has theirs.
    Outcome::from(place.split(&["--keep-order"]).output().unwrap()).ok();
    let mut pack = tool("split");
    pack.arg("-m")
        .arg(place.at("variant.gguf"))
        .arg("--predictor")
        .arg(&predictor)
        .arg("-o")
        .arg(place.at("again.gguf"));
    Outcome::from(pack.output().unwrap()).ok();
    let again = ModelFile::opened(&place.at("again.gguf")).unwrap();
    assert!(!again.keys.iter().any(|(key, _)| key == "powerinfer.predictor.input"));
    said(&place.at("again.gguf"), "predicted");
}
