//! What stands at a path: a regular file or something else, and whether two paths name one file.

#[cfg(windows)]
use super::windows;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

/// What stands at `path`, in words, where that is no regular file. It is not opened.
///
/// # Errors
/// When nothing is there.
pub(super) fn special_at(path: &Path) -> io::Result<Option<&'static str>> {
    // What the system tells of a device as if it were a file is no matter.
    #[cfg(windows)]
    if let Some(kind) = windows::device(path) {
        return Ok(Some(kind));
    }
    fs::metadata(path).map(|found| special(&found))
}

/// What an open file is, in words, where it is no regular file.
///
/// # Errors
/// When the system does not tell.
pub(super) fn special_open(file: &File) -> io::Result<Option<&'static str>> {
    #[cfg(windows)]
    if let Some(kind) = windows::special(file) {
        return Ok(Some(kind));
    }
    file.metadata().map(|found| special(&found))
}

/// Whether an open file still has its name, which was `path`: some clear away what is in use.
pub(crate) fn has_name(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let _ = path;
        file.metadata().is_ok_and(|m| m.nlink() > 0)
    }
    #[cfg(windows)]
    {
        windows::identity(path).is_some_and(|found| windows::identity_open(file) == Some(found))
    }
}

/// What `metadata` belongs to, in words, where that is no regular file.
fn special(metadata: &Metadata) -> Option<&'static str> {
    if metadata.is_file() {
        return None;
    }
    if metadata.is_dir() {
        return Some("a folder (a directory)");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = metadata.file_type();
        let kinds = [
            (kind.is_fifo(), "a FIFO (a named pipe)"),
            (kind.is_socket(), "a socket"),
            (kind.is_char_device(), "a character device"),
            (kind.is_block_device(), "a block device"),
        ];
        if let Some((_, name)) = kinds.into_iter().find(|(is, _)| *is) {
            return Some(name);
        }
    }
    Some("no regular file")
}

/// Whether both paths lead to one file, be it by links of either kind. Of devices it does not matter: they hold nothing
/// that could be overwritten.
pub fn is_same(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        let (Ok(first), Ok(second)) = (fs::metadata(a), fs::metadata(b)) else { return false };
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let is_device = first.file_type().is_char_device();
        !is_device && (first.dev(), first.ino()) == (second.dev(), second.ino())
    }
    #[cfg(windows)]
    {
        let first = windows::identity(a);
        first.is_some() && first == windows::identity(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_both_kinds_lead_to_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "x").unwrap();
        fs::write(at("b"), "x").unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        assert!(is_same(&at("a"), &at("hard")));
        assert!(!is_same(&at("a"), &at("b")) && !is_same(&at("a"), &at("none")) && !is_same(&at("none"), &at("none")));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("hard"), at("soft")).unwrap();
            assert!(is_same(&at("soft"), &at("a")));
        }
        let device = Path::new(if cfg!(windows) { "NUL" } else { "/dev/null" });
        assert!(!is_same(device, device));
        assert!(special_at(device).unwrap().is_some_and(|kind| kind.contains("device")));
        assert!(special_at(dir.path()).unwrap().is_some_and(|kind| kind.contains("folder")));
        assert_eq!(special_at(&at("a")).unwrap(), None);
        assert!(special_at(&at("none")).is_err());
    }

    #[test]
    fn a_file_that_was_deleted_has_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = File::create(&path).unwrap();
        assert!(has_name(&file, &path) && special_open(&file).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        // Wine shows it until it is closed.
        assert_eq!(has_name(&file, &path), path.exists());
        assert!(cfg!(windows) || !path.exists());
    }
}
