//! Typed access to the metadata of a GGUF file.

use super::header::Entry;
use super::source::Source;
use super::value::{ArrayView, ValueType};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// Keys by which a part of a model says which one it is. They hold for the parts only, not for what is made of them.
const OF_PARTS: &str = "split.";

/// Keys and values of one file. Absent keys are `Ok(None)`; a key of the wrong type is an error that names it.
#[derive(Clone)]
pub struct Metadata {
    source: Source,
    rewritten: Option<Vec<u8>>,
    entries: Vec<Entry>,
    /// Numbers of the entries by rising key.
    by_key: Vec<usize>,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(
        source: Source,
        rewritten: Option<Vec<u8>>,
        entries: Vec<Entry>,
        values: BTreeMap<String, Value>,
    ) -> Self {
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        by_key.sort_unstable_by_key(|i| &entries[*i].key);
        Self { source, rewritten, entries, by_key, values }
    }

    /// All entries, in file order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries that also hold for a file that is made of this one: without those that say which part of a model it is.
    pub fn copied(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.key.starts_with(OF_PARTS))
    }

    /// The value of `entry`, byte by byte.
    pub fn raw_value(&self, entry: &Entry) -> &[u8] {
        &self.bytes()[entry.value.clone()]
    }

    fn bytes(&self) -> &[u8] {
        self.rewritten.as_deref().unwrap_or(&self.source)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        let found = self.by_key.binary_search_by(|i| self.entries[*i].key.as_str().cmp(key)).ok()?;
        Some(&self.entries[self.by_key[found]])
    }

    /// Whether the key exists, whatever its type.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Whether the key holds an array.
    pub fn is_array(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.value_type == ValueType::Array)
    }

    fn scalar(&self, key: &str) -> Result<Option<&Value>> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        ensure!(entry.value_type != ValueType::Array, "{key}: is an array where a single value is wanted");
        Ok(self.values.get(key))
    }

    /// An unsigned integer stored with any integer type.
    ///
    /// # Errors
    /// When the value is not an integer or is negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.scalar(key)? else { return Ok(None) };
        let number = value.as_u64().with_context(|| format!("{key}: {value} is not a whole number from 0 up"))?;
        Ok(Some(number))
    }

    /// As [`Metadata::u64`], for sizes and ids.
    ///
    /// # Errors
    /// When the value is not an integer that fits in 32 bits.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        let Some(number) = self.u64(key)? else { return Ok(None) };
        let number = u32::try_from(number).with_context(|| format!("{key}: {number} does not fit in 32 bits"))?;
        Ok(Some(number))
    }

    /// A finite number.
    ///
    /// # Errors
    /// When the value is not a number, or not finite.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.scalar(key)? else { return Ok(None) };
        // What is finite with 64 bits may not be so with 32; what is not finite at all is shown as null.
        let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        let shown = if value.is_null() { "NaN or infinity".to_owned() } else { value.to_string() };
        let number = number.with_context(|| format!("{key}: {shown} is not a finite number of 32 bits"))?;
        Ok(Some(number))
    }

    /// The numbers that a key holds, be it one or an array of them: `true` counts as 1, `false` as 0. What is no finite
    /// number is NaN.
    ///
    /// # Errors
    /// When the value is a string, or holds strings.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        if self.is_array(key) {
            let array = self.array(key)?;
            return array.map(|array| array.numbers().with_context(|| key.to_owned())).transpose();
        }
        let Some(value) = self.scalar(key)? else { return Ok(None) };
        ensure!(!value.is_string(), "{key}: {value} is not a number");
        let number = value.as_bool().map(|b| f64::from(u8::from(b))).or(value.as_f64());
        Ok(Some(vec![number.unwrap_or(f64::NAN)]))
    }

    /// A boolean.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.scalar(key)? else { return Ok(None) };
        Ok(Some(value.as_bool().with_context(|| format!("{key}: {value} is not true or false"))?))
    }

    /// A string; bytes that are not UTF-8 have been replaced by U+FFFD.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.scalar(key)? else { return Ok(None) };
        Ok(Some(value.as_str().with_context(|| format!("{key}: {value} is not a string"))?))
    }

    /// An array, read in place.
    ///
    /// # Errors
    /// When the value is not an array.
    pub fn array(&self, key: &str) -> Result<Option<ArrayView<'_>>> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        if entry.value_type != ValueType::Array {
            bail!("{key}: is {:?} where an array is wanted", entry.value_type);
        }
        ArrayView::parse(self.raw_value(entry)).with_context(|| key.to_owned()).map(Some)
    }
}
