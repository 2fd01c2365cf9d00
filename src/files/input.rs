//! What is read: regular files where they are mapped or read out of order, texts of limited size from anywhere.

use super::kind::{special_at, special_open};
use crate::progress::{self, Progress};
use crate::units::Bytes;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::fs::File;
#[cfg(windows)]
use std::io::IsTerminal;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Of a corpus.
pub const MOST_TEXT: Bytes = Bytes(1 << 30);
/// Of a prompt: more than any context holds.
pub const MOST_PROMPT: Bytes = Bytes(64 << 20);
/// Of what does not say beforehand how long it is, and may never end.
const MOST_STREAM: Bytes = Bytes(64 << 20);
/// Of a device, most of which never end.
const MOST_DEVICE: Bytes = Bytes(16 << 20);

/// How long to wait for input before looking whether the user wants to stop.
const PAUSE: Duration = Duration::from_millis(50);

const FILE: &str = "a file";

const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";
/// Byte order marks of what is no UTF-8. The first two begin with the last two.
const OTHER_MARKS: [(&[u8], &str); 4] =
    [(b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")];

/// Opens a file to be mapped, or read in any order and more than once.
///
/// # Errors
/// When it cannot be opened or is a folder, a FIFO, a device or a socket, which is not opened; without its path.
pub fn open_regular(path: &Path) -> Result<File> {
    let refuse = |kind| anyhow!("is {kind}; give a regular file");
    if let Some(kind) = special_at(path)? {
        return Err(refuse(kind));
    }
    let file = File::open(path)?;
    special_open(&file)?.map_or(Ok(file), |kind| Err(refuse(kind)))
}

/// The text of a regular file of at most `most` bytes.
///
/// # Errors
/// One line, without its path: what is wrong with the file, or that it is no UTF-8.
pub fn read_regular(path: &Path, most: Bytes) -> Result<String> {
    let file = open_regular(path)?;
    let len = Bytes(file.metadata()?.len());
    ensure!(len <= most, "has {len}; at most {most} are read");
    text(read_at_most(file, most, len, FILE)?)
}

/// The text at `path`, which may be a FIFO or a device: at most `most` of a file, and less of what does not say how long
/// it is. Waits for a writer until `progress` says to stop.
///
/// # Errors
/// One line, without its path: what is wrong with the file, or that it is no UTF-8.
pub fn read_text(path: &Path, most: Bytes, progress: &dyn Progress) -> Result<String> {
    let Some(kind) = special_at(path)? else { return read_regular(path, most) };
    ensure!(!kind.contains("folder") && !kind.contains("socket"), "is {kind}; give a text file");
    let path = path.to_owned();
    text(read_stream(move || File::open(path), kind, most, progress)?)
}

/// All of standard input as text, within the same limits.
///
/// # Errors
/// As [`read_text`], with the name.
pub fn read_standard_input(most: Bytes, progress: &dyn Progress) -> Result<String> {
    let read = || {
        let mut input = standard_input()?;
        let Some(kind) = special_open(&input)? else {
            let left = Bytes(input.metadata()?.len().saturating_sub(input.stream_position()?));
            ensure!(left <= most, "has {left}; at most {most} are read");
            return text(read_at_most(input, most, left, FILE)?);
        };
        ensure!(!kind.contains("folder"), "is {kind}; give a text file");
        // Of what is typed, only the standard library's own buffer is UTF-8.
        #[cfg(windows)]
        if io::stdin().is_terminal() {
            return text(read_stream(|| Ok(io::stdin()), kind, most, progress)?);
        }
        text(read_stream(move || Ok(input), kind, most, progress)?)
    };
    read().context("standard input")
}

/// Standard input without the buffer that is shared by those who read lines.
fn standard_input() -> io::Result<File> {
    #[cfg(not(windows))]
    {
        use std::os::fd::AsFd;
        Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
    }
    #[cfg(windows)]
    {
        use std::os::windows::io::AsHandle;
        Ok(io::stdin().as_handle().try_clone_to_owned()?.into())
    }
}

/// Reads to the end, which must come within `most` bytes; `expected` are likely. `from` says what such a thing is.
fn read_at_most(file: impl Read, most: Bytes, expected: Bytes, from: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let room = usize::try_from(expected.0).ok().filter(|room| bytes.try_reserve_exact(*room).is_ok());
    ensure!(room.is_some(), "has {expected}, for which there is no memory");
    file.take(most.0 + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= most.0, "is longer than {most}, the most that is read from {from}");
    Ok(bytes)
}

/// The same of what may keep one waiting: another thread waits, and is left behind if the user wants to stop.
fn read_stream<R: Read>(
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
    kind: &'static str,
    most: Bytes,
    progress: &dyn Progress,
) -> Result<Vec<u8>> {
    let most = most.min(if kind.contains("device") { MOST_DEVICE } else { MOST_STREAM });
    let (send, receive) = sync_channel(1);
    let read = move || read_at_most(open()?, most, Bytes(0), kind);
    thread::Builder::new().name("reader".to_owned()).spawn(move || send.send(read()))?;
    loop {
        match receive.recv_timeout(PAUSE) {
            Ok(read) => return read,
            Err(RecvTimeoutError::Timeout) => progress::check(progress)?,
            Err(RecvTimeoutError::Disconnected) => bail!("cannot be read"),
        }
    }
}

/// [`utf8`], with lines that end as they do in C on this system: on Windows editors end them with CR and LF, and what C reads as
/// text there has LF only.
fn text(bytes: Vec<u8>) -> Result<String> {
    let text = utf8(bytes)?;
    Ok(if cfg!(windows) { with_plain_lines(text) } else { text })
}

/// The text with LF in the place of each CR LF.
fn with_plain_lines(text: String) -> String {
    if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text }
}

/// The text that `bytes` are, without a byte order mark.
///
/// # Errors
/// When they are no UTF-8; says what they are if they begin with a mark, else where it ends to be.
pub fn utf8(mut bytes: Vec<u8>) -> Result<String> {
    if let Some((_, name)) = OTHER_MARKS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        bail!("is {name}, not UTF-8; convert it first (iconv -f {name} -t UTF-8)");
    }
    let skipped = if bytes.starts_with(UTF_8_MARK) { UTF_8_MARK.len() } else { 0 };
    bytes.drain(..skipped);
    String::from_utf8(bytes)
        .map_err(|e| anyhow!("is not UTF-8 (byte {}); convert it first", skipped + e.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::fs;

    #[test]
    fn a_mark_is_left_out_and_other_encodings_are_named() {
        let text = |bytes: &[u8]| utf8(bytes.to_vec());
        assert_eq!(text(b"a\r\nb\r\n").unwrap(), "a\r\nb\r\n");
        assert_eq!(text(b"\xef\xbb\xbfabc").unwrap(), "abc");
        assert_eq!(text(b"").unwrap(), "");
        assert_eq!(text("a\u{feff}b".as_bytes()).unwrap(), "a\u{feff}b");
        for (bytes, wanted) in [
            (&b"\xff\xfea\0"[..], "is UTF-16,"),
            (b"\xfe\xff\0a", "is UTF-16,"),
            (b"\xff\xfe\0\0a\0\0\0", "is UTF-32,"),
            (b"\0\0\xfe\xff\0\0\0a", "is UTF-32,"),
            (b"\xef\xbb\xbfab\xff", "(byte 5)"),
            (b"ab\xff", "(byte 2)"),
        ] {
            let error = text(bytes).unwrap_err().to_string();
            assert!(error.contains(wanted), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, Bytes(5), &Silent).unwrap(), "12345");
        for error in [read_text(&path, Bytes(4), &Silent), read_regular(&path, Bytes(4))] {
            assert_eq!(error.unwrap_err().to_string(), "has 5 B; at most 4 B are read");
        }
        assert!(read_text(dir.path(), Bytes(4), &Silent).unwrap_err().to_string().contains("is a folder"));
    }

    #[test]
    fn lines_end_as_in_c_on_this_system() {
        assert_eq!(with_plain_lines("a\r\n\r\nb\rc\n".to_owned()), "a\n\nb\rc\n");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        fs::write(&path, "a\r\nb").unwrap();
        let wanted = if cfg!(windows) { "a\nb" } else { "a\r\nb" };
        assert_eq!(read_text(&path, MOST_TEXT, &Silent).unwrap(), wanted);
        assert_eq!(read_regular(&path, MOST_TEXT).unwrap(), wanted);
    }

    #[cfg(windows)]
    #[test]
    fn devices_are_known_by_their_names() {
        assert_eq!(read_text(Path::new("NUL"), MOST_TEXT, &Silent).unwrap(), "");
        let error = open_regular(Path::new("nul")).unwrap_err().to_string();
        assert_eq!(error, "is a device; give a regular file");
    }

    #[cfg(unix)]
    #[test]
    fn devices_end_or_are_refused() {
        assert_eq!(read_text(Path::new("/dev/null"), MOST_TEXT, &Silent).unwrap(), "");
        let endless = format!("{:#}", read_text(Path::new("/dev/zero"), MOST_TEXT, &Silent).unwrap_err());
        assert!(endless.contains("longer than 16.00 MiB"), "{endless}");
        let error = open_regular(Path::new("/dev/zero")).unwrap_err().to_string();
        assert_eq!(error, "is a character device; give a regular file");
    }
}
