//! GGUF files: reading through a validating walk, writing as a stream.

mod cursor;
pub mod decode;
pub mod header;
pub mod metadata;
pub mod source;
mod v1;
pub mod value;
pub mod write;

pub use header::TensorInfo;
pub use metadata::Metadata;
pub use source::Source;

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::path::Path;

/// An open GGUF file whose header has been checked.
pub struct Gguf {
    source: Source,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    alignment: usize,
}

impl Gguf {
    /// Maps and checks the file at `path`.
    ///
    /// # Errors
    /// One line that names the file, the key or tensor, and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_source(Source::open(path)?)
    }

    /// Checks the header of `source`.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn from_source(source: Source) -> Result<Self> {
        let name = source.name().to_owned();
        Self::check(source).with_context(|| name)
    }

    fn check(source: Source) -> Result<Self> {
        let header = header::walk(&source)?;
        let values = decode::scalars(&source, &header)?;
        let by_name = header.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        let (version, alignment, tensors) = (header.version, header.alignment, header.tensors);
        let metadata = Metadata::new(source.clone(), header.rewritten, header.entries, values);
        Ok(Self { source, version, metadata, tensors, by_name, alignment })
    }

    /// The bytes of the file.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// GGUF version: 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|i| &self.tensors[*i])
    }

    /// The bytes of a tensor of this file.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.source[tensor.data.clone()]
    }

    /// Alignment of tensor data in bytes.
    pub fn alignment(&self) -> usize {
        self.alignment
    }
}
