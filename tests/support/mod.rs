//! What the crates of tests share; each takes it in once.
#![allow(dead_code, unused_imports, reason = "no crate uses all of it")]

mod command;
pub mod compare;
pub mod convert;
pub mod ctrl_c;
pub mod emulator;
pub mod groups;
pub mod kind;
mod model_file;
mod opened;
pub mod predictors;
mod random;
mod raw;
pub mod pwri;
pub mod real;
pub mod reference;
pub mod server;
#[cfg(unix)]
pub mod terminal;
mod tiny;
#[cfg(unix)]
pub mod tmux;

pub use command::{
    NO_SUCH_FILE, NOWHERE, Outcome, file, launched, names_in, program, refused, refused_by, sh, tool, usage_error,
    with_cache,
};
pub use model_file::{ModelFile, Tensor, Value};
pub use random::Random;
pub use raw::{Raw, patch_key, patch_tensor};

/// A folder with a tiny model and a text in it, and their paths.
pub fn model_and_text(text: &str) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelFile::tiny().written(folder.path(), "tiny.gguf");
    let path = folder.path().join("story.txt");
    std::fs::write(&path, text).unwrap();
    (folder, model, path)
}

/// Makes a FIFO.
pub fn make_fifo(path: &std::path::Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Says why a test does nothing here; not with `println!`, which the test runner keeps to itself when a test passes.
pub fn skipped(reason: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {reason}\n").as_bytes());
}
