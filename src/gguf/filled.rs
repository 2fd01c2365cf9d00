//! Memory that a file is read into.

use crate::files::mapped::NOT_WHOLE;
use crate::progress::{self, Progress};
use crate::units::Bytes;
use anyhow::{Context, Result, ensure};
use memmap2::{Mmap, MmapMut};
use std::io::{ErrorKind, Read};

/// What is read between two looks at whether to stop.
const AT_ONCE: usize = 16 << 20;

/// The `len` bytes of `from`, on pages of their own: large ones where the system has them, and never written to again.
///
/// # Errors
/// When there is no memory for them, when `from` ends before or cannot be read, or when `progress` says to stop.
pub(super) fn filled(mut from: impl Read, len: u64, progress: &dyn Progress) -> Result<Mmap> {
    let room = usize::try_from(len).ok().and_then(|len| MmapMut::map_anon(len).ok());
    let mut pages = room.with_context(|| format!("has {}, for which there is no memory", Bytes(len)))?;
    #[cfg(target_os = "linux")]
    // Fewer entries of the page table are looked up; without, it is only slower.
    pages.advise(memmap2::Advice::HugePage).ok();
    for part in pages.chunks_mut(AT_ONCE) {
        progress::check(progress)?;
        let n = read_most(&mut from, part)?;
        ensure!(n == part.len(), "{NOT_WHOLE}");
        progress.advance(n as u64);
    }
    pages.make_read_only().context("its memory cannot be kept from being written to")
}

/// Fills `part` as far as `from` goes; how far that is.
fn read_most(from: &mut impl Read, part: &mut [u8]) -> Result<usize> {
    let mut n = 0;
    while n < part.len() {
        match from.read(&mut part[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::io;

    /// Gives a few bytes at a time, and is interrupted between them.
    struct Halting<'a>(&'a [u8], bool);

    impl Read for Halting<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::Interrupted.into());
            }
            let most = buffer.len().min(7);
            self.0.read(&mut buffer[..most])
        }
    }

    #[test]
    fn all_of_a_file_is_read_however_it_comes() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        let pages = filled(Halting(&bytes, false), bytes.len() as u64, &Silent).unwrap();
        assert_eq!(pages[..], bytes[..]);
        assert_eq!(pages.as_ptr() as usize % 4096, 0);
    }

    #[test]
    fn a_file_that_ends_too_early_or_for_which_there_is_no_memory_is_an_error() {
        let error = filled(Halting(&[1; 99], false), 100, &Silent).unwrap_err().to_string();
        assert_eq!(error, NOT_WHOLE);
        let error = filled(io::repeat(1), u64::MAX / 4, &Silent).unwrap_err().to_string();
        assert_eq!(error, "has 4096.00 PiB, for which there is no memory");
    }

    #[test]
    fn reading_stops_when_it_is_to() {
        struct Stop;
        impl Progress for Stop {
            fn cancelled(&self) -> bool {
                true
            }
        }
        let error = filled(io::repeat(1), 100, &Stop).unwrap_err();
        assert!(error.is::<progress::Interrupted>(), "{error}");
    }
}
