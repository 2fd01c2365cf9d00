//! GGUF files written as a stream: the header first, then one tensor after another, never all in memory.

use super::value::ValueType;
use crate::files::AtomicFile;
use crate::progress::Progress;
use crate::quant::GgmlType;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// A metadata value to be written.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each variant is the GGUF value type of its name")]
pub enum Value {
    U32(u32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Str(String),
    ArrayU32(Vec<u32>),
    ArrayI32(Vec<i32>),
    ArrayF32(Vec<f32>),
    ArrayStr(Vec<Vec<u8>>),
}

/// The metadata of a file to be written: entries in the order they were added.
#[derive(Default)]
pub struct MetadataBuilder {
    bytes: Vec<u8>,
    n: u64,
}

impl MetadataBuilder {
    /// Adds a value.
    pub fn add(&mut self, key: &str, value: &Value) -> &mut Self {
        self.key(key);
        let out = &mut self.bytes;
        let kind = |out: &mut Vec<u8>, t: ValueType| out.extend((t as u32).to_le_bytes());
        let array = |out: &mut Vec<u8>, t: ValueType, len: usize| {
            kind(out, ValueType::Array);
            kind(out, t);
            out.extend((len as u64).to_le_bytes());
        };
        match value {
            Value::U32(x) => {
                kind(out, ValueType::U32);
                out.extend(x.to_le_bytes());
            }
            Value::U64(x) => {
                kind(out, ValueType::U64);
                out.extend(x.to_le_bytes());
            }
            Value::F32(x) => {
                kind(out, ValueType::F32);
                out.extend(x.to_le_bytes());
            }
            Value::Bool(x) => {
                kind(out, ValueType::Bool);
                out.push(u8::from(*x));
            }
            Value::Str(s) => {
                kind(out, ValueType::String);
                push_string(out, s.as_bytes());
            }
            Value::ArrayU32(xs) => {
                array(out, ValueType::U32, xs.len());
                xs.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Value::ArrayI32(xs) => {
                array(out, ValueType::I32, xs.len());
                xs.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Value::ArrayF32(xs) => {
                array(out, ValueType::F32, xs.len());
                xs.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Value::ArrayStr(xs) => {
                array(out, ValueType::String, xs.len());
                xs.iter().for_each(|s| push_string(out, s));
            }
        }
        self
    }

    /// Adds a value that is already in GGUF's bytes.
    pub fn add_raw(&mut self, key: &str, value_type: ValueType, value: &[u8]) -> &mut Self {
        self.key(key);
        self.bytes.extend((value_type as u32).to_le_bytes());
        self.bytes.extend(value);
        self
    }

    fn key(&mut self, key: &str) {
        push_string(&mut self.bytes, key.as_bytes());
        self.n += 1;
    }
}

fn push_string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

/// A tensor that will be written.
#[derive(Debug, Clone)]
pub struct PlannedTensor {
    /// Full name.
    pub name: String,
    /// Type of the elements.
    pub dtype: GgmlType,
    /// Sizes, row length first.
    pub dims: Vec<usize>,
}

impl PlannedTensor {
    /// Size of the data in bytes.
    ///
    /// # Errors
    /// When rows are not whole blocks.
    pub fn n_bytes(&self) -> Result<usize> {
        let row = self.dtype.row_bytes(self.dims[0]);
        let row = row
            .with_context(|| format!("{}: rows of {} are not whole {} blocks", self.name, self.dims[0], self.dtype))?;
        Ok(row * self.dims[1..].iter().product::<usize>())
    }
}

/// A GGUF v3 file being written. The header goes out at once; then the tensors follow in the planned order.
pub struct Writer<'a> {
    file: AtomicFile<'a>,
    alignment: usize,
    sizes: Vec<usize>,
    names: Vec<String>,
    current: usize,
    written: usize,
}

impl<'a> Writer<'a> {
    /// Writes the header to a temporary file beside `path`. `alignment` must be what the metadata says, or 32. Where
    /// `path` is a FIFO, `progress` ends the wait for its reader.
    ///
    /// # Errors
    /// When the file cannot be written or a tensor's rows are not whole blocks.
    pub fn create(
        path: &Path,
        metadata: &MetadataBuilder,
        tensors: &[PlannedTensor],
        alignment: usize,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let sizes = tensors.iter().map(PlannedTensor::n_bytes).collect::<Result<Vec<_>>>()?;
        let mut head = Vec::new();
        head.extend(b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend((tensors.len() as u64).to_le_bytes());
        head.extend(metadata.n.to_le_bytes());
        head.extend(&metadata.bytes);
        let mut offset = 0usize;
        for (tensor, size) in tensors.iter().zip(&sizes) {
            push_string(&mut head, tensor.name.as_bytes());
            head.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| head.extend((*d as u64).to_le_bytes()));
            head.extend(tensor.dtype.id().to_le_bytes());
            head.extend((offset as u64).to_le_bytes());
            offset += size.next_multiple_of(alignment);
        }
        head.resize(head.len().next_multiple_of(alignment), 0);
        let mut file = AtomicFile::create(path, progress)?;
        file.append(&head)?;
        let names = tensors.iter().map(|t| t.name.clone()).collect();
        Ok(Self { file, alignment, sizes, names, current: 0, written: 0 })
    }

    /// Appends bytes of the current tensor; when it is complete, the next one becomes current.
    ///
    /// # Errors
    /// When the disk is full, or the tensor would become longer than planned.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let size = *self.sizes.get(self.current).context("all planned tensors are written")?;
        let name = &self.names[self.current];
        ensure!(self.written + bytes.len() <= size, "{name}: more data than its planned {size} bytes");
        self.file.append(bytes)?;
        self.written += bytes.len();
        if self.written == size {
            let padding = size.next_multiple_of(self.alignment) - size;
            self.file.append(&vec![0; padding])?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Checks that everything planned was written, and gives the file its name.
    ///
    /// # Errors
    /// When something is missing or the disk is full; no file is left behind.
    pub fn finish(self) -> Result<()> {
        ensure!(self.current == self.sizes.len(), "{}: incomplete", self.names[self.current]);
        self.file.commit()
    }
}
