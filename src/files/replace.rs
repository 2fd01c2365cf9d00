//! Gives a whole file the name of another, which is then gone.

use std::fs;
use std::io;
use std::path::Path;
#[cfg(windows)]
use std::time::{Duration, Instant};

/// How long a scanner of viruses may look at a new file.
#[cfg(windows)]
const PATIENCE: Duration = Duration::from_secs(3);
#[cfg(windows)]
const PAUSE: Duration = Duration::from_millis(20);

/// Renames `from` to `to`, which is replaced in one step if it is there. On Windows others may have either open for a moment, which is
/// waited for.
pub(crate) fn replace(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(windows)]
    {
        let begun = Instant::now();
        loop {
            match fs::rename(from, to) {
                Err(error) if is_in_use(&error) && !is_fixed(to) && begun.elapsed() < PATIENCE => {
                    std::thread::sleep(PAUSE);
                }
                done => return done,
            }
        }
    }
    #[cfg(not(windows))]
    fs::rename(from, to)
}

/// Whether `error` is what comes of a file that is open elsewhere.
#[cfg(windows)]
pub(super) fn is_in_use(error: &io::Error) -> bool {
    use windows_sys::Win32::Foundation::{ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_USER_MAPPED_FILE};
    let codes = [ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_USER_MAPPED_FILE];
    error.raw_os_error().is_some_and(|code| codes.contains(&(code as u32)))
}

/// Whether `to` may not be replaced whoever has it open.
#[cfg(windows)]
pub(super) fn is_fixed(to: &Path) -> bool {
    fs::metadata(to).is_ok_and(|found| found.is_dir() || found.permissions().readonly())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_read_is_replaced_once_they_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        fs::write(&new, "new").unwrap();
        fs::write(&old, "old").unwrap();
        let mut options = fs::File::options();
        options.read(true);
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1);
        let reader = options.open(&old).unwrap();
        let let_go = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(200));
            drop(reader);
        });
        replace(&new, &old).unwrap();
        let_go.join().unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"new");
        assert!(!new.exists());
    }
}
