//! The texts that make up a corpus: files as given, and what folders hold.

use super::checkpoint;
use super::collect::Text;
use super::header;
use crate::files::is_same;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How files begin that a profiling job has written: checkpoint, profile, picture.
const OURS: [&[u8]; 3] = [checkpoint::MAGIC, header::MAGIC, b"\x89PNG\r\n\x1a\n"];

/// A file of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it was found in a folder, not named by the user.
    pub in_folder: bool,
}

/// Files are kept as given; a folder stands for all files below it, sorted by path. Hidden ones are left out, as is
/// `but` (the job's own output); links to folders are not followed, nor are devices and FIFOs read.
///
/// # Errors
/// When a folder cannot be read or contains no file, or when one of `but` is a text in a folder and would be overwritten.
pub fn files(paths: &[PathBuf], but: &[&Path]) -> Result<Vec<CorpusFile>> {
    let mut all = Vec::new();
    for path in paths {
        // A folder of the name that stands for standard input is given as ./-.
        if path == Path::new("-") || !path.is_dir() {
            all.push(CorpusFile { path: path.clone(), in_folder: false });
            continue;
        }
        let mut found = Vec::new();
        walk(path, &mut found)?;
        for output in but {
            let taken = found.extract_if(.., |file| is_same(file, output));
            for file in taken.collect::<Vec<_>>() {
                let ours = is_ours(&file).with_context(|| file.display().to_string())?;
                let (output, folder) = (output.display(), path.display());
                ensure!(
                    ours,
                    "{output}: is one of the texts in {folder} and would be overwritten; give another output name"
                );
            }
        }
        ensure!(!found.is_empty(), "{}: has no files", path.display());
        found.sort();
        all.extend(found.into_iter().map(|path| CorpusFile { path, in_folder: true }));
    }
    Ok(all)
}

/// Whether the file is empty or was written by a job like this one.
fn is_ours(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut start)?;
    Ok(start.is_empty() || OURS.contains(&&*start))
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

/// Reads the texts by `read`. Empty ones in folders are left out; returns their names, too.
///
/// # Errors
/// When a text cannot be read or all are empty. Whether a text that was named is empty is found out by whoever uses it.
pub fn read_all(files: &[CorpusFile], read: impl Fn(&Path) -> Result<Text>) -> Result<(Vec<Text>, Vec<String>)> {
    let (mut texts, mut empty) = (Vec::new(), Vec::new());
    for CorpusFile { path, in_folder } in files {
        let text = read(path)?;
        if *in_folder && text.text.trim().is_empty() {
            empty.push(text.name);
        } else {
            texts.push(text);
        }
    }
    ensure!(!texts.is_empty(), "{}: is empty, as are all texts that were given", empty.first().map_or("-f", |n| n));
    Ok((texts, empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(files: Vec<CorpusFile>) -> Vec<PathBuf> {
        files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn folders_are_walked_in_order_and_hidden_files_left_out() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::create_dir(at(".git")).unwrap();
        for name in ["z.txt", "b/y.txt", "b/c/x.txt", "a.txt", ".hidden", ".git/w.txt"] {
            fs::write(at(name), "text").unwrap();
        }
        fs::write(at("out"), [header::MAGIC, &[1, 2, 3][..]].concat()).unwrap();
        fs::write(at("empty"), "").unwrap();
        let but = [at("out"), at("empty"), at("missing")];
        let but: Vec<&Path> = but.iter().map(PathBuf::as_path).collect();
        let found = files(&[at("z.txt"), place.path().to_owned()], &but).unwrap();
        let in_folder: Vec<_> = found.iter().map(|file| file.in_folder).collect();
        assert_eq!(in_folder, [false, true, true, true, true]);
        assert_eq!(paths(found), ["z.txt", "a.txt", "b/c/x.txt", "b/y.txt", "z.txt"].map(at));
        // Whoever reads the files reports a missing one.
        assert_eq!(paths(files(&[at("missing")], &[]).unwrap()), [at("missing")]);
        fs::write(at(".git/w.txt"), "").unwrap();
        assert!(files(&[at(".git")], &[&at(".git/w.txt")]).unwrap_err().to_string().contains("has no files"));
    }

    #[test]
    fn an_output_that_is_a_text_in_the_folder_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("a.txt"), "text").unwrap();
        fs::write(at("b.txt"), "text").unwrap();
        fs::hard_link(at("a.txt"), at("again")).unwrap();
        for name in ["b.txt", "again"] {
            let error = files(&[place.path().to_owned()], &[&at(name)]).unwrap_err().to_string();
            assert!(error.starts_with(&at(name).display().to_string()) && error.contains("overwritten"), "{error}");
        }
    }

    #[test]
    fn empty_texts_of_folders_are_left_out_unless_all_are() {
        let read = |path: &Path| {
            let name = path.display().to_string();
            let text = if name.starts_with("full") { "text" } else { "\n" };
            Ok(Text { name, text: text.to_owned() })
        };
        let file = |name: &str, in_folder| CorpusFile { path: name.into(), in_folder };
        let (texts, empty) =
            read_all(&[file("a", true), file("b", false), file("full", true), file("c", true)], read).unwrap();
        assert_eq!(texts.into_iter().map(|t| t.name).collect::<Vec<_>>(), ["b", "full"]);
        assert_eq!(empty, ["a", "c"]);
        let error = read_all(&[file("a", true), file("c", true)], read).err().unwrap().to_string();
        assert!(error.contains("a: is empty, as are all"), "{error}");
    }
}
