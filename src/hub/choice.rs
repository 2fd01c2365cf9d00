//! Which of a repository's files is meant, as llama.cpp chooses: by its quantization.

use super::repo::Repo;
use crate::gguf::PartNames;
use anyhow::{Result, bail};
use std::path::Path;

/// What is taken where the user does not say, the first that there is.
const USUAL: [&str; 2] = ["Q4_K_M", "Q8_0"];
/// Words in the names of GGUF files that are no models.
const NO_MODELS: [&str; 2] = ["mmproj", "imatrix"];
/// The most names that an error lists.
const MOST_LISTED: usize = 12;

/// Of `files`, those that a model begins with: of one in several files, the first.
pub(super) fn models(files: &[String]) -> Vec<&str> {
    let mut found: Vec<&str> = files.iter().map(String::as_str).filter(|name| is_model(name)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn is_model(file: &str) -> bool {
    let lower = file.to_ascii_lowercase();
    let path = Path::new(file);
    let first = PartNames::of(path).is_none_or(|names| path.file_name().is_some_and(|n| *n == *names.name(0)));
    file.ends_with(".gguf") && first && !NO_MODELS.iter().any(|word| lower.contains(word))
}

/// The file of `repo` that `quant` names; without it, the usual one.
///
/// # Errors
/// When there is none or more than one: lists what there is.
pub(super) fn choose<'f>(repo: &Repo, files: &'f [String], quant: Option<&str>) -> Result<&'f str> {
    let models = models(files);
    if models.is_empty() {
        bail!("{repo}: has no GGUF model{}", listed(", only ", &files.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    let with = |quant: &str| models.iter().copied().filter(|name| has_quant(name, quant)).collect::<Vec<_>>();
    let pick = |quant: &str, found: &[&'f str]| match found {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => bail!("{repo}:{quant}: is ambiguous; choose with -hff{}", listed(" one of ", several)),
    };
    if let Some(quant) = quant {
        return match pick(quant, &with(quant))? {
            Some(file) => Ok(file),
            None => bail!("{repo}:{quant}: there is no such file{}", listed("; there is ", &models)),
        };
    }
    for quant in USUAL {
        if let Some(file) = pick(quant, &with(quant))? {
            return Ok(file);
        }
    }
    Ok(models[0])
}

/// Whether nothing can come before `file` in the order in which files are chosen.
pub(super) fn is_first_choice(file: &str, quant: Option<&str>) -> bool {
    has_quant(file, quant.unwrap_or(USUAL[0]))
}

/// Whether `quant` stands in the path as a word: Q4_K is not in Q4_K_M, and Q4_K_M is not in IQ4_K_M.
fn has_quant(file: &str, quant: &str) -> bool {
    let (file, quant) = (file.to_ascii_lowercase(), quant.to_ascii_lowercase());
    let is_word = |c: char| c.is_ascii_alphanumeric();
    file.match_indices(&quant).any(|(at, _)| {
        let behind = &file[at + quant.len()..];
        !file[..at].ends_with(is_word) && !behind.starts_with(is_word) && !behind.starts_with('_')
    })
}

fn listed(before: &str, names: &[&str]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let more = names.len().saturating_sub(MOST_LISTED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{before}{}{more}", names[..names.len().min(MOST_LISTED)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str], quant: Option<&str>) -> Result<String> {
        let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
        choose(&"a/b".parse().unwrap(), &files, quant).map(str::to_owned)
    }

    #[test]
    fn a_quantization_is_found_as_a_word_of_the_name_in_any_case() {
        let files = [
            "m-IQ4_K_M.gguf",
            "m-Q4_K.gguf",
            "m-Q4_K_M.gguf",
            "m.q4.gguf",
            "README.md",
            "Q6_K/m-00001-of-00002.gguf",
            "Q6_K/m-00002-of-00002.gguf",
        ];
        for (quant, file) in [
            ("Q4_K_M", "m-Q4_K_M.gguf"),
            ("q4_k", "m-Q4_K.gguf"),
            ("Q4", "m.q4.gguf"),
            ("iq4_k_m", "m-IQ4_K_M.gguf"),
            ("q6_k", "Q6_K/m-00001-of-00002.gguf"),
        ] {
            assert_eq!(chosen(&files, Some(quant)).unwrap(), file, "{quant}");
        }
        let error = chosen(&files, Some("Q5_K_M")).unwrap_err().to_string();
        assert!(error.contains("m-Q4_K_M.gguf") && !error.contains("README") && !error.contains("00002-of"), "{error}");
    }

    #[test]
    fn without_one_the_usual_is_taken_and_then_the_first() {
        assert_eq!(chosen(&["a-Q2_K.gguf", "a-Q8_0.gguf", "a-Q4_K_M.gguf"], None).unwrap(), "a-Q4_K_M.gguf");
        assert_eq!(chosen(&["a-Q2_K.gguf", "a-Q8_0.gguf"], None).unwrap(), "a-Q8_0.gguf");
        assert_eq!(chosen(&["b.gguf", "a.gguf", "mmproj-a-Q8_0.gguf", "a.imatrix.gguf"], None).unwrap(), "a.gguf");
    }

    #[test]
    fn what_is_ambiguous_or_missing_is_listed() {
        let error = chosen(&["a-Q8_0.gguf", "a-variant-Q8_0.gguf"], Some("Q8_0")).unwrap_err().to_string();
        assert!(error.contains("ambiguous") && error.contains("a-Q8_0.gguf, a-variant-Q8_0.gguf"), "{error}");
        let error = chosen(&["x.safetensors"], None).unwrap_err().to_string();
        assert_eq!(error, "a/b: has no GGUF model, only x.safetensors");
        assert_eq!(chosen(&[], None).unwrap_err().to_string(), "a/b: has no GGUF model");
        let many: Vec<String> = (10..40).map(|i| format!("m{i}.gguf")).collect();
        let error = chosen(&many.iter().map(String::as_str).collect::<Vec<_>>(), Some("Q1")).unwrap_err().to_string();
        assert!(error.ends_with("and 18 more"), "{error}");
    }
}
