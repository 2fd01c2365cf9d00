//! `powerinfer-bench --batched`: several sequences at once, as llama-batched-bench measures them.

use crate::support::real::repository;
use crate::support::{Outcome, refused, tool, usage_error};
use serde_json::Value;

fn bench(args: &[&str]) -> Outcome {
    let model = repository("models/tiny-stories-relu2-f16.gguf");
    Outcome::from(tool("bench").args(["-t", "1", "-m"]).arg(model).args(args).output().unwrap()).ok()
}

fn rows(args: &[&str]) -> Vec<Value> {
    let stdout = bench(&[args, &["-o", "jsonl"]].concat()).stdout;
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lists_are_taken_with_each_other_and_times_give_the_speeds() {
    let rows = rows(&["--batched", "-npp", "8,12", "-ntg", "3", "-npl", "1,3", "--mode", "dense,exact"]);
    let of = |row: &Value, key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
    let named: Vec<_> =
        rows.iter().map(|row| (of(row, "pp") as u32, of(row, "pl") as u32, row["mode"].clone())).collect();
    let of_mode = |mode: &str| [(8, 1), (8, 3), (12, 1), (12, 3)].map(|(pp, pl)| (pp, pl, Value::from(mode)));
    assert_eq!(named, [of_mode("dense"), of_mode("exact")].concat());
    for row in &rows {
        let [pp, tg, pl] = ["pp", "tg", "pl"].map(|key| of(row, key));
        assert_eq!(of(row, "n_kv"), pl * (pp + tg));
        let near = |speed: &str, n: f64, t: f64| assert!((of(row, speed) * t / n - 1.0).abs() < 1e-9, "{speed}: {row}");
        near("speed_pp", pl * pp, of(row, "t_pp"));
        near("speed_tg", pl * tg, of(row, "t_tg"));
        near("speed", of(row, "n_kv"), of(row, "t"));
        assert!((of(row, "t_pp") + of(row, "t_tg") - of(row, "t")).abs() < 1e-9 && of(row, "t_pp") > 0.0);
        assert_eq!((&row["is_pp_shared"], &row["kv_shared_bytes"]), (&0.into(), &0.into()));
        let union = row["union_density"].as_f64();
        assert_eq!(union.is_some(), row["mode"] == "exact", "{row}");
        if let Some(union) = union {
            assert!(if pl == 1.0 { union == of(row, "ffn_density") } else { union > of(row, "ffn_density") }, "{row}");
        }
    }
    // What a pass reads is that of all of its tokens.
    assert!(of(&rows[1], "bytes_per_token") < 0.5 * of(&rows[0], "bytes_per_token"));
}

#[test]
fn a_shared_prompt_is_computed_once_and_takes_memory_once() {
    let shared = rows(&["-npp", "140", "-ntg", "2", "-npl", "1,3", "-pps"]);
    let of = |i: usize, key: &str| shared[i][key].as_u64().unwrap();
    assert_eq!([of(0, "is_pp_shared"), of(0, "n_kv"), of(1, "n_kv")], [1, 142, 146]);
    // All hold the first 128 positions together, and each the others of its own.
    let [one, three] = [of(0, "kv_bytes"), of(1, "kv_bytes")];
    let whole = of(1, "kv_shared_bytes");
    assert!(of(0, "kv_shared_bytes") == 0 && whole > 0 && three == 3 * one - 2 * whole, "{shared:?}");
    let speed = shared[1]["speed_pp"].as_f64().unwrap() * shared[1]["t_pp"].as_f64().unwrap();
    assert!((speed - 140.0).abs() < 1e-6, "{speed}");
}

#[test]
fn tables_have_the_columns_and_what_cannot_be_measured_is_named() {
    let md = bench(&["-npp", "4", "-ntg", "2", "-npl", "2"]).stdout;
    let head: Vec<&str> = md.lines().next().unwrap().split('|').map(str::trim).collect();
    let wanted = ["PP", "TG", "B", "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s"];
    assert_eq!(head[2..12], wanted);
    assert_eq!(head[12..16], ["density", "density of union", "MiB/token", "KV MiB"]);
    let columns = |line: &str| line.matches('|').count();
    assert!(md.lines().count() == 3 && md.lines().all(|line| columns(line) == head.len() - 1), "{md}");
    let csv = bench(&["--batched", "-npp", "0", "-ntg", "2", "-npl", "1", "-o", "csv"]).stdout;
    assert!(csv.starts_with("n_kv_max,n_batch,n_ubatch,flash_attn,is_pp_shared,") && csv.lines().count() == 2, "{csv}");

    refused(tool("bench").args(["-npl", "0"]), &["-npl 0", "1 to 1024"]);
    refused(tool("bench").args(["-npp", "0", "-ntg", "0"]), &["nothing to measure"]);
    refused(tool("bench").args(["-npl", "1000", "-npp", "100000000", "-ntg", "1"]), &["100000001"]);
    usage_error("bench", &["--batched", "-p", "4"], "cannot be used with");
    usage_error("bench", &["-npl", "2", "--perplexity", "x"], "cannot be used with");
}
