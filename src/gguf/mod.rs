//! GGUF files: reading through a validating walk, writing as a stream.

mod cursor;
pub mod decode;
mod filled;
pub mod header;
pub mod metadata;
#[cfg(windows)]
mod pages;
pub mod parts;
pub mod source;
mod v1;
pub mod value;
pub mod write;

pub use header::{Magic, TensorInfo};
pub use metadata::Metadata;
pub use parts::PartNames;
pub use source::Source;

use crate::files::free_memory;
use crate::progress::Progress;
use crate::units::Bytes;
use anyhow::{Context, Result, bail, ensure};
use parts::Split;
use std::collections::HashMap;
use std::path::Path;

/// An open GGUF file, or all files of a model that lies in several, whose headers have been checked.
#[derive(Clone)]
pub struct Gguf {
    sources: Vec<Source>,
    magic: Magic,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    alignment: usize,
}

impl Gguf {
    /// Maps and checks the file at `path`; with it all others that the model lies in, whichever of them `path` is.
    ///
    /// # Errors
    /// One line that names the file, the key or tensor, and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Self::one(Source::open(path)?)?;
        let name = file.source().name().to_owned();
        match Split::of(&file.metadata).with_context(|| name.clone())? {
            None => Ok(file),
            Some(split) => {
                let names = PartNames::found(path, split).with_context(|| name)?;
                // The named one is read again: a header, which is cheap.
                drop(file);
                Self::of_parts(&names, split.count, &Source::open)
            }
        }
    }

    /// The same with all of it read into memory of our own, after a look whether there is room: nothing is read from the
    /// disk later, and the files may change.
    ///
    /// # Errors
    /// As [`Gguf::open`]; when there is no room for it, and when a file is cut short meanwhile.
    pub fn read(path: &Path, progress: &dyn Progress) -> Result<Self> {
        let mapped = Self::open(path)?;
        mapped.check_memory(free_memory())?;
        progress.begin("reading the model", mapped.len());
        let source = |path: &Path| Source::read(path, progress);
        let read = match PartNames::of(path).filter(|_| mapped.sources.len() > 1) {
            Some(names) => Self::of_parts(&names, mapped.sources.len(), &source)?,
            None => Self::from_source(source(path)?)?,
        };
        progress.end();
        Ok(read)
    }

    /// Bytes of all files.
    fn len(&self) -> u64 {
        self.sources.iter().map(|source| source.len() as u64).sum()
    }

    /// Whether all of it fits into memory of which `free` is there.
    fn check_memory(&self, free: Option<u64>) -> Result<()> {
        let (name, len) = (self.source().name(), self.len());
        let Some(free) = free.filter(|free| *free < len) else { return Ok(()) };
        bail!(
            "{name}: there is no memory for all of it: it has {}, and {} are free; without --no-mmap it is read as it is needed",
            Bytes(len),
            Bytes(free)
        )
    }

    /// Checks the header of `source`, which has to be the whole model.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_source(source: Source) -> Result<Self> {
        let file = Self::one(source)?;
        if let Some(split) = Split::of(&file.metadata).with_context(|| file.source().name().to_owned())? {
            bail!("{}: is part {} of {}", file.source().name(), split.no + 1, split.count);
        }
        Ok(file)
    }

    /// One file, be it the whole model or a part of it.
    fn one(source: Source) -> Result<Self> {
        let name = source.name().to_owned();
        Self::check(source).with_context(|| name)
    }

    fn check(source: Source) -> Result<Self> {
        let header = header::walk(&source)?;
        let values = decode::scalars(&source, &header)?;
        let by_name = header.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        let (magic, version, alignment) = (header.magic, header.version, header.alignment);
        let tensors = header.tensors;
        let metadata = Metadata::new(source.clone(), header.rewritten, header.entries, values);
        Ok(Self { sources: vec![source], magic, version, metadata, tensors, by_name, alignment })
    }

    /// All parts as one: the keys of the first, the tensors of each.
    fn of_parts(names: &PartNames, count: usize, source: &dyn Fn(&Path) -> Result<Source>) -> Result<Self> {
        let mut whole: Option<Self> = None;
        for (no, path) in names.paths().enumerate() {
            let part = Self::one(source(&path)?)?;
            let shown = path.display();
            let split = Split::of(&part.metadata).with_context(|| shown.to_string())?;
            let which = format!("is not part {} of {count}, as its name says", no + 1);
            let Some(split) = split else { bail!("{shown}: split.count: the key is missing; the file {which}") };
            ensure!(split.count == count, "{shown}: split.count: {}; the file {which}", split.count);
            ensure!(split.no == no, "{shown}: split.no: {}; the file {which}", split.no);
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.join(part)?,
            }
        }
        let whole = whole.context("a model of no parts")?;
        let stated = Split::of(&whole.metadata)?.and_then(|split| split.n_tensors);
        let n = whole.tensors.len() as u64;
        ensure!(
            stated.is_none_or(|stated| stated == n),
            "{}: split.tensors.count: {} tensors, but the {count} parts have {n}",
            whole.source().name(),
            stated.unwrap_or(n)
        );
        Ok(whole)
    }

    /// Takes the tensors of the next part.
    fn join(&mut self, part: Self) -> Result<()> {
        let file = part.source().name().to_owned();
        let alike = part.magic == self.magic;
        ensure!(
            alike,
            "{file}: of the parts of one model some are PowerInfer's (they begin with \"PWRI\"), others are not"
        );
        let n = (self.tensors.len() + part.tensors.len()) as u64;
        ensure!(
            n <= header::MAX_TENSORS,
            "{file}: {n} tensors up to here; at most {} are accepted",
            header::MAX_TENSORS
        );
        for tensor in part.tensors {
            let again = self.by_name.insert(tensor.name.clone(), self.tensors.len());
            ensure!(again.is_none(), "{file}: {}: the tensor is in an earlier part, too", tensor.name);
            self.tensors.push(TensorInfo { part: self.sources.len(), ..tensor });
        }
        self.sources.extend(part.sources);
        Ok(())
    }

    /// Reads all files, and keeps them in memory as long as they are open. What is in memory already needs none of that.
    ///
    /// # Errors
    /// When the system does not let so much be kept; the file then stays as it is.
    pub fn lock(&self) -> Result<()> {
        self.sources.iter().try_for_each(Source::lock)
    }

    /// Whether all of it was read into memory of our own.
    pub fn is_copied(&self) -> bool {
        self.sources.iter().all(Source::is_copied)
    }

    /// The bytes of the file; of the first, where there are several.
    pub fn source(&self) -> &Source {
        &self.sources[0]
    }

    /// The bytes of the file that holds a tensor.
    pub fn source_of(&self, tensor: &TensorInfo) -> &Source {
        &self.sources[tensor.part]
    }

    /// What the file begins with.
    pub fn magic(&self) -> Magic {
        self.magic
    }

    /// Whether it is one of PowerInfer's files.
    pub fn is_pwri(&self) -> bool {
        self.magic == Magic::Pwri
    }

    /// GGUF version: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file, part after part.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|i| &self.tensors[*i])
    }

    /// The bytes of a tensor of this model.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.source_of(tensor)[tensor.data.clone()]
    }

    /// Alignment of tensor data in bytes.
    pub fn alignment(&self) -> usize {
        self.alignment
    }
}
