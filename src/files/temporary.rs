//! A file that is being written: without a name where the system has that, else under a temporary one.

use super::kind::has_name;
use super::leftovers::{hold, remove, temporary};
use super::replace::replace;
#[cfg(target_os = "linux")]
use super::target::folder_of;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// Tries to get a temporary name that nobody takes away at once.
const ATTEMPTS: usize = 16;

/// What will be `target`. Dropped before [`Temporary::finish`], it leaves nothing behind.
pub(super) struct Temporary {
    file: File,
    /// None as long as the file has no name: then it vanishes with the process, however that ends.
    name: Option<TempPath>,
    target: PathBuf,
}

impl Temporary {
    /// Begins a file that will replace `target`, a path without links. Those that dead processes have left are removed.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        remove(target);
        #[cfg(target_os = "linux")]
        if let Some(file) = nameless(folder_of(target)) {
            hold(&file);
            return Ok(Self::with_permissions(file, None, target));
        }
        Self::named(target)
    }

    /// The same where files without names cannot be.
    fn named(target: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let (file, name) =
                temporary(target, |path| File::options().read(true).write(true).create_new(true).open(path))?;
            if hold(&file) && has_name(&file, &name) {
                return Ok(Self::with_permissions(file, Some(name), target));
            }
        }
        Err(io::Error::other("its temporary file is deleted each time"))
    }

    fn with_permissions(file: File, name: Option<TempPath>, target: &Path) -> Self {
        // What only some may read stays so.
        if let Some(old) = fs::metadata(target).ok().filter(|_| cfg!(unix)) {
            let _ = file.set_permissions(old.permissions());
        }
        Self { file, name, target: target.to_owned() }
    }

    /// Has nobody but the user read it, where the system knows of users.
    pub(super) fn keep_private(&self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            self.file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        #[cfg(windows)]
        if let Some(name) = &self.name {
            super::windows::keep_private(name)?;
        }
        Ok(())
    }

    /// Writes all to the disk and gives the file its name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        self.link()?;
        if let Some(mut name) = self.name.take() {
            replace(&name, &self.target)?;
            name.disable_cleanup(true);
        }
        Ok(())
    }

    /// Gives it a temporary name, if it has none: only what has one can replace another file.
    pub(super) fn link(&mut self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.name.is_none() {
            use rustix::fs::{AtFlags, CWD, linkat};
            let from = place(&self.file);
            let link = |to: &Path| Ok(linkat(CWD, &from, CWD, to, AtFlags::SYMLINK_FOLLOW)?);
            self.name = Some(temporary(&self.target, link)?.1);
        }
        Ok(())
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file in `folder` that has no name, where the filesystem can make one and it can be given one later.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o666).open(folder).ok()?;
    place(&file).exists().then_some(file)
}

/// The path by which an open file can be linked.
#[cfg(target_os = "linux")]
fn place(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both kinds, each in a folder of its own.
    fn each(test: impl Fn(&Path, fn(&Path) -> io::Result<Temporary>)) {
        for make in [Temporary::create, Temporary::named] {
            let dir = tempfile::tempdir().unwrap();
            test(&dir.path().canonicalize().unwrap(), make);
        }
    }

    fn n_files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn it_replaces_its_target_whole_or_leaves_nothing() {
        each(|folder, make| {
            let target = folder.join("out");
            fs::write(&target, "old").unwrap();
            let mut dropped = make(&target).unwrap();
            dropped.write_all(b"half").unwrap();
            dropped.link().unwrap();
            drop(dropped);
            assert_eq!((fs::read(&target).unwrap(), n_files(folder)), (b"old".to_vec(), 1));
            let mut file = make(&target).unwrap();
            file.write_all(b"new").unwrap();
            file.finish().unwrap();
            assert_eq!((fs::read(&target).unwrap(), n_files(folder)), (b"new".to_vec(), 1));
        });
    }

    #[test]
    fn two_that_write_one_target_do_not_delete_each_other() {
        each(|folder, make| {
            let target = folder.join("out");
            let mut first = make(&target).unwrap();
            first.write_all(b"first").unwrap();
            first.link().unwrap();
            let mut second = make(&target).unwrap();
            second.write_all(b"second").unwrap();
            first.finish().unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"first");
            second.finish().unwrap();
            assert_eq!((fs::read(&target).unwrap(), n_files(folder)), (b"second".to_vec(), 1));
        });
    }

    #[test]
    fn what_a_dead_process_left_is_deleted_when_the_next_begins() {
        each(|folder, make| {
            let target = folder.join("out");
            let mut dead = make(&target).unwrap();
            dead.link().unwrap();
            // As if killed: the file is closed and keeps its name.
            dead.name.take().unwrap().keep().unwrap();
            drop(dead);
            assert_eq!(n_files(folder), 1);
            drop(Temporary::create(&target).unwrap());
            assert_eq!(n_files(folder), 0);
        });
    }

    #[test]
    fn what_is_kept_private_can_be_written_and_read_by_its_owner() {
        each(|folder, make| {
            let target = folder.join("out");
            let mut file = make(&target).unwrap();
            file.keep_private().unwrap();
            file.write_all(b"mine").unwrap();
            file.finish().unwrap();
            assert_eq!(fs::read(&target).unwrap(), b"mine");
        });
    }

    #[cfg(unix)]
    #[test]
    fn permissions_of_what_is_replaced_stay() {
        use std::os::unix::fs::PermissionsExt;
        each(|folder, make| {
            let target = folder.join("out");
            let mode = || fs::metadata(&target).unwrap().permissions().mode() & 0o777;
            fs::write(&target, "usual").unwrap();
            let usual = mode();
            fs::remove_file(&target).unwrap();
            make(&target).unwrap().finish().unwrap();
            assert_eq!(mode(), usual);
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            make(&target).unwrap().finish().unwrap();
            assert_eq!(mode(), 0o600);
        });
    }
}
