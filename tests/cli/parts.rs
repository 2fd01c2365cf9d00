//! Models that lie in several files, as llama.cpp's gguf-split writes them.

use crate::support::{ModelFile, Outcome, Value, names_in, refused, refused_by, tool};
use std::path::{Path, PathBuf};
use std::process::Command;

const STORY: &str = "once upon a time there was a little dog who liked to run\n";

/// The parts of a model, before they are written: all keys are in the first.
fn parts(model: &ModelFile, count: usize) -> Vec<ModelFile> {
    let per_part = model.tensors.len().div_ceil(count);
    let mut tensors = model.tensors.chunks(per_part);
    let part = |no: usize| {
        let keys = if no == 0 { model.keys.clone() } else { Vec::new() };
        let mut part = ModelFile { keys, tensors: tensors.next().unwrap_or_default().to_vec() };
        part.set("split.no", Value::U16(no as u16)).set("split.count", Value::U16(count as u16));
        part.set("split.tensors.count", Value::I32(model.tensors.len() as i32));
        part
    };
    (0..count).map(part).collect()
}

fn name(no: usize, count: usize) -> String {
    format!("tiny-{:05}-of-{count:05}.gguf", no + 1)
}

fn written(parts: &[ModelFile], folder: &Path) -> Vec<PathBuf> {
    parts.iter().enumerate().map(|(no, part)| part.written(folder, &name(no, parts.len()))).collect()
}

fn command(name: &str, model: &Path, args: &[&str]) -> Command {
    let mut command = tool(name);
    command.arg("-m").arg(model).args(args).args(["-t", "1"]);
    command
}

fn stdout(command: &mut Command) -> String {
    Outcome::from(command.output().unwrap()).ok().stdout
}

fn text(model: &Path) -> String {
    stdout(&mut command("run", model, &["-p", "once", "-n", "12", "--temp", "0", "--ignore-eos", "--device", "cpu"]))
}

fn perplexity(model: &Path, story: &Path) -> String {
    let mut command = command("bench", model, &["-c", "64", "-o", "json", "--mode", "exact", "--device", "cpu"]);
    let rows: serde_json::Value = serde_json::from_str(&stdout(command.arg("--perplexity").arg(story))).unwrap();
    format!("{} of {} bytes", rows[0]["perplexity"], rows[0]["model_size"])
}

#[test]
fn a_model_in_three_parts_is_the_model_whichever_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("story.txt"), STORY.repeat(6)).unwrap();
    let model = ModelFile::tiny();
    let whole = model.written(folder.path(), "whole.gguf");
    let (story, expected) = (at("story.txt"), text(&whole));
    let parts = written(&parts(&model, 3), folder.path());
    for part in &parts {
        assert_eq!(text(part), expected);
        assert_eq!(perplexity(part, &story), perplexity(&whole, &story));
    }
    // Its profile is the whole model's, byte for byte, and either is split by it into the same variant.
    let profile = |model: &Path, out: &Path| {
        Outcome::from(command("profile", model, &[]).arg("-f").arg(&story).arg("-o").arg(out).output().unwrap()).ok();
        std::fs::read(out).unwrap()
    };
    assert_eq!(profile(&parts[1], &at("parts.profile")), profile(&whole, &at("whole.profile")));
    let split = |model: &Path, out: &Path| {
        let mut command = command("split", model, &["--no-kl"]);
        Outcome::from(command.arg("--profile").arg(at("whole.profile")).arg("-o").arg(out).output().unwrap()).ok();
        std::fs::read(out).unwrap()
    };
    assert_eq!(split(&parts[2], &at("a.gguf")), split(&whole, &at("b.gguf")));
    assert_eq!(text(&at("a.gguf")), expected);
    // So is what is only quantized: a file that is whole.
    let quantize = |model: &Path, out: &Path| {
        let mut command = command("split", model, &["--quantize-only", "--type", "q8_0"]);
        Outcome::from(command.arg("-o").arg(out).output().unwrap()).ok();
        std::fs::read(out).unwrap()
    };
    assert_eq!(quantize(&parts[0], &at("c.gguf")), quantize(&whole, &at("d.gguf")));
}

#[test]
fn a_part_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let parts = written(&parts(&ModelFile::tiny(), 2), folder.path());
    let before = std::fs::read(&parts[1]).unwrap();
    let mut command = command("split", &parts[0], &["--quantize-only", "--type", "q8_0"]);
    refused(command.arg("-o").arg(&parts[1]), &["tiny-00002-of-00002.gguf", "is an input"]);
    assert_eq!(std::fs::read(&parts[1]).unwrap(), before);
    assert_eq!(names_in(folder.path()).len(), 2);
}

#[track_caller]
fn are_refused(parts: &[ModelFile], change: impl FnOnce(&[PathBuf]), named: usize, wanted: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = written(parts, folder.path());
    change(&paths);
    refused_by("run", &[&"-m", &paths[named], &"-p", &"x", &"-n", &"1"], wanted);
}

#[test]
fn what_is_missing_or_contradicts_is_said() {
    let tiny = ModelFile::tiny();
    let remove = |no: usize| move |paths: &[PathBuf]| std::fs::remove_file(&paths[no]).unwrap();
    let two = parts(&tiny, 2);
    are_refused(&two, remove(1), 0, &["part 1 of 2; tiny-00002-of-00002.gguf is missing"]);
    are_refused(&two, remove(0), 1, &["part 2 of 2; tiny-00001-of-00002.gguf is missing"]);
    are_refused(&parts(&tiny, 3), remove(1), 2, &["part 3 of 3; tiny-00002-of-00003.gguf is missing"]);
    let swap = |paths: &[PathBuf]| {
        std::fs::rename(&paths[0], paths[0].with_extension("x")).unwrap();
        std::fs::rename(&paths[1], &paths[0]).unwrap();
        std::fs::rename(paths[0].with_extension("x"), &paths[1]).unwrap();
    };
    are_refused(&two, swap, 0, &["part 2 of 2", "-00002-of-00002.gguf"]);
    let cut = |paths: &[PathBuf]| {
        let bytes = std::fs::read(&paths[1]).unwrap();
        std::fs::write(&paths[1], &bytes[..bytes.len() - 9]).unwrap();
    };
    are_refused(&two, cut, 0, &["tiny-00002-of-00002.gguf: ", "is the file whole?"]);
    let garbage = |paths: &[PathBuf]| std::fs::write(&paths[1], "garbage").unwrap();
    are_refused(&two, garbage, 0, &["tiny-00002-of-00002.gguf: is not a GGUF file"]);
    type Change = fn(&mut [ModelFile]) -> &mut ModelFile;
    let changes: [(Change, &[&str]); 9] = [
        (|p| p[1].set("split.no", Value::U16(0)), &["tiny-00002-of-00002.gguf: split.no: 0", "not part 2 of 2"]),
        (|p| p[1].set("split.count", Value::U16(3)), &["tiny-00002-of-00002.gguf: split.count: 3"]),
        (|p| p[1].remove("split.count"), &["tiny-00002-of-00002.gguf: split.count: the key is missing"]),
        (|p| p[0].set("split.no", Value::U16(7)), &["tiny-00001-of-00002.gguf: split.no: 7"]),
        (|p| p[0].set("split.count", Value::U32(u32::MAX)), &["split.count: 4294967295 parts"]),
        (|p| p[0].set("split.count", Value::U16(u16::MAX)), &["part 1 of 65535", "-00001-of-65535.gguf"]),
        (|p| p[0].set("split.count", Value::I32(-2)), &["split.count: -2"]),
        (|p| p[0].set("split.tensors.count", Value::I32(5)), &["split.tensors.count: 5 tensors", "have 20"]),
        (
            |p| {
                let again = p[0].tensors[0].clone();
                p[1].push(again)
            },
            &["tiny-00002-of-00002.gguf: token_embd.weight", "earlier part"],
        ),
    ];
    for (change, wanted) in changes {
        let mut parts = two.clone();
        change(&mut parts);
        are_refused(&parts, |_| (), 0, wanted);
    }
}

#[test]
fn a_weight_that_is_no_number_is_named_by_the_part_that_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut tiny = ModelFile::tiny();
    tiny.poke("output_norm.weight", 3, f32::NAN);
    let paths = written(&parts(&tiny, 2), folder.path());
    let wanted = ["tiny-00002-of-00002.gguf: output_norm.weight", "column 3 is NaN"];
    refused_by("run", &[&"-m", &paths[0], &"-p", &"x", &"-n", &"1", &"--check-tensors"], &wanted);
}

#[test]
fn a_whole_file_may_say_that_it_is_the_only_part() {
    let folder = tempfile::tempdir().unwrap();
    let expected = text(&ModelFile::tiny().written(folder.path(), "whole.gguf"));
    for count in [0, 1] {
        let mut model = ModelFile::tiny();
        model.set("split.no", Value::U16(0)).set("split.count", Value::U16(count));
        assert_eq!(text(&model.written(folder.path(), "one.gguf")), expected);
    }
}
