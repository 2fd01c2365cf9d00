//! models.toml: what is known of published models that their files do not say.

use super::activation::{Activation, Threshold};
use anyhow::{Context, Result};
use serde::Deserialize;

const TEXT: &str = include_str!("../../models.toml");

/// One entry of models.toml; the file itself documents the fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownModel {
    /// Name for people.
    pub name: String,
    /// What `-m` calls it; empty where no file of it can be named so.
    #[serde(default)]
    pub id: String,
    /// Lower-case words that must all occur in `general.name`.
    pub matches: Vec<String>,
    /// Files that are known to hold it.
    #[serde(default)]
    pub files: Vec<KnownFile>,
    /// Repository of the Hugging Face hub with GGUF files of it; empty where none is known.
    #[serde(default)]
    pub repo: String,
    /// Which of them, as a path in it; empty where it is chosen by `quant`.
    #[serde(default)]
    pub file: String,
    /// Which quantization of them; empty for the usual one.
    #[serde(default)]
    pub quant: String,
    /// Repository of the weights as they were published, for converting; empty where there is none.
    #[serde(default)]
    pub weights: String,
    /// Parameters, as in `7B`.
    #[serde(default)]
    pub size: String,
    /// Share of the FFN's neurons that are zero for a token, 0 to 1.
    #[serde(default)]
    pub sparsity: Option<f32>,
    /// Who found that: `measured` here, or `cited` from `source`.
    #[serde(default)]
    pub sparsity_is: String,
    /// Whether the program holds it: no file is needed.
    #[serde(default)]
    pub embedded: bool,
    /// GGUF architecture.
    pub architecture: String,
    /// Activation of the FFN.
    pub activation: String,
    /// Its threshold, where it has one.
    #[serde(default)]
    pub threshold: Option<f32>,
    /// Groups of neurons per layer that a router chooses among; 0 where there is one only.
    #[serde(default)]
    pub experts: u32,
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

impl KnownModel {
    /// The threshold of its activation, where there is one.
    ///
    /// # Errors
    /// When it is negative or no finite number.
    pub fn threshold(&self) -> Result<Option<Threshold>> {
        self.threshold.map(Threshold::new).transpose().with_context(|| format!("{}: threshold", self.name))
    }

    /// The activation as a function.
    ///
    /// # Errors
    /// When it is not known, or its threshold is missing or makes no sense.
    pub fn function(&self) -> Result<Activation> {
        Activation::named(&self.activation, self.threshold()?)
    }
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
    parse(TEXT).context("models.toml")
}

/// The entries of a text in the format of models.toml.
///
/// # Errors
/// Where it has another format.
pub fn parse(text: &str) -> Result<Vec<KnownModel>> {
    let registry: Registry = toml::from_str(text)?;
    Ok(registry.model)
}

/// `models` with those of `more`, which take the place of those with the same `id`.
pub fn merged(mut models: Vec<KnownModel>, more: Vec<KnownModel>) -> Vec<KnownModel> {
    for new in more {
        match models.iter_mut().find(|old| !new.id.is_empty() && is_id(old, &new.id)) {
            Some(old) => *old = new,
            None => models.push(new),
        }
    }
    models
}

/// The entry that `-m` calls `id`, in any case.
pub fn by_id<'m>(models: &'m [KnownModel], id: &str) -> Option<&'m KnownModel> {
    models.iter().find(|model| !id.is_empty() && is_id(model, id))
}

fn is_id(model: &KnownModel, id: &str) -> bool {
    model.id.eq_ignore_ascii_case(id)
}

/// What the same weights may be called in files: all of LLaMA's form.
const RELATED: [&str; 3] = ["llama", "bamboo", "minicpm"];

/// The entry whose words all occur in `general_name`, of a file of architecture `arch`.
///
/// # Errors
/// When models.toml does not parse.
pub fn find(general_name: &str, arch: &str) -> Result<Option<KnownModel>> {
    let name = general_name.to_lowercase();
    let related = |other: &str| other == arch || [other, arch].iter().all(|a| RELATED.contains(a));
    let named = |m: &KnownModel| !m.matches.is_empty() && m.matches.iter().all(|w| name.contains(w.as_str()));
    let fits = |m: &KnownModel| named(m) && related(&m.architecture);
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
            assert!(model.function().is_ok(), "{}", model.name);
            assert!(!model.source.is_empty(), "{}: nothing is stated without a source", model.name);
            assert!(model.sparsity.is_none_or(|share| (0.0..1.0).contains(&share)), "{}", model.name);
            let whose = ["measured", "cited"].contains(&&*model.sparsity_is);
            assert_eq!(model.sparsity.is_some(), whose, "{}", model.name);
            // What has no name for `-m` may be a file of this repository.
            let published = !(model.repo.is_empty() && model.weights.is_empty());
            assert!(model.embedded || published || model.id.is_empty(), "{}", model.name);
            assert!(model.matches.iter().all(|w| *w == w.to_lowercase()), "{}", model.name);
        }
    }

    #[test]
    fn each_model_has_a_name_of_its_own() {
        let models = all().unwrap();
        for model in models.iter().filter(|model| !model.id.is_empty()) {
            assert!(model.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)));
            assert_eq!(models.iter().filter(|other| other.id == model.id).count(), 1, "{}", model.id);
            assert_eq!(by_id(&models, &model.id.to_uppercase()).unwrap().name, model.name);
        }
        assert!(by_id(&models, "").is_none());
    }

    #[test]
    fn what_is_added_takes_the_place_of_what_has_the_same_name() {
        let entry = |id: &str, licence: &str| KnownModel {
            id: id.to_owned(),
            licence: licence.to_owned(),
            ..all().unwrap().remove(0)
        };
        let models =
            merged(vec![entry("a", "1"), entry("b", "2")], vec![entry("B", "3"), entry("c", "4"), entry("", "5")]);
        let found: Vec<_> = models.iter().map(|model| (&*model.id, &*model.licence)).collect();
        assert_eq!(found, [("a", "1"), ("B", "3"), ("c", "4"), ("", "5")]);
    }

    #[test]
    fn a_model_is_found_by_the_words_in_its_name() {
        assert_eq!(find("SparseLLM ReluLLaMA 7B", "llama").unwrap().unwrap().activation, "relu");
        assert!(find("Llama-2-7b-chat", "llama").unwrap().is_none());
        // A word of a name says nothing of models of another form.
        assert!(find("My bamboo 7b", "bamboo").unwrap().is_some());
        assert!(find("My bamboo 7b", "opt").unwrap().is_none());
    }
}
