//! `powerinfer-bench -np`: several sequences at once.

use crate::support::{Outcome, refused, tool};
use serde_json::Value;

fn bench(args: &[&str]) -> String {
    let mut command = tool("bench");
    Outcome::from(command.args(["-t", "1", "-r", "1"]).args(args).output().unwrap()).ok().stdout
}

#[test]
fn tokens_are_those_of_all_sequences_and_what_they_share_is_read_once() {
    let tests = ["-p", "0", "-n", "3", "-pg", "4,2", "-np", "1,2,4", "--mode", "dense,exact"];
    let rows: Vec<Value> = serde_json::from_str(&bench(&[&tests[..], &["-o", "json"]].concat())).unwrap();
    let named = |test: &str, mode: &str| {
        rows.iter().find(|row| row["test"] == test && row["mode"] == mode).unwrap_or_else(|| panic!("{test} {mode}"))
    };
    assert_eq!(rows.len(), 12);
    for mode in ["dense", "exact"] {
        let (one, two, four) = (named("tg3", mode), named("tg3 x2", mode), named("tg3 x4", mode));
        assert_eq!([&one["n_parallel"], &two["n_parallel"], &four["n_parallel"]], [1, 2, 4]);
        let bytes = |row: &Value| row["bytes_per_token"].as_f64().unwrap();
        assert!(bytes(four) < bytes(two) && bytes(two) < bytes(one), "{mode}: {one} {two} {four}");
        // Tokens of all of them in the time of one pass each.
        let (speed, seconds) = (four["avg_ts"].as_f64().unwrap(), four["avg_ns"].as_f64().unwrap() / 1e9);
        assert!((speed * seconds - 12.0).abs() < 1e-3, "{four}");
    }
    assert!(["union_density", "union_predicted"].iter().all(|of| named("tg3 x4", "dense")[of].is_null()));
    // The embedded variant knows how often its neurons fire.
    let predicted = ["tg3", "tg3 x4"].map(|test| named(test, "exact")["union_predicted"].as_f64().unwrap());
    assert!((0.08..0.1).contains(&predicted[0]) && (0.25..0.35).contains(&predicted[1]), "{predicted:?}");
    let [one, four] = ["tg3", "tg3 x4"].map(|test| named(test, "exact")["union_density"].as_f64().unwrap());
    let density = named("tg3 x4", "exact")["ffn_density"].as_f64().unwrap();
    assert!(density < four && four < 4.0 * density && one < four, "{density} {one} {four}");
    assert!(named("pp4+tg2 x4", "exact")["bytes_per_token"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_format_has_the_columns_and_an_earlier_run_is_measured_again() {
    let folder = tempfile::tempdir().unwrap();
    let tests = ["-p", "0", "-n", "2", "-np", "1,3"];
    let out = |format: &str| bench(&[&tests[..], &["-o", format]].concat());
    let csv = out("csv");
    let cells: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(
        csv.lines().next().unwrap().ends_with(",n_parallel,union_density,union_predicted") && cells.len() == 3,
        "{csv}"
    );
    let md = out("md");
    assert!(md.contains(" tg2 x3 |") && md.contains("density of union") && md.contains("predicted (off)"), "{md}");
    let columns = |line: &str| line.matches('|').count();
    assert!(md.lines().all(|line| columns(line) == columns(md.lines().next().unwrap())), "{md}");
    assert!(out("sql").contains("n_parallel INTEGER"));
    let old = folder.path().join("old.json");
    std::fs::write(&old, out("json")).unwrap();
    let mut command = tool("bench");
    command.arg("--compare").arg(&old).args(["-r", "1", "--fail-below", "0.0001", "-o", "jsonl"]);
    let again = Outcome::from(command.output().unwrap()).ok().stdout;
    let tests: Vec<Value> =
        again.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["test"].clone()).collect();
    assert_eq!(tests, ["tg2", "tg2 x3"]);
    // Without it nothing is shown of it.
    assert!(!bench(&["-p", "0", "-n", "2", "-o", "md"]).contains("sequences"));
    refused(tool("bench").args(["-np", "0", "-p", "0", "-n", "1"]), &["-np 0", "1 to 1024"]);
    refused(tool("bench").args(["-np", "5000", "-p", "0", "-n", "1"]), &["-np 5000"]);
}
