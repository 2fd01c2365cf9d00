//! The hub's cache on disk, as huggingface_hub lays it out: `models--OWNER--MODEL` with `blobs/ETAG`,
//! `snapshots/COMMIT/FILE` (links to blobs) and `refs/main` (which commit).

use super::choice;
use super::repo::{Repo, check_word};
use crate::files::{read_regular, replace, write_whole};
use crate::progress::Progress;
use crate::units::Bytes;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The branch that is meant.
pub(super) const MAIN: &str = "main";
/// Folders within each other that are looked into.
const MAX_DEPTH: usize = 6;
/// More than any commit's name has.
const MOST_REF: Bytes = Bytes(1024);

/// The folder in which huggingface_hub, and this, keep what they have fetched.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache at `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn repo(&self, repo: &Repo) -> PathBuf {
        self.root.join(repo.folder())
    }

    /// The file whose content has this ETag.
    pub(super) fn blob(&self, repo: &Repo, etag: &str) -> PathBuf {
        self.repo(repo).join("blobs").join(etag)
    }

    /// What keeps others from fetching the same.
    pub(super) fn lock(&self, repo: &Repo, etag: &str) -> PathBuf {
        self.root.join(".locks").join(repo.folder()).join(format!("{etag}.lock"))
    }

    /// The folder of the snapshot that is the newest as far as is known here.
    fn snapshot(&self, repo: &Repo) -> Option<PathBuf> {
        let name = self.repo(repo).join("refs").join(MAIN);
        let commit = read_regular(&name, MOST_REF).ok()?;
        check_word("commit", commit.trim()).ok()?;
        Some(self.repo(repo).join("snapshots").join(commit.trim()))
    }

    /// The paths of `files`, if all of them are there, of one snapshot.
    pub fn find(&self, repo: &Repo, files: &[String]) -> Option<Vec<PathBuf>> {
        let folder = self.snapshot(repo)?;
        let paths: Vec<_> = files.iter().map(|file| within(&folder, file)).collect();
        paths.iter().all(|path| path.is_file()).then_some(paths)
    }

    /// The models that are there of `repo`, as paths in it.
    pub(super) fn models(&self, repo: &Repo) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(folder) = self.snapshot(repo) {
            collect(&folder, "", MAX_DEPTH, &mut found);
        }
        choice::models(&found).into_iter().map(str::to_owned).collect()
    }

    /// Where the file is of this commit.
    pub(super) fn place(&self, repo: &Repo, commit: &str, file: &str) -> PathBuf {
        within(&self.repo(repo).join("snapshots").join(commit), file)
    }

    /// Puts the blob under its file's name into the snapshot, and says where.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn link(&self, repo: &Repo, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
        let (path, blob) = (self.place(repo, commit, file), self.blob(repo, etag));
        let shown = || format!("{}: cannot be written", path.display());
        let parent = path.parent().with_context(shown)?;
        fs::create_dir_all(parent).with_context(shown)?;
        // Where there are no links the blob itself has moved there.
        let is_there = || match (path.canonicalize(), blob.canonicalize()) {
            (Ok(path), Ok(blob)) => path == blob,
            (Ok(path), Err(_)) => path.is_file(),
            (Err(_), _) => false,
        };
        if !is_there() {
            // Windows wants its own separators in a link.
            let mut target: PathBuf = std::iter::repeat_n("..", file.matches('/').count() + 2).collect();
            target.extend(["blobs", etag]);
            let link = tempfile::Builder::new().make_in(parent, |temporary| symlink(&target, temporary));
            match link {
                Ok(link) => {
                    let mut link = link.into_temp_path();
                    replace(&link, &path).with_context(shown)?;
                    link.disable_cleanup(true);
                }
                // Without links the file itself has that place, as with huggingface_hub.
                Err(_) => replace(&blob, &path).with_context(shown)?,
            }
        }
        Ok(path)
    }

    /// Says which commit the branch is at.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn set_main(&self, repo: &Repo, commit: &str, progress: &dyn Progress) -> Result<()> {
        let folder = self.repo(repo).join("refs");
        let shown = || format!("{}: cannot be made", folder.display());
        fs::create_dir_all(&folder).with_context(shown)?;
        write_whole(&folder.join(MAIN), commit.as_bytes(), progress)
    }
}

/// The path of `file`, which has `/` between its parts, within `folder`.
fn within(folder: &Path, file: &str) -> PathBuf {
    let mut path = folder.to_owned();
    path.extend(file.split('/'));
    path
}

/// Adds the paths of all files below `folder`.
fn collect(folder: &Path, before: &str, depth: usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        if path.is_file() {
            found.push(format!("{before}{name}"));
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, &format!("{before}{name}/"), depth - 1, found);
        }
    }
}

fn symlink(target: &Path, at: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(target, at)
    }
    #[cfg(windows)]
    {
        std::os::windows::fs::symlink_file(target, at)?;
        // Wine 8 says that it has made one, and has not.
        fs::symlink_metadata(at).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn what_is_linked_is_found_and_what_is_missing_in_part_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, repo) = (Cache::new(folder.path().join("hub")), "a/b".parse().unwrap());
        let (one, two) = ("x/y/one.gguf".to_owned(), "two.gguf".to_owned());
        assert!(cache.find(&repo, std::slice::from_ref(&one)).is_none());
        for (file, etag) in [(&one, "e1"), (&two, "e2")] {
            let blob = cache.blob(&repo, etag);
            fs::create_dir_all(blob.parent().unwrap()).unwrap();
            fs::write(&blob, file).unwrap();
            let path = cache.link(&repo, "c0", file, etag).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), *file);
            assert_eq!(cache.link(&repo, "c0", file, etag).unwrap(), path, "a second time");
        }
        assert!(cache.find(&repo, std::slice::from_ref(&one)).is_none(), "no branch yet");
        cache.set_main(&repo, "c0", &Silent).unwrap();
        assert_eq!(cache.find(&repo, &[one.clone(), two.clone()]).unwrap().len(), 2);
        assert_eq!(cache.models(&repo), ["two.gguf", "x/y/one.gguf"]);
        let blob = cache.blob(&repo, "e2");
        if cfg!(windows) && !blob.exists() {
            return;
        }
        fs::remove_file(blob).unwrap();
        assert!(cache.find(&repo, &[one, two]).is_none(), "a link to nothing is no file");
        assert_eq!(cache.models(&repo), ["x/y/one.gguf"]);
    }

    #[test]
    fn a_branch_that_leads_out_of_the_cache_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, repo) = (Cache::new(folder.path().to_owned()), "a/b".parse().unwrap());
        fs::write(folder.path().join("x.gguf"), "x").unwrap();
        cache.set_main(&repo, "../../", &Silent).unwrap();
        assert!(cache.models(&repo).is_empty());
    }
}
