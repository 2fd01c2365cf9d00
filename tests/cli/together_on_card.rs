//! Several texts, and guesses, where a card has a part: the texts are those of the CPU, and of the card without them.

use crate::fallback::variant;
use crate::support::emulator::FAST_CARD;
use crate::support::{Outcome, emulator, program, skipped};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Prompts, two of which begin alike for more than 32 tokens.
const LINES: &str = "once upon a time there was a dog and a time\n\
                     once upon a time there was a dog and once\n\
                     a dog\n\
                     there was a time\n\
                     upon a dog there was once upon a dog\n";

/// A model that a card and the CPU divide, and a file of prompts.
struct Setup {
    folder: TempDir,
    model: PathBuf,
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
        std::fs::write(folder.path().join("machine.toml"), FAST_CARD).unwrap();
        std::fs::write(folder.path().join("prompts.txt"), LINES).unwrap();
        Some(Self { folder, model })
    }

    /// A command with an emulated card that fails as `fail` says.
    fn command(&self, name: &str, fail: &str, device: &str, args: &[&str]) -> Command {
        let mut command = emulator::command(program(name)).unwrap();
        command.env("EMU_FAIL", fail).env("EMU_EXIT", "wait").env("XDG_CACHE_HOME", self.folder.path());
        command.current_dir(&self.folder).stdin(Stdio::null()).arg("-m").arg(&self.model);
        command.args(["--hardware", "machine.toml", "-t", "1", "-ub", "8", "--device", device]);
        if device != "cpu" {
            command.args(["--vram-budget", "14MiB", "--card-limit", "60"]);
        }
        command.args(args);
        command
    }

    fn run(&self, fail: &str, device: &str, args: &[&str]) -> Outcome {
        Outcome::from(self.command("run", fail, device, args).output().unwrap())
    }
}

const TEXTS: [&str; 10] = ["--lines", "-f", "prompts.txt", "-np", "4", "-n", "5", "--ignore-eos", "-c", "64"];

#[test]
fn lines_on_a_card_are_those_of_the_cpu() {
    let Some(setup) = Setup::new() else { return };
    let args = [&TEXTS[..], &["--temp", "0"]].concat();
    let cpu = setup.run("", "cpu", &args).ok();
    let card = setup.run("", "cuda", &args).ok();
    assert_eq!(card.stdout, cpu.stdout);
    assert!(card.stderr.contains("tokens/s expected") && !card.stderr.contains("on the CPU"), "{}", card.stderr);
    // Of the second prompt the card has computed the beginning before.
    assert!(card.stderr.contains("are the beginning of another text"), "{}", card.stderr);
    // Where it fails among them, the CPU goes on with all of them.
    let failed = setup.run("cuGraphLaunch@3=719", "auto", &args).ok();
    assert_eq!(failed.stdout, cpu.stdout);
    assert_eq!(failed.stderr.matches("note: the card failed").count(), 1, "{}", failed.stderr);
    let refused = setup.run("cuGraphLaunch@3=719", "cuda", &args);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("--device cpu computes without the card"), "{}", refused.stderr);
}

#[test]
fn the_plan_accounts_for_the_context_of_each_text() {
    let Some(setup) = Setup::new() else { return };
    let plan = |np: &str| {
        let args = [&["--lines", "-f", "prompts.txt", "-np", np, "-c", "64"][..], &["--dry-run", "--json"]].concat();
        let plan: serde_json::Value = serde_json::from_str(&setup.run("", "cuda", &args).ok().stdout).unwrap();
        plan.to_string()
    };
    // Each has keys and values of its own there.
    assert_ne!(plan("1"), plan("8"));
    // Those of no layer fit: attention stays on the processor.
    let args = ["--lines", "-f", "prompts.txt", "-np", "2", "-c", "400000", "-n", "1"];
    let planned = setup.run("", "cuda", &args).ok();
    assert!(planned.stderr.contains("attention of 0 and masks of "), "{}", planned.stderr);
}

#[test]
fn guesses_on_a_card_change_nothing_but_the_speed() {
    let Some(setup) = Setup::new() else { return };
    let prompt = "once upon a dog once upon a dog once upon a dog once upon";
    let text = ["-p", prompt, "-n", "12", "--ignore-eos", "-c", "128", "--stats", "--temp", "1", "--seed", "5"];
    let with = |more: &[&str]| setup.run("", "cuda", &[&text[..], more].concat()).ok();
    let (without, guessed) = (with(&["--draft-max", "0"]), with(&["--draft-min", "3"]));
    assert_eq!(guessed.stdout, without.stdout);
    assert!(without.stderr.contains("speculation: none: switched off"), "{}", without.stderr);
    assert!(guessed.stderr.contains("drafted tokens stayed (lookup"), "{}", guessed.stderr);
    let failed = setup.run("cuGraphLaunch@4=719", "auto", &[&text[..], &["--draft-min", "3"]].concat()).ok();
    assert_eq!(failed.stderr.matches("note: the card failed").count(), 1, "{}", failed.stderr);
}

#[test]
fn bench_measures_several_sequences_on_a_card() {
    let Some(setup) = Setup::new() else { return };
    let args = ["-p", "0", "-n", "3", "-np", "1,2", "-r", "1", "--no-warmup", "-o", "json"];
    let outcome = Outcome::from(setup.command("bench", "", "cuda", &args).output().unwrap()).ok();
    let rows: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let numbers: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["n_parallel"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2)], "{}", outcome.stdout);
    assert!(rows[1]["device"].is_string(), "{}", outcome.stdout);
}
