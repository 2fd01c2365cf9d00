//! Headings of the help: what stands under one belongs there.

use crate::support::{Outcome, file};
use std::collections::BTreeMap;
use std::process::Command;

/// The flags of a command, by heading.
fn headings(name: &str) -> BTreeMap<String, Vec<String>> {
    let mut command = Command::new(file(name));
    let text = Outcome::from(command.arg("-h").env("COLUMNS", "400").output().unwrap()).ok().stdout;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines() {
        match line.strip_suffix(':') {
            Some(title) if !line.starts_with(' ') => title.clone_into(&mut heading),
            _ => {
                let flag = line.get(..8).filter(|start| start.ends_with("--") && start.trim().len() > 1);
                let flag = flag.and_then(|_| line[8..].split([' ', ',']).next());
                found.entry(heading.clone()).or_default().extend(flag.map(str::to_owned));
            }
        }
    }
    found
}

#[track_caller]
fn holds(name: &str, heading: &str, flags: &str) {
    let mut found = headings(name).remove(heading).unwrap_or_default();
    found.sort();
    let mut flags: Vec<&str> = flags.split(' ').collect();
    flags.sort_unstable();
    assert_eq!(found, flags, "{name}: {heading}");
}

#[test]
fn flags_stand_under_the_heading_that_they_belong_to() {
    for name in ["run", "bench", "profile", "split"] {
        holds(name, "Help", "help version");
        let all = headings(name);
        assert!(all.values().flatten().count() > 20, "{all:?}");
        let sampling = all.get("Sampling");
        assert!((name == "run") == sampling.is_some_and(|flags| flags.contains(&"temp".to_owned())), "{all:?}");
    }
    holds("run", "Session file", "prompt-cache prompt-cache-all prompt-cache-ro");
    holds("run", "Traces", "trace trace-tokens");
    holds("run", "Context", "context-shift no-context-shift keep");
    holds("run", "Plan", "dry-run hardware explain plot");
    holds("run", "Graphics card", "vram-budget vram-total device card-limit n-gpu-layers list-devices");
    holds("run", "Processor", "threads mode ubatch-size batch-size cache-type cache-type-k cache-type-v isa");
    holds("bench", "Comparing builds (exit code 3: slower)", "compare against turns fail-below");
    holds("bench", "Machine", "hardware measure-hardware kernels types predict");
    holds("bench", "Perplexity and KL divergence", "perplexity kl kl-base ctx-size chunks");
    holds("profile", "Report", "report plan-model hardware vram-budget vram-total");
    holds("split", "Plan", "dry-run hardware explain shape ctx-size mode parallel plot");
    let run = headings("run");
    let misplaced = |flag: &str| run["Sampling"].iter().chain(&run["Chat"]).any(|found| found == flag);
    for flag in ["mode", "stats", "json", "quiet", "verbose-prompt", "special", "tokenize", "ignore-eos"] {
        assert!(!misplaced(flag), "{flag}: {run:?}");
    }
}
