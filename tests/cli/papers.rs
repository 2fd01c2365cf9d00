//! What the commands say of themselves: help, version, completions, pages of the manual, and the page for users of llama.cpp.

#[cfg(unix)]
use crate::support::sh;
use crate::support::{Outcome, file};
use std::fs;
use std::path::Path;
use std::process::Command;

const COMMANDS: [&str; 4] = ["run", "profile", "split", "bench"];

fn said(name: &str, args: &[&str]) -> String {
    Outcome::from(Command::new(file(name)).args(args).output().unwrap()).ok().stdout
}

#[test]
fn help_is_short_or_long_and_every_flag_is_under_a_heading() {
    for name in COMMANDS {
        let (short, long) = (said(name, &["-h"]), said(name, &["--help"]));
        assert!(!long.contains("\nOptions:\n") && long.contains("\nModel:\n"), "{long}");
        let (few, many) = (short.lines().count(), long.lines().count());
        assert!(few * 10 < many * 8, "{name}: {few} of {many}");
        assert!(long.contains("Examples:") && !short.contains("Examples:") && short.contains("--help"), "{short}");
        for flag in long.lines().filter_map(|line| line.trim_start().split("--").nth(1)) {
            let flag = flag.split([' ', ',']).next().unwrap();
            let own = long.contains(&format!("  --{flag}")) || long.contains(&format!(", --{flag}"));
            assert!(!own || short.contains(&format!("--{flag}")), "{name}: -h lacks --{flag}");
        }
    }
}

#[test]
fn help_is_as_wide_as_the_terminal() {
    for (columns, name) in [(60, "run"), (100, "split"), (180, "bench")] {
        let output = Command::new(file(name)).arg("-h").env("COLUMNS", columns.to_string()).output().unwrap();
        let text = Outcome::from(output).ok().stdout;
        // A single word may be longer.
        let lines = text.lines().filter(|line| line.starts_with("     ") && line.trim().contains(' '));
        let longest = lines.map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|n| n <= columns), "{name}, {columns}: {longest:?}");
    }
}

#[test]
fn the_version_says_what_the_program_was_built_from() {
    for name in COMMANDS {
        let first = format!("powerinfer-{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(said(name, &["-V"]), first);
        let version = said(name, &["--version"]);
        assert!(version.starts_with(&first), "{version}");
        for line in ["\ncommit   ", "\ntarget   ", "\ncompiler          rustc ", "\ninstruction sets  plain"] {
            assert!(version.contains(line), "{version}");
        }
    }
}

#[test]
fn the_page_for_users_of_llama_cpp_is_that_of_the_table() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/llama-cpp.md")).unwrap();
    let table = said("run", &["--llama-cpp-page"]);
    assert!(page.replace('\r', "") == table, "scripts/release_docs.sh --page writes docs/llama-cpp.md anew");
    for flag in ["`-ngl`", "`--numa`", "`-ctk`", "`--hellaswag`", "`--allow-requantize`"] {
        assert!(table.contains(flag), "{flag}");
    }
}

#[test]
fn there_are_completions_for_each_shell_and_for_no_other() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        for name in COMMANDS {
            let text = said(name, &["completions", shell]);
            let known = ["--model", "-l model", "l=model"].iter().any(|flag| text.contains(flag));
            assert!(known && text.contains(&format!("powerinfer-{name}")), "{shell}: {text}");
        }
    }
    for args in [&["completions"][..], &["completions", "tcsh"]] {
        let outcome = Outcome::from(Command::new(file("run")).args(args).output().unwrap());
        assert_eq!(outcome.code, Some(2));
        assert!(
            outcome.stderr.starts_with("error: completions: ") && outcome.stderr.contains("zsh"),
            "{}",
            outcome.stderr
        );
    }
}

#[cfg(unix)]
#[test]
fn a_release_gets_pages_of_the_manual_and_completions_of_all_commands() {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release_docs.sh");
    let commands = Path::new(file("run")).parent().unwrap();
    let mut made = sh("bash \"$0\" --bin \"$1\" \"$2\"", &[&script, commands, folder.path()]);
    Outcome::from(made.output().unwrap()).ok();
    for name in COMMANDS {
        let page = fs::read_to_string(folder.path().join(format!("man/man1/powerinfer-{name}.1"))).unwrap();
        assert!(
            page.contains(".TH powerinfer") && page.contains("\\-\\-model") && page.contains("Examples:"),
            "{page}"
        );
        for (shell, path) in [("bash", "NAME"), ("zsh", "_NAME"), ("fish", "NAME.fish"), ("elvish", "NAME.elv")] {
            let path = path.replace("NAME", &format!("powerinfer-{name}"));
            assert!(fs::metadata(folder.path().join("completions").join(shell).join(path)).unwrap().len() > 1000);
        }
    }
}
