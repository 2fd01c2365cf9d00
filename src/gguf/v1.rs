//! Version 1 metadata, rewritten with the widths of version 3.
//!
//! Version 1 counts strings, arrays and dimensions in 32 bits (ggml `docs/gguf.md`, version history). Nothing else
//! differs, so rewriting the metadata once means that the rest of the reader needs to know only one layout.

use super::cursor::Cursor;
use super::value::ValueType;
use anyhow::{Context, Result, ensure};

/// The most metadata accepted: it is copied, unlike that of later versions.
const MAX_BYTES: usize = 32 << 20;

/// Reads `n_keys` entries and returns them in the layout of version 3. Checks only what it must to find their ends; the
/// walk checks the result like any other.
pub(super) fn widen_metadata(cursor: &mut Cursor, n_keys: u64) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for i in 0..n_keys {
        let key = widen_string(cursor, &mut out).with_context(|| format!("metadata key {i}"))?;
        let shown = || String::from_utf8_lossy(&key[..key.len().min(100)]).escape_debug().to_string();
        widen_value(cursor, &mut out).with_context(shown)?;
    }
    Ok(out)
}

fn widen_value(cursor: &mut Cursor, out: &mut Vec<u8>) -> Result<()> {
    let type_id = cursor.u32()?;
    out.extend(type_id.to_le_bytes());
    let value_type = ValueType::from_id(type_id).with_context(|| format!("unknown value type {type_id}"))?;
    if value_type != ValueType::Array {
        return widen_scalar(cursor, out, value_type);
    }
    let element_id = cursor.u32()?;
    let element = ValueType::from_id(element_id).with_context(|| format!("unknown element type {element_id}"))?;
    ensure!(element != ValueType::Array, "arrays within arrays are not supported");
    let len = cursor.u32()?;
    out.extend(element_id.to_le_bytes());
    out.extend(u64::from(len).to_le_bytes());
    match element.width() {
        Some(width) => {
            let bytes = cursor.take(u64::from(len) * width)?;
            ensure_room(out, bytes).with_context(|| format!("an array of {len} elements"))?;
            out.extend(bytes);
        }
        None => {
            // A string has at least its length field, which bounds what a false count can make us reserve.
            ensure!(len as usize <= cursor.remaining() / 4, "an array of {len} strings is more than the file holds");
            for _ in 0..len {
                widen_string(cursor, out)?;
            }
        }
    }
    Ok(())
}

fn widen_scalar(cursor: &mut Cursor, out: &mut Vec<u8>, value_type: ValueType) -> Result<()> {
    match value_type.width() {
        Some(width) => out.extend(cursor.take(width)?),
        None => {
            widen_string(cursor, out)?;
        }
    }
    Ok(())
}

fn widen_string<'a>(cursor: &mut Cursor<'a>, out: &mut Vec<u8>) -> Result<&'a [u8]> {
    let len = cursor.u32()?;
    let bytes = cursor.take(u64::from(len))?;
    ensure_room(out, bytes).with_context(|| format!("a string of {len} bytes"))?;
    out.extend(u64::from(len).to_le_bytes());
    out.extend(bytes);
    Ok(bytes)
}

fn ensure_room(out: &[u8], bytes: &[u8]) -> Result<()> {
    let fits = out.len() + bytes.len() <= MAX_BYTES;
    ensure!(fits, "metadata of version 1 may have {MAX_BYTES} bytes");
    Ok(())
}
