//! A card that fails: with `--device auto` in one line and a run on the CPU, with `--device cuda` in one error.

use crate::support::emulator::FAST_CARD;
use crate::support::{ModelFile, Outcome, emulator, program, skipped, tool};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// All functions of the driver that the library has.
const DRIVER: &str = include_str!("../../src/gpu/driver.rs");

/// Those whose failure stops nothing: what gives something back, what only words an error, what is not used by a run.
const HARMLESS: [&str; 13] = [
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDevicePrimaryCtxRelease_v2",
    "cuMemFree_v2",
    "cuMemFreeHost",
    "cuMemcpyDtoDAsync_v2",
    "cuStreamDestroy_v2",
    "cuStreamWaitEvent",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuModuleUnload",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
];

/// Those that are called as often as time allows.
const POLLED: [&str; 3] = ["cuCtxSetCurrent", "cuStreamQuery", "cuEventQuery"];

const BUDGET: &str = "12MiB";
/// Seconds that the card may take: more than all of a run takes here.
const LIMIT: &str = "30";
/// The same where it is to hang.
const SHORT: &str = "2";

/// A model that a card and the CPU divide.
struct Setup {
    folder: TempDir,
    model: PathBuf,
    machine: PathBuf,
}

impl Setup {
    /// Nothing where the emulator cannot be had, which is said.
    fn new() -> Option<Self> {
        if let Err(why) = emulator::library() {
            skipped(why);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        emulator::has_passed(folder.path());
        let model = variant(folder.path());
        let machine = folder.path().join("machine.toml");
        std::fs::write(&machine, FAST_CARD).unwrap();
        Some(Self { folder, model, machine })
    }

    /// A command on this machine, with an emulated card that fails as `fail` says (see tests/emulator/driver.cpp).
    fn command(&self, name: &str, fail: &str) -> Command {
        let mut command = emulator::command(program(name)).unwrap();
        command.env("EMU_FAIL", fail).env("EMU_EXIT", "wait").env("XDG_CACHE_HOME", self.folder.path());
        command.env("RAYON_NUM_THREADS", "2").stdin(Stdio::null());
        command.arg("--hardware").arg(&self.machine).args(["-t", "1", "-ub", "8"]);
        command
    }

    /// `run` of a few tokens behind a prompt that is longer than a batch.
    fn run(&self, fail: &str, device: &str) -> Command {
        self.run_within(if fail.ends_with("hang") { SHORT } else { LIMIT }, fail, device)
    }

    /// The same, where the card may take so many seconds.
    fn run_within(&self, limit: &str, fail: &str, device: &str) -> Command {
        let mut command = self.command("run", fail);
        command.arg("-m").arg(&self.model).args(["-p", "once upon a time", "-n", "6", "--ignore-eos", "-c", "64"]);
        command.args(["--temp", "1", "--top-k", "0", "--seed", "3", "--device", device]);
        if device != "cpu" {
            command.args(["--vram-budget", BUDGET, "--card-limit", limit]);
        }
        command
    }

    /// The text that the CPU writes alone.
    fn text(&self) -> String {
        outcome(&mut self.run("", "cpu")).ok().stdout
    }

    /// With `auto` the text is that of the CPU. Whether something was said of the card: one line, or none.
    #[track_caller]
    fn falls_back(&self, fail: &str, text: &str) -> bool {
        let auto = outcome(&mut self.run(fail, "auto"));
        assert_eq!((auto.code, &*auto.stdout), (Some(0), text), "{fail}: {}", auto.stderr);
        let told = told(&auto);
        assert!(told.len() < 2, "{fail}: {}", auto.stderr);
        // What was planned is told only if it comes to pass.
        let at_set_up = told.iter().any(|line| line.starts_with("note: computing on the CPU: "));
        assert!(at_set_up != auto.stderr.contains("tokens/s expected"), "{fail}: {}", auto.stderr);
        !told.is_empty()
    }

    /// With a card by name that is an error, which says what helps.
    #[track_caller]
    fn is_refused(&self, fail: &str) {
        let cuda = outcome(&mut self.run(fail, "cuda"));
        let errors: Vec<_> = cuda.stderr.lines().filter(|line| line.contains("error: ")).collect();
        assert_eq!((cuda.code, errors.len()), (Some(1), 1), "{fail}: {}", cuda.stderr);
        assert!(errors[0].starts_with("error: ") && errors[0].contains("--device cpu"), "{fail}: {}", cuda.stderr);
        assert!(told(&cuda).is_empty(), "{fail}: {}", cuda.stderr);
    }
}

/// A model whose neurons can be divided.
pub fn variant(folder: &Path) -> PathBuf {
    let plain = ModelFile::layered(4, 64, 96).written(folder, "plain.gguf");
    let (text, profile, model) = (folder.join("text"), folder.join("profile"), folder.join("tiny.gguf"));
    std::fs::write(&text, "once upon a time there was a dog").unwrap();
    outcome(tool("profile").arg("-m").arg(&plain).arg("-f").arg(&text).arg("-o").arg(&profile)).ok();
    outcome(tool("split").arg("-m").arg(&plain).arg("--profile").arg(&profile).arg("-o").arg(&model)).ok();
    model
}

fn outcome(command: &mut Command) -> Outcome {
    Outcome::from(command.output().unwrap())
}

/// Lines that say that the card is not used.
fn told(outcome: &Outcome) -> Vec<&str> {
    let is_told =
        |line: &&str| line.starts_with("note: computing on the CPU") || line.starts_with("note: the card failed");
    outcome.stderr.lines().filter(is_told).collect()
}

/// The names in the table of the driver's functions.
fn functions() -> Vec<&'static str> {
    let (_, table) = DRIVER.split_once("\nfunctions! {\n").expect("the table");
    let (table, _) = table.split_once("\n}\n").expect("its end");
    let is_function = |line: &&str| line.starts_with("    cu");
    let names: Vec<_> = table.lines().filter(is_function).filter_map(|l| l.trim_start().split_once('(')).collect();
    assert!(names.len() > 30, "{names:?}");
    names.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_function_of_the_driver_that_always_fails_leaves_the_run_to_the_cpu() {
    let Some(setup) = Setup::new() else { return };
    let text = setup.text();
    assert!(!setup.falls_back("", &text), "the card has nothing to do");
    for name in functions() {
        let fail = format!("{name}=999");
        let told = setup.falls_back(&fail, &text);
        assert_eq!(told, !HARMLESS.contains(&name), "{fail}");
        if told {
            setup.is_refused(&fail);
        }
    }
}

#[test]
fn a_function_of_the_driver_that_fails_later_leaves_the_run_to_the_cpu() {
    let Some(setup) = Setup::new() else { return };
    let text = setup.text();
    for name in functions().into_iter().filter(|name| !HARMLESS.contains(name)) {
        let mut call = 2;
        while setup.falls_back(&format!("{name}@{call}=719"), &text) {
            if !POLLED.contains(&name) {
                setup.is_refused(&format!("{name}@{call}=719"));
            }
            call *= 9;
        }
    }
}

#[test]
fn memory_that_is_not_there_leaves_the_run_to_the_cpu() {
    let Some(setup) = Setup::new() else { return };
    let text = setup.text();
    for name in ["cuMemAlloc_v2", "cuMemHostAlloc"] {
        let fails = |call: &usize| setup.falls_back(&format!("{name}@{call}=2"), &text);
        let n_calls = (1..).take_while(fails).count();
        assert!(n_calls > 3, "{name} is called {n_calls} times");
        (1..=n_calls).for_each(|call| setup.is_refused(&format!("{name}@{call}=2")));
    }
}

/// Of the kernels that `run` launches here: in a prompt, in a token, and in both; those that wait for the CPU, too.
const KERNELS: [&str; 8] =
    ["norm", "gemm_f32", "rope_store", "begin_token", "merge_norm", "select_hot", "down_f32", "finish"];

#[test]
fn a_plan_is_made_for_the_cpu_where_the_card_fails_while_it_is_measured() {
    let Some(setup) = Setup::new() else { return };
    let mut command = emulator::command(program("run")).unwrap();
    command.env("EMU_FAIL", "cuModuleLoadDataEx=218").env("XDG_CACHE_HOME", setup.folder.path());
    let planned = outcome(command.arg("-m").arg(&setup.model).args(["--dry-run", "-t", "1"])).ok();
    assert_eq!(planned.stderr.matches("note: planning for the CPU alone: ").count(), 1, "{}", planned.stderr);
}

#[test]
fn a_kernel_that_fails_leaves_the_run_to_the_cpu() {
    let Some(setup) = Setup::new() else { return };
    let text = setup.text();
    for kernel in KERNELS {
        for fail in [format!("kernel:{kernel}=700"), format!("kernel:{kernel}@3=719")] {
            assert!(setup.falls_back(&fail, &text), "{fail}");
            setup.is_refused(&fail);
        }
    }
}

#[test]
fn a_kernel_that_never_ends_leaves_the_run_to_the_cpu() {
    let Some(setup) = Setup::new() else { return };
    let text = setup.text();
    for kernel in KERNELS.into_iter().step_by(2) {
        let fail = format!("kernel:{kernel}@2=hang");
        assert!(setup.falls_back(&fail, &text), "{fail}");
    }
    for fail in ["kernel:gemm_f32=hang", "kernel:finish=hang"] {
        setup.is_refused(fail);
    }
}

#[test]
fn while_a_card_hangs_ctrl_c_is_heard() {
    let Some(setup) = Setup::new() else { return };
    for device in ["auto", "cuda"] {
        // Longer than the test would wait.
        let mut command = setup.run_within("1000", "kernel:finish=hang", device);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let pressed = Instant::now();
        let outcome = Outcome::from(child.wait_with_output().unwrap());
        assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
        assert!(outcome.stderr.ends_with("interrupted\n") && told(&outcome).is_empty(), "{}", outcome.stderr);
        assert!(pressed.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn a_conversation_goes_on_without_its_card() {
    let Some(setup) = Setup::new() else { return };
    let talk = |fail: &str, device: &str| {
        let mut command = setup.run(fail, device);
        command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"there was\n/reset\na dog\n").unwrap();
        Outcome::from(child.wait_with_output().unwrap())
    };
    let cpu = talk("", "cpu").ok();
    // In the first answer, in the prompt of the second, and in the last.
    for fail in ["kernel:finish@3=700", "kernel:gemm_f32@60=700", "kernel:finish@15=hang", "cuGraphLaunch@8=999"] {
        let auto = talk(fail, "auto").ok();
        assert_eq!((&auto.stdout, told(&auto).len()), (&cpu.stdout, 1), "{fail}: {}", auto.stderr);
    }
}

#[test]
fn a_conversation_goes_on_after_ctrl_c_while_its_card_hangs() {
    let Some(setup) = Setup::new() else { return };
    let mut command = setup.run_within("1000", "kernel:finish@9=hang", "auto");
    let mut child =
        command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"there was\n").unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    std::thread::sleep(Duration::from_secs(1));
    stdin.write_all(b"a dog\n").unwrap();
    drop(stdin);
    let outcome = Outcome::from(child.wait_with_output().unwrap()).ok();
    assert_eq!((outcome.stderr.matches("(stopped)").count(), told(&outcome).len()), (1, 1), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("error"), "{}", outcome.stderr);
}

#[test]
fn figures_are_those_of_one_device() {
    let Some(setup) = Setup::new() else { return };
    let text = setup.folder.path().join("text");
    let bench = |fail: &str, device: &str| {
        let mut command = setup.command("bench", fail);
        command.arg("-m").arg(&setup.model).args(["-p", "8", "-n", "6", "-r", "2", "-o", "jsonl", "--device", device]);
        command.args(["-c", "8", "--mode", "exact"]);
        if device != "cpu" {
            command.args(["--vram-budget", BUDGET, "--card-limit", if fail.ends_with("hang") { SHORT } else { LIMIT }]);
        }
        let outcome = outcome(command.arg("--perplexity").arg(&text).arg("--kl").arg(&text)).ok();
        let rows = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
        (rows.collect::<Vec<Value>>(), told(&outcome).len())
    };
    let (cpu, _) = bench("", "cpu");
    let backends = |rows: &[Value]| rows.iter().map(|row| row["backend"].clone()).collect::<Vec<_>>();
    let (with_card, told) = bench("", "auto");
    assert_eq!((backends(&with_card), told), (vec!["CUDA".into(); 4], 0));
    for (fail, n_with_card) in [
        ("kernel:gemm_f32@20=700", 0),
        ("kernel:finish@10=700", 1),
        ("kernel:finish@30=hang", 2),
        ("cuGraphLaunch@60=719", 3),
    ] {
        let (rows, told) = bench(fail, "auto");
        let mut expected: Vec<Value> = vec!["CUDA".into(); n_with_card];
        expected.resize(4, "CPU".into());
        assert_eq!((backends(&rows), told), (expected, 1), "{fail}");
        for (row, cpu) in rows.iter().zip(&cpu).skip(n_with_card) {
            let figures =
                |row: &Value| ["test", "perplexity", "kl_mean", "ffn_density", "device"].map(|key| row[key].clone());
            assert_eq!(figures(row), figures(cpu), "{fail}");
        }
    }
}
