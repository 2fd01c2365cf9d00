//! Files that appear whole or not at all.

use super::mapped;
#[cfg(windows)]
use super::replace::{is_fixed, is_in_use};
use super::special::{self, Special};
use super::target::{Target, find};
use super::temporary::Temporary;
use crate::progress::{Interrupted, Progress};
use anyhow::{Result, anyhow, ensure};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// A file being written beside its target. Dropped before [`AtomicFile::commit`], it leaves nothing behind. Only a device
/// or a FIFO is written to as it is.
pub struct AtomicFile<'a> {
    /// As the user named it: what is written has other names on the way.
    shown: String,
    writer: BufWriter<Sink<'a>>,
}

enum Sink<'a> {
    Temporary(Temporary),
    Special(Special<'a>),
}

impl Write for Sink<'_> {
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

impl<'a> AtomicFile<'a> {
    /// Begins a file that will become `target`. A FIFO is opened here, and waited for until `progress` says to stop.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be written to; [`Interrupted`].
    pub fn create(target: &Path, progress: &'a dyn Progress) -> Result<Self> {
        let shown = target.display().to_string();
        let sink = match find(target)? {
            Target::File(path) => Temporary::create(&path).map(Sink::Temporary),
            Target::Special(path) => Special::open(&path, progress).map(Sink::Special),
        };
        let sink = sink.map_err(|e| cannot(&shown, &e))?;
        Ok(Self { shown, writer: BufWriter::with_capacity(BUFFER_BYTES, sink) })
    }

    /// Has nobody but the user read the file, whatever became of an older one.
    ///
    /// # Errors
    /// When the system does not do that.
    pub fn keep_private(&mut self) -> Result<()> {
        match self.writer.get_ref() {
            Sink::Temporary(file) => file.keep_private().map_err(|e| cannot(&self.shown, &e)),
            Sink::Special(_) => Ok(()),
        }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// When the disk is full; when `bytes` are of a mapped file that is no longer whole; [`Interrupted`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|error| {
            if is_of_memory(&error)
                && let Some(name) = mapped::file_of(bytes)
            {
                return anyhow!("{name}: {}", mapped::NOT_WHOLE);
            }
            cannot(&self.shown, &error)
        })
    }

    /// Flushes to the disk and gives the file its name.
    ///
    /// # Errors
    /// When the disk is full or the target cannot be replaced; the target is then as it was. [`Interrupted`].
    pub fn commit(self) -> Result<()> {
        let finish = || match self.writer.into_inner().map_err(io::IntoInnerError::into_error)? {
            Sink::Temporary(file) => file.finish(),
            Sink::Special(_) => Ok(()),
        };
        finish().map_err(|e| cannot(&self.shown, &e))
    }
}

/// Whether what failed was to read the bytes that were to be written.
fn is_of_memory(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes = [libc::EFAULT];
    #[cfg(windows)]
    let codes = {
        use windows_sys::Win32::Foundation::{ERROR_NOACCESS, ERROR_SWAPERROR};
        [ERROR_NOACCESS, ERROR_SWAPERROR].map(|code| code as i32)
    };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// What failed to be written to the file that the user calls `shown`. No `io::Error` within: a reader that leaves standard
/// output is no failure, and this is.
fn cannot(shown: &str, error: &io::Error) -> anyhow::Error {
    let inner = error.get_ref();
    if inner.is_some_and(|e| e.is::<Interrupted>()) {
        return Interrupted.into();
    }
    // The operating system's words, without the temporary path that `tempfile` adds.
    let words = inner.and_then(|e| e.source()).map_or_else(|| error.to_string(), ToString::to_string);
    #[cfg(windows)]
    if is_in_use(error) {
        return anyhow!(
            "{shown}: cannot be written: {words}; it is read-only, or open in another program, which has to close it"
        );
    }
    anyhow!("{shown}: cannot be written: {words}")
}

/// Finds out before long work whether `target` can be written after it. Neither a device nor a FIFO is opened.
///
/// # Errors
/// As [`AtomicFile::create`].
pub fn check_writable(target: &Path) -> Result<()> {
    let tried = match find(target)? {
        Target::File(path) => check_file(&path),
        Target::Special(path) => special::check(&path),
    };
    tried.map_err(|e| cannot(&target.display().to_string(), &e))
}

/// The same for a file.
fn check_file(path: &Path) -> io::Result<()> {
    #[cfg(windows)]
    if is_fixed(path) {
        return Err(io::Error::from_raw_os_error(windows_sys::Win32::Foundation::ERROR_ACCESS_DENIED as i32));
    }
    Temporary::create(path).and_then(|mut file| file.link())
}

/// Holds that no file is at `target`: for what a user may have written by hand. Devices and pipes are none.
///
/// # Errors
/// When there is one.
pub fn check_new(target: &Path) -> Result<()> {
    let is_there = fs::metadata(target).is_ok_and(|m| m.is_file());
    ensure!(!is_there, "{}: already exists and is not overwritten; remove it or name another file", target.display());
    Ok(())
}

/// Writes `bytes` to `target`, whole or not at all.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::commit`].
pub fn write_whole(target: &Path, bytes: &[u8], progress: &dyn Progress) -> Result<()> {
    let mut file = AtomicFile::create(target, progress)?;
    file.append(bytes)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_file_that_is_not_committed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.bin");
        let mut file = AtomicFile::create(&target, &Silent).unwrap();
        file.append(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_committed_file_replaces_the_old_one_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out.bin");
        fs::write(&target, b"old").unwrap();
        write_whole(&target, b"new", &Silent).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_a_device_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["there", "new"] {
            let (target, link) = (dir.path().join(name), dir.path().join(format!("{name}-link")));
            std::os::unix::fs::symlink(name, &link).unwrap();
            if name == "there" {
                fs::write(&target, b"old").unwrap();
            }
            check_writable(&link).unwrap();
            write_whole(&link, b"new", &Silent).unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"new");
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
        let device = dir.path().join("device");
        std::os::unix::fs::symlink("/dev/null", &device).unwrap();
        check_writable(&device).unwrap();
        write_whole(&device, b"gone", &Silent).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_that_names_the_file_as_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("full");
        std::os::unix::fs::symlink("/dev/full", &link).unwrap();
        let error = write_whole(&link, b"x", &Silent).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}: cannot be written: No space", link.display())), "{error}");
        assert!(!error.is::<io::Error>());
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let path = Path::new("/no/such/folder/x.bin");
        for error in [AtomicFile::create(path, &Silent).err().unwrap(), check_writable(path).unwrap_err()] {
            assert!(error.to_string().starts_with("/no/such/folder/x.bin: cannot be written"), "{error}");
        }
    }
}
