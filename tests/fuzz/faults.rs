//! What must not happen is seen when it does.

use super::drive::{Answer, MEMORY, alone, execute};
use super::target::Target;
use anyhow::{Result, bail};
use std::process::Command;
use std::time::Duration;

/// Set for the process that is to end.
const ENDLESS: &str = "FUZZ_ENDLESS";

struct Bad;

impl Target for Bad {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "bad"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        match input {
            b"panic" => panic!("on purpose"),
            b"greedy" => drop(std::hint::black_box(vec![1u8; MEMORY + (1 << 20)])),
            b"endless" => std::thread::sleep(Duration::from_secs(600)),
            b"refused" => bail!("is refused"),
            _ => {}
        }
        Ok(())
    }
}

fn fault(input: &[u8]) -> Option<String> {
    match execute(&Bad, "bad", input, Duration::from_secs(60)) {
        Answer::Fault(what) => Some(what),
        Answer::Accepted | Answer::Refused(_) => None,
    }
}

#[test]
fn panics_and_greed_are_faults_and_refusals_are_none() {
    let _alone = alone();
    assert_eq!([fault(b"accepted"), fault(b"refused")], [None, None]);
    let panic = fault(b"panic").unwrap();
    assert!(panic.contains("faults.rs") && panic.contains("on purpose"), "{panic}");
    let greed = fault(b"greedy").unwrap();
    assert!(greed.contains("bytes for an input of 6"), "{greed}");
}

#[test]
fn what_does_not_end_ends_the_process_and_leaves_its_input() {
    if std::env::var_os(ENDLESS).is_some() {
        execute(&Bad, "bad seed 1", b"endless", Duration::from_millis(200));
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ENDLESS, "1").args(["--exact", "faults::what_does_not_end_ends_the_process_and_leaves_its_input"]);
    let output = command.arg("--nocapture").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("bad seed 1: it does not end"), "{said}");
    let path = said.split("its input is in ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"endless");
    std::fs::remove_file(path).unwrap();
}
