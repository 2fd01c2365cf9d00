//! Where an output goes: links followed, and what cannot be an output refused.

use super::kind::special_at;
#[cfg(windows)]
use super::windows::{canonical, is_name, normal};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// As many as Linux follows.
const MAX_LINKS: usize = 40;

/// Where to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A regular file that is there or is to be, without links on the way: it is replaced.
    File(PathBuf),
    /// A device, a FIFO, or a file that no longer has a name: it is written to as it is.
    Special(PathBuf),
}

/// Where what is written to `given` goes. What a link points to is replaced, or made, not the link.
///
/// # Errors
/// When it is a folder, a socket, no name of a file, or its folder does not exist.
pub(super) fn find(given: &Path) -> Result<Target> {
    let shown = given.display();
    match special_at(given) {
        Ok(Some(kind)) if kind.contains("folder") => bail!("{shown}: is a folder; give a file name"),
        // Standard output may be a file whose name is gone.
        Ok(None) => Ok(canonical(given).map_or_else(|_| Target::Special(given.into()), Target::File)),
        Ok(Some(kind)) => {
            ensure!(!kind.contains("socket"), "{shown}: cannot be written: is {kind}; give a file name");
            Ok(Target::Special(given.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(given),
        Err(error) => bail!("{shown}: cannot be written: {error}"),
    }
}

/// The path without links.
#[cfg(unix)]
fn canonical(path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// Where the file at `given` is to be, which does not exist.
fn missing(given: &Path) -> Result<Target> {
    let shown = given.display();
    let mut path = given.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&path) else { break };
        path = folder_of(&path).join(to);
    }
    let link = if path == given { String::new() } else { format!(" (a link to {})", path.display()) };
    ensure!(!names_folder(&path), "{shown}{link}: names a folder; give a file name");
    #[cfg(windows)]
    let path = normal(&path);
    let name = path.file_name().with_context(|| format!("{shown}{link}: has no file name"))?;
    #[cfg(windows)]
    ensure!(is_name(name), "{shown}{link}: cannot be written: a file's name has none of < > : \" | ? *");
    match canonical(folder_of(&path)) {
        Ok(folder) => Ok(Target::File(folder.join(name))),
        Err(error) => bail!("{shown}{link}: cannot be written: its folder: {error}"),
    }
}

/// Whether the path ends so that it can only be that of a folder.
fn names_folder(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let before_dots = bytes.strip_suffix(b"..").or_else(|| bytes.strip_suffix(b".")).unwrap_or(bytes);
    before_dots.last().is_some_and(|last| std::path::is_separator((*last).into()))
}

/// Whether what is written to one path would replace what is written to the other.
pub fn is_one_target(a: &Path, b: &Path) -> bool {
    // Names on Windows differ in more than their case.
    let one = |a: &Path, b: &Path| match cfg!(windows) {
        true => a.to_string_lossy().to_lowercase() == b.to_string_lossy().to_lowercase(),
        false => a == b,
    };
    matches!((find(a), find(b)), (Ok(Target::File(a)), Ok(Target::File(b))) if one(&a, &b))
}

/// The folder in which the last part of `path` stands.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use std::os::unix::fs::symlink;

    #[cfg(windows)]
    #[test]
    fn names_are_understood_as_the_system_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::write(root.join("there"), "x").unwrap();
        for (given, wanted) in
            [("there", "there"), (r".\no\..\there", "there"), ("new.", "new"), ("new. ", "new"), ("a/../new", "new")]
        {
            // Not of a path that begins with \\?\, in which all letters count.
            assert_eq!(find(&dir.path().join(given)).unwrap(), Target::File(root.join(wanted)), "{given}");
        }
        for given in ["NUL", "nul", r"\\.\NUL"] {
            assert_eq!(find(Path::new(given)).unwrap(), Target::Special(given.into()));
        }
        assert_eq!(find(&dir.path().join("nul")).unwrap(), Target::Special(dir.path().join("nul")));
        for (given, wanted) in [
            ("new:b", "has none of"),
            ("there:b", "has none of"),
            ("a*", "cannot be written"),
            (r"none\", "names a folder"),
            ("none/", "names a folder"),
            (r"none\.", "names a folder"),
            (r"none\x", "its folder: "),
            (".", "is a folder"),
        ] {
            let given = dir.path().join(given);
            let error = find(&given).unwrap_err().to_string();
            assert!(error.starts_with(&given.display().to_string()) && error.contains(wanted), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_to_what_is_there_and_to_what_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/there"), "x").unwrap();
        symlink("folder/there", at("one")).unwrap();
        symlink("folder/new", at("two")).unwrap();
        symlink("two", at("three")).unwrap();
        for (given, wanted) in [("one", "folder/there"), ("two", "folder/new"), ("three", "folder/new"), ("new", "new")]
        {
            assert_eq!(find(&at(given)).unwrap(), Target::File(at(wanted)), "{given}");
        }
        assert!(is_one_target(&at("three"), &at("folder/../folder/./new")) && !is_one_target(&at("one"), &at("two")));
        symlink("/dev/null", at("null")).unwrap();
        assert_eq!(find(&at("null")).unwrap(), Target::Special(at("null")));
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_an_output_is_refused_by_the_name_that_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        for (name, to) in [("loop", "loop"), ("a", "b"), ("b", "a"), ("lost", "no/such/folder/x"), ("slash", "none/")] {
            symlink(to, at(name)).unwrap();
        }
        for (given, wanted) in [
            ("", "is a folder"),
            ("none/", "names a folder"),
            ("none/.", "names a folder"),
            ("none/..", "names a folder"),
            ("slash", "names a folder"),
            ("none/x", "its folder: No such file"),
            ("file/x", "Not a directory"),
            ("loop", "Too many levels"),
            ("a", "Too many levels"),
            ("lost", "no/such/folder/x): cannot be written"),
        ] {
            let error = find(&at(given)).unwrap_err().to_string();
            assert!(error.starts_with(&at(given).display().to_string()) && error.contains(wanted), "{given}: {error}");
        }
        assert!(find(Path::new("")).unwrap_err().to_string().contains("no file name"));
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(find(&at("socket")).unwrap_err().to_string().contains("is a socket"));
    }
}
