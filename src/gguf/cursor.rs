//! A bounds-checked little-endian reader over header bytes.

use anyhow::{Context, Result, ensure};

/// Reads from `bytes` at `at`; never past the end.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let left = self.remaining();
        let end = usize::try_from(n).ok().filter(|n| *n <= left).map(|n| self.at + n);
        let end = end.with_context(|| format!("{n} bytes wanted at byte {}, but the file has {left} left", self.at))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub fn u32(&mut self) -> Result<u32> {
        let mut buf = [0; 4];
        buf.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(buf))
    }

    pub fn u64(&mut self) -> Result<u64> {
        let mut buf = [0; 8];
        buf.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(buf))
    }

    /// A length: 64 bits since version 2, 32 bits in version 1.
    pub fn length(&mut self, version: u32) -> Result<u64> {
        if version == 1 { self.u32().map(u64::from) } else { self.u64() }
    }

    pub fn string(&mut self, version: u32, cap: u64) -> Result<&'a [u8]> {
        let n = self.length(version)?;
        ensure!(n <= cap, "a string of {n} bytes; at most {cap} are accepted");
        self.take(n)
    }
}
