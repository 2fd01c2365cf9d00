//! What computes on the CPU, and plans for no card of this machine, does not look for one. So .ci/run need not run all tests again
//! where there seems to be one: `CARD_TESTS` in tests/support/command.rs.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use crate::support::{Outcome, model_and_text, names_in, program};
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether the command, which must succeed, looks for the driver. The loader tells.
fn looks(name: &str, args: &[&str], folder: &Path) -> bool {
    let told = tempfile::tempdir().unwrap();
    let mut command = Command::new(program(name));
    command.env("LD_DEBUG", "files").env("LD_DEBUG_OUTPUT", told.path().join("told")).env("XDG_CACHE_HOME", folder);
    Outcome::from(command.args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()).ok();
    let read = |name: &String| String::from_utf8_lossy(&std::fs::read(told.path().join(name)).unwrap()).into_owned();
    let all: String = names_in(told.path()).iter().map(read).collect();
    assert!(all.contains("libc.so"), "{all}");
    all.contains("libcuda.so")
}

#[test]
fn only_what_may_use_a_card_looks_for_one() {
    let (folder, model, text) = model_and_text(&"once upon a time there was a little dog\n".repeat(6));
    let [model, text] = [&model, &text].map(|path| path.to_str().unwrap());
    let hardware = concat!(env!("CARGO_MANIFEST_DIR"), "/hardware/rtx-3060-ddr4.toml");
    let commands: [(&str, &[&str], bool); 7] = [
        ("run", &["-m", model, "-p", "x", "-n", "1", "--hardware", hardware], true),
        ("run", &["-m", model, "-p", "x", "-n", "1", "--device", "cpu"], false),
        ("run", &["-m", model, "-p", "x", "-n", "1", "-ngl", "0"], false),
        ("bench", &["-m", model, "-p", "1", "-n", "1", "-r", "1", "--device", "cpu"], false),
        ("profile", &["-m", model, "-f", text, "-o", "a.profile"], false),
        ("split", &["-m", model, "--profile", "a.profile", "-o", "variant.gguf"], false),
        ("split", &["-m", model, "--profile", "a.profile", "--dry-run", "--hardware", hardware], false),
    ];
    for (name, args, wanted) in commands {
        assert_eq!(looks(name, args, folder.path()), wanted, "{name} {args:?}");
    }
}
