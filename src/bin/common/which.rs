//! Which model: a path, a name, or one of the hub.

use super::hub::hub;
use super::names;
use super::terminal::tell;
use anyhow::{Context, Result, bail};
use clap::Args;
use powerinfer::hub::{Hub, Reference};
use powerinfer::model::Model;
use powerinfer::model::registry::{KnownModel, by_id};
use powerinfer::progress::Progress;
use std::path::{Path, PathBuf};

/// How all commands name the model that they work with.
#[derive(Args)]
pub struct Which {
    /// Model: a GGUF file (plain or variant), a name (powerinfer-run --list-models), or hf:OWNER/MODEL/FILE.gguf; what is not
    /// here is fetched from the Hugging Face hub once. Of several the last counts; bench measures all [default: the embedded
    /// model]
    #[arg(short, long, value_name = "FILE|NAME")]
    pub model: Vec<PathBuf>,
    /// Model of the Hugging Face hub (-hf), as in -hf owner/model-GGUF:Q4_K_M; without QUANT its Q4_K_M, else its Q8_0, else
    /// its first file
    #[arg(long, value_name = "OWNER/MODEL[:QUANT]", conflicts_with = "model")]
    pub hf_repo: Option<Reference>,
    /// The file of that repository to take (-hff)
    #[arg(long, value_name = "FILE", requires = "hf_repo")]
    pub hf_file: Option<String>,
    /// The hub's access token (-hft), which others on this machine can see here [default: HF_TOKEN, or what `hf auth login` keeps]
    #[arg(long, value_name = "TOKEN")]
    pub hf_token: Option<String>,
    /// Fetch nothing: use what the hub's cache holds
    #[arg(long)]
    pub offline: bool,
    /// More models by their names, in the format of models.toml [default: models.toml in powerinfer's config folder]
    #[arg(long, value_name = "FILE")]
    pub models: Option<PathBuf>,
}

/// A model as it was named, if it was, and its path, if it has one.
type Named = (Option<PathBuf>, Option<PathBuf>);

impl Which {
    /// The name that counts, of those given with `-m`.
    pub fn last(&self) -> Option<&Path> {
        self.model.last().map(PathBuf::as_path)
    }

    /// All models that were named, with their paths, fetched if need be; the embedded model where none was.
    ///
    /// # Errors
    /// As [`Which::path`].
    pub fn all(&self, progress: &dyn Progress) -> Result<Vec<Named>> {
        if self.hf_repo.is_some() || self.model.is_empty() {
            return Ok(vec![(None, self.path(progress)?)]);
        }
        let mut all = Vec::new();
        for given in &self.model {
            // A file may have a comma in its name.
            let several = given.to_str().filter(|text| text.contains(',') && !given.exists());
            let names = several.map_or(vec![given.clone()], |text| text.split(',').map(PathBuf::from).collect());
            for name in names {
                let path = self.found(&name, progress)?;
                all.push((Some(name), path));
            }
        }
        Ok(all)
    }

    /// The path of the model, fetched if need be; `None` where none was named.
    ///
    /// # Errors
    /// One line that says what could not be found or fetched.
    pub fn path(&self, progress: &dyn Progress) -> Result<Option<PathBuf>> {
        let Some(repo) = &self.hf_repo else {
            let Some(model) = self.last() else { return Ok(None) };
            return self.found(model, progress);
        };
        let wanted = match &self.hf_file {
            Some(_) if repo.quant.is_some() => bail!("-hff: names a file, and {}:QUANT another", repo.repo),
            Some(file) => Reference::to_file(repo.repo.clone(), file)?,
            None => repo.clone(),
        };
        self.hub(progress)?.path(&wanted, None).map(Some)
    }

    /// The hub, as the flags have it.
    fn hub<'a>(&self, progress: &'a dyn Progress) -> Result<Hub<'a>> {
        hub(self.offline, self.hf_token.as_deref(), progress)
    }

    /// The path that `model` means: itself, where it exists; `None` for the embedded model.
    pub fn found(&self, model: &Path, progress: &dyn Progress) -> Result<Option<PathBuf>> {
        let Some(text) = model.to_str().filter(|_| !model.exists()) else { return Ok(Some(model.to_owned())) };
        let hub = || self.hub(progress);
        if let Some(wanted) = Reference::of_argument(text)? {
            return hub()?.path(&wanted, None).map(Some);
        }
        if text.contains(['/', '\\']) || text.ends_with(".gguf") {
            return Ok(Some(model.to_owned()));
        }
        let known = names::known(self.models.as_deref())?;
        let Some(entry) = by_id(&known, text) else {
            bail!(
                "{text}: there is no such file, and no model of that name; powerinfer-run --list-models shows the names"
            );
        };
        if entry.embedded {
            return Ok(None);
        }
        let (wanted, sha256) = names::reference(entry).with_context(|| text.to_owned())?;
        hub()?.path(&wanted, sha256).with_context(|| text.to_owned()).map(Some)
    }

    /// Says so where the name that was given stands for another activation function than the file is run with.
    pub fn warn(&self, model: &Model) -> Result<()> {
        self.warn_of(self.last(), model)
    }

    /// The same, of a model that was given by `name`.
    pub fn warn_of(&self, name: Option<&Path>, model: &Model) -> Result<()> {
        let Some(name) = name.filter(|path| !path.exists()).and_then(Path::to_str) else {
            return Ok(());
        };
        let known = names::known(self.models.as_deref())?;
        let (runs, entry) = (model.config.activation.activation, by_id(&known, name));
        if let Some(is) = entry.map(KnownModel::function).transpose()?.filter(|is| *is != runs) {
            tell!(
                "warning: {name} is listed with activation {is}, but is run with {runs}; --activation {is} if it is known"
            );
        }
        Ok(())
    }
}
