//! Where a model's weights are while it runs.

use super::models::{open_file, read_file};
use super::terminal::tell;
use anyhow::Result;
use clap::Args;
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::progress::Progress;
use std::path::Path;

/// Flags that say so.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub struct Memory {
    /// Keep the model in memory: all of its file is read at once, and never paged out
    #[arg(long)]
    pub mlock: bool,
    /// Read the model into memory of its own instead of mapping its file: what is computed never waits for the disk, and the
    /// file may change meanwhile; starting takes as long as reading it does
    #[arg(long)]
    pub no_mmap: bool,
}

impl Memory {
    /// The file at `path`, or the embedded model.
    pub fn open(&self, path: Option<&Path>, progress: &dyn Progress) -> Result<Gguf> {
        if self.no_mmap { read_file(path, progress) } else { open_file(path) }
    }

    /// `--mlock`. Where the system does not let it, that is told, and nothing else is lost.
    pub fn lock(&self, model: &Model) {
        if self.mlock
            && let Err(why) = model.gguf.lock()
        {
            tell!("warning: --mlock: {why:#}; ulimit -l says how much may be kept");
        }
    }
}
