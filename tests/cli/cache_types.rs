//! `-ctk` and `-ctv`: keys and values of types of their own.

use crate::support::real::repository;
use crate::support::{Outcome, refused, tool, usage_error};
use serde_json::Value as Json;
use std::process::Command;

fn run(args: &[&str]) -> Command {
    let mut command = tool("run");
    command.args(["-p", "Once upon a time", "-n", "6", "--temp", "0", "-t", "1"]).args(args);
    command
}

fn text(args: &[&str]) -> String {
    Outcome::from(run(args).output().unwrap()).ok().stdout
}

#[test]
fn either_spelling_means_the_same_and_the_last_counts() {
    let mixed = text(&["-ctk", "q8_0", "-ctv", "f16"]);
    assert_eq!(text(&["--cache-type", "q8_0/f16"]), mixed);
    assert_eq!(text(&["-ctk", "f32", "--cache-type", "q8_0", "-ctv", "F16", "-ctk", "q8_0"]), mixed);
    let plan = |args: &[&str]| {
        // Nothing is measured where the machine is described.
        let mut command = run(&["--dry-run", "--json", "--device", "cpu", "--hardware"]);
        command.arg(repository("hardware/rtx-4090-ddr5.toml")).args(args);
        let outcome = Outcome::from(command.output().unwrap()).ok();
        serde_json::from_str::<Json>(&outcome.stdout).unwrap()["kv_type"].clone()
    };
    assert_eq!(plan(&[]), "F16");
    assert_eq!(plan(&["-ctv", "q8_0"]), "F16/Q8_0");
    usage_error("run", &["--cache-type", "q8_0/q4_0", "-p", "x"], "f16, q8_0 and f32");
}

#[test]
fn rows_say_both_types() {
    let rows = |args: &[&str]| -> Vec<[String; 2]> {
        let mut command = tool("bench");
        command.args(["-p", "0", "-n", "1", "-r", "1", "-t", "1", "-o", "jsonl"]).args(args);
        let out = Outcome::from(command.output().unwrap()).ok().stdout;
        let row = |line: &str| {
            let row: Json = serde_json::from_str(line).unwrap();
            ["type_k", "type_v"].map(|name| row[name].as_str().unwrap().to_owned())
        };
        out.lines().map(row).collect()
    };
    let all = rows(&["-ctk", "f16,q8_0", "-ctv", "f16,f32"]);
    assert_eq!(all, [["f16", "f16"], ["f16", "f32"], ["q8_0", "f16"], ["q8_0", "f32"]]);
    assert_eq!(rows(&["--cache-type", "q8_0/f16,f32"]), [["q8_0", "f16"], ["f32", "f32"]]);
}

#[test]
fn a_prompt_cache_of_other_types_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let cache = path.to_str().unwrap();
    let mixed = ["-ctk", "q8_0", "-ctv", "f16", "--prompt-cache", cache];
    let first = text(&mixed);
    assert_eq!(text(&mixed), first);
    refused(
        &mut run(&["-ctk", "q8_0", "--prompt-cache", cache, "-ctv", "f32"]),
        &["--cache-type q8_0/f16, not q8_0/f32"],
    );
}
