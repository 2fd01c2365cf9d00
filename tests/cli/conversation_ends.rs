//! A conversation whose card fails, where a card was asked for by name: it ends, in one error.

use crate::support::emulator::FAST_CARD;
use crate::support::{ModelFile, Outcome, emulator, program, skipped};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

fn talk(folder: &Path, model: &Path, fail: &str) -> Outcome {
    let mut command = emulator::command(program("run")).unwrap();
    command.env("XDG_CACHE_HOME", folder).env("EMU_FAIL", fail).env("RAYON_NUM_THREADS", "2");
    command.arg("-m").arg(model).arg("--hardware").arg(folder.join("machine.toml"));
    command.args(["-i", "--device", "cuda", "-t", "1", "-ub", "8", "-n", "3", "--ignore-eos", "-c", "64"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // It may end before it has read all of it.
    let _ = child.stdin.take().unwrap().write_all(b"there was\na dog\n/reset\nonce\n");
    Outcome::from(child.wait_with_output().unwrap())
}

#[test]
fn a_conversation_ends_with_the_card_that_was_asked_for() {
    if let Err(why) = emulator::library() {
        return skipped(why);
    }
    let folder = tempfile::tempdir().unwrap();
    emulator::has_passed(folder.path());
    std::fs::write(folder.path().join("machine.toml"), FAST_CARD).unwrap();
    let model = ModelFile::layered(4, 64, 96).written(folder.path(), "plain.gguf");
    let well = talk(folder.path(), &model, "").ok();
    assert!(well.stderr.contains("Emulated GPU: "), "{}", well.stderr);
    let failed = talk(folder.path(), &model, "kernel:finish@2=700");
    assert_eq!((failed.code, failed.stderr.matches("error: ").count()), (Some(1), 1), "{}", failed.stderr);
    let last = failed.stderr.lines().last().unwrap();
    assert!(last.starts_with("error: Emulated GPU: ") && last.contains("--device cpu"), "{}", failed.stderr);
}
