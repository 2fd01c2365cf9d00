//! Files that appear whole or not at all.

use anyhow::{Context, Result};
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file being written under a temporary name beside its target. Dropped before [`AtomicFile::commit`], it leaves
/// nothing behind.
pub struct AtomicFile {
    target: PathBuf,
    writer: BufWriter<Sink>,
}

enum Sink {
    Temporary(NamedTempFile),
    /// A device or a pipe: it is written to as it is, never replaced.
    Special(File),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Temporary(file) => file.write(bytes),
            Self::Special(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Temporary(file) => file.flush(),
            Self::Special(file) => file.flush(),
        }
    }
}

impl AtomicFile {
    /// Begins a file that will become `target`.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be written to.
    pub fn create(target: &Path) -> Result<Self> {
        let shown = target.display();
        anyhow::ensure!(!target.is_dir(), "{shown}: is a folder; give a file name");
        // What a link points to is replaced, not the link.
        let target = &target.canonicalize().unwrap_or_else(|_| target.to_owned());
        if fs::metadata(target).is_ok_and(|m| !m.is_file()) {
            let file = File::options().write(true).open(target);
            let file = file.with_context(|| format!("{shown}: cannot be written"))?;
            return Ok(Self { target: target.clone(), writer: BufWriter::new(Sink::Special(file)) });
        }
        let name = target.file_name().with_context(|| format!("{shown}: has no file name"))?;
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial").rand_bytes(RANDOM_LEN);
        #[cfg(unix)]
        builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
        let file = builder.tempfile_in(folder);
        let file = file.map_err(|e| anyhow::anyhow!("{shown}: cannot be written: {}", os_message(&e)))?;
        Ok(Self { target: target.to_owned(), writer: BufWriter::with_capacity(1 << 20, Sink::Temporary(file)) })
    }

    /// Flushes to the disk and gives the file its name.
    ///
    /// # Errors
    /// When the disk is full or the target cannot be replaced; the target is then as it was.
    pub fn commit(self) -> Result<()> {
        let shown = self.target.display().to_string();
        let finish = || -> io::Result<()> {
            match self.writer.into_inner().map_err(io::IntoInnerError::into_error)? {
                Sink::Special(_) => Ok(()),
                Sink::Temporary(file) => {
                    file.as_file().sync_all()?;
                    file.persist(&self.target).map_err(|e| e.error)?;
                    Ok(())
                }
            }
        };
        finish().with_context(|| format!("{shown}: cannot be written"))
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).with_context(|| format!("{}: cannot be written", self.target.display()))
    }
}

/// Random characters in the name of a temporary file.
const RANDOM_LEN: usize = 6;

/// Deletes temporary files that a process which was killed while it wrote `target` has left. There must be no other
/// that is writing it now.
pub fn remove_leftovers(target: &Path) {
    let Some(name) = target.file_name() else { return };
    let folder = target.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let begin = [b".", name.as_encoded_bytes()].concat();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let random = found.as_encoded_bytes().strip_prefix(&*begin).and_then(|rest| rest.strip_suffix(b".partial"));
        if random.is_some_and(|r| r.len() == RANDOM_LEN && r.iter().all(u8::is_ascii_alphanumeric)) {
            // Where it cannot be deleted it is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Finds out before long work whether `target` can be written after it.
///
/// # Errors
/// As [`AtomicFile::create`].
pub fn check_writable(target: &Path) -> Result<()> {
    AtomicFile::create(target).map(drop)
}

/// Holds that no file is at `target`: for what a user may have written by hand. Devices and pipes are none.
///
/// # Errors
/// When there is one.
pub fn check_new(target: &Path) -> Result<()> {
    let is_there = fs::metadata(target).is_ok_and(|m| m.is_file());
    anyhow::ensure!(
        !is_there,
        "{}: already exists and is not overwritten; remove it or name another file",
        target.display()
    );
    Ok(())
}

/// Bytes that may still be written to the disk of `folder`, where the system tells.
pub fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Writes `bytes` to `target`, whole or not at all.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::commit`].
pub fn write_whole(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.append(bytes)?;
    file.commit()
}

/// The operating system's words, without the temporary path that `tempfile` adds.
fn os_message(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.source());
    inner.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_committed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.bin");
        let mut file = AtomicFile::create(&target).unwrap();
        file.append(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_committed_file_replaces_the_old_one_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.bin");
        std::fs::write(&target, b"old").unwrap();
        write_whole(&target, b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_there_is_not_new() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.toml");
        check_new(&target).unwrap();
        fs::write(&target, b"by hand").unwrap();
        let error = check_new(&target).unwrap_err().to_string();
        assert!(error.contains("out.toml: already exists"), "{error}");
    }

    #[test]
    fn leftovers_of_a_target_are_deleted_and_those_of_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let kept = [".out.binx123456.partial", ".out.bi123456.partial", ".out.bin123456.txt", "out.bin"];
        for name in kept.iter().chain(&[".out.bin12ab56.partial"]) {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        let abandoned = AtomicFile::create(&dir.path().join("out.bin")).unwrap();
        std::mem::forget(abandoned);
        remove_leftovers(&dir.path().join("out.bin"));
        let left = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = left.filter(|name| !kept.contains(&&**name)).collect();
        assert_eq!(left, Vec::<String>::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_a_device_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("out.bin"), dir.path().join("link"));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        let device = dir.path().join("device");
        std::os::unix::fs::symlink("/dev/null", &device).unwrap();
        write_whole(&device, b"gone").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[cfg(unix)]
    #[test]
    fn a_disk_tells_its_free_space() {
        assert!(free_space(&std::env::temp_dir()).is_some());
        assert_eq!(free_space(Path::new("/no/such/folder")), None);
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = AtomicFile::create(Path::new("/no/such/folder/x.bin")).err().unwrap();
        assert!(error.to_string().starts_with("/no/such/folder/x.bin: cannot be written"), "{error}");
    }
}
