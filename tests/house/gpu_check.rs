//! scripts/gpu_check.sh, with stand-ins for what it runs: no step costs another its result, whatever happens to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Seconds of the card that the first part may take.
const FIRST_PART: u64 = 240;
/// What may come back from a machine that is lent.
const MOST_FILES: usize = 8;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(repository().join("scripts/gpu_check.sh")).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Stand-ins for the programs: `bench` and `tests` are what those do, as shell.
struct Stage {
    folder: TempDir,
}

impl Stage {
    fn new(bench: &str, tests: &str) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        let answer = r#"echo '{"tokens": [1, 2, 3], "decode_ts": 12.5}'"#;
        for (name, does) in [("powerinfer-run", answer), ("powerinfer-bench", bench), ("gpu-tests", tests)] {
            let path = stage.at(name);
            fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        stage
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments that name the programs and the folder of results.
    fn arguments(&self) -> Vec<PathBuf> {
        let mut arguments = vec![PathBuf::from("--bin"), self.folder.path().into()];
        arguments.extend(["--tests".into(), self.at("gpu-tests"), "--out".into(), self.at("out")]);
        arguments
    }

    /// Results by step, of the file of rows.
    fn rows(&self) -> BTreeMap<String, (String, String)> {
        let rows = fs::read_to_string(self.at("out/results.tsv")).unwrap();
        assert!(rows.ends_with('\n'), "the last row is whole");
        let cells = |row: &str| row.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let row = |row: &str| {
            let [step, result, _, told] = cells(row).try_into().unwrap();
            (step, (result, told))
        };
        rows.lines().skip(1).map(row).collect()
    }

    #[track_caller]
    fn assert_rows(&self, wanted: &[(&str, &str, &str)]) {
        let rows = self.rows();
        let found: Vec<_> = rows.keys().map(String::as_str).collect();
        let mut names: Vec<_> = wanted.iter().map(|w| w.0).collect();
        names.sort_unstable();
        assert_eq!(found, names);
        for (step, result, told) in wanted {
            let (is, tells) = &rows[*step];
            assert!(is == result && tells.contains(told), "{step}: {is}: {tells}");
        }
        let summary = fs::read_to_string(self.at("out/summary.txt")).unwrap();
        assert!(names.iter().all(|name| summary.contains(name)), "{summary}");
        assert!(fs::read_dir(self.at("out")).unwrap().count() <= MOST_FILES);
    }
}

const TESTS: &str = r#"
case $1 in
  norm::) printf 'failures:\n    norm::a_norm\n'; exit 101 ;;
  rope::) sleep 1000 ;;
  tiles::) trap '' TERM; sleep 1000; sleep 1000 ;;
  *) echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out' ;;
esac"#;

const OK: (&str, &str) = ("ok", "3 passed; 0 failed");

#[test]
fn a_step_that_fails_or_hangs_costs_only_itself() {
    let stage = Stage::new("case $* in --help) echo --kernels ;; *) exit 3 ;; esac", TESTS);
    let only = ["--limit", "1", "--only", "test-device", "kernels", "test-norm", "test-rope", "test-tiles", "test-ffn"];
    let output = script().args(stage.arguments()).args(only).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    stage.assert_rows(&[
        ("test-device", OK.0, OK.1),
        ("kernels", "failed", "status 3"),
        ("test-norm", "failed", "norm::a_norm"),
        ("test-rope", "timed out", "after 1 s"),
        ("test-tiles", "timed out", "after 1 s"),
        ("test-ffn", OK.0, OK.1),
    ]);
    let tails = fs::read_to_string(stage.at("out/tails.txt")).unwrap();
    assert!(tails.contains("== test-norm\n") && tails.contains("    norm::a_norm"), "{tails}");
    assert!(["xz", "gz"].iter().any(|kind| stage.at(&format!("out/logs.tar.{kind}")).is_file()));
}

#[test]
fn what_was_found_before_the_script_is_ended_is_there() {
    let stage = Stage::new("", TESTS);
    let only = ["--only", "test-device", "test-norm", "test-rope", "test-token"];
    let mut child = script().args(stage.arguments()).args(only).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let written = || fs::read_to_string(stage.at("out/results.tsv")).is_ok_and(|rows| rows.contains("test-norm"));
    while !written() {
        assert!(start.elapsed() < Duration::from_secs(60), "no row is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let rows = stage.rows();
    assert_eq!((rows["test-device"].0.as_str(), rows["test-norm"].0.as_str()), ("ok", "failed"));
    assert!(!rows.contains_key("test-token"));
    if let Some((result, told)) = rows.get("test-rope") {
        assert_eq!((result.as_str(), told.as_str()), ("cut off", "by SIGTERM"));
    }
    assert!(fs::read_to_string(stage.at("out/summary.txt")).unwrap().contains("ended by SIGTERM"));
}

/// In a mount namespace of its own, so that nothing stays mounted; 77 is how the script says that it cannot.
#[test]
fn a_full_disk_costs_only_what_needs_it() {
    let bench = r#"case "$*" in *--help*) echo --kernels ;; *) cat /dev/zero > "$OUT/fills" || exit 4 ;; esac"#;
    let stage = Stage::new(bench, TESTS);
    fs::create_dir(stage.at("out")).unwrap();
    let mount = "mount -t tmpfs -o size=600k tmpfs \"$1\" || exit 77; shift; \"$@\"; code=$?; \
                 mkdir -p \"$KEPT\"; cp \"$OUT_FOLDER\"/*.t[sx][vt] \"$KEPT\"; exit $code";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", mount, "sh"]).arg(stage.at("out"));
    command.env("KEPT", stage.at("kept")).env("OUT_FOLDER", stage.at("out")).stdin(Stdio::null());
    command.arg("bash").arg(repository().join("scripts/gpu_check.sh")).args(stage.arguments());
    command.arg("--work").arg(stage.at("out/work")).args(["--only", "test-device", "kernels", "test-norm", "test-ffn"]);
    let output = match command.output() {
        Ok(output) if output.status.code() == Some(1) && stage.at("kept").is_dir() => output,
        refused => {
            let why = refused.map_or_else(|e| e.to_string(), |output| text(&output));
            eprintln!("skipped: no small disk can be mounted here ({})", why.trim());
            return;
        }
    };
    fs::remove_dir(stage.at("out")).unwrap();
    fs::rename(stage.at("kept"), stage.at("out")).unwrap();
    assert!(text(&output).contains("test-ffn"), "{}", text(&output));
    stage.assert_rows(&[
        ("test-device", OK.0, OK.1),
        ("kernels", "failed", "status 4"),
        ("test-norm", "failed", "norm::a_norm"),
        ("test-ffn", OK.0, OK.1),
    ]);
}

#[test]
fn the_first_part_is_short_and_tests_every_module() {
    let list = |args: &[&str]| String::from_utf8(script().args(args).output().unwrap().stdout).unwrap();
    let plan = list(&["--plan"]);
    let sum = plan.lines().last().unwrap().split_whitespace().rev().nth(1).unwrap().parse::<u64>().unwrap();
    assert!((1..=FIRST_PART).contains(&sum), "{plan}");
    let steps = list(&["--list"]);
    for step in ["kernels", "hardware-cold", "test-attention-prefill", "test-hybrid", "text-again", "layers-25"] {
        assert!(steps.lines().any(|line| line == step), "no step {step}: {steps}");
    }
    assert_eq!(script().args(["--only", "test-nothing"]).output().unwrap().status.code(), Some(2));
}
