//! Processors that lack what is fast, emulated by QEMU: they compute the same with other kernels, or are refused.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use crate::support::{Outcome, program};
use std::process::{Command, Stdio};

/// A short story told by the processor that QEMU calls `cpu`; none where there is no QEMU.
fn story(cpu: &str) -> Option<Outcome> {
    const QEMU: &str = "qemu-x86_64";
    let mut command = Command::new(QEMU);
    command.args(["-cpu", cpu, program("run"), "-p", "Once upon a time", "-n", "8", "--temp", "0", "--device", "cpu"]);
    match command.args(["-t", "2"]).stdin(Stdio::null()).output() {
        Ok(output) => Some(output.into()),
        Err(error) => {
            assert!(std::env::var_os("REQUIRE_QEMU").is_none_or(|wanted| wanted.is_empty()), "{QEMU}: {error}");
            eprintln!("{QEMU} (qemu-user) is not installed; passed over");
            None
        }
    }
}

#[test]
fn processors_without_avx2_or_without_what_goes_with_it_tell_the_same_story() {
    let mut own = Command::new(program("run"));
    own.args(["-p", "Once upon a time", "-n", "8", "--temp", "0", "--device", "cpu"]);
    let own = Outcome::from(own.stdin(Stdio::null()).output().unwrap()).ok().stdout;
    assert!(own.len() > 30, "{own}");
    for cpu in ["Nehalem", "Haswell,-fma"] {
        let Some(told) = story(cpu) else { return };
        assert_eq!(told.ok().stdout, own, "{cpu}");
    }
}

#[test]
fn a_processor_whose_system_keeps_no_avx_registers_is_refused() {
    let Some(refused) = story("Haswell,-xsave") else { return };
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let line = refused.stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with("error: this processor has F16C") && line.contains("noxsave"), "{refused:?}");
}
