//! `powerinfer-bench` with lists, depths, several models and outputs, and with what a killed run leaves behind.

use crate::support::{ModelFile, Outcome, file, refused, tool, usage_error};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

fn bench(args: &[&str]) -> Outcome {
    let repetitions: &[&str] = if args.contains(&"-r") { &[] } else { &["-r", "1"] };
    Outcome::from(tool("bench").args(["-t", "1"]).args(repetitions).args(args).output().unwrap())
}

fn rows(lines: &str) -> Vec<Value> {
    lines.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(rows: &[Value], field: &str) -> Vec<String> {
    rows.iter().map(|row| row[field].to_string().trim_matches('"').to_owned()).collect()
}

#[test]
fn ranges_and_repeated_flags_are_lists() {
    let out = bench(&["-p", "4-8*2", "-p", "3", "-n", "1-2", "-pg", "4,2", "-pg", "2,1", "-o", "jsonl"]).ok();
    let expected = ["pp4", "pp8", "pp3", "tg1", "tg2", "pp4+tg2", "pp2+tg1"];
    assert_eq!(names(&rows(&out.stdout), "test"), expected);
    let settings =
        ["-p", "4", "-n", "0", "-ub", "2,4", "-b", "4", "-b", "8", "--cache-type", "f16,q8_0", "-o", "jsonl"];
    let rows = rows(&bench(&settings).ok().stdout);
    assert_eq!(names(&rows, "n_ubatch").join(" "), "2 2 2 2 4 4 4 4");
    assert_eq!(names(&rows, "n_batch").join(" "), "4 4 8 8 4 4 8 8");
    assert_eq!(names(&rows, "type_k").join(" "), "f16 q8_0 f16 q8_0 f16 q8_0 f16 q8_0");
    assert_eq!(names(&rows, "type_v"), names(&rows, "type_k"));
    let threads = bench(&["-p", "4", "-n", "0", "-t", "1-2", "-o", "csv"]).ok().stdout;
    assert_eq!(threads.lines().count(), 4, "one after the flag -t 1 that is there already: {threads}");
}

#[test]
fn what_is_no_list_is_a_usage_error() {
    for (flag, value) in [("-p", "8-4"), ("-n", "a"), ("-d", "1-"), ("-t", "0-4*2"), ("-ub", "1,,2"), ("-b", "4+2")] {
        usage_error("bench", &[flag, value], value.split(',').next().unwrap());
    }
    usage_error("bench", &["-pg", "512"], "512,128");
    usage_error("bench", &["-p", "1-1000000"], "more than 10000");
    usage_error("bench", &["--delay", "-1"], "-1");
    usage_error("bench", &["--delay", "nan"], "seconds");
    usage_error("bench", &["-oe", "yaml"], "yaml");
    let most = usize::MAX.to_string();
    refused(tool("bench").args(["-p", &most, "-d", "1", "-n", "0"]), &["-d 1", "more tokens"]);
}

#[test]
fn a_test_begins_behind_the_tokens_of_its_depth() {
    let out = bench(&["-p", "4", "-n", "3", "-d", "0,16", "-r", "3", "-o", "jsonl", "--progress"]).ok();
    let all = rows(&out.stdout);
    assert_eq!(names(&all, "test"), ["pp4", "tg3", "pp4 @ d16", "tg3 @ d16"]);
    assert_eq!(names(&all, "n_depth"), ["0", "0", "16", "16"]);
    assert_eq!(names(&all, "n_gen"), ["0", "3", "0", "3"], "what is in the context is not counted");
    // It is computed once, and kept from one run to the next.
    let told = |what: &str| out.stderr.lines().filter(|line| line.ends_with(what)).count();
    assert_eq!((told("context of 16 tokens"), told("run 3 of 3"), told("warm-up")), (2, 4, 4), "{}", out.stderr);
    assert!(out.stderr.contains("test 4 of 4, tg3 @ d16: begins"), "{}", out.stderr);
    let quiet = bench(&["-p", "4", "-n", "0", "--no-warmup"]).ok();
    assert!(!quiet.stderr.contains("warm-up") && !quiet.stderr.contains("begins"), "{}", quiet.stderr);
}

#[test]
fn a_depth_that_no_memory_holds_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let mut command = tool("bench");
    command.arg("-m").arg(&model).args(["-p", "0", "-n", "1", "-t", "1", "-d", "100000000000"]);
    let outcome = Outcome::from(command.output().unwrap());
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
}

#[test]
fn several_models_are_measured_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.gguf", "b.gguf", "c,d.gguf"].map(|name| ModelFile::tiny().written(folder.path(), name));
    let path = |n: usize| files[n].to_str().unwrap().to_owned();
    let both = path(0) + "," + &path(1);
    let out = bench(&["-m", &both, "-m", &path(2), "-p", "2,4", "-n", "0", "-o", "jsonl"]).ok();
    let names: Vec<_> = names(&rows(&out.stdout), "model_filename");
    let names: Vec<_> = names.iter().map(|name| Path::new(name).file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["a.gguf", "a.gguf", "b.gguf", "b.gguf", "c,d.gguf", "c,d.gguf"]);
    // One that is missing is noticed before the first is measured.
    let missing = folder.path().join("none.gguf");
    let outcome = bench(&["-m", &path(0), "-m", missing.to_str().unwrap(), "-p", "2", "-n", "0", "-o", "jsonl"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("none.gguf"), "{}", outcome.stderr);
}

#[test]
fn a_second_format_goes_to_standard_error() {
    let out = bench(&["-p", "2,4", "-n", "0", "-o", "csv", "-oe", "jsonl"]).ok();
    assert_eq!((out.stdout.lines().count(), rows(&out.stderr).len()), (3, 2), "{}", out.stderr);
    let out = bench(&["-p", "2,4", "-n", "0", "-o", "none", "-oe", "json"]).ok();
    assert_eq!(out.stdout, "");
    let list = &out.stderr[out.stderr.find("\n[\n").unwrap()..];
    assert_eq!(serde_json::from_str::<Vec<Value>>(list).unwrap().len(), 2, "{list}");
}

/// Kills a run after its second row and gives back what it had written.
fn killed(format: &str) -> String {
    let mut child = Command::new(file("bench"))
        .args(["--device", "cpu", "-t", "1", "-r", "1", "-n", "0", "-p", "2,3,4,5", "-o", format, "--delay", "0.1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    // Each row says what was fed.
    while text.matches("real").count() < 2 {
        assert_ne!(out.read_line(&mut text).unwrap(), 0, "{text}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What came until then is whole.
    while out.read_line(&mut text).unwrap() > 0 {}
    text
}

#[test]
fn a_run_that_is_killed_leaves_the_rows_so_far() {
    let jsonl = killed("jsonl");
    assert!(jsonl.ends_with('\n') && (2..4).contains(&rows(&jsonl).len()), "{jsonl}");
    let csv = killed("csv");
    let n = csv.lines().next().unwrap().split(',').count();
    assert!(csv.ends_with('\n') && csv.lines().skip(1).all(|line| line.matches("\",\"").count() + 1 == n), "{csv}");
    let sql = killed("sql");
    assert!(sql.ends_with(");\n") && sql.matches("INSERT INTO").count() >= 2, "{sql}");
    let md = killed("md");
    let n = md.lines().next().unwrap().matches('|').count();
    assert!(md.ends_with("|\n") && md.lines().all(|line| line.matches('|').count() == n), "{md}");
}

#[test]
fn perplexity_tells_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    std::fs::write(&text, powerinfer::measure::STORY).unwrap();
    let text = text.to_str().unwrap();
    let args = ["-c", "32", "--chunks", "3", "-o", "jsonl"];
    let out = bench(&[&["-f", text, "--progress", "--mode", "dense,exact"], &args[..]].concat()).ok();
    let told: Vec<_> = out.stderr.lines().filter_map(|line| line.split_once(": perplexity ")).collect();
    assert_eq!(told.len(), 6, "{}", out.stderr);
    assert!(told[1].0.ends_with("test 1 of 2, ppl: window 2 of 3"), "{}", out.stderr);
    // The last window's is that of the row.
    let row = rows(&out.stdout)[0]["perplexity"].as_f64().unwrap();
    assert_eq!(told[2].1, format!("{row:.4} so far"));
    let quiet = bench(&[&["--file", text], &args[..]].concat()).ok();
    assert!(!quiet.stderr.contains("window") && rows(&quiet.stdout)[0]["test"] == "ppl", "{}", quiet.stderr);
}
