//! A card is tested at its first start, apart, and what came of it is remembered.
#![cfg(unix)]

use crate::support::{ModelFile, Outcome, emulator, program, refused, skipped};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A user's folders on a machine with an emulated card.
struct Machine {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Machine {
    fn new() -> Option<Self> {
        if let Err(why) = emulator::library() {
            skipped(why);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
        Some(Self { folder, model })
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn remembered(&self) -> String {
        std::fs::read_to_string(self.cache().join("powerinfer/self-tests.json")).unwrap_or_default()
    }

    /// A command with this failure of the card.
    fn command(&self, name: &str, fail: &str, args: &[&str]) -> Command {
        let mut command = emulator::command(program(name)).unwrap();
        command.env("XDG_CACHE_HOME", self.cache()).env("EMU_FAIL", fail).env("RAYON_NUM_THREADS", "2");
        let hardware = Path::new(env!("CARGO_MANIFEST_DIR")).join("hardware/rtx-3060-ddr4.toml");
        // Nothing is to be measured.
        command.arg("--hardware").arg(hardware).arg("-m").arg(&self.model).args(args).stdin(Stdio::null());
        command
    }

    /// `run` that way.
    fn run(&self, fail: &str, args: &[&str]) -> Command {
        let args = [&["-p", "x", "-n", "2", "--temp", "0", "-t", "1"], args].concat();
        self.command("run", fail, &args)
    }

    fn auto(&self, fail: &str) -> Outcome {
        Outcome::from(self.run(fail, &["--device", "auto"]).output().unwrap()).ok()
    }
}

/// Lines that say that a card is not used, and why.
fn about_the_test(outcome: &Outcome) -> Vec<&str> {
    outcome.stderr.lines().filter(|l| l.contains("self-test")).collect()
}

const COMPILING: &str = "compiling kernels for the card, once (about 5 s)";
const WRONG: &str = "kernel:gate_up_q6_k=wrong";

#[test]
fn a_card_that_passes_is_not_tested_again_until_the_driver_changes() {
    let Some(machine) = Machine::new() else { return };
    let first = machine.auto("");
    assert!(about_the_test(&first).is_empty() && !first.stderr.contains(COMPILING), "{}", first.stderr);
    assert!(machine.remembered().contains("Passed"), "{}", machine.remembered());
    // A test would find this now; there is none.
    let second = machine.auto(WRONG);
    assert!(about_the_test(&second).is_empty(), "{}", second.stderr);
    let updated = machine.run(WRONG, &["--device", "auto"]).env("EMU_DRIVER", "12020").output().unwrap();
    let updated = Outcome::from(updated).ok();
    assert_eq!(about_the_test(&updated).len(), 1, "{}", updated.stderr);
}

#[test]
fn auto_leaves_a_card_alone_that_computes_wrongly_and_remembers_why() {
    let Some(machine) = Machine::new() else { return };
    let cpu = Outcome::from(machine.run("", &["--device", "cpu"]).output().unwrap()).ok();
    assert!(!machine.cache().exists(), "the CPU needs no test of a card");
    let (failed, remembered) = (machine.auto(WRONG), machine.auto(""));
    for outcome in [&failed, &remembered] {
        let said = about_the_test(outcome);
        let begins = "note: computing on the CPU: Emulated GPU: self-test: gate_up_q6_k: neuron ";
        assert!(said.len() == 1 && said[0].starts_with(begins), "{}", outcome.stderr);
        assert!(said[0].contains(" expected") && said[0].contains("--device cuda tries again"), "{said:?}");
        assert_eq!(outcome.stdout, cpu.stdout);
    }
    // Who asks for the card by name has it tested again.
    refused(&mut machine.run(WRONG, &["--device", "cuda"]), &["Emulated GPU: self-test: gate_up_q6_k", "--device cpu"]);
    Outcome::from(machine.run("", &["--device", "cuda"]).output().unwrap()).ok();
    assert!(about_the_test(&machine.auto("")).is_empty());
}

#[test]
fn a_driver_that_crashes_or_fails_takes_no_command_with_it() {
    let Some(machine) = Machine::new() else { return };
    for (fail, stage) in [
        // Before anything is known of the card.
        ("cuInit=crash", "cuda:0: self-test: opening: the driver has ended the process"),
        ("cuModuleLoadDataEx@3=crash", "Emulated GPU: self-test: compiling kernels: the driver has ended"),
        ("cuModuleLoadDataEx@3=218", "Emulated GPU: self-test: kernels of "),
        ("cuGraphInstantiateWithFlags=999", "Emulated GPU: self-test: rendezvous: Emulated GPU: making a graph: "),
        ("kernel:rope_store=700", "Emulated GPU: self-test: rope_store: Emulated GPU: work on the card: an illegal"),
    ] {
        std::fs::remove_dir_all(machine.cache()).ok();
        let outcome = machine.auto(fail);
        let said = about_the_test(&outcome);
        assert!(said.len() == 1 && said[0].contains(stage), "{fail}: {}", outcome.stderr);
        // The next start does not even ask the driver.
        let again = machine.auto(fail);
        assert_eq!(about_the_test(&again), said, "{fail}");
        refused(&mut machine.run(fail, &["--device", "cuda"]), &[stage, "--device cpu"]);
    }
}

#[test]
fn what_ends_by_itself_is_not_remembered() {
    let Some(machine) = Machine::new() else { return };
    // Others use the memory now.
    let full = machine.auto("cuMemAlloc_v2=2");
    assert!(full.stderr.contains("note: computing on the CPU: out of device memory"), "{}", full.stderr);
    let none = machine.auto("cuInit=100");
    assert!(none.stderr.contains("note: computing on the CPU: the NVIDIA driver finds no card"), "{}", none.stderr);
    refused(
        &mut machine.run("cuInit=100", &["--device", "cuda"]),
        &["the NVIDIA driver finds no card", "--device cpu"],
    );
    assert_eq!(machine.remembered(), "");
}

#[test]
fn a_card_or_a_driver_that_hangs_is_given_up_in_time() {
    let Some(machine) = Machine::new() else { return };
    for (fail, said) in [
        ("kernel:attention_f16_g4=hang", "self-test: attention_f16_g4: has not ended within 8 s"),
        ("cuStreamQuery@40=hang", "does not end within 10 s"),
    ] {
        let begin = Instant::now();
        std::fs::remove_dir_all(machine.cache()).ok();
        let outcome = machine.auto(fail);
        assert!(about_the_test(&outcome)[0].contains(said), "{fail}: {}", outcome.stderr);
        assert!(begin.elapsed() < Duration::from_secs(60), "{fail}: {:?}", begin.elapsed());
        assert!(about_the_test(&machine.auto(fail))[0].contains(said));
    }
}

#[test]
fn who_waits_for_the_compiler_is_told_once() {
    let Some(machine) = Machine::new() else { return };
    let slow = machine.auto("cuModuleLoadDataEx=stall:100");
    assert_eq!(slow.stderr.matches(COMPILING).count(), 1, "{}", slow.stderr);
    assert!(about_the_test(&slow).is_empty(), "{}", slow.stderr);
}

#[test]
fn a_cache_that_cannot_be_written_only_means_another_test() {
    let Some(machine) = Machine::new() else { return };
    std::fs::write(machine.cache(), "no folder").unwrap();
    assert!(about_the_test(&machine.auto("")).is_empty());
    assert_eq!(about_the_test(&machine.auto(WRONG)).len(), 1);
}

#[test]
fn a_damaged_memory_of_tests_is_none() {
    let Some(machine) = Machine::new() else { return };
    let folder = machine.cache().join("powerinfer");
    std::fs::create_dir_all(&folder).unwrap();
    for text in ["", "[{", "{\"a\": 1}", "[1]"] {
        std::fs::write(folder.join("self-tests.json"), text).unwrap();
        assert_eq!(about_the_test(&machine.auto(WRONG)).len(), 1, "{text}");
    }
}

/// The process that tests, once there is one.
#[cfg(target_os = "linux")]
fn child_of(parent: &mut std::process::Child) -> u32 {
    let path = format!("/proc/{0}/task/{0}/children", parent.id());
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) && parent.try_wait().unwrap().is_none() {
        let children = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no process that tests");
}

#[cfg(target_os = "linux")]
fn is_there(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // A zombie has ended.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_is_left_of_a_test_that_hangs_when_the_user_or_the_system_ends_the_command() {
    let Some(machine) = Machine::new() else { return };
    for signal in ["-INT", "-TERM", "-KILL"] {
        let args = ["--text", "random", "-p", "2", "-n", "0", "-t", "1", "--device", "auto"];
        let mut command = machine.command("bench", "cuStreamCreate=hang", &args);
        let mut parent = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let child = child_of(&mut parent);
        std::thread::sleep(Duration::from_millis(300));
        let begin = Instant::now();
        assert!(Command::new("kill").args([signal, &parent.id().to_string()]).status().unwrap().success());
        let status = parent.wait().unwrap();
        while is_there(child) && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!is_there(child) && begin.elapsed() < Duration::from_secs(5), "{signal}");
        if signal == "-INT" {
            assert_eq!(status.code(), Some(130));
        }
    }
}

#[test]
fn the_machine_is_not_measured_with_a_card_that_computes_wrongly() {
    let Some(machine) = Machine::new() else { return };
    let out = machine.folder.path().join("machine.toml");
    let mut command = emulator::command(program("bench")).unwrap();
    command.env("XDG_CACHE_HOME", machine.cache()).env("EMU_FAIL", WRONG).stdin(Stdio::null());
    command.arg("--measure-hardware").arg(&out).args(["-t", "1", "--device", "cuda"]);
    refused(&mut command, &["Emulated GPU: self-test: gate_up_q6_k", "--device cpu"]);
    assert!(!out.exists());
}
