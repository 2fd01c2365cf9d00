//! GGUF files under construction, of versions 1 to 3, written without the library's writer.

use super::raw::Raw;
use powerinfer::quant::GgmlType;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where the data of a tensor may begin.
const ALIGNMENT: u64 = 32;

/// A metadata value.
#[derive(Clone)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Type number of the elements, how many there are, their bytes; no strings.
    Array(u32, usize, Vec<u8>),
    Strings(Vec<String>),
}

impl Value {
    pub fn strings(items: &[&str]) -> Self {
        Self::Strings(items.iter().map(|s| (*s).to_owned()).collect())
    }

    pub fn u32s(items: &[u32]) -> Self {
        Self::Array(4, items.len(), items.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub fn i32s(items: &[i32]) -> Self {
        Self::Array(5, items.len(), items.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub fn f32s(items: &[f32]) -> Self {
        Self::Array(6, items.len(), items.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Type number and value.
    fn append(&self, out: &mut Raw) {
        let mut scalar = |id: u32, bytes: &[u8]| out.u32(id).bytes.extend(bytes);
        match self {
            Self::U8(v) => scalar(0, &[*v]),
            Self::I8(v) => scalar(1, &v.to_le_bytes()),
            Self::U16(v) => scalar(2, &v.to_le_bytes()),
            Self::I16(v) => scalar(3, &v.to_le_bytes()),
            Self::U32(v) => scalar(4, &v.to_le_bytes()),
            Self::I32(v) => scalar(5, &v.to_le_bytes()),
            Self::F32(v) => scalar(6, &v.to_le_bytes()),
            Self::Bool(v) => scalar(7, &[u8::from(*v)]),
            Self::U64(v) => scalar(10, &v.to_le_bytes()),
            Self::I64(v) => scalar(11, &v.to_le_bytes()),
            Self::F64(v) => scalar(12, &v.to_le_bytes()),
            Self::Str(v) => {
                out.u32(8).string(v);
            }
            Self::Array(element, n, bytes) => out.u32(9).u32(*element).len(*n as u64).bytes.extend(bytes),
            Self::Strings(items) => {
                out.u32(9).u32(8).len(items.len() as u64);
                items.iter().for_each(|s| {
                    out.string(s);
                });
            }
        }
    }
}

/// A tensor and its bytes, or the first of them where the rest are zeros.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: GgmlType,
    /// Row length first.
    pub dims: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn zeros(name: &str, dtype: GgmlType, dims: &[usize]) -> Self {
        Self { name: name.to_owned(), dtype, dims: dims.to_vec(), bytes: Vec::new() }
    }

    fn n_bytes(&self) -> u64 {
        let row = self.dtype.row_bytes(self.dims[0]).expect("whole blocks");
        (row * self.dims[1..].iter().product::<usize>()) as u64
    }
}

/// Metadata and tensors, that may be changed before they are written.
#[derive(Clone, Default)]
pub struct ModelFile {
    pub keys: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

/// A file: all that is not zero.
struct Pieces<'a> {
    header: Vec<u8>,
    /// Bytes of tensors, and where in the file they begin.
    data: Vec<(u64, &'a [u8])>,
    n_bytes: u64,
}

impl ModelFile {
    /// Sets or replaces a key.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        match self.keys.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.to_owned(), value)),
        }
        self
    }

    /// Adds a key even if it is there.
    pub fn set_again(&mut self, key: &str, value: Value) -> &mut Self {
        self.keys.push((key.to_owned(), value));
        self
    }

    /// Takes out all keys that begin so.
    pub fn remove(&mut self, prefix: &str) -> &mut Self {
        let before = self.keys.len();
        self.keys.retain(|(k, _)| !k.starts_with(prefix));
        assert!(self.keys.len() < before, "{prefix}: no such key");
        self
    }

    /// A tensor, to be changed.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name == name).expect("a tensor of that name")
    }

    /// Adds a tensor even if one of that name is there.
    pub fn push(&mut self, tensor: Tensor) -> &mut Self {
        self.tensors.push(tensor);
        self
    }

    /// Overwrites one element of an F32 tensor.
    pub fn poke(&mut self, name: &str, element: usize, value: f32) -> &mut Self {
        self.tensor(name).bytes[4 * element..][..4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Version 1 has 32-bit counts, lengths and dimensions where later ones have 64 bits; offsets of tensors always
    /// have 64.
    fn pieces(&self, version: u32) -> Pieces<'_> {
        let mut header = Raw::new(version, self.tensors.len() as u64, self.keys.len() as u64);
        for (key, value) in &self.keys {
            value.append(header.string(key));
        }
        let (mut data, mut end) = (Vec::new(), 0u64);
        for tensor in &self.tensors {
            let offset = end.next_multiple_of(ALIGNMENT);
            header.string(&tensor.name).u32(tensor.dims.len() as u32);
            tensor.dims.iter().for_each(|d| {
                header.len(*d as u64);
            });
            header.u32(tensor.dtype.id()).u64(offset);
            data.push((offset, &*tensor.bytes));
            end = offset + tensor.n_bytes();
        }
        let start = (header.bytes.len() as u64).next_multiple_of(ALIGNMENT);
        data.iter_mut().for_each(|(at, _)| *at += start);
        Pieces { header: header.bytes, data, n_bytes: start + end }
    }

    /// The whole file, in that version of the format.
    pub fn bytes_in(&self, version: u32) -> Vec<u8> {
        let Pieces { header, data, n_bytes } = self.pieces(version);
        let mut out = vec![0; n_bytes as usize];
        out[..header.len()].copy_from_slice(&header);
        for (at, bytes) in data {
            out[at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        out
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_in(3)
    }

    /// The file in that folder. Zeros take no room on the disk.
    pub fn written(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        let Pieces { header, data, n_bytes } = self.pieces(3);
        let mut file = File::create(&path).expect("a file");
        file.set_len(n_bytes).expect("a length");
        file.write_all(&header).expect("room on the disk");
        for (at, bytes) in data {
            file.seek(SeekFrom::Start(at)).expect("a place");
            file.write_all(bytes).expect("room on the disk");
        }
        path
    }
}
