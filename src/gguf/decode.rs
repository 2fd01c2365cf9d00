//! Decodes, with gguf-rs, the scalar metadata of a header that the walk has accepted.

use super::header::{Entry, Header};
use super::source::Source;
use super::value::ValueType;
use anyhow::{Context, Result, ensure};
use gguf_rs::{ByteOrder, GGUFContainer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Cursor;

/// The most bytes of scalars and strings that are decoded. Templates and licences are the longest, some 100 KiB.
const MAX_BYTES: usize = 64 << 20;

/// The values of all scalar and string keys.
///
/// gguf-rs is handed a header with the accepted scalar entries and no tensors: it turns every array element into
/// a heap-allocated JSON value, sizes some tensor types wrongly, and panics on types that it does not know, so
/// arrays and tensors are read from the walk.
pub(super) fn scalars(source: &Source, header: &Header) -> Result<BTreeMap<String, Value>> {
    let bytes: &[u8] = header.rewritten.as_deref().unwrap_or(source);
    let wanted: Vec<&Entry> = header.entries.iter().filter(|e| e.value_type != ValueType::Array).collect();
    let n_bytes: usize = wanted.iter().map(|e| e.key.len() + e.value.len()).sum();
    ensure!(n_bytes <= MAX_BYTES, "metadata: {n_bytes} bytes of single values; at most {MAX_BYTES} are accepted");
    let mut head = Vec::new();
    head.extend(3u32.to_le_bytes());
    head.extend(0u64.to_le_bytes());
    head.extend((wanted.len() as u64).to_le_bytes());
    for entry in &wanted {
        head.extend((entry.key.len() as u64).to_le_bytes());
        head.extend(entry.key.as_bytes());
        head.extend((entry.value_type as u32).to_le_bytes());
        head.extend(&bytes[entry.value.clone()]);
    }
    let mut container = GGUFContainer::new(ByteOrder::LE, Box::new(Cursor::new(head)), 0);
    let model = container.decode().context("metadata cannot be decoded")?;
    let values = model.metadata().clone();
    ensure!(values.len() == wanted.len(), "metadata: {} of {} values decoded", values.len(), wanted.len());
    Ok(values)
}
