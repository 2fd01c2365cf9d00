//! Devices and FIFOs as outputs: opened once, written as they are, and never waited for beyond Ctrl-C.

use crate::progress::{Interrupted, Progress};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// How long to wait before looking again whether the user wants to stop.
const PAUSE: Duration = Duration::from_millis(50);

/// A device or a FIFO that is being written to.
pub(super) struct Special<'a> {
    file: File,
    progress: &'a dyn Progress,
}

/// Whether the user may write to it. It is not opened: whoever reads a FIFO would see it end.
pub(super) fn check(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK)?;
    // Of devices there nothing is known before they are opened.
    #[cfg(windows)]
    let _ = path;
    Ok(())
}

impl<'a> Special<'a> {
    /// Opens `path`; if it is a FIFO, waits for a reader until the user wants to stop.
    #[cfg(unix)]
    pub(super) fn open(path: &Path, progress: &'a dyn Progress) -> io::Result<Self> {
        use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
        loop {
            let file = File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
            match file {
                // A FIFO without a reader; of a device that would be its last word.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) && path.metadata()?.file_type().is_fifo() => {
                    heard(progress)?;
                    std::thread::sleep(PAUSE);
                }
                file => return Ok(Self { file: file?, progress }),
            }
        }
    }

    /// Opens `path`; if it is a pipe whose ends are all taken, waits for one until the user wants to stop.
    #[cfg(windows)]
    pub(super) fn open(path: &Path, progress: &'a dyn Progress) -> io::Result<Self> {
        use windows_sys::Win32::Foundation::ERROR_PIPE_BUSY;
        loop {
            match File::options().write(true).open(path) {
                Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY as i32) => {
                    heard(progress)?;
                    std::thread::sleep(PAUSE);
                }
                file => return Ok(Self { file: file?, progress }),
            }
        }
    }
}

/// Fails with [`Interrupted`] once the user wants to stop.
fn heard(progress: &dyn Progress) -> io::Result<()> {
    if progress.cancelled() { Err(io::Error::other(Interrupted)) } else { Ok(()) }
}

impl Write for Special<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    heard(self.progress)?;
                    self.wait()?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Special<'_> {
    /// Waits until there may be room again, but not for long.
    #[cfg(unix)]
    fn wait(&self) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes wait by themselves.
    #[cfg(windows)]
    fn wait(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    #[derive(Default)]
    struct Stop(AtomicBool);

    impl Progress for Stop {
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn fifo(folder: &Path) -> PathBuf {
        let path = folder.join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    fn is_interrupted<T>(result: io::Result<T>) -> bool {
        result.err().is_some_and(|e| e.get_ref().is_some_and(|e| e.is::<Interrupted>()))
    }

    #[test]
    fn a_fifo_is_neither_opened_to_look_at_it_nor_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, stop) = (fifo(dir.path()), Stop::default());
        check(&path).unwrap();
        thread::scope(|scope| {
            let opened = scope.spawn(|| is_interrupted(Special::open(&path, &stop)));
            thread::sleep(2 * PAUSE);
            assert!(!opened.is_finished());
            stop.0.store(true, Ordering::SeqCst);
            assert!(opened.join().unwrap());
        });
    }

    #[test]
    fn a_slow_reader_gets_all_and_one_that_stops_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (path, stop) = (fifo(dir.path()), Stop::default());
        // More than a pipe holds.
        let bytes: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        thread::scope(|scope| {
            let written = scope.spawn(|| Special::open(&path, &stop).unwrap().write_all(&bytes));
            let mut reader = File::open(&path).unwrap();
            let mut read = vec![0; 100_000];
            reader.read_exact(&mut read).unwrap();
            thread::sleep(2 * PAUSE);
            reader.read_to_end(&mut read).unwrap();
            assert!(read == bytes);
            written.join().unwrap().unwrap();

            let written = scope.spawn(|| Special::open(&path, &stop).unwrap().write_all(&bytes));
            let reader = File::open(&path).unwrap();
            thread::sleep(2 * PAUSE);
            assert!(!written.is_finished());
            stop.0.store(true, Ordering::SeqCst);
            assert!(is_interrupted(written.join().unwrap()));
            drop(reader);
        });
    }
}
