//! Temporary files of processes that were killed, told from those that are being written.

use super::target::{Target, find, folder_of};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// Random characters in the name of a temporary file.
const RANDOM_LEN: usize = 6;
const SUFFIX: &str = ".partial";
/// Bytes of a target's name that go into that of its temporary file: with the rest it must stay a legal name.
const STEM_BYTES: usize = 200;
/// Characters of a longer name, of four bytes at most.
const STEM_CHARS: usize = 50;

/// What names of temporary files of `target` begin with.
fn prefix(target: &Path) -> OsString {
    let name = target.file_name().unwrap_or_default();
    let mut prefix = OsString::from(".");
    if name.len() > STEM_BYTES {
        prefix.push(name.to_string_lossy().chars().take(STEM_CHARS).collect::<String>());
    } else {
        prefix.push(name);
    }
    prefix
}

/// Makes something under the name of a temporary file beside `target`.
pub(super) fn temporary<R>(
    target: &Path,
    make: impl FnMut(&Path) -> std::io::Result<R>,
) -> std::io::Result<(R, tempfile::TempPath)> {
    let mut builder = tempfile::Builder::new();
    let prefix = prefix(target);
    builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM_LEN);
    Ok(builder.make_in(folder_of(target), make)?.into_parts())
}

/// Holds `file` as long as it is open: [`remove_leftovers`] then leaves it alone. Where the filesystem has no locks
/// nothing is ever removed. `false`: somebody is removing it now.
pub(super) fn hold(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Deletes temporary files that processes which were killed while they wrote `target` have left. Those of living ones are
/// locked and stay, also those of other machines as far as the filesystem shares its locks.
pub fn remove_leftovers(target: &Path) {
    if let Ok(Target::File(target)) = find(target) {
        remove(&target);
    }
}

/// The same for a target whose links have been followed.
pub(super) fn remove(target: &Path) {
    let begin = prefix(target);
    for entry in fs::read_dir(folder_of(target)).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let rest = found.as_encoded_bytes().strip_prefix(begin.as_encoded_bytes());
        let random = rest.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
        let is_ours = random.is_some_and(|r| r.len() == RANDOM_LEN && r.iter().all(u8::is_ascii_alphanumeric));
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        // Whoever writes it looks, once it has the lock, whether the file still has its name.
        let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            // Where it cannot be deleted it is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_a_target_are_deleted_and_those_of_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let kept = [".out.binx123456.partial", ".out.bi123456.partial", ".out.bin123456.txt", "out.bin"];
        for name in kept.iter().chain(&[".out.bin12ab56.partial"]) {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        let held = File::create(dir.path().join(".out.binabcdef.partial")).unwrap();
        assert!(hold(&held));
        let names = || {
            let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.filter(|name| !kept.contains(&&**name)).collect::<Vec<_>>()
        };
        remove_leftovers(&dir.path().join("out.bin"));
        assert_eq!(names(), [".out.binabcdef.partial"], "it is being written");
        drop(held);
        remove_leftovers(&dir.path().join("out.bin"));
        assert_eq!(names(), Vec::<String>::new());
    }

    #[test]
    fn the_longest_names_have_room_for_a_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["n".repeat(255), "\u{1f332}".repeat(63)] {
            let target = dir.path().join(name);
            let (_, path) = temporary(&target, |path| File::create_new(path)).unwrap();
            let path = path.keep().unwrap();
            remove_leftovers(&target);
            assert!(!path.exists());
        }
    }
}
