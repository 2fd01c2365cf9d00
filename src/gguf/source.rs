//! Where the bytes of a model live: a mapped file, memory, or the program itself.
#![allow(unsafe_code, reason = "memory-mapping a file is unsafe by nature; it is done here and nowhere else")]

use super::filled::filled;
use crate::files::mapped::Mapped;
use crate::files::open_regular;
use crate::progress::Progress;
use anyhow::{Context, Result, ensure};
use memmap2::Mmap;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// Read-only bytes that outlive every reader. Cloning is cheap and never copies the bytes.
#[derive(Clone)]
pub struct Source {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    /// Goes before the map does.
    _known: Option<Mapped>,
    bytes: Backing,
}

enum Backing {
    Map(Mmap),
    /// Memory of our own, on pages that are no longer written to.
    Pages(Mmap),
    Memory(Vec<u8>),
    Static(&'static [u8]),
}

impl Source {
    /// Maps `path`. The file must not be changed while it is open: the pages are the file.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped, is empty, or is no regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let (name, file, _) = opened(path)?;
        // SAFETY: the map is private to this process and read-only. The caller must see to it that nobody truncates the
        // file meanwhile (documented above), as in every program that maps its model; the tools turn it into an error
        // (`files::signals`).
        let map = unsafe { Mmap::map(&file) }.with_context(|| format!("{name}: cannot be mapped"))?;
        let known = Some(Mapped::new(&map, &name));
        Ok(Self { inner: Arc::new(Inner { name, _known: known, bytes: Backing::Map(map) }) })
    }

    /// Reads all of `path` into memory of our own, which begins at a page. What becomes of the file then is no matter.
    ///
    /// # Errors
    /// When the file cannot be opened, is empty, no regular file or cut short meanwhile, or when there is no memory for it;
    /// or when `progress` says to stop.
    pub fn read(path: &Path, progress: &dyn Progress) -> Result<Self> {
        let (name, file, len) = opened(path)?;
        let pages = filled(file, len, progress).with_context(|| name.clone())?;
        Ok(Self { inner: Arc::new(Inner { name, _known: None, bytes: Backing::Pages(pages) }) })
    }

    /// The same bytes in memory of our own.
    ///
    /// # Errors
    /// When there is no memory for them, or `progress` says to stop.
    pub fn copied(&self, progress: &dyn Progress) -> Result<Self> {
        let name = self.name().to_owned();
        let pages = filled(&self[..], self.len() as u64, progress).with_context(|| name.clone())?;
        Ok(Self { inner: Arc::new(Inner { name, _known: None, bytes: Backing::Pages(pages) }) })
    }

    /// Takes bytes that are in memory.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Self {
        let bytes = Backing::Memory(bytes);
        Self { inner: Arc::new(Inner { name: name.to_owned(), _known: None, bytes }) }
    }

    /// Wraps bytes that are part of the program.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Self {
        let bytes = Backing::Static(bytes);
        Self { inner: Arc::new(Inner { name: name.to_owned(), _known: None, bytes }) }
    }

    /// Has the system read these bytes soon, where they are of a mapped file. A hint, which is not waited for.
    pub fn will_need(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Backing::Map(map) = &self.inner.bytes {
            // What the system does not take as a hint costs time only.
            map.advise_range(memmap2::Advice::WillNeed, range.start, range.len()).ok();
        }
        // The call that Windows has for it may wait for the disk.
        #[cfg(windows)]
        let _ = range;
    }

    /// Whether the bytes are in memory of our own.
    pub fn is_copied(&self) -> bool {
        matches!(self.inner.bytes, Backing::Pages(_))
    }

    /// Reads all of a mapped file, and keeps it in memory; so with memory that a file was read into.
    ///
    /// # Errors
    /// When the system does not let so much be kept.
    pub fn lock(&self) -> Result<()> {
        #[cfg(unix)]
        if let Backing::Map(map) | Backing::Pages(map) = &self.inner.bytes {
            map.lock().with_context(|| format!("{}: cannot be kept in memory", self.name()))?;
        }
        #[cfg(windows)]
        if let Backing::Map(map) | Backing::Pages(map) = &self.inner.bytes {
            super::pages::lock(map).with_context(|| format!("{}: cannot be kept in memory", self.name()))?;
        }
        Ok(())
    }

    /// The file's path, or what else was given as its name: what error messages begin with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }
}

/// A file to be read: its name, and how long it is.
fn opened(path: &Path) -> Result<(String, File, u64)> {
    let name = path.display().to_string();
    let file = open_regular(path).with_context(|| name.clone())?;
    let len = file.metadata().with_context(|| name.clone())?.len();
    ensure!(len > 0, "{name}: the file is empty");
    Ok((name, file, len))
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.inner.bytes {
            Backing::Map(map) | Backing::Pages(map) => map,
            Backing::Memory(bytes) => bytes,
            Backing::Static(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Source {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_os = "linux")]
    use crate::files::AtomicFile;
    use crate::progress::Silent;

    #[test]
    fn what_was_read_does_not_change_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source");
        std::fs::write(&path, [7; 5000]).unwrap();
        let (read, mapped) = (Source::read(&path, &Silent).unwrap(), Source::open(&path).unwrap());
        assert_eq!((read.is_copied(), mapped.is_copied()), (true, false));
        assert!(mapped.copied(&Silent).unwrap().is_copied());
        mapped.will_need(100..4500);
        // Windows does not let a file be cut that is mapped.
        drop(mapped);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(read[..], [7; 5000]);
        let error = Source::read(&path, &Silent).err().unwrap().to_string();
        assert_eq!(error, format!("{}: the file is empty", path.display()));
    }

    /// The system then reads the map by itself, so that there is no signal, only an error about the wrong file.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_source_that_is_cut_short_while_it_is_copied_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source");
        std::fs::write(&path, vec![1; 3 << 20]).unwrap();
        let source = Source::open(&path).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        let mut out = AtomicFile::create(&dir.path().join("out"), &Silent).unwrap();
        let error = out.append(&source).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: was changed or cut short", path.display())), "{error}");
    }
}
