//! Which model: a path, a name, or one of the hub.

use super::hub::hub;
use anyhow::{Result, bail};
use clap::Args;
use powerinfer::hub::Reference;
use powerinfer::progress::Progress;
use std::path::{Path, PathBuf};

/// How all commands name the model that they work with.
#[derive(Args)]
pub struct Which {
    /// Model: a GGUF file (plain or variant), or hf:OWNER/MODEL/FILE.gguf, which is fetched from the Hugging Face hub once
    /// [default: the embedded model]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Model of the Hugging Face hub (-hf), as in -hf owner/model-GGUF:Q4_K_M; without QUANT its Q4_K_M, else its Q8_0, else
    /// its first file
    #[arg(long, value_name = "OWNER/MODEL[:QUANT]", conflicts_with = "model")]
    pub hf_repo: Option<Reference>,
    /// The file of that repository to take (-hff)
    #[arg(long, value_name = "FILE", requires = "hf_repo")]
    pub hf_file: Option<String>,
    /// Fetch nothing: use what the hub's cache holds
    #[arg(long)]
    pub offline: bool,
}

impl Which {
    /// The path of the model, fetched if need be; `None` where none was named.
    ///
    /// # Errors
    /// One line that says what could not be found or fetched.
    pub fn path(&self, progress: &dyn Progress) -> Result<Option<PathBuf>> {
        let Some(repo) = &self.hf_repo else {
            return self.model.as_deref().map(|model| self.found(model, progress)).transpose();
        };
        let wanted = match &self.hf_file {
            Some(_) if repo.quant.is_some() => bail!("-hff: names a file, and {}:QUANT another", repo.repo),
            Some(file) => Reference::to_file(repo.repo.clone(), file)?,
            None => repo.clone(),
        };
        hub(self.offline, progress)?.path(&wanted, None).map(Some)
    }

    /// The path that `model` means: itself, where it exists.
    pub fn found(&self, model: &Path, progress: &dyn Progress) -> Result<PathBuf> {
        let reference = match model.to_str().filter(|_| !model.exists()) {
            Some(text) => Reference::of_argument(text)?,
            None => None,
        };
        match reference {
            Some(wanted) => hub(self.offline, progress)?.path(&wanted, None),
            None => Ok(model.to_owned()),
        }
    }
}
