//! `--device` on machines without a card, and what stands in its way.

use crate::support::{ModelFile, Outcome, file, refused, skipped, tool, usage_error, with_cache};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const NO_DRIVER: &str = match () {
    () if cfg!(windows) => "no NVIDIA driver (nvcuda.dll not found)",
    () if cfg!(target_os = "macos") => "no NVIDIA driver (there is none for macOS)",
    () => "no NVIDIA driver (libcuda.so.1 not found)",
};

/// `run` on a small model, and the folder that holds it.
struct Run {
    command: Command,
    _folder: TempDir,
}

impl Run {
    fn ok(mut self) -> Outcome {
        Outcome::from(self.command.output().unwrap()).ok()
    }
}

/// `run` with these flags. None where this machine has a driver: then these are not its errors.
fn run(args: &[&str]) -> Option<Run> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib", "/usr/lib", "/usr/local/cuda/compat"];
    let libraries = folders.iter().map(|folder| Path::new(folder).join("libcuda.so.1"));
    if libraries.chain([PathBuf::from(r"C:\Windows\System32\nvcuda.dll")]).any(|library| library.exists()) {
        skipped("this machine has an NVIDIA driver");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    // As it is without flags.
    let mut command = Command::new(file("run"));
    // Elsewhere a stand-in may be found.
    with_cache(&mut command, folder.path())
        .env_remove("LD_LIBRARY_PATH")
        .arg("-m")
        .arg(model)
        .args(["-p", "x", "-n", "2", "--temp", "0"])
        .args(args);
    Some(Run { command, _folder: folder })
}

fn notes(outcome: &Outcome) -> Vec<&str> {
    outcome.stderr.lines().filter_map(|l| l.strip_prefix("note: ")).filter(|l| !l.contains("plain file")).collect()
}

#[test]
fn without_a_driver_auto_computes_on_the_cpu_and_says_why_in_one_line() {
    let Some(auto) = run(&[]).map(Run::ok) else { return };
    assert_eq!(notes(&auto), [format!("computing on the CPU: {NO_DRIVER}")]);
    let cpu = run(&["--device", "cpu"]).unwrap().ok();
    assert!(notes(&cpu).is_empty(), "{}", cpu.stderr);
    assert_eq!(auto.stdout, cpu.stdout);
}

#[test]
fn that_there_is_no_driver_is_told_once() {
    let Some(mut first) = run(&[]) else { return };
    let mut told = || notes(&Outcome::from(first.command.output().unwrap()).ok()).len();
    assert_eq!([told(), told(), told()], [1, 0, 0]);
    // Where that cannot be remembered, it is told each time.
    let mut again = run(&[]).unwrap();
    let no_folder = again._folder.path().join("tiny.gguf/cache");
    with_cache(&mut again.command, &no_folder);
    let mut told = || notes(&Outcome::from(again.command.output().unwrap()).ok()).len();
    assert_eq!([told(), told()], [1, 1]);
    // Who reads no notes has not been told.
    let mut quiet = run(&["-q"]).unwrap();
    assert_eq!(notes(&Outcome::from(quiet.command.output().unwrap()).ok()).len(), 0);
    let mut loud = run(&[]).unwrap();
    with_cache(&mut loud.command, quiet._folder.path());
    assert_eq!(notes(&Outcome::from(loud.command.output().unwrap()).ok()).len(), 1);
}

#[test]
fn without_a_driver_asking_for_a_card_is_an_error() {
    for device in ["cuda", "cuda:3", "CUDA:0"] {
        let Some(mut run) = run(&["--device", device]) else { return };
        refused(&mut run.command, &[NO_DRIVER]);
    }
    let mut bench = tool("bench");
    refused(bench.env_remove("LD_LIBRARY_PATH").args(["--device", "cuda"]), &[NO_DRIVER]);
}

#[test]
fn a_device_that_is_not_known_is_wrong_usage() {
    usage_error("run", &["--device", "gpu", "-p", "x"], "cuda:N");
    usage_error("run", &["--device", "cuda:x", "-p", "x"], "cuda:N");
    usage_error("bench", &["--device", ""], "--device");
}

#[test]
fn ngl_is_the_cpu_or_points_to_the_budget() {
    let Some(none) = run(&["-ngl", "0"]).map(Run::ok) else { return };
    assert!(notes(&none).is_empty(), "{}", none.stderr);
    let some = run(&["-ngl", "99"]).unwrap().ok();
    assert_eq!(notes(&some).iter().filter(|l| l.contains("--vram-budget")).count(), 1, "{}", some.stderr);
    refused(&mut run(&["-ngl", "0", "--device", "cuda"]).unwrap().command, &["-ngl 0", "cuda:0"]);
}

/// What the other tests rely on: a machine that has a card computes what one without computes.
/// Elsewhere no shell takes the arguments apart.
#[cfg(unix)]
#[test]
fn commands_in_tests_compute_on_the_cpu_unless_they_say_where() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let with = |name: &str, args: &[&str]| {
        let mut command = tool(name);
        let model_and_words = if name == "run" { ["-p", "--device-x", "-n", "1"] } else { ["-p", "2", "-n", "0"] };
        command.arg("-m").arg(&model).args(model_and_words).args(["-t", "1"]).args(args);
        // Wherever there is a card it is hidden, which `auto` tells of.
        let cache = tempfile::tempdir().unwrap();
        command.env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "").env("XDG_CACHE_HOME", cache.path());
        let outcome = Outcome::from(command.output().unwrap()).ok();
        outcome.stderr.contains("computing on the CPU")
    };
    assert!(!with("run", &[]) && !with("run", &["--device", "cpu"]) && !with("run", &["-ngl", "0"]));
    assert!(with("run", &["--device", "auto"]) && with("run", &["--device=auto"]));
    assert!(!with("bench", &["--text", "random"]) && with("bench", &["--text", "random", "--device", "auto"]));
}

/// A driver reserves memory by the gigabyte.
#[cfg(target_os = "linux")]
#[test]
fn what_may_open_a_card_has_no_limit_of_memory_in_tests() {
    let limit = |args: &[&str]| {
        let mut command = crate::support::launched("sh", false);
        command.args(["-c", "ulimit -d", "sh"]).args(args);
        Outcome::from(command.output().unwrap()).ok().stdout.trim().to_owned()
    };
    let limited = limit(&[]);
    assert!(limited.parse::<u64>().is_ok(), "{limited}");
    for args in [&["--device", "cpu"][..], &["--device=cpu"], &["-p", "--device"]] {
        assert_eq!(limit(args), limited, "{args:?}");
    }
    for args in [&["--device", "cuda"][..], &["--device", "auto"], &["--device=cuda:1"], &["-ngl", "9"]] {
        assert_ne!(limit(args), limited, "{args:?}");
    }
}
