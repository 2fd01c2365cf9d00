//! Plans of models with experts on the command line, and the table of them in docs/plans.md.

use crate::support::{Outcome, tool, usage_error};
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware");

fn dry_run(args: &[&str], machine: &str) -> Outcome {
    let hardware = format!("{FOLDER}/{machine}.toml");
    Outcome::from(tool("split").args(["--dry-run", "--hardware", &hardware]).args(args).output().unwrap())
}

fn plan(shape: &str, machine: &str, budget: &str) -> Value {
    let args = ["--json", "-c", "2048", "--shape", shape, "--vram-budget", budget];
    serde_json::from_str(&dry_run(&args, machine).ok().stdout).unwrap()
}

#[test]
fn experts_are_planned_without_a_model_and_the_bound_is_printed() {
    let args = ["--shape", "smallthinker-4b:q4_0:0.3:1.0", "-c", "512", "--vram-budget", "1GiB"];
    let table = dry_run(&args, "rtx-3060-ddr4").ok().stdout;
    for words in [
        "smallthinker-4b-a0.6b Q4_0 d=0.3 p=1",
        "experts   1024 in 32 layers, 4 of 32 chosen",
        "no plan is below",
        "(proved by a relaxation)",
        "with all but the experts of",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let more: Value = plan("smallthinker-4b:q4_0:0.3:1.0", "rtx-3060-ddr4", "1200MiB");
    assert!(more["accounted_bytes"].as_u64() <= more["budget_bytes"].as_u64());
    assert!(more["bound_ps"].as_u64() <= more["objective_ps"].as_u64());
    assert!(more["tokens_per_second"].as_f64() > more["expert_offload_tokens_per_second"].as_f64());
    assert_eq!(more["layers"][0]["experts"]["n"], 32);
}

/// A row of the table, as scripts/plans_table.py writes it.
fn row(model: &str, machine: &str, dtype: &str, gib: u32, ends: [&str; 2]) -> String {
    let plans = ends.map(|end| plan(&format!("{model}:{dtype}:{end}"), machine, &format!("{gib}GiB")));
    let number = |plan: &Value, key: &str| plan[key].as_f64().unwrap();
    let first = &plans[0];
    let routed = |plan: &Value| -> Vec<f64> {
        let layers = plan["layers"].as_array().unwrap().iter();
        layers.filter_map(|layer| layer["experts"]["choices_on_cold"].as_f64()).collect()
    };
    let n_routed = routed(first).len();
    let (layers, experts) =
        (number(first, "offload_tokens_per_second"), number(first, "expert_offload_tokens_per_second"));
    let span = |of: &dyn Fn(&Value) -> String| {
        let [low, high] = [of(&plans[0]), of(&plans[1])];
        if low == high { low } else { format!("{low} to {high}") }
    };
    let speed = |plan: &Value| number(plan, "tokens_per_second");
    let cold = |plan: &Value| 100.0 * routed(plan).iter().sum::<f64>() / n_routed as f64;
    format!(
        "| {model} | {gib} | {layers:.1} ({}/{}) | {experts:.1} ({}/{n_routed}) | {} | {} | {} | {:.1} % |",
        first["offload_layers"],
        first["layers"].as_array().unwrap().len(),
        first["expert_offload_layers"],
        span(&|plan| format!("{:.1}", speed(plan))),
        span(&|plan| format!("{:.1}x", speed(plan) / layers.max(experts))),
        span(&|plan| format!("{:.0} %, {:.0} %", 100.0 * number(plan, "hot_share"), cold(plan))),
        100.0 * plans.iter().map(|plan| number(plan, "gap")).fold(0.0, f64::max)
    )
}

#[test]
fn the_table_of_plans_says_what_is_planned() {
    let table = include_str!("../../docs/plans.md");
    for (heading, machine, dtype, gib) in
        [("### rtx-3060-ddr4, Q4_0", "rtx-3060-ddr4", "q4_0", 8), ("### h200, Q8_0", "h200", "q8_0", 24)]
    {
        let section = table.split(heading).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
        let row = row("smallthinker-21b", machine, dtype, gib, ["0.4:0.0", "0.2:1.0"]);
        let section = section.split("###").next().unwrap();
        assert!(section.contains(&row), "scripts/plans.sh writes docs/plans.md again: {heading}\n{row}\n{section}");
    }
}

#[test]
fn what_cannot_be_planned_of_experts_is_one_line() {
    let refused = |args: &[&str], says: &str| {
        let outcome = dry_run(args, "rtx-3060-ddr4");
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(says) && outcome.stderr.lines().count() == 1, "{}", outcome.stderr);
    };
    refused(&["--shape", "smallthinker-4b", "--vram-budget", "20MiB"], "more");
    refused(&["--shape", "smallthinker-4b", "--vram-budget", "13GiB"], "of RTX 3060");
    usage_error("split", &["--dry-run", "--shape", "mistral-7b:q4_0:0.1:1"], "no experts");
    usage_error("split", &["--dry-run", "--shape", "mixtral:q4_0:0.1:9"], "popularity 9");
    usage_error("split", &["--dry-run", "--shape", "nemotron-3-nano:q3_k"], "2688");
}
