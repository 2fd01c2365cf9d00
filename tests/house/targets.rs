//! Targets that the library is not for are refused by name before any other error.

use std::path::Path;
use std::process::Command;

/// The first error of compiling the library for `target`; none where the target's standard library is not installed.
fn first_error(target: &str) -> Option<String> {
    let out = tempfile::tempdir().unwrap();
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--target", target, "--out-dir"]);
    let said = rustc.arg(out.path()).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let error = said.lines().find(|line| line.starts_with("error")).expect("nothing of what it depends on is there");
    if error.contains("E0463") {
        eprintln!("{target}: rustup target add {target} installs what this test needs; passed over");
        return None;
    }
    Some(error.to_owned())
}

#[test]
fn targets_of_32_bits_or_with_the_highest_byte_first_are_refused() {
    for (target, wanted) in [
        ("i686-unknown-linux-gnu", Some("64-bit")),
        ("armv7-unknown-linux-gnueabihf", Some("64-bit")),
        ("s390x-unknown-linux-gnu", Some("little-endian")),
        ("x86_64-unknown-linux-gnu", None),
    ] {
        let Some(error) = first_error(target) else { continue };
        let reason = error.split_once("powerinfer needs a ").and_then(|(_, reason)| reason.split_once(" target: "));
        assert_eq!(reason.map(|(kind, _)| kind), wanted, "{target}: {error}");
    }
}
