//! The files that make up a corpus.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Files are kept as given; a folder stands for all files below it, sorted by path. Hidden ones are left out, as is
/// `but` (the job's own output); links to folders are not followed.
///
/// # Errors
/// When a folder cannot be read or contains no file.
pub fn files(paths: &[PathBuf], but: &[&Path]) -> Result<Vec<PathBuf>> {
    let but: Vec<PathBuf> = but.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        walk(path, &mut found)?;
        found.retain(|file| but.is_empty() || file.canonicalize().map_or(true, |file| !but.contains(&file)));
        ensure!(!found.is_empty(), "{}: has no files", path.display());
        found.sort();
        all.append(&mut found);
    }
    Ok(all)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry.with_context(|| folder.display().to_string())?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().with_context(|| path.display().to_string())?;
        if kind.is_dir() {
            walk(&path, found)?;
        } else if path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_and_hidden_files_left_out() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::create_dir(at(".git")).unwrap();
        for name in ["z.txt", "b/y.txt", "b/c/x.txt", "a.txt", ".hidden", ".git/w.txt", "out"] {
            fs::write(at(name), "text").unwrap();
        }
        let found = files(&[at("z.txt"), place.path().to_owned()], &[&at("out"), &at("missing")]).unwrap();
        assert_eq!(found, ["z.txt", "a.txt", "b/c/x.txt", "b/y.txt", "z.txt"].map(at));
        // Whoever reads the files reports a missing one.
        assert_eq!(files(&[at("missing")], &[]).unwrap(), [at("missing")]);
        assert!(files(&[at(".git")], &[&at(".git/w.txt")]).unwrap_err().to_string().contains("has no files"));
    }
}
