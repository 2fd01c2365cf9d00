//! models.toml: what is known of published models that their files do not say.

use anyhow::{Context, Result};
use serde::Deserialize;

const TEXT: &str = include_str!("../../models.toml");

/// One entry of models.toml; the file itself documents the fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownModel {
    /// Name for people.
    pub name: String,
    /// Lower-case words that must all occur in `general.name`.
    pub matches: Vec<String>,
    /// Files that are known to hold it.
    #[serde(default)]
    pub files: Vec<KnownFile>,
    /// GGUF architecture.
    pub architecture: String,
    /// Activation of the FFN.
    pub activation: String,
    /// Chat template: `file` (the GGUF's own) or `none`.
    pub template: String,
    /// SPDX identifier or the licence's name.
    pub licence: String,
    /// Whether this entry was checked with this program.
    pub verified: bool,
    /// Where the facts are from.
    pub source: String,
}

/// A file of a known model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownFile {
    /// File name.
    pub name: String,
    /// SHA-256 in hex; empty when it was not checked.
    pub sha256: String,
}

#[derive(Deserialize)]
struct Registry {
    model: Vec<KnownModel>,
}

/// All entries.
///
/// # Errors
/// When models.toml does not parse.
pub fn all() -> Result<Vec<KnownModel>> {
    parse(TEXT)
}

/// The entries of a text in the format of models.toml.
///
/// # Errors
/// Where it has another format.
pub fn parse(text: &str) -> Result<Vec<KnownModel>> {
    let registry: Registry = toml::from_str(text).context("models.toml")?;
    Ok(registry.model)
}

/// The entry whose words all occur in `general_name`.
///
/// # Errors
/// When models.toml does not parse.
pub fn find(general_name: &str) -> Result<Option<KnownModel>> {
    let name = general_name.to_lowercase();
    let fits = |m: &KnownModel| !m.matches.is_empty() && m.matches.iter().all(|w| name.contains(w.as_str()));
    Ok(all()?.into_iter().find(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_toml_parses_and_names_known_activations() {
        let models = all().unwrap();
        assert!(!models.is_empty());
        for model in models {
            model.activation.parse::<super::super::Activation>().unwrap();
            assert!(!model.source.is_empty(), "{}: nothing is stated without a source", model.name);
            assert!(model.matches.iter().all(|w| *w == w.to_lowercase()), "{}", model.name);
        }
    }

    #[test]
    fn a_model_is_found_by_the_words_in_its_name() {
        assert_eq!(find("SparseLLM ReluLLaMA 7B").unwrap().unwrap().activation, "relu");
        assert!(find("Llama-2-7b-chat").unwrap().is_none());
    }
}
