//! `powerinfer-bench --kernels`: without a card, and on the emulated one.

use crate::support::{ModelFile, Outcome, emulator, file, program, refused, skipped, tool, usage_error};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// On a machine with a driver it hides the cards.
const NO_CARD: (&str, &str) = ("CUDA_VISIBLE_DEVICES", "");

#[test]
fn without_a_card_there_is_nothing_to_measure() {
    for args in [&["--kernels"][..], &["--kernels", "--device", "cuda"], &["--kernels", "--types", "q4_0,f16"]] {
        // As it is without flags.
        let mut bench = Command::new(file("bench"));
        bench.env_remove("LD_LIBRARY_PATH").env(NO_CARD.0, NO_CARD.1).args(args);
        refused(&mut bench, &["--kernels measures a graphics card: ", "NVIDIA", "leave out --kernels"]);
    }
    for args in [["--device", "cpu"], ["-ngl", "0"]] {
        refused(tool("bench").arg("--kernels").args(args), &["--kernels", "--device cuda"]);
    }
}

#[test]
fn what_kernels_do_not_go_with_is_wrong_usage() {
    for other in ["--measure-hardware", "--perplexity", "--kl", "-p"] {
        usage_error("bench", &["--kernels", other, "8"], "cannot be used with");
    }
    usage_error("bench", &["--types", "q4_0"], "--kernels");
    usage_error("bench", &["--kernels", "--types", "q4_9"], "is not known");
    usage_error("bench", &["--kernels", "--types", "q4_0,q3_k"], "has no kernels");
}

/// `--kernels` of `model` on the emulated card; nothing where it cannot be built.
fn kernels(model: &Path, args: &[&str], setting: (&str, &str)) -> Option<Outcome> {
    let mut bench = match emulator::command(program("bench")) {
        Ok(bench) => bench,
        Err(why) => {
            skipped(why);
            return None;
        }
    };
    bench.arg("-m").arg(model).args(["--kernels", "--device", "cuda"]).args(args).env(setting.0, setting.1);
    Some(Outcome::from(bench.output().unwrap()).ok())
}

const NOTHING: (&str, &str) = ("EMU_SEED", "1");

#[test]
fn every_format_has_a_row_per_kernel_and_says_that_an_emulated_card_means_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let out = |format: &str| Some(kernels(&model, &["-o", format], NOTHING)?.stdout);
    let Some(json) = out("json") else { return };
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    let names: BTreeSet<_> = rows.iter().map(|r| r["kernel"].as_str().unwrap()).collect();
    for name in [
        "matvec",
        "up",
        "down",
        "gate_up",
        "attention",
        "norm",
        "merge_norm",
        "rope_store",
        "select_act",
        "select_hot",
        "quantize",
        "begin_token",
        "post_x",
        "take_reply",
        "finish",
        "empty kernel",
        "graph",
        "rendezvous",
        "bus",
        "loading",
    ] {
        assert!(names.contains(name), "{name} is missing: {names:?}");
    }
    for row in &rows {
        assert_eq!((&row["emulated"], &row["device"]), (&true.into(), &"Emulated GPU".into()), "{row}");
        assert!(row["us"].as_f64().or(row["gb_per_s"].as_f64()).is_some_and(|v| v > 0.0), "{row}");
        // 2 x 1 GHz x 128 bits.
        assert_eq!(row["sheet_gb_per_s"].as_f64(), Some(32.0), "{row}");
    }
    let jsonl = out("jsonl").unwrap();
    assert_eq!(jsonl.lines().count(), rows.len());
    jsonl.lines().for_each(|l| assert!(serde_json::from_str::<Value>(l).unwrap().is_object()));
    let csv = out("csv").unwrap();
    assert_eq!(csv.lines().count(), rows.len() + 1);
    let columns: Vec<_> = csv.lines().next().unwrap().split(',').collect();
    assert_eq!(columns.len(), rows[0].as_object().unwrap().len());
    assert!(columns.iter().all(|name| rows[0].get(name).is_some()), "{columns:?}");
    assert!(csv.lines().skip(1).all(|l| l.split("\",\"").count() == columns.len()), "{csv}");
    let sql = out("sql").unwrap();
    assert_eq!(sql.matches("INSERT INTO powerinfer_kernels").count(), rows.len());
    assert_eq!(sql.matches("CREATE TABLE IF NOT EXISTS powerinfer_kernels").count(), 1);
    let md = out("md").unwrap();
    assert_eq!(md.lines().count(), rows.len() + 2);
    assert!(md.lines().skip(2).all(|l| l.starts_with('|') && l.ends_with("| meaningless |")), "{md}");
}

#[test]
fn a_driver_that_does_not_tell_the_clock_leaves_the_data_sheet_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let Some(outcome) = kernels(&model, &["--types", "q8_0"], ("EMU_MEMORY_CLOCK", "0")) else { return };
    assert_eq!(outcome.stderr.matches("meaningless").count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("data sheet unknown"), "{}", outcome.stderr);
    let of_weights: Vec<_> = outcome.stdout.lines().filter(|l| l.starts_with("| matvec ")).collect();
    assert!(of_weights.len() >= 4 && of_weights.iter().all(|l| l.contains(" Q8_0 |") && l.contains(" unknown |")));
}

#[test]
fn types_without_kernels_are_named_and_nothing_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    // Rows of 64 are no blocks of 256.
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let Ok(mut bench) = emulator::command(program("bench")) else { return };
    bench.arg("-m").arg(&model).args(["--kernels", "--device", "cuda", "--types", "q4_k"]);
    let line = refused(&mut bench, &["--types"]);
    assert!(line.contains("no weights"), "{line}");
}

#[test]
fn what_was_measured_before_a_kernel_failed_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    emulator::has_passed(folder.path());
    let Ok(mut bench) = emulator::command(program("bench")) else { return skipped("there is no emulator") };
    bench.env("XDG_CACHE_HOME", folder.path()).env("EMU_FAIL", "kernel:down_f32=700");
    bench.arg("-m").arg(model).args(["--kernels", "--device", "cuda", "-o", "json"]);
    let outcome = Outcome::from(bench.output().unwrap());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let rows: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap();
    let kernels: BTreeSet<_> = rows.iter().map(|r| r["kernel"].as_str().unwrap()).collect();
    assert!(kernels.contains("matvec") && kernels.contains("loading") && !kernels.contains("down"), "{kernels:?}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains("down, 10 %, F32"), "{last}");
}
