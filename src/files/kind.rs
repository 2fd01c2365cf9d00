//! What stands at a path: a regular file or something else, and whether two paths name one file.

use std::fs::{self, Metadata};
use std::path::Path;

/// What `metadata` belongs to, in words, where that is no regular file.
pub(super) fn special(metadata: &Metadata) -> Option<&'static str> {
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
    let (Ok(first), Ok(second)) = (fs::metadata(a), fs::metadata(b)) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let is_device = first.file_type().is_char_device();
        !is_device && (first.dev(), first.ino()) == (second.dev(), second.ino())
    }
    #[cfg(not(unix))]
    {
        let path = |path: &Path| path.canonicalize().ok();
        first.is_file() && second.is_file() && path(a).is_some() && path(a) == path(b)
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_both_kinds_lead_to_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "x").unwrap();
        fs::write(at("b"), "x").unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        symlink(at("hard"), at("soft")).unwrap();
        assert!(is_same(&at("a"), &at("hard")) && is_same(&at("soft"), &at("a")));
        assert!(!is_same(&at("a"), &at("b")) && !is_same(&at("a"), &at("none")) && !is_same(&at("none"), &at("none")));
        assert!(!is_same(Path::new("/dev/null"), Path::new("/dev/null")));
    }
}
