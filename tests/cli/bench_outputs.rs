//! What scripts written for llama-bench read: its fields, its types, its table.

use crate::support::{Outcome, tool};
use serde_json::{Map, Value};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The fields of llama-bench in its order, with the SQL type of each; of its newer and its older name where it was renamed.
const FIELDS: [(&str, &str); 41] = [
    ("build_commit", "TEXT"),
    ("build_number", "INTEGER"),
    ("cpu_info", "TEXT"),
    ("gpu_info", "TEXT"),
    ("backends", "TEXT"),
    ("model_filename", "TEXT"),
    ("model_type", "TEXT"),
    ("model_size", "INTEGER"),
    ("model_n_params", "INTEGER"),
    ("n_batch", "INTEGER"),
    ("n_ubatch", "INTEGER"),
    ("n_threads", "INTEGER"),
    ("cpu_mask", "TEXT"),
    ("cpu_strict", "INTEGER"),
    ("poll", "INTEGER"),
    ("type_k", "TEXT"),
    ("type_v", "TEXT"),
    ("n_gpu_layers", "INTEGER"),
    ("n_cpu_moe", "INTEGER"),
    ("split_mode", "TEXT"),
    ("main_gpu", "INTEGER"),
    ("no_kv_offload", "INTEGER"),
    ("flash_attn", "INTEGER"),
    ("devices", "TEXT"),
    ("tensor_split", "TEXT"),
    ("tensor_buft_overrides", "TEXT"),
    ("use_mmap", "INTEGER"),
    ("load_mode", "TEXT"),
    ("embeddings", "INTEGER"),
    ("no_op_offload", "INTEGER"),
    ("no_host", "INTEGER"),
    ("fit_target", "INTEGER"),
    ("fit_min_ctx", "INTEGER"),
    ("n_prompt", "INTEGER"),
    ("n_gen", "INTEGER"),
    ("n_depth", "INTEGER"),
    ("test_time", "TEXT"),
    ("avg_ns", "INTEGER"),
    ("stddev_ns", "INTEGER"),
    ("avg_ts", "REAL"),
    ("stddev_ts", "REAL"),
];

/// Fields that are true or false in JSON, and 0 or 1 elsewhere.
const TRUTHS: [&str; 6] = ["cpu_strict", "no_kv_offload", "use_mmap", "embeddings", "no_host", "synthetic"];

/// By what rows are paired: what queries name in `tb.x = tc.x`.
const KEYS: [&str; 28] = [
    "cpu_info",
    "gpu_info",
    "backends",
    "n_gpu_layers",
    "n_cpu_moe",
    "tensor_buft_overrides",
    "model_filename",
    "model_type",
    "n_batch",
    "n_ubatch",
    "embeddings",
    "cpu_mask",
    "cpu_strict",
    "poll",
    "n_threads",
    "type_k",
    "type_v",
    "use_mmap",
    "no_kv_offload",
    "split_mode",
    "main_gpu",
    "tensor_split",
    "flash_attn",
    "n_prompt",
    "n_gen",
    "n_depth",
    "fit_target",
    "fit_min_ctx",
];

fn bench(format: &str) -> String {
    let args = ["-p", "8", "-n", "4", "-r", "3", "-t", "1", "-o", format];
    Outcome::from(tool("bench").args(args).output().unwrap()).ok().stdout
}

fn is_of(value: &Value, sql: &str, name: &str) -> bool {
    match sql {
        "INTEGER" if TRUTHS.contains(&name) => value.is_boolean(),
        "INTEGER" => value.is_i64() || value.is_u64(),
        "REAL" => value.is_number(),
        _ => value.is_string(),
    }
}

#[test]
fn json_has_the_fields_of_llama_bench_in_their_order() {
    let lines = bench("jsonl");
    let rows: Vec<Map<String, Value>> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    let places: Vec<_> = FIELDS.iter().map(|(name, _)| lines.find(&format!("\"{name}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{lines}");
    for row in &rows {
        for (name, sql) in FIELDS {
            assert!(is_of(&row[name], sql, name), "{name}: {}", row[name]);
        }
        let list = |name: &str| row[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
        let (ns, ts) = (list("samples_ns"), list("samples_ts"));
        assert_eq!((ns.len(), ts.len()), (3, 3));
        let number = |name: &str| row[name].as_f64().unwrap();
        let n_tokens = number("n_prompt") + number("n_gen");
        ns.iter().zip(&ts).for_each(|(ns, ts)| assert!((ns * ts / 1e9 / n_tokens - 1.0).abs() < 1e-9, "{row:?}"));
        assert!((number("avg_ns") - ns.iter().sum::<f64>() / 3.0).abs() < 1.0, "{row:?}");
        assert!((number("avg_ts") - ts.iter().sum::<f64>() / 3.0).abs() < 1e-6, "{row:?}");
        let time = row["test_time"].as_str().unwrap();
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00Z");
        assert!(row["model_n_params"].as_u64().unwrap() > 100_000);
    }
}

#[test]
fn csv_and_sql_have_the_same_fields() {
    let (csv, sql) = (bench("csv"), bench("sql"));
    let head = csv.lines().next().unwrap();
    assert!(head.starts_with("build_commit,build_number,cpu_info,gpu_info,backends,model_filename,"), "{head}");
    let table = sql.split_once("(\n").unwrap().1.split_once("\n);").unwrap().0;
    let columns: Vec<(&str, &str)> =
        table.lines().map(|l| l.trim().trim_end_matches(',').split_once(' ').unwrap()).collect();
    assert_eq!(columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(","), head);
    FIELDS.iter().for_each(|field| assert!(columns.contains(field), "{field:?}: {sql}"));
    for (name, kind) in &columns {
        assert!(["TEXT", "INTEGER", "REAL"].contains(kind), "{name} {kind}");
        assert!(!TRUTHS.contains(name) || *kind == "INTEGER", "{name} {kind}");
    }
}

/// Python with SQLite, as PYTHON or python3.
fn python() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("PYTHON").unwrap_or("python3".into()));
    let found = Command::new(&path).args(["-c", "import sqlite3"]).output().is_ok_and(|done| done.status.success());
    if !found {
        eprintln!("skipped: {} with sqlite3 is not there", path.display());
    }
    found.then_some(path)
}

/// Takes rows of two builds into a database, asks for the rows that both have, and prints what it finds.
const QUERY: &str = r#"
import sqlite3, sys
keys, sql = sys.argv[1].split(","), sys.stdin.read()
db = sqlite3.connect(":memory:")
db.executescript(sql)
commit = db.execute("SELECT DISTINCT build_commit FROM llama_bench").fetchall()
assert len(commit) == 1, commit
# A second build, twice as fast, and run again.
db.executescript(sql)
db.execute("UPDATE llama_bench SET build_commit = 'other', avg_ts = 2 * avg_ts WHERE rowid > 2")
for table in "llama_bench", "test", "powerinfer_bench":
    on = " AND ".join(f"tb.{key} = tc.{key}" for key in keys)
    rows = db.execute(
        f"SELECT tb.n_prompt, tb.n_gen, tb.n_depth, AVG(tb.avg_ts), AVG(tc.avg_ts) FROM {table} tb JOIN {table} tc ON {on} "
        f"AND tb.build_commit = ? AND tc.build_commit = 'other' GROUP BY {', '.join('tb.' + key for key in keys)} "
        "ORDER BY tb.n_gen, tb.n_prompt", commit[0]).fetchall()
    assert [row[:3] for row in rows] == [(8, 0, 0), (0, 4, 0)], rows
types = {row[1]: row[2] for row in db.execute("PRAGMA table_info(llama_bench)")}
for name, kind in types.items():
    found = {row[0] for row in db.execute(f"SELECT DISTINCT typeof({name}) FROM llama_bench")} - {"null"}
    assert found <= {kind.lower()}, (name, kind, found)
print(db.execute("SELECT MIN(LENGTH(build_commit)) > 4, MAX(test_time) LIKE '2%Z', SUM(n_threads) FROM llama_bench").fetchone())
"#;

#[test]
fn queries_for_llama_bench_find_rows_in_our_table() {
    let Some(python) = python() else { return };
    let mut child = Command::new(python)
        .args(["-c", QUERY, &KEYS.join(",")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bench("sql").as_bytes()).unwrap();
    let done = Outcome::from(child.wait_with_output().unwrap()).ok();
    assert_eq!(done.stdout.trim(), "(1, 1, 4)");
}
