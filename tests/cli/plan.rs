//! Plans on the command line: dry runs, hardware files, budgets.

use crate::support::{Outcome, tool, usage_error};
use serde_json::Value;

const CARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware/rtx-4090-ddr5.toml");

fn dry_run(name: &str, args: &[&str]) -> Outcome {
    Outcome::from(tool(name).arg("--dry-run").args(args).output().unwrap())
}

#[test]
fn a_shape_is_planned_without_a_model_and_without_a_card() {
    let args = ["--shape", "llama-70b:q4_0", "--hardware", CARD, "--vram-budget", "20GB", "--json"];
    let plan: Value = serde_json::from_str(&dry_run("split", &args).ok().stdout).unwrap();
    assert_eq!(plan["budget_bytes"], 20_000_000_000u64);
    assert!(plan["accounted_bytes"].as_u64() <= plan["budget_bytes"].as_u64());
    assert_eq!((&plan["optimal"], &plan["objective_ps"]), (&Value::Bool(true), &plan["bound_ps"]));
    assert_eq!(plan["layers"].as_array().unwrap().len(), 80);
    assert!(plan["tokens_per_second"].as_f64() > plan["offload_tokens_per_second"].as_f64());
    let table = dry_run("split", &["--shape", "mistral-7b", "--hardware", CARD, "--explain"]).ok().stdout;
    assert!(table.contains("gap 0.0000 % (optimal)") && table.contains("tokens/s predicted"), "{table}");
}

#[test]
fn a_run_is_planned_for_as_many_texts_as_are_asked_for() {
    for (n, args) in [(1, &[][..]), (8, &["-np", "8"])] {
        let out = dry_run("run", &[&["-p", "x", "--hardware", CARD, "--json"][..], args].concat()).ok();
        let plan: Value = serde_json::from_str(&out.stdout).unwrap();
        assert_eq!((&plan["n_parallel"], plan["at_once"].is_null()), (&Value::from(n), n == 1), "{}", out.stdout);
    }
}

#[test]
fn several_sequences_are_planned_by_what_any_of_them_fires() {
    let plan = |more: &[&str]| {
        let args =
            ["--shape", "llama-2-7b-2:q4_0:0.1", "--hardware", CARD, "--vram-budget", "260MiB", "-c", "64", "--json"];
        let out = dry_run("split", &[&args[..], more].concat()).ok();
        serde_json::from_str::<Value>(&out.stdout).unwrap()
    };
    let (plain, one, eight) = (plan(&[]), plan(&["-np", "1"]), plan(&["-np", "8"]));
    assert_eq!(plain, one);
    let of = |plan: &Value, key: &str| plan[key].as_f64().unwrap();
    assert!((of(&eight["at_once"], "density") - 0.1).abs() < 1e-3, "{eight}");
    assert!((0.3..0.6).contains(&of(&eight["at_once"], "union")) && one["at_once"].is_null(), "{eight}");
    let speed = "tokens_per_second";
    assert!(of(&one, speed) < of(&eight, speed) && of(&eight, speed) < 8.0 * of(&one, speed), "{eight}");
    assert_ne!(one["hot_share"], eight["hot_share"]);
    usage_error("split", &["--shape", "llama-2-7b", "--dry-run", "--parallel", "0"], "1..=1024");
}

#[test]
fn the_embedded_model_is_planned_by_its_stored_rates() {
    let args = ["--hardware", CARD, "--vram-budget", "64MiB", "-c", "256", "-ub", "16", "--json"];
    let plan: Value = serde_json::from_str(&dry_run("run", &args).ok().stdout).unwrap();
    assert_eq!((&plan["mode"], &plan["n_ctx"]), (&Value::from("exact"), &Value::from(256)));
    assert!(plan["accounted_bytes"].as_u64() <= Some(64 << 20));
}

#[test]
fn budgets_that_are_no_sizes_are_wrong_usage() {
    for (size, says) in [
        ("0", "no unit"),
        ("-1GB", "negative"),
        ("8", "no unit"),
        ("8G", "8GiB"),
        ("8 gigs", "gigs"),
        ("", "missing"),
        ("0GiB", "zero"),
    ] {
        usage_error("split", &["--dry-run", "--shape", "mistral-7b", "--vram-budget", size], says);
        usage_error("run", &["--dry-run", "--vram-budget", size], says);
    }
    usage_error("split", &["--dry-run", "--shape", "gpt-5"], "llama-2-7b");
    usage_error("split", &["--dry-run", "--shape", "opt-30b:q4_0:7"], "density 7");
    usage_error("split", &["--dry-run", "--shape", "opt-30b", "--mode", "fast"], "predicted");
}

#[test]
fn what_cannot_be_planned_is_refused_with_the_reason() {
    let refused = |args: &[&str], says: &str| {
        let outcome = dry_run("split", args);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{}", outcome.stderr);
    };
    refused(&["--shape", "mistral-7b", "--hardware", CARD, "--vram-budget", "1MiB"], "more");
    refused(&["--shape", "mistral-7b", "--hardware", CARD, "--vram-budget", "1TB"], "of RTX 4090");
    refused(&["--shape", "mistral-7b", "--hardware", CARD, "-c", "0"], "-c 0");
    refused(&["--shape", "mistral-7b", "--hardware", "/no/such.toml"], "/no/such.toml");
}
