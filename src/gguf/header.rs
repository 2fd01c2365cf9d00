//! The validating walk over a GGUF header: nothing after it looks at bytes that it has not accepted.
//!
//! Source of the format: ggml's `docs/gguf.md`. Files are hostile until they have passed here, so every count,
//! length and offset is checked against what the file can hold before anything is allocated for it.

use super::cursor::Cursor;
use super::value::ValueType;
use crate::quant::GgmlType;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;
use std::ops::Range;

/// The most accepted; the largest models known have some 3,000 tensors and 60 keys.
pub(super) const MAX_TENSORS: u64 = 1 << 16;
const MAX_KEYS: u64 = 1 << 16;
const MAX_KEY_BYTES: u64 = (1 << 16) - 1;
const MAX_STRING_BYTES: u64 = 16 << 20;
const MAX_TENSOR_NAME_BYTES: u64 = 1024;
/// The largest vocabularies have 262,144 tokens and about twice as many merges.
const MAX_TOKENIZER_ARRAY: u64 = 1 << 20;
/// Other arrays hold a value per layer or expert.
const MAX_ARRAY: u64 = 1 << 16;
const MAX_DIMS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
/// How the names of lists end that may be empty.
const EMPTY_LIST: &str = ".gpu_bucket";

/// What a file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magic {
    /// `GGUF`.
    Gguf,
    /// `PWRI`: a file of PowerInfer's, which is GGUF but for that.
    Pwri,
}

impl Magic {
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            b"GGUF" => Some(Self::Gguf),
            b"PWRI" => Some(Self::Pwri),
            _ => None,
        }
    }
}

/// One metadata entry: its key, its type, and where its value lies in the header's bytes.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Full key, such as `llama.block_count`.
    pub key: String,
    /// Type of the value.
    pub value_type: ValueType,
    /// Byte range of the value (arrays: with their element type and length).
    pub value: Range<usize>,
}

/// One tensor as the header describes it.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Full name, such as `blk.0.ffn_gate.weight`.
    pub name: String,
    /// Type of the elements.
    pub dtype: GgmlType,
    /// Sizes, innermost (row length) first, as ggml counts them; 1 to 4 of them, none of them 0.
    pub dims: Vec<usize>,
    /// Byte range in the file that holds it.
    pub data: Range<usize>,
    /// Which file that is, from 0, where a model lies in several.
    pub part: usize,
}

impl TensorInfo {
    /// Row length in elements.
    pub fn n_cols(&self) -> usize {
        self.dims[0]
    }

    /// Number of rows over all outer dimensions.
    pub fn n_rows(&self) -> usize {
        self.dims[1..].iter().product()
    }
}

/// An accepted header.
pub struct Header {
    /// What the file begins with.
    pub magic: Magic,
    /// 1, 2 or 3.
    pub version: u32,
    /// Metadata in file order.
    pub entries: Vec<Entry>,
    /// Tensors in file order.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of tensor data in bytes.
    pub alignment: usize,
    /// Where the data section begins in the file.
    pub data_start: usize,
    /// Header bytes that [`Entry::value`] refers to when they are not the file's own: those of a version 1 file,
    /// rewritten with the widths of version 3.
    pub rewritten: Option<Vec<u8>>,
}

/// Walks the header of `file`.
///
/// # Errors
/// On the first thing that is wrong, naming the key or tensor.
pub fn walk(file: &[u8]) -> Result<Header> {
    let mut cursor = Cursor::new(file);
    let begin = cursor.take(4).map_err(|_| anyhow::anyhow!("is not a GGUF file: only {} bytes long", file.len()))?;
    let Some(magic) = Magic::of(begin) else {
        let shown: String = begin.iter().map(|b| b.escape_ascii().to_string()).collect();
        bail!("is not a GGUF file: it begins with \"{shown}\" instead of \"GGUF\"");
    };
    let version = cursor.u32().context("header")?;
    ensure!(
        version.swap_bytes() > 3 || version <= 3,
        "is a big-endian GGUF file; convert it to little-endian (gguf-convert-endian of the gguf package)"
    );
    ensure!((1..=3).contains(&version), "GGUF version {version} is not known; versions 1 to 3 are");
    let n_tensors = cursor.length(version).context("header: tensor count")?;
    let n_keys = cursor.length(version).context("header: metadata count")?;
    ensure!(n_tensors <= MAX_TENSORS, "header: a count of {n_tensors} tensors; at most {MAX_TENSORS} are accepted");
    ensure!(n_keys <= MAX_KEYS, "header: a count of {n_keys} metadata keys; at most {MAX_KEYS} are accepted");
    if version == 1 {
        return walk_v1(file, magic, cursor, n_tensors, n_keys);
    }
    let (entries, alignment) = walk_entries(&mut cursor, n_keys)?;
    let raw = walk_tensor_infos(&mut cursor, magic, version, n_tensors)?;
    let data_start = align_up(cursor.at, alignment).context("header: data offset overflows")?;
    let tensors = place(raw, file.len(), data_start, alignment)?;
    Ok(Header { magic, version, entries, tensors, alignment: alignment as usize, data_start, rewritten: None })
}

fn walk_v1(file: &[u8], magic: Magic, mut cursor: Cursor, n_tensors: u64, n_keys: u64) -> Result<Header> {
    let metadata = super::v1::widen_metadata(&mut cursor, n_keys)?;
    let mut wide = Cursor::new(&metadata);
    let (entries, alignment) = walk_entries(&mut wide, n_keys)?;
    let raw = walk_tensor_infos(&mut cursor, magic, 1, n_tensors)?;
    let data_start = align_up(cursor.at, alignment).context("header: data offset overflows")?;
    let tensors = place(raw, file.len(), data_start, alignment)?;
    let (version, alignment, rewritten) = (1, alignment as usize, Some(metadata));
    Ok(Header { magic, version, entries, tensors, alignment, data_start, rewritten })
}

fn align_up(at: usize, alignment: u64) -> Option<usize> {
    at.checked_next_multiple_of(usize::try_from(alignment).ok()?)
}

fn walk_entries(cursor: &mut Cursor, n_keys: u64) -> Result<(Vec<Entry>, u64)> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut seen = HashSet::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for i in 0..n_keys {
        let key = cursor.string(3, MAX_KEY_BYTES).with_context(|| format!("metadata key {i}"))?;
        let key = std::str::from_utf8(key).map_err(|_| anyhow::anyhow!("metadata key {i}: is not UTF-8"))?.to_owned();
        let value_type = read_type(cursor).with_context(|| key.clone())?;
        let start = cursor.at;
        skip_value(cursor, &key, value_type, 0).with_context(|| key.clone())?;
        let value = start..cursor.at;
        if key == "general.alignment" {
            alignment = match (value_type, &cursor.bytes[value.clone()]) {
                (ValueType::U32, &[a, b, c, d]) => u64::from(u32::from_le_bytes([a, b, c, d])),
                _ => bail!("{key}: must be a 32-bit unsigned integer, not {value_type:?}"),
            };
            let sane = alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment);
            ensure!(sane, "{key}: {alignment} is not a power of two from 8 to 1048576");
        }
        ensure!(seen.insert(key.clone()), "{key}: the key is there twice");
        entries.push(Entry { key, value_type, value });
    }
    Ok((entries, alignment))
}

fn read_type(cursor: &mut Cursor) -> Result<ValueType> {
    let id = cursor.u32()?;
    ValueType::from_id(id).with_context(|| format!("unknown value type {id}"))
}

fn skip_value(cursor: &mut Cursor, key: &str, value_type: ValueType, depth: u32) -> Result<()> {
    if let Some(width) = value_type.width() {
        cursor.take(width)?;
        return Ok(());
    }
    if value_type == ValueType::String {
        cursor.string(3, MAX_STRING_BYTES)?;
        return Ok(());
    }
    ensure!(depth == 0, "arrays within arrays are not supported");
    let element = read_type(cursor)?;
    let len = cursor.u64()?;
    let cap = if key.starts_with("tokenizer.") { MAX_TOKENIZER_ARRAY } else { MAX_ARRAY };
    ensure!(len <= cap, "an array of {len} elements; at most {cap} are accepted");
    match element.width() {
        Some(width) => {
            cursor.take(len * width)?;
        }
        None => {
            for _ in 0..len {
                skip_value(cursor, key, element, depth + 1)?;
            }
        }
    }
    Ok(())
}

struct RawInfo {
    name: String,
    dtype: GgmlType,
    dims: Vec<usize>,
    offset: u64,
}

fn walk_tensor_infos(cursor: &mut Cursor, magic: Magic, version: u32, n_tensors: u64) -> Result<Vec<RawInfo>> {
    let mut infos: Vec<RawInfo> = Vec::new();
    let mut seen = HashSet::new();
    for i in 0..n_tensors {
        let name = cursor.string(version, MAX_TENSOR_NAME_BYTES).with_context(|| format!("name of tensor {i}"))?;
        let name = std::str::from_utf8(name).map_err(|_| anyhow::anyhow!("name of tensor {i}: is not UTF-8"))?;
        let info = tensor_info(cursor, magic, version, name).with_context(|| name.to_owned())?;
        ensure!(seen.insert(name), "{name}: the tensor is there twice");
        infos.extend(info);
    }
    Ok(infos)
}

/// `None` for a list of no neurons: PowerInfer writes one for a layer of which a card gets nothing.
fn tensor_info(cursor: &mut Cursor, magic: Magic, version: u32, name: &str) -> Result<Option<RawInfo>> {
    let n_dims = cursor.u32()?;
    ensure!((1..=MAX_DIMS).contains(&n_dims), "has {n_dims} dimensions; 1 to {MAX_DIMS} are possible");
    let dims = (0..n_dims).map(|_| cursor.length(version)).collect::<Result<Vec<_>>>()?;
    let type_id = cursor.u32()?;
    let dtype = GgmlType::from_id(type_id).with_context(|| format!("unknown tensor type {type_id}"))?;
    let offset = cursor.u64()?;
    if magic == Magic::Pwri && dims == [0] && dtype == GgmlType::I32 && name.ends_with(EMPTY_LIST) {
        return Ok(None);
    }
    ensure!(dims.iter().all(|d| *d > 0), "has a dimension of 0");
    let elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
    let fits = elements.is_some_and(|n| n.checked_mul(8).is_some());
    ensure!(fits, "its dimensions {dims:?} are more than a file can hold");
    let dims = dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(RawInfo { name: name.to_owned(), dtype, dims, offset }))
}

/// Turns offsets into file ranges: one tensor behind the other, each from the next multiple of the alignment on, all inside
/// the file. ggml wants the same, and it shows a type or a shape that was changed behind the writer's back.
fn place(raw: Vec<RawInfo>, file_len: usize, data_start: usize, alignment: u64) -> Result<Vec<TensorInfo>> {
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(raw.len());
    let data_len = file_len.saturating_sub(data_start);
    let mut end = 0usize;
    for RawInfo { name, dtype, dims, offset } in raw {
        let row = dtype.row_bytes(dims[0]);
        let row = row.with_context(|| {
            format!("{name}: rows of {} are not whole {dtype} blocks of {}", dims[0], dtype.block_len())
        })?;
        let bytes = dims[1..].iter().try_fold(row, |n, d| n.checked_mul(*d));
        let bytes = bytes.with_context(|| format!("{name}: its size overflows"))?;
        ensure!(offset.is_multiple_of(alignment), "{name}: offset {offset} is not a multiple of {alignment}");
        let wanted = align_up(end, alignment).with_context(|| format!("{name}: its offset overflows"))?;
        if offset != wanted as u64 {
            match tensors.last() {
                None => bail!("{name}: offset {offset}, but the first tensor begins at 0"),
                Some(before) => bail!(
                    "{name}: offset {offset}, but {} before it, {} of {:?}, ends at {wanted}",
                    before.name,
                    before.dtype,
                    before.dims
                ),
            }
        }
        end = wanted.checked_add(bytes).filter(|end| *end <= data_len).with_context(|| {
            format!("{name}: {bytes} bytes at offset {offset}, but the data section has {data_len}; is the file whole?")
        })?;
        let data = data_start + wanted..data_start + end;
        tensors.push(TensorInfo { name, dtype, dims, data, part: 0 });
    }
    Ok(tensors)
}
