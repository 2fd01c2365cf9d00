//! Reading the keys of an architecture, and remembering which were read.

use super::activation::Activation;
use crate::gguf::{Gguf, Metadata, TensorInfo};
use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The metadata of a file, by keys that begin with the name of its architecture.
pub struct Keys<'a> {
    gguf: &'a Gguf,
    pub(super) metadata: &'a Metadata,
    pub(super) arch: &'a str,
    /// Rows of `token_embd`, which no key tells reliably.
    pub n_vocab: usize,
    /// The user's word on the activation.
    pub activation: Option<Activation>,
    /// The keys that were asked for, without the name of the architecture.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    /// The keys that begin with `arch`.
    pub fn new(gguf: &'a Gguf, arch: &'a str, n_vocab: usize, activation: Option<Activation>) -> Self {
        Self { gguf, metadata: gguf.metadata(), arch, n_vocab, activation, read: RefCell::default() }
    }

    /// The whole key.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.arch)
    }

    /// The whole key, which counts as read from now on.
    pub(super) fn read(&self, suffix: &str) -> String {
        self.read.borrow_mut().insert(suffix.to_owned());
        self.name(suffix)
    }

    /// Whether the key is there. That does not count as reading it.
    pub fn has(&self, suffix: &str) -> bool {
        self.metadata.has(&self.name(suffix))
    }

    /// Whether the file has that tensor, for what no key tells reliably.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// The tensor of that name, where the file has it.
    pub(super) fn tensor(&self, name: &str) -> Option<&'a TensorInfo> {
        self.gguf.tensor(name)
    }

    /// Whether the file is one of PowerInfer's.
    pub(super) fn is_pwri(&self) -> bool {
        self.gguf.is_pwri()
    }

    /// A whole number from 0 up, which may be missing: one for the model, or an array that has the same for each layer.
    ///
    /// # Errors
    /// When it is no such number, or differs from layer to layer.
    pub fn whole(&self, suffix: &str) -> Result<Option<usize>> {
        let name = self.read(suffix);
        if !self.metadata.is_array(&name) {
            return Ok(self.metadata.u32(&name)?.map(|n| n as usize));
        }
        let Some(array) = self.metadata.array(&name)? else { return Ok(None) };
        let n = self.alike(&name, &array.integers().with_context(|| name.clone())?)?;
        let fits = u32::try_from(n).with_context(|| format!("{name}: {n} is not a whole number of 32 bits"))?;
        Ok(Some(fits as usize))
    }

    /// A number of things, which may be missing; as [`Keys::whole`].
    ///
    /// # Errors
    /// When it is 0 or no number.
    pub fn optional(&self, suffix: &str) -> Result<Option<usize>> {
        let n = self.whole(suffix)?;
        ensure!(n != Some(0), "{}: must not be 0", self.name(suffix));
        Ok(n)
    }

    /// A number of things.
    ///
    /// # Errors
    /// When it is missing, 0 or no number.
    pub fn size(&self, suffix: &str) -> Result<usize> {
        self.optional(suffix)?.with_context(|| format!("{}: the key is missing", self.name(suffix)))
    }

    /// A float, which may be missing: one for the model, or an array that has the same for each layer.
    ///
    /// # Errors
    /// When it is no finite number, or differs from layer to layer.
    pub fn f32(&self, suffix: &str) -> Result<Option<f32>> {
        let name = self.read(suffix);
        if !self.metadata.is_array(&name) {
            return self.metadata.f32(&name);
        }
        let Some(numbers) = self.metadata.numbers(&name)? else { return Ok(None) };
        let number = self.alike(&name, &numbers)? as f32;
        ensure!(number.is_finite(), "{name}: {number} is not a finite number");
        Ok(Some(number))
    }

    /// Yes or no, which may be missing.
    ///
    /// # Errors
    /// When it is neither.
    pub fn bool(&self, suffix: &str) -> Result<Option<bool>> {
        self.metadata.bool(&self.read(suffix))
    }

    /// A text, which may be missing.
    ///
    /// # Errors
    /// When it is no text.
    pub fn str(&self, suffix: &str) -> Result<Option<&'a str>> {
        self.metadata.str(&self.read(suffix))
    }

    /// All numbers that a key holds, one or many.
    ///
    /// # Errors
    /// When it holds something else.
    pub fn numbers(&self, suffix: &str) -> Result<Option<Vec<f64>>> {
        self.metadata.numbers(&self.read(suffix))
    }

    /// Refuses keys that would make another model of it and that nothing here computes.
    ///
    /// # Errors
    /// When one of them is there with other values than `neutral` ones.
    pub fn refuse(&self, suffixes: &[&str], neutral: &[f64], what: &str) -> Result<()> {
        for suffix in suffixes {
            let Some(numbers) = self.numbers(suffix)? else { continue };
            if !numbers.iter().all(|n| neutral.contains(n)) {
                bail!("{}: {}: {what} not supported yet", self.name(suffix), shown(&numbers));
            }
        }
        Ok(())
    }

    /// What the keys of the architecture that are in the file have behind its name.
    pub(super) fn suffixes(&self) -> impl Iterator<Item = &'a str> {
        let arch = self.arch;
        let keys = self.metadata.entries().iter();
        keys.filter_map(move |entry| entry.key.strip_prefix(arch)?.strip_prefix('.'))
    }

    /// The keys of the architecture that are in the file, that were not read, and that are not known to be `harmless`;
    /// without the name of the architecture.
    pub fn unknown(&self, harmless: &[&str]) -> Vec<&'a str> {
        let read = self.read.borrow();
        self.suffixes().filter(|suffix| !harmless.contains(suffix) && !read.contains(*suffix)).collect()
    }

    /// What was read so far, be it in the file or not; without the name of the architecture.
    pub fn read_so_far(&self) -> Vec<String> {
        self.read.borrow().iter().cloned().collect()
    }

    /// Blocks behind the layers that predict further tokens, where the architecture has such.
    pub fn n_ahead(&self) -> usize {
        let n = self.metadata.u32(&self.name("nextn_predict_layers"));
        n.ok().flatten().map_or(0, |n| n as usize)
    }

    /// Of the values of an array, one per block, those of the layers: what predicts further tokens comes behind them, and files
    /// that llama.cpp has saved have no values for it.
    ///
    /// # Errors
    /// When there are not as many.
    pub(super) fn of_layers<T>(&self, name: &str, mut values: Vec<T>, n_layer: usize) -> Result<Vec<T>> {
        let n_blocks = self.metadata.u32(&self.name("block_count"))?.map_or(n_layer, |n| n as usize);
        let fits = values.len() == n_blocks || values.len() == n_layer;
        ensure!(fits, "{name}: {} values for {n_blocks} layers", values.len());
        values.truncate(n_layer);
        Ok(values)
    }

    /// The value that an array has for each layer.
    fn alike<T: PartialEq + Copy + std::fmt::Display>(&self, name: &str, values: &[T]) -> Result<T> {
        let Some(first) = values.first() else { bail!("{name}: the array is empty") };
        if !values.iter().all(|value| value == first) {
            bail!("{name}: {}: a value that differs from layer to layer is not supported yet", shown(values));
        }
        let n_layer = self.metadata.u32(&self.name("block_count"))?;
        let fits = n_layer.is_none_or(|n| n as usize == values.len());
        ensure!(fits, "{name}: {} values for {} layers", values.len(), n_layer.unwrap_or(0));
        Ok(*first)
    }
}

/// The values of a key, as many as fit in a message.
fn shown<T: std::fmt::Display>(values: &[T]) -> String {
    const MAX: usize = 6;
    let list: Vec<String> = values.iter().take(MAX).map(T::to_string).collect();
    match values.len() {
        1 => list.join(""),
        n if n <= MAX => format!("[{}]", list.join(", ")),
        _ => format!("[{}, ...]", list.join(", ")),
    }
}
