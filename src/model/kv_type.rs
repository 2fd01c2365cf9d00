//! As what keys and values are kept.

use crate::quant::GgmlType;
use anyhow::{Result, bail};
use std::fmt;
use std::str::FromStr;

/// Types of the cached keys and values: 32-bit floats, 16-bit floats (half the memory), or bytes with a scale per 32 (about a
/// quarter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvType {
    /// Of keys.
    pub k: GgmlType,
    /// Of values.
    pub v: GgmlType,
}

impl KvType {
    /// Both 32-bit floats.
    pub const F32: Self = Self::both(GgmlType::F32);
    /// Both 16-bit floats.
    pub const F16: Self = Self::both(GgmlType::F16);
    /// Both bytes with a scale per 32.
    pub const Q8_0: Self = Self::both(GgmlType::Q8_0);

    const fn both(dtype: GgmlType) -> Self {
        Self { k: dtype, v: dtype }
    }

    /// The type of that name: f16, q8_0 or f32.
    ///
    /// # Errors
    /// Where it is none of them.
    pub fn one(name: &str) -> Result<GgmlType> {
        match name.to_ascii_lowercase().as_str() {
            "f32" => Ok(GgmlType::F32),
            "f16" => Ok(GgmlType::F16),
            "q8_0" => Ok(GgmlType::Q8_0),
            _ => bail!("KV cache type \"{name}\" is not known; f16, q8_0 and f32 are"),
        }
    }

    /// Whether keys and values have one type.
    pub fn is_one(self) -> bool {
        self.k == self.v
    }

    /// Bytes of a key of `k` numbers and a value of `v`; where these are no whole blocks, which executors refuse, as if they were
    /// floats.
    pub fn row_bytes(self, k: usize, v: usize) -> usize {
        let of = |dtype: GgmlType, n: usize| dtype.row_bytes(n).unwrap_or(4 * n);
        of(self.k, k) + of(self.v, v)
    }
}

/// One name, or that of keys and that of values with a stroke between them.
impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_one() {
            true => self.k.fmt(f),
            false => write!(f, "{}/{}", self.k, self.v),
        }
    }
}

impl FromStr for KvType {
    type Err = anyhow::Error;

    /// Reads `f16`, or `q8_0/f16`: keys, then values.
    fn from_str(text: &str) -> Result<Self> {
        let (k, v) = text.split_once('/').unwrap_or((text, text));
        Ok(Self { k: Self::one(k)?, v: Self::one(v)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_types_of_their_own() {
        assert_eq!("F16".parse::<KvType>().unwrap(), KvType::F16);
        let mixed: KvType = "q8_0/f16".parse().unwrap();
        assert_eq!((mixed.k, mixed.v, mixed.is_one()), (GgmlType::Q8_0, GgmlType::F16, false));
        assert_eq!((mixed.to_string(), KvType::F32.to_string()), ("Q8_0/F16".to_owned(), "F32".to_owned()));
        assert_eq!(mixed.row_bytes(32, 64), 34 + 128);
        for wrong in ["q4_0", "f16/", "/f16", "f16/f16/f16", ""] {
            assert!(wrong.parse::<KvType>().is_err(), "{wrong}");
        }
    }
}
