//! `--progress-json` of `run` and `bench`: lines that a program can follow.

use crate::support::{ModelFile, Outcome, tool};
use serde_json::Value;
use std::process::Command;

fn lines(command: &mut Command) -> Vec<Value> {
    let told = Outcome::from(command.output().unwrap()).ok().stderr;
    told.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The stages in the order of their first lines, each with its last line.
fn stages(lines: &[Value]) -> Vec<(&str, &Value)> {
    let mut stages: Vec<(&str, &Value)> = Vec::new();
    for line in lines {
        let name = line["progress"].as_str().unwrap();
        match stages.iter_mut().find(|(of, _)| *of == name) {
            Some(stage) => stage.1 = line,
            None => stages.push((name, line)),
        }
    }
    stages
}

#[test]
fn a_run_tells_of_its_loading_and_of_its_prompt() {
    let mut command = tool("run");
    command.args(["-p", "Once upon a time", "-n", "2", "-t", "1", "--no-mmap", "--progress-json", "-q"]);
    let told = lines(&mut command);
    let stages = stages(&told);
    let names: Vec<_> = stages.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["loading", "prompt"]);
    assert!(stages.iter().all(|(_, last)| last["done"] == last["total"]), "{told:?}");
    assert!(stages[1].1["total"].as_u64().unwrap() > 3);

    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let mut command = tool("run");
    command.arg("-m").arg(&model).args([
        "-p",
        "once upon",
        "-n",
        "2",
        "-t",
        "1",
        "-ub",
        "1",
        "--no-mmap",
        "--progress-json",
    ]);
    let told = lines(command.arg("--check-tensors"));
    let of = |name: &str| told.iter().filter(|line| line["progress"] == name).collect::<Vec<_>>();
    assert_eq!(of("reading the model").last().unwrap()["done"], std::fs::metadata(&model).unwrap().len());
    assert!(!of("checking tensors").is_empty() && of("loading").len() == 2, "{told:?}");
}

#[test]
fn a_run_that_is_not_asked_tells_nothing() {
    let mut command = tool("run");
    assert!(lines(command.args(["-p", "Once upon a time", "-n", "2", "-t", "1", "--no-mmap"])).is_empty());
}

#[test]
fn measurements_say_which_test_they_are_at() {
    let mut command = tool("bench");
    command.args(["-p", "8,16", "-n", "4", "-r", "2", "-t", "1", "-o", "none", "--progress-json"]);
    let told = lines(&mut command);
    let stages = stages(&told);
    let tests: Vec<_> =
        stages.iter().map(|(name, last)| (*name, last["test"].as_u64(), last["tests"].as_u64())).collect();
    let wanted = |name, n| (name, Some(n), Some(3));
    assert_eq!(tests[..], [("loading", None, None), wanted("pp8", 1), wanted("pp16", 2), wanted("tg4", 3)]);
    // With a warm-up.
    assert_eq!(stages[1].1["total"], 24);
    assert!(stages.iter().all(|(_, last)| last["done"] == last["total"]), "{told:?}");
}
