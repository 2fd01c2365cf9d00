//! `bench --compare` and `--against`: tables of two builds, and what their exit codes say.

#[cfg(unix)]
use crate::support::file;
use crate::support::{Outcome, refused, tool, usage_error};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A row of a decode test with so many tokens per second, give or take a little.
fn row(test: &str, n_gen: usize, speed: f64) -> Value {
    let samples: Vec<f64> = [0.99, 1.0, 1.01, 1.0, 1.0].iter().map(|share| share * speed).collect();
    json!({
        "build_commit": "0123abcd", "cpu_info": "a processor", "backends": "CPU", "model_filename": "m/tiny.gguf",
        "n_threads": 2, "n_prompt": 0, "n_gen": n_gen, "n_depth": 0, "test": test, "mode": "exact", "samples_ts": samples,
    })
}

fn written(folder: &Path, name: &str, rows: &[Value]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    path
}

fn compared(old: &Path, new: &Path, args: &[&str]) -> Outcome {
    Outcome::from(tool("bench").arg("--compare").arg(old).arg(new).args(args).output().unwrap())
}

#[test]
fn a_slower_build_ends_with_3_and_names_the_test() {
    let folder = tempfile::tempdir().unwrap();
    let old =
        written(folder.path(), "old.jsonl", &[row("tg16", 16, 100.0), row("tg32", 32, 200.0), row("tg8", 8, 50.0)]);
    let new =
        written(folder.path(), "new.jsonl", &[row("tg32", 32, 180.0), row("tg16", 16, 100.5), row("tg4", 4, 9.0)]);
    let slower = compared(&old, &new, &[]);
    assert_eq!(slower.code, Some(3), "{}", slower.stderr);
    assert!(slower.stdout.contains(" tg32 ") && slower.stdout.contains(" 0.900 (0.8"), "{}", slower.stdout);
    assert!(slower.stdout.contains(" slower |") && slower.stdout.contains(" same |"), "{}", slower.stdout);
    assert!(slower.stderr.contains("slower: 1 of 2, tg32 most: 0.900"), "{}", slower.stderr);
    for line in [
        "note: tg8 of tiny.gguf, exact, -t 2: only old.jsonl has it",
        "note: tg4 of tiny.gguf, exact, -t 2: old.jsonl does",
    ] {
        assert!(slower.stderr.contains(line), "{}", slower.stderr);
    }
    // The other way round, with itself, and where so much is allowed, nothing is wrong.
    for (old, new, args) in [(&new, &old, &[][..]), (&old, &old, &[]), (&old, &new, &["--fail-below", "0.9"])] {
        let fine = compared(old, new, args);
        assert_eq!(fine.code, Some(0), "{}", fine.stderr);
        assert!(!fine.stdout.contains("slower"), "{}", fine.stdout);
    }
    assert_eq!(compared(&old, &old, &["--fail-below", "1.1"]).code, Some(3), "a speed-up was asked for");
    let json: Vec<Value> = serde_json::from_str(&compared(&old, &new, &["-o", "json"]).stdout).unwrap();
    assert_eq!((json.len(), &json[1]["verdict"], &json[1]["test"]), (2, &json!("slower"), &json!("tg32")));
    assert!(json[1]["ratio_high"].as_f64().unwrap() < 1.0);
}

#[test]
fn what_cannot_be_compared_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let old = written(folder.path(), "old.jsonl", &[row("tg16", 16, 100.0)]);
    let mut other = row("tg16", 16, 50.0);
    other["cpu_info"] = "another".into();
    let elsewhere = compared(&old, &written(folder.path(), "new.jsonl", &[other]), &[]);
    assert!(elsewhere.stderr.contains("warning: measured on a processor, and then on another"), "{}", elsewhere.stderr);
    let mut once = row("tg16", 16, 10.0);
    once["samples_ts"] = json!([10.0]);
    let once = compared(&old, &written(folder.path(), "once.jsonl", &[once]), &[]);
    assert_eq!(once.code, Some(0));
    assert!(once.stdout.contains(" unknown |") && once.stderr.contains("tg16: a single value"), "{}", once.stderr);

    let new = written(folder.path(), "none.jsonl", &[row("tg4", 4, 1.0)]);
    refused(tool("bench").arg("--compare").args([&old, &new]), &["nothing that both have measured"]);
    let mut hostile = row("tg16", 16, 100.0);
    hostile["samples_ts"] = json!([1.0, -1.0]);
    for (name, text, wanted) in [
        ("empty", String::new(), "no rows"),
        ("text", "tokens per second".to_owned(), "line 1 is no JSON"),
        ("cut", "[{\"n_gen\": 1},".to_owned(), "no list of rows"),
        ("deep", "[".repeat(100_000), "no list of rows"),
        ("hostile", hostile.to_string(), "row 1: samples_ts is no speed above 0"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        refused(tool("bench").arg("--compare").args([&path, &old]), &[name, wanted]);
        refused(tool("bench").arg("--compare").args([&old, &path]), &[name, wanted]);
    }
    refused(tool("bench").arg("--compare").arg(folder.path().join("gone")), &["gone", crate::support::NO_SUCH_FILE]);
    refused(tool("bench").args(["--fail-below", "0.9", "-p", "2", "-n", "0"]), &["--fail-below", "--compare"]);
    usage_error("bench", &["--compare"], "--compare");
    usage_error("bench", &["--compare", "a", "--fail-below", "0"], "0.95");
    usage_error("bench", &["--against", "a", "--turns", "5"], "6 to");
    usage_error("bench", &["--against", "a", "--compare", "b"], "--compare");
}

#[test]
fn an_earlier_run_is_measured_again() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["-t", "1", "-p", "4,6", "-n", "2", "-ub", "3", "-r", "3", "-o", "jsonl", "--mode", "dense"];
    let earlier = Outcome::from(tool("bench").args(args).output().unwrap()).ok().stdout;
    let mut rows: Vec<Value> = earlier.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let compare = |rows: &[Value], args: &[&str]| {
        let old = written(folder.path(), "old.jsonl", rows);
        Outcome::from(
            tool("bench").arg("--compare").arg(old).args(["-r", "3", "-o", "jsonl"]).args(args).output().unwrap(),
        )
    };
    // Whatever this machine does now, it is not a hundred times slower or faster.
    let scaled = |rows: &mut [Value], factor: f64| {
        for sample in rows.iter_mut().flat_map(|row| row["samples_ts"].as_array_mut().unwrap()) {
            *sample = (sample.as_f64().unwrap() * factor).into();
        }
    };
    scaled(&mut rows, 0.01);
    let faster = compare(&rows, &["-oe", "jsonl"]);
    assert_eq!(faster.code, Some(0), "{}", faster.stderr);
    let verdicts: Vec<Value> = faster.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tests: Vec<_> =
        verdicts.iter().map(|row| (row["test"].as_str().unwrap(), row["verdict"].as_str().unwrap())).collect();
    assert_eq!(tests, [("pp4", "faster"), ("pp6", "faster"), ("tg2", "faster")]);
    // The new rows are there for the next comparison.
    assert_eq!(faster.stderr.lines().filter(|line| line.starts_with("{\"build_commit\"")).count(), 3);
    scaled(&mut rows, 10_000.0);
    let slower = compare(&rows, &[]);
    assert_eq!((slower.code, slower.stdout.lines().count()), (Some(3), 3), "{}", slower.stderr);
    // Flags that name tests take their place.
    let few = compare(&rows, &["-t", "1", "-p", "6", "-n", "0", "-ub", "3", "--mode", "dense"]);
    assert_eq!((few.code, few.stdout.lines().count()), (Some(3), 1), "{}", few.stderr);
    assert!(few.stderr.contains("note: tg2 of"), "{}", few.stderr);
}

#[cfg(unix)]
#[test]
fn two_builds_measure_in_turns() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let args = ["-t", "1", "-p", "4", "-n", "0", "-r", "1", "--turns", "6"];
    let against = |other: &Path| {
        Outcome::from(tool("bench").arg("--against").arg(other).args(args).args(["-o", "jsonl"]).output().unwrap())
    };
    // It says that it has measured what begins with 1000 instead.
    let fast = script("fast", &format!("'{}' \"$@\" | sed 's/\"samples_ts\":\\[/&1000/'", file("bench")));
    let slower = against(&fast);
    assert_eq!(slower.code, Some(3), "{}", slower.stderr);
    let found: Value = serde_json::from_str(&slower.stdout).unwrap();
    assert_eq!((&found["verdict"], &found["old_runs"], &found["test"]), (&json!("slower"), &json!(6), &json!("pp4")));
    assert!(slower.stderr.contains("slower: 1 of 1, pp4 most: 0.0"), "{}", slower.stderr);

    let mut same = tool("bench");
    same.arg("--against").arg(file("bench")).args(args).args(["--fail-below", "0.1", "--progress"]);
    let same = Outcome::from(same.output().unwrap()).ok();
    assert!(same.stdout.contains("new / old (95 %) |"), "{}", same.stdout);
    assert!(same.stderr.contains("test 6 of 6, a turn: begins"), "{}", same.stderr);

    let refuses = script("refuses", "echo 'error: --device: no such flag' >&2; exit 2");
    let wanted = ["refuses: ended with exit status: 2", "said last: error: --device: no such flag"];
    let line = Outcome::from(tool("bench").arg("--against").arg(&refuses).args(args).output().unwrap()).stderr;
    assert!(wanted.iter().all(|text| line.contains(text)), "{line}");
    let strange = script("strange", "echo hello");
    refused(
        tool("bench").arg("--against").arg(&strange).args(args),
        &["strange: what it measured", "line 1 is no JSON"],
    );
    refused(
        tool("bench").arg("--against").arg(folder.path().join("gone")).args(args),
        &["gone", crate::support::NO_SUCH_FILE],
    );
    refused(tool("bench").arg("--against").arg(folder.path()).args(args), &["is no program"]);
}
