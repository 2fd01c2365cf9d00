//! Names on the hub: repositories, files in them, and how users write them.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::str::FromStr;

/// What names on the hub begin with where a path could stand.
const SCHEME: &str = "hf:";
/// The most characters of an owner's or a model's name on the hub.
const MAX_NAME: usize = 96;
/// The most characters of a path within a repository.
const MAX_PATH: usize = 1024;
/// The most bytes of a file name on usual file systems.
const MAX_PART: usize = 255;

/// A repository of the hub: `owner/model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    owner: String,
    model: String,
}

impl Repo {
    /// Its folder in the hub's cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}--{}", self.owner, self.model)
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.model)
    }
}

impl FromStr for Repo {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = || format!("{text:?} is no repository of the hub; write owner/model");
        let (owner, model) = text.split_once('/').with_context(wanted)?;
        let fits = |name: &str| {
            let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            // Two hyphens part the names of folders in the cache.
            letters
                && (1..=MAX_NAME).contains(&name.len())
                && !name.starts_with(['-', '.'])
                && !name.contains("--")
                && !name.contains("..")
        };
        ensure!(fits(owner) && fits(model), wanted());
        Ok(Self { owner: owner.to_owned(), model: model.to_owned() })
    }
}

/// What a user names on the hub: a repository, and the file in it or how to choose one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it lies.
    pub repo: Repo,
    /// Path of the file in it, with `/`; where there is none, one is chosen.
    pub file: Option<String>,
    /// Which quantization to choose, as in `Q4_K_M`.
    pub quant: Option<String>,
}

impl Reference {
    /// The file at `file` in `repo`.
    ///
    /// # Errors
    /// When it is no path of a GGUF file within a repository.
    pub fn to_file(repo: Repo, file: &str) -> Result<Self> {
        check_path(file)?;
        ensure!(file.ends_with(".gguf"), "{file}: is no GGUF file");
        Ok(Self { repo, file: Some(file.to_owned()), quant: None })
    }

    /// Whether `text` is written as a name on the hub where a path could stand: `hf:owner/model/file.gguf`,
    /// `hf:owner/model` or `hf:owner/model:Q4_K_M`.
    ///
    /// # Errors
    /// When it begins with `hf:` and does not go on so.
    pub fn of_argument(text: &str) -> Result<Option<Self>> {
        let Some(rest) = text.strip_prefix(SCHEME) else { return Ok(None) };
        let mut slashes = rest.match_indices('/').map(|(at, _)| at);
        match (slashes.next(), slashes.next()) {
            (Some(_), Some(second)) => Self::to_file(rest[..second].parse()?, &rest[second + 1..]).map(Some),
            _ => rest.parse().map(Some),
        }
        .with_context(|| text.to_owned())
    }
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    /// Reads `owner/model` or `owner/model:QUANT`.
    fn from_str(text: &str) -> Result<Self> {
        let (repo, quant) = match text.split_once(':') {
            Some((repo, quant)) => (repo, Some(quant)),
            None => (text, None),
        };
        if let Some(quant) = quant {
            let fits = quant.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            ensure!(fits && !quant.is_empty(), "{quant:?} is no quantization; write one such as {repo}:Q4_K_M");
        }
        Ok(Self { repo: repo.parse()?, file: None, quant: quant.map(str::to_owned) })
    }
}

/// Holds that `path` stays within the folder that it is put into, on every system.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn check_path(path: &str) -> Result<()> {
    let shown: String = path.chars().take(100).collect();
    for part in path.split('/') {
        let fits = (1..=MAX_PART).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.contains(|c: char| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'));
        ensure!(fits, "{shown:?} is no path of a file in a repository");
    }
    ensure!(path.len() <= MAX_PATH, "{shown:?}...: the path is too long");
    Ok(())
}

/// Holds that what a server sent may be a part of a path: a commit or an ETag.
///
/// # Errors
/// Says that it may not.
pub(super) fn check_word(what: &str, word: &str) -> Result<()> {
    let fits = word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !fits || !(1..=128).contains(&word.len()) {
        let shown: String = word.chars().take(40).collect();
        bail!("{what} is {shown:?}, which no hub of models sends");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_users_of_llama_cpp_write_them() {
        let whole: Reference = "SparseLLM/ReluLLaMA-7B:Q4_K_M".parse().unwrap();
        assert_eq!(
            (whole.repo.to_string(), whole.quant.as_deref()),
            ("SparseLLM/ReluLLaMA-7B".to_owned(), Some("Q4_K_M"))
        );
        assert_eq!(whole.repo.folder(), "models--SparseLLM--ReluLLaMA-7B");
        let file = Reference::of_argument("hf:a/b/sub/c.gguf").unwrap().unwrap();
        assert_eq!((file.repo.to_string(), file.file.as_deref()), ("a/b".to_owned(), Some("sub/c.gguf")));
        assert_eq!(Reference::of_argument("hf:a/b:q8_0").unwrap().unwrap().quant.as_deref(), Some("q8_0"));
        assert_eq!(Reference::of_argument("models/x.gguf").unwrap(), None);
    }

    #[test]
    fn what_could_leave_the_cache_is_no_name() {
        for text in
            ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b--c", "a/.b", "a b/c", "a/b:", "a/b:../x", "a\\b/c"]
        {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        for text in
            ["hf:", "hf:a", "hf:a/b/../c.gguf", "hf:a/b//c.gguf", "hf:a/b/c:d.gguf", "hf:a/b/c\\d.gguf", "hf:a/b/c.bin"]
        {
            let error = format!("{:#}", Reference::of_argument(text).unwrap_err());
            assert!(error.starts_with(text) && !error.contains('\n'), "{error}");
        }
        for word in ["", "..", "a/b", "a\\b", &"x".repeat(200)] {
            assert!(check_word("ETag", word).is_err(), "{word}");
        }
    }
}
