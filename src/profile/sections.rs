//! Files made of sections, each with its own checksum, so that a large one that is not needed is not read either.

use crate::files::{AtomicFile, open_regular};
use crate::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

/// The name of a section.
pub(super) type Tag = [u8; 4];

const MAGIC_BYTES: usize = 8;
const HASH_BYTES: usize = 32;
/// Tag, zeros, length, checksum.
const ENTRY_BYTES: usize = 4 + 4 + 8 + HASH_BYTES;
/// A file with more is not ours.
const MAX_SECTIONS: u32 = 64;
/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Takes bytes as they arrive.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

type Emit<'a> = dyn Fn(&mut Sink) -> Result<()> + 'a;

/// A section before it is written. Its payload is produced in pieces, and twice: the checksums come first in the file,
/// and something as large as the samples should not be in memory a second time.
pub(super) struct Section<'a> {
    pub(super) tag: Tag,
    pub(super) emit: Box<Emit<'a>>,
}

impl<'a> Section<'a> {
    pub(super) fn of_bytes(tag: Tag, bytes: Vec<u8>) -> Self {
        Self { tag, emit: Box::new(move |sink| sink(&bytes)) }
    }
}

/// Passes the whole file to `sink`.
pub(super) fn emit(magic: &[u8; MAGIC_BYTES], version: u32, sections: &[Section], sink: &mut Sink) -> Result<()> {
    let mut header = magic.to_vec();
    header.extend(version.to_le_bytes());
    header.extend((sections.len() as u32).to_le_bytes());
    for section in sections {
        let (mut hash, mut len) = (Sha256::new(), 0u64);
        (section.emit)(&mut |bytes| {
            hash.update(bytes);
            len += bytes.len() as u64;
            Ok(())
        })?;
        header.extend(section.tag);
        header.extend([0; 4]);
        header.extend(len.to_le_bytes());
        header.extend(hash.finalize());
    }
    let checksum = Sha256::digest(&header);
    header.extend(checksum);
    sink(&header)?;
    sections.iter().try_for_each(|section| (section.emit)(sink))
}

/// Writes the file, whole or not at all.
pub(super) fn write(
    path: &Path,
    magic: &[u8; MAGIC_BYTES],
    version: u32,
    sections: &[Section],
    progress: &dyn Progress,
) -> Result<()> {
    let mut file = AtomicFile::create(path, progress)?;
    emit(magic, version, sections, &mut |bytes| file.append(bytes))?;
    file.commit()
}

/// Anything that can be read at any offset.
trait Input: Read + Seek {}

impl<T: Read + Seek> Input for T {}

struct Entry {
    tag: Tag,
    at: u64,
    len: u64,
    hash: [u8; HASH_BYTES],
}

/// An open file of sections, or one of version 1, which has a single checksum and is read as a whole.
pub(super) struct SectionFile<'a> {
    input: Box<dyn Input + 'a>,
    entries: Vec<Entry>,
    pub(super) version: u32,
}

impl<'a> SectionFile<'a> {
    /// Opens a file. If it does not begin with `magic`, no more of it is read: someone may have passed a model by
    /// mistake.
    pub(super) fn open(path: &Path, magic: &[u8; MAGIC_BYTES], versions: &[u32], what: &str) -> Result<Self> {
        let file = open_regular(path)?;
        let len = file.metadata()?.len();
        Self::new(Box::new(file), len, magic, versions, what)
    }

    /// Reads from memory.
    pub(super) fn from_bytes(bytes: &'a [u8], magic: &[u8; MAGIC_BYTES], versions: &[u32], what: &str) -> Result<Self> {
        Self::new(Box::new(Cursor::new(bytes)), bytes.len() as u64, magic, versions, what)
    }

    fn new(
        mut input: Box<dyn Input + 'a>,
        len: u64,
        magic: &[u8; MAGIC_BYTES],
        versions: &[u32],
        what: &str,
    ) -> Result<Self> {
        let mut start = Vec::new();
        input.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
        ensure!(start == magic, "is not {what}; powerinfer-profile writes them");
        let mut header = start;
        let version = u32::from_le_bytes(more(&mut *input, &mut header)?);
        if !versions.contains(&version) {
            let known: Vec<_> = versions.iter().map(u32::to_string).collect();
            let known = match known.split_last() {
                Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
                _ => known.concat(),
            };
            bail!("is {what} of version {version}; this program reads version {known}");
        }
        if version == 1 {
            return Ok(Self { entries: whole(&mut *input, &header)?, input, version });
        }
        let n = u32::from_le_bytes(more(&mut *input, &mut header)?);
        ensure!(n <= MAX_SECTIONS, "is damaged: it has {n} sections");
        let table = header.len();
        for _ in 0..n {
            more::<ENTRY_BYTES>(&mut *input, &mut header)?;
        }
        let expected = Sha256::digest(&header);
        let mut stored = Vec::new();
        let checksum: [u8; HASH_BYTES] = more(&mut *input, &mut stored)?;
        ensure!(expected.as_slice() == checksum, "is damaged or cut short: the checksum of its table is wrong");
        let mut at = (header.len() + HASH_BYTES) as u64;
        let mut entries: Vec<Entry> = Vec::new();
        let mut r = Reader { bytes: &header[table..] };
        for _ in 0..n {
            let tag: Tag = r.array()?;
            ensure!(r.u32()? == 0, "section \"{}\" has flags that this program does not know", tag.escape_ascii());
            let entry = Entry { tag, at, len: r.u64()?, hash: r.array()? };
            at = at.checked_add(entry.len).context("is damaged: its sections are too long")?;
            ensure!(entries.iter().all(|e| e.tag != tag), "has section \"{}\" twice", tag.escape_ascii());
            entries.push(entry);
        }
        ensure!(at <= len, "is cut short: {len} bytes of {at}");
        ensure!(at == len, "is damaged: {} bytes follow its last section", len - at);
        Ok(Self { input, entries, version })
    }

    /// Refuses sections that are not `known`, unless their tag begins with a lower-case letter: those are optional.
    pub(super) fn refuse_unknown(&self, known: &[&Tag]) -> Result<()> {
        let unknown = |e: &&Entry| !known.contains(&&e.tag) && !e.tag[0].is_ascii_lowercase();
        match self.entries.iter().find(unknown) {
            Some(e) => bail!("has a section \"{}\" that this program does not know", e.tag.escape_ascii()),
            None => Ok(()),
        }
    }

    /// Bytes of a section, if it exists.
    pub(super) fn len(&self, tag: &Tag) -> Option<u64> {
        self.entries.iter().find(|e| e.tag == *tag).map(|e| e.len)
    }

    /// The payload of a section, checked; `None` if it does not exist.
    pub(super) fn section(&mut self, tag: &Tag) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let found = self.stream(tag, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(found.then_some(bytes))
    }

    /// Passes a section on in pieces. None of it may be trusted before this returns: the checksum is checked last.
    pub(super) fn stream(&mut self, tag: &Tag, sink: &mut Sink) -> Result<bool> {
        let Some(entry) = self.entries.iter().find(|e| e.tag == *tag) else { return Ok(false) };
        self.input.seek(SeekFrom::Start(entry.at))?;
        let (mut hash, mut left) = (Sha256::new(), entry.len);
        let mut piece = vec![0; PIECE.min(usize::try_from(entry.len).unwrap_or(PIECE))];
        while left > 0 {
            let n = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.read_exact(&mut piece[..n]).context("is cut short")?;
            hash.update(&piece[..n]);
            sink(&piece[..n])?;
            left -= n as u64;
        }
        let whole = hash.finalize().as_slice() == entry.hash;
        ensure!(whole, "is damaged: the checksum of section \"{}\" is wrong", tag.escape_ascii());
        Ok(true)
    }
}

/// The next `N` bytes, also appended to `all`.
fn more<const N: usize>(input: &mut dyn Input, all: &mut Vec<u8>) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).ok().context("is cut short")?;
    all.extend(bytes);
    Ok(bytes)
}

/// The sections of version 1: tag, length, payload, and at the end one checksum over everything before.
fn whole(input: &mut dyn Input, start: &[u8]) -> Result<Vec<Entry>> {
    let mut bytes = start.to_vec();
    input.read_to_end(&mut bytes)?;
    let body = bytes.len().checked_sub(HASH_BYTES).filter(|n| *n >= start.len()).context("is cut short")?;
    let (body, checksum) = bytes.split_at(body);
    ensure!(Sha256::digest(body).as_slice() == checksum, "is damaged or cut short: its checksum is wrong");
    let mut r = Reader { bytes: &body[start.len()..] };
    let mut found = BTreeMap::new();
    for _ in 0..r.u32()? {
        let (tag, len): (Tag, u64) = (r.array()?, r.u64()?);
        let at = (body.len() - r.bytes.len()) as u64;
        let hash = Sha256::digest(r.take(len)?).into();
        let twice = found.insert(tag, Entry { tag, at, len, hash }).is_some();
        ensure!(!twice, "has section \"{}\" twice", tag.escape_ascii());
    }
    ensure!(r.bytes.is_empty(), "is longer than its contents");
    Ok(found.into_values().collect())
}

/// Takes values off the front of a payload.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.bytes.len()).context("is cut short")?;
        let (taken, rest) = self.bytes.split_at(n);
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn string(&mut self) -> Result<String> {
        let n = self.u32()?;
        Ok(String::from_utf8(self.take(u64::from(n))?.to_vec())?)
    }

    pub(super) fn u64s(&mut self, n: usize) -> Result<Vec<u64>> {
        let words = self.take((n as u64).checked_mul(8).context("is cut short")?)?;
        let words = words.as_chunks::<8>().0;
        Ok(words.iter().map(|w| u64::from_le_bytes(*w)).collect())
    }

    /// Checks that nothing is left over.
    pub(super) fn end(&self, what: &str) -> Result<()> {
        ensure!(self.bytes.is_empty(), "section {what} is longer than its contents");
        Ok(())
    }
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

pub(super) fn put_u64s<'a>(out: &mut Vec<u8>, values: impl IntoIterator<Item = &'a u64>) {
    values.into_iter().for_each(|v| out.extend(v.to_le_bytes()));
}
