//! One file's bytes: fetched in as many pieces as it takes, checked, and only then given their name.

use super::client::{Answer, Client, Head, refused};
use super::fault::{Fault, Patience};
use super::lock::Lock;
use crate::files::{free_space, replace};
use crate::progress::Progress;
use crate::units::Bytes;
use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes that are hashed at once.
const CHUNK: usize = 1 << 20;
/// So much in one piece shows that it goes on, and earlier failures count no more.
const GOES_ON: u64 = 1 << 20;
/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// What the hub says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    /// The commit that it is of.
    pub commit: String,
    /// Names the content; of large files it is their SHA-256.
    pub etag: String,
    pub size: u64,
}

impl Meta {
    /// The SHA-256 that the content must have, where the hub says it.
    pub fn sha256(&self) -> Option<&str> {
        let is_digest = self.etag.len() == SHA256_DIGITS && self.etag.bytes().all(|b| b.is_ascii_hexdigit());
        is_digest.then_some(&*self.etag)
    }
}

/// The error of a file that is another one by now: what the hub says of it has to be asked anew.
#[derive(Debug)]
pub(super) struct Changed(String);

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Changed {}

/// An ETag without the marks around it.
pub(super) fn plain_etag(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// What to fetch, and where to.
pub(super) struct Job<'a> {
    pub client: &'a Client,
    pub url: String,
    pub meta: &'a Meta,
    /// What the user sees.
    pub name: &'a str,
    /// Where the whole file is to be.
    pub blob: PathBuf,
    /// Where it is instead, or a link to it, once it has its name.
    pub place: PathBuf,
    pub progress: &'a dyn Progress,
    pub tell: &'a dyn Fn(&str),
}

/// What an attempt found that only its caller can mend.
enum Broken {
    Fault(Fault),
    /// What is here is not the beginning of what is there.
    Restart(String),
}

impl<E: Into<Fault>> From<E> for Broken {
    fn from(fault: E) -> Self {
        Self::Fault(fault.into())
    }
}

impl Job<'_> {
    /// Fetches what is missing of the file; returns when it lies whole at its place.
    ///
    /// # Errors
    /// One line that names the address or the file, and what is wrong.
    pub fn run(&self, lock: &Path) -> Result<()> {
        let folder = self.blob.parent().context("a cache has folders")?;
        fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        let lock = Lock::take(lock, self.progress, || {
            (self.tell)(&format!("{}: another process fetches it; waiting", self.name));
        })?;
        if self.is_there() {
            return Ok(());
        }
        let mut partial = Partial::open(&self.blob, lock.is_held())?;
        self.check_room(folder, partial.len()?)?;
        let size = Bytes(self.meta.size);
        (self.tell)(&format!("{}: fetching {size} from {}", self.name, self.url));
        self.fill(&mut partial)?;
        partial.commit(&self.blob)
    }

    /// Whether the file is there already.
    pub fn is_there(&self) -> bool {
        let is_whole = |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == self.meta.size);
        is_whole(&self.blob) || is_whole(&self.place)
    }

    /// Bytes that are still to be fetched.
    pub fn missing(&self) -> u64 {
        let have = fs::metadata(partial_path(&self.blob)).map_or(0, |m| m.len());
        self.meta.size.saturating_sub(have)
    }

    fn check_room(&self, folder: &Path, have: u64) -> Result<()> {
        let (needed, free) = (self.meta.size.saturating_sub(have), free_space(folder));
        if let Some(free) = free.filter(|free| *free < needed) {
            let (needed, free) = (Bytes(needed), Bytes(free));
            bail!(
                "{}: needs {needed}, but the disk of {} has only {free}; HF_HUB_CACHE names another folder",
                self.name,
                folder.display()
            );
        }
        Ok(())
    }

    /// Makes `partial` the whole file.
    fn fill(&self, partial: &mut Partial) -> Result<()> {
        let mut patience = Patience::default();
        let mut pieces = Pieces::default();
        let size = self.meta.size;
        if partial.len()? > size {
            partial.clear()?;
        }
        self.progress.begin("download", size);
        let mut have = partial.read_in(self.progress)?;
        // What was here before may be of anything.
        pieces.n = if have > 0 { 2 } else { 0 };
        loop {
            if have < size || (size == 0 && pieces.n == 0) {
                let before = have;
                let tried = self.piece(partial, &mut have, &mut pieces);
                if have.saturating_sub(before) >= GOES_ON {
                    patience.renew();
                }
                match tried {
                    Ok(()) => {}
                    Err(Broken::Fault(Fault::Passing { why, after, .. })) => {
                        patience.wait(Fault::Passing { why, after, moved: have > before }, self.progress)?;
                    }
                    // What has arrived is kept: the next start goes on from there.
                    Err(Broken::Fault(fault)) => patience.wait(fault, self.progress)?,
                    Err(Broken::Restart(why)) => {
                        have = self.restart(partial, &mut pieces)?;
                        patience.wait(Fault::passing(why), self.progress)?;
                    }
                }
                continue;
            }
            let Some(wrong) = partial.mismatch(self.meta) else { break };
            let url = &self.url;
            have = self.restart(partial, &mut pieces)?;
            // Pieces of several answers may not belong together; one whole answer that is wrong stays so.
            if std::mem::take(&mut pieces.joined) {
                patience.wait(Fault::passing(format!("{url}: {wrong}")), self.progress)?;
                continue;
            }
            partial.remove();
            bail!(
                "{url}: {wrong}; what was fetched is deleted. Try again; if it stays so, the server or what stands before it is broken"
            );
        }
        self.progress.end();
        Ok(())
    }

    /// Begins anew, with nothing.
    fn restart(&self, partial: &mut Partial, pieces: &mut Pieces) -> Result<u64> {
        partial.clear()?;
        pieces.joined = pieces.n > 1;
        pieces.n = 0;
        pieces.etag = None;
        self.progress.begin("download", self.meta.size);
        Ok(0)
    }

    /// Fetches from `have` on, as far as it goes.
    fn piece(&self, partial: &mut Partial, have: &mut u64, pieces: &mut Pieces) -> Result<(), Broken> {
        let size = self.meta.size;
        let mut headers = Vec::new();
        if *have > 0 {
            headers.push(("range", format!("bytes={have}-")));
            // Where the ETag is no checksum it alone shows that the rest is of the same file.
            let known =
                pieces.etag.clone().or_else(|| self.meta.sha256().is_none().then(|| format!("\"{}\"", self.meta.etag)));
            headers.extend(known.map(|etag| ("if-range", etag)));
        }
        let mut answer = self.client.get(&self.url, &headers, self.progress)?;
        self.check_unchanged(&answer)?;
        let status = answer.last.status;
        let served = answer.last.header("etag").filter(|etag| !etag.starts_with("W/")).map(str::to_owned);
        match status {
            206 if *have > 0 => {
                let url = &answer.last.url;
                let range = answer.last.header("content-range").unwrap_or_default();
                if !begins_at(range, *have, size) {
                    return Err(Broken::Restart(format!(
                        "{url}: sends {range:?} where bytes {have} to {size} were asked for"
                    )));
                }
                if pieces.etag.is_some() && served.is_some() && pieces.etag != served {
                    return Err(Broken::Restart(format!("{url}: has another file now")));
                }
            }
            200 => {
                let says = answer.last.header("content-length").and_then(|n| n.parse::<u64>().ok());
                if let Some(says) = says.filter(|says| *says != size) {
                    let why =
                        format!("{}: sends {says} bytes, but the hub says that the file has {size}", answer.last.url);
                    return Err(Fault::passing(why).into());
                }
                // All of it comes, whatever was asked for.
                if *have > 0 {
                    *have = self.restart(partial, pieces)?;
                }
            }
            416 => return Err(Broken::Restart(format!("{}: 416: does not go on from byte {have}", answer.last.url))),
            _ => return Err(refused(&answer.last, self.client.has_token()).into()),
        }
        pieces.n += 1;
        pieces.etag = served.or(pieces.etag.take());
        while let Some(bytes) = answer.read(self.progress)? {
            if bytes.len() as u64 > size - *have {
                return Err(Broken::Restart(format!(
                    "{}: sends more than the {size} bytes of the file",
                    answer.last.url
                )));
            }
            partial.append(&bytes)?;
            *have += bytes.len() as u64;
            self.progress.advance(bytes.len() as u64);
        }
        if *have < size {
            let why = format!("{}: ended after {have} of {size} bytes", answer.last.url);
            return Err(Fault::passing(why).into());
        }
        Ok(())
    }

    /// Holds that the hub still means the same file.
    fn check_unchanged(&self, answer: &Answer) -> Result<()> {
        for head in answer.heads.iter().chain([&answer.last]) {
            if let Some(etag) = linked(head).filter(|etag| *etag != self.meta.etag) {
                let (url, was) = (&self.url, &self.meta.etag);
                return Err(Changed(format!(
                    "{url}: the hub changes the file while it is fetched (its ETag was {was}, and is {etag})"
                ))
                .into());
            }
        }
        Ok(())
    }
}

/// The ETag of what is meant, where a server that only points there says it.
fn linked(head: &Head) -> Option<&str> {
    head.header("x-linked-etag").map(plain_etag)
}

/// Whether `bytes A-B/N` begins at `from` and is of a file of `size` bytes.
fn begins_at(range: &str, from: u64, size: u64) -> bool {
    let Some((range, total)) = range.strip_prefix("bytes ").and_then(|r| r.split_once('/')) else { return false };
    let begin = range.split_once('-').and_then(|(begin, _)| begin.parse::<u64>().ok());
    begin == Some(from) && (total == "*" || total.parse() == Ok(size))
}

/// Of how many answers a file is put together, and what the last one called it.
#[derive(Default)]
struct Pieces {
    n: u32,
    etag: Option<String>,
    /// Whether what was thrown away was of several.
    joined: bool,
}

/// A file that is not whole yet, under a name that nobody takes for a whole one.
struct Partial {
    file: File,
    path: PathBuf,
    hash: Sha256,
    /// Deletes it at the end, where nothing shows to others that it is in use.
    own: Option<tempfile::TempPath>,
}

/// Where huggingface_hub, too, keeps what there is of a file.
fn partial_path(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    name.into()
}

impl Partial {
    /// What is there of `blob`, by whomever it was fetched; without a lock, a file of our own.
    fn open(blob: &Path, locked: bool) -> Result<Self> {
        let path = partial_path(blob);
        let shown = || format!("{}: cannot be written", path.display());
        if locked {
            let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            return Ok(Self { file: file.with_context(shown)?, path, hash: Sha256::new(), own: None });
        }
        let folder = blob.parent().with_context(shown)?;
        let (file, own) =
            tempfile::Builder::new().suffix(".incomplete").tempfile_in(folder).with_context(shown)?.into_parts();
        Ok(Self { file, path: own.to_path_buf(), hash: Sha256::new(), own: Some(own) })
    }

    fn shown(&self) -> String {
        format!("{}: cannot be written", self.path.display())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().with_context(|| self.shown())?.len())
    }

    /// Hashes what is there; writing goes on behind it.
    fn read_in(&mut self, progress: &dyn Progress) -> Result<u64> {
        self.hash = Sha256::new();
        let (mut have, mut buffer) = (0, vec![0; CHUNK]);
        self.file.seek(SeekFrom::Start(0)).with_context(|| self.shown())?;
        loop {
            crate::progress::check(progress)?;
            let n = self.file.read(&mut buffer).with_context(|| format!("{}: cannot be read", self.path.display()))?;
            if n == 0 {
                return Ok(have);
            }
            self.hash.update(&buffer[..n]);
            have += n as u64;
            progress.advance(n as u64);
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        // No `io::Error` within: it is no reader that has left standard output.
        self.file.write_all(bytes).map_err(|e| anyhow!("{}: {e}", self.shown()))?;
        self.hash.update(bytes);
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        self.hash = Sha256::new();
        self.file.set_len(0).with_context(|| self.shown())?;
        self.file.seek(SeekFrom::Start(0)).with_context(|| self.shown())?;
        Ok(())
    }

    /// What is wrong with the content, if anything.
    fn mismatch(&self, meta: &Meta) -> Option<String> {
        let wanted = meta.sha256()?.to_ascii_lowercase();
        let found: String = self.hash.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        (found != wanted).then(|| format!("wrong checksum: SHA-256 {found}, but the hub says {wanted}"))
    }

    /// Deletes it; it can no longer be told from one that is good so far.
    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Writes all to the disk and gives the file its name.
    fn commit(mut self, blob: &Path) -> Result<()> {
        ensure!(self.path.exists(), "{}: was deleted while it was being fetched", self.path.display());
        self.file.sync_all().with_context(|| self.shown())?;
        replace(&self.path, blob).with_context(|| format!("{}: cannot be written", blob.display()))?;
        if let Some(own) = &mut self.own {
            own.disable_cleanup(true);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_must_begin_where_it_was_asked_to() {
        assert!(begins_at("bytes 5-9/10", 5, 10) && begins_at("bytes 5-9/*", 5, 10));
        for range in ["", "bytes 4-9/10", "bytes 5-9/11", "bytes */10", "bytes 5", "5-9/10"] {
            assert!(!begins_at(range, 5, 10), "{range}");
        }
    }

    #[test]
    fn only_a_digest_is_a_checksum() {
        let meta = |etag: &str| Meta { commit: String::new(), etag: plain_etag(etag).to_owned(), size: 0 };
        assert_eq!(meta(&format!("W/\"{}\"", "a".repeat(64))).sha256().map(str::len), Some(64));
        assert_eq!(meta("\"0123abcd\"").sha256(), None);
        assert_eq!(meta(&"g".repeat(64)).sha256(), None);
    }
}
