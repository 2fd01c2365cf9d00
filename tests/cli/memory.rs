//! Where weights are while a model runs: `--no-mmap` and `--mlock`.
#![cfg(unix)]

use crate::support::{ModelFile, Outcome, Value, file, refused, tool};
use serde_json::Value as Json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

const GREEDY: [&str; 8] = ["-p", "once", "-n", "8", "--temp", "0", "-t", "1"];

fn command(model: &Path, args: &[&str]) -> Command {
    let mut command = tool("run");
    command.arg("-m").arg(model).args(GREEDY).args(args);
    command
}

fn text(model: &Path, args: &[&str]) -> String {
    Outcome::from(command(model, args).output().unwrap()).ok().stdout
}

/// A model in two files, whose second part is returned.
fn in_parts(folder: &Path) -> PathBuf {
    let model = ModelFile::tiny();
    let half = model.tensors.len() / 2;
    let part = |no: usize| {
        let (keys, tensors) =
            if no == 0 { (model.keys.clone(), &model.tensors[..half]) } else { (Vec::new(), &model.tensors[half..]) };
        let mut part = ModelFile { keys, tensors: tensors.to_vec() };
        part.set("split.no", Value::U16(no as u16)).set("split.count", Value::U16(2));
        part.written(folder, &format!("tiny-{:05}-of-00002.gguf", no + 1))
    };
    part(0);
    part(1)
}

#[test]
fn a_model_that_is_read_into_memory_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let whole = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let expected = text(&whole, &[]);
    for model in [whole, in_parts(folder.path())] {
        assert_eq!(text(&model, &["--no-mmap"]), expected, "{}", model.display());
        assert_eq!(text(&model, &["-lm", "none"]), expected);
        assert_eq!(text(&model, &["--no-mmap", "--mlock"]), expected);
    }
    let embedded = |args: &[&str]| Outcome::from(tool("run").args(GREEDY).args(args).output().unwrap()).ok().stdout;
    assert_eq!(embedded(&["--no-mmap"]), embedded(&[]));
}

#[test]
fn rows_say_how_the_file_was_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let row = |args: &[&str]| {
        let mut command = tool("bench");
        command.arg("-m").arg(&model).args(["-p", "0", "-n", "2", "-r", "1", "-t", "1", "-o", "jsonl"]).args(args);
        let row: Json = serde_json::from_str(&Outcome::from(command.output().unwrap()).ok().stdout).unwrap();
        (row["use_mmap"].clone(), row["load_mode"].clone())
    };
    assert_eq!(row(&[]), (true.into(), "mmap".into()));
    assert_eq!(row(&["-mmp", "1"]), (true.into(), "mmap".into()));
    assert_eq!(row(&["-mmp", "0"]), (false.into(), "none".into()));
}

/// A file with as much behind its tensors as makes it `len` bytes long, none of them on the disk; `None` where the file
/// system does not have such.
fn stretched(folder: &Path, len: u64) -> Option<PathBuf> {
    let path = ModelFile::tiny().written(folder, &format!("{len}.gguf"));
    File::options().write(true).open(&path).unwrap().set_len(len).ok().map(|()| path)
}

#[test]
fn a_file_for_which_there_is_no_memory_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    if let Some(model) = stretched(folder.path(), 8 << 40) {
        refused(&mut command(&model, &["--no-mmap"]), &[".gguf: ", "8.00 TiB", "--no-mmap"]);
    }
    // More than the tests let a command have.
    if let Some(model) = stretched(folder.path(), 500 << 20) {
        refused(&mut command(&model, &["--no-mmap", "--device", "cpu"]), &[".gguf: ", "500.00 MiB", "memory"]);
        text(&model, &["--device", "cpu"]);
    }
}

#[test]
fn what_may_not_be_kept_in_memory_is_told_and_the_text_comes_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let script = "ulimit -l 0; exec \"$0\" --no-mmap --mlock -p x -n 1 -t 1 --device cpu -m \"$1\"";
    let outcome = Command::new("sh").args(["-c", script, file("run")]).arg(&model).output().unwrap();
    let outcome = Outcome::from(outcome).ok();
    // Who may do all is not limited.
    let lines: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("mlock")).collect();
    let told =
        |line: &str| line.starts_with("warning: --mlock: ") && line.contains("tiny.gguf") && line.contains("ulimit -l");
    assert!(lines.is_empty() || lines.len() == 1 && told(lines[0]), "{}", outcome.stderr);
}
