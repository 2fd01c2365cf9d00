//! Where the bytes of a model live: a mapped file, memory, or the program itself.
#![allow(unsafe_code, reason = "memory-mapping a file is unsafe by nature; it is done here and nowhere else")]

use crate::files::mapped::Mapped;
use crate::files::open_regular;
use anyhow::{Context, Result, ensure};
use memmap2::Mmap;
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
    Memory(Vec<u8>),
    Static(&'static [u8]),
}

impl Source {
    /// Maps `path`. The file must not be changed while it is open: the pages are the file.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped, is empty, or is no regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = open_regular(path).with_context(|| name.clone())?;
        let meta = file.metadata().with_context(|| name.clone())?;
        ensure!(meta.len() > 0, "{name}: the file is empty");
        // SAFETY: the map is private to this process and read-only. The caller must see to it that nobody truncates the
        // file meanwhile (documented above), as in every program that maps its model; the tools turn it into an error
        // (`files::signals`).
        let map = unsafe { Mmap::map(&file) }.with_context(|| format!("{name}: cannot be mapped"))?;
        let known = Some(Mapped::new(&map, &name));
        Ok(Self { inner: Arc::new(Inner { name, _known: known, bytes: Backing::Map(map) }) })
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
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Reads all of a mapped file, and keeps it in memory.
    ///
    /// # Errors
    /// When the system does not let so much be kept.
    pub fn lock(&self) -> Result<()> {
        #[cfg(unix)]
        if let Backing::Map(map) = &self.inner.bytes {
            map.lock().with_context(|| format!("{}: cannot be kept in memory", self.name()))?;
        }
        Ok(())
    }

    /// The file's path, or what else was given as its name: what error messages begin with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.inner.bytes {
            Backing::Map(map) => map,
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
    use crate::files::AtomicFile;
    use crate::progress::Silent;

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
