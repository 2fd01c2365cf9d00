//! Metadata value types, and arrays read in place.

use super::cursor::Cursor;
use anyhow::{Result, bail, ensure};

/// Type of a metadata value (GGUF specification, `gguf_metadata_value_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// The type with this number in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64].get(id as usize).copied()
    }

    /// Bytes of one value; `None` for strings and arrays.
    pub fn width(self) -> Option<u64> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }
}

/// An array of scalars or strings, still in the file. Elements are decoded on demand, so that a vocabulary costs no
/// memory until it is used.
#[derive(Clone, Copy)]
pub struct ArrayView<'a> {
    /// Type of every element.
    pub element: ValueType,
    /// Number of elements.
    pub len: usize,
    payload: &'a [u8],
}

impl<'a> ArrayView<'a> {
    /// `value` is the array as in a header of version 2 or 3, its type and length included.
    pub(super) fn parse(value: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor::new(value);
        let id = cursor.u32()?;
        let Some(element) = ValueType::from_id(id) else { bail!("unknown element type {id}") };
        let len = usize::try_from(cursor.u64()?)?;
        Ok(Self { element, len, payload: &value[cursor.at..] })
    }

    /// The elements as byte strings.
    ///
    /// # Errors
    /// When this is not an array of strings.
    pub fn strings(self) -> Result<Vec<&'a [u8]>> {
        ensure!(self.element == ValueType::String, "holds {:?} where strings are wanted", self.element);
        let mut cursor = Cursor::new(self.payload);
        (0..self.len).map(|_| cursor.string(3, u64::MAX)).collect()
    }

    /// The elements as 64-bit integers.
    ///
    /// # Errors
    /// When the elements are not integers, or do not fit.
    pub fn integers(self) -> Result<Vec<i64>> {
        use ValueType::*;
        let Some(width) = self.element.width() else { bail!("holds {:?} where integers are wanted", self.element) };
        let chunks = self.payload.chunks_exact(width as usize).take(self.len);
        chunks
            .map(|c| {
                let mut wide = [0; 8];
                wide[..c.len()].copy_from_slice(c);
                let raw = u64::from_le_bytes(wide);
                Ok(match self.element {
                    U8 | U16 | U32 => raw as i64,
                    I8 => raw as u8 as i8 as i64,
                    I16 => raw as u16 as i16 as i64,
                    I32 => raw as u32 as i32 as i64,
                    I64 => raw as i64,
                    U64 => i64::try_from(raw)?,
                    other => bail!("holds {other:?} where integers are wanted"),
                })
            })
            .collect()
    }

    /// The elements as numbers: `true` is 1, `false` 0.
    ///
    /// # Errors
    /// When the elements are strings.
    pub fn numbers(self) -> Result<Vec<f64>> {
        use ValueType::*;
        match self.element {
            F32 => Ok(self.floats()?.into_iter().map(f64::from).collect()),
            F64 => {
                let chunks = self.payload.as_chunks().0.iter().take(self.len);
                Ok(chunks.map(|c| f64::from_le_bytes(*c)).collect())
            }
            Bool => Ok(self.payload.iter().take(self.len).map(|b| f64::from(u8::from(*b != 0))).collect()),
            U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64 => Ok(self.integers()?.into_iter().map(|n| n as f64).collect()),
            String | Array => bail!("holds {:?} where numbers are wanted", self.element),
        }
    }

    /// The elements as 32-bit floats.
    ///
    /// # Errors
    /// When the elements are not floats.
    pub fn floats(self) -> Result<Vec<f32>> {
        ensure!(self.element == ValueType::F32, "holds {:?} where floats are wanted", self.element);
        let chunks = self.payload.chunks_exact(4).take(self.len);
        Ok(chunks.map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
    }
}
