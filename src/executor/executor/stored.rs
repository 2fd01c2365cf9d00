//! What a model remembers of a sequence as bytes: out of an executor, and into another one.
//!
//! Layer by layer, where it has attention: the first position that is there (`u64`), then head by head the keys and the values
//! of the positions from there on, in the type of the cache. Where layers recur, behind all of that: the number of places
//! (`u32`), and for each of them the tokens before it (`u64`) and the floats of each such layer. All little-endian.

use super::Executor;
use crate::executor::kv_cache::{KvCache, Plane};
use crate::executor::recurrent::Recurrent;
use anyhow::{Context, Result, ensure};

/// Takes bytes.
pub type Put<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;
/// Fills a buffer.
pub type Take<'a> = dyn FnMut(&mut [u8]) -> Result<()> + 'a;

/// Rows that are held in memory at a time on their way.
const PIECE: usize = 256;

fn take_u64(take: &mut Take) -> Result<u64> {
    let mut bytes = [0; 8];
    take(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

impl KvCache {
    /// Writes keys and values of the first `n` tokens.
    fn write_to(&self, n_layer: usize, n: usize, put: &mut Put) -> Result<()> {
        let mut rows = Vec::new();
        for layer in (0..n_layer).filter(|layer| self.has_rows(*layer)) {
            let held = self.held(layer, n);
            put(&(held.start as u64).to_le_bytes())?;
            for head in 0..self.n_head_kv() {
                for plane in Plane::BOTH {
                    for first in held.clone().step_by(PIECE) {
                        rows.clear();
                        self.copy_rows(layer, head, plane, first..held.end.min(first + PIECE), &mut rows);
                        put(&rows)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads those of `n_stored` tokens, of which the first `n` are taken in; it is empty before.
    fn read_from(&mut self, n_layer: usize, n_stored: usize, n: usize, take: &mut Take) -> Result<()> {
        let (mut rows, mut lost) = (Vec::new(), vec![0; n_layer]);
        self.reserve(0..n, |_| false)?;
        for (layer, lost) in lost.iter_mut().enumerate() {
            if !self.has_rows(layer) {
                continue;
            }
            let begin = usize::try_from(take_u64(take)?).ok().filter(|first| *first <= n_stored);
            let begin = begin.context("has a layer that begins behind its tokens; remove the file or name another")?;
            *lost = begin.min(n);
            let room = self.room(layer, n);
            for head in 0..self.n_head_kv() {
                for plane in Plane::BOTH {
                    let bytes = self.row_bytes(plane);
                    for first in (begin..n_stored).step_by(PIECE) {
                        let end = n_stored.min(first + PIECE);
                        rows.resize((end - first) * bytes, 0);
                        take(&mut rows)?;
                        let (from, to) = (first.max(room.start), end.min(room.end));
                        if from < to {
                            let own = &rows[(from - first) * bytes..(to - first) * bytes];
                            self.put_rows(layer, head, plane, from, own);
                        }
                    }
                }
            }
        }
        self.set_held(n, lost);
        Ok(())
    }
}

impl Recurrent {
    /// Writes the places that one can go back to among the first `n` tokens.
    fn write_to(&self, n: usize, put: &mut Put) -> Result<()> {
        let places: Vec<_> = self.places().filter(|(at, _)| *at <= n).collect();
        put(&(places.len() as u32).to_le_bytes())?;
        let mut bytes = Vec::new();
        for (at, states) in places {
            put(&(at as u64).to_le_bytes())?;
            for state in states {
                bytes.clear();
                bytes.extend(state.conv.iter().chain(&state.heads).flat_map(|v| v.to_le_bytes()));
                put(&bytes)?;
            }
        }
        Ok(())
    }

    /// Reads such places, and remembers those among the first `n` tokens.
    fn read_from(&mut self, n: usize, take: &mut Take) -> Result<()> {
        let mut count = [0; 4];
        take(&mut count)?;
        let mut bytes = Vec::new();
        for _ in 0..u32::from_le_bytes(count) {
            let at = take_u64(take)?;
            let mut failed = Ok(());
            self.change_all(|state| {
                bytes.resize(size_of::<f32>() * (state.conv.len() + state.heads.len()), 0);
                if failed.is_ok() {
                    failed = take(&mut bytes);
                }
                let floats = bytes.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v));
                state.conv.iter_mut().chain(&mut state.heads).zip(floats).for_each(|(to, v)| *to = v);
            });
            failed?;
            if let Some(at) = usize::try_from(at).ok().filter(|at| (1..=n).contains(at)) {
                self.keep(at);
            }
        }
        Ok(())
    }
}

impl Executor<'_> {
    /// Writes what the model remembers of the first `n` tokens of its own sequence: of layers that recur the places that
    /// it can go back to, among them where it is now.
    ///
    /// # Errors
    /// When there are fewer that no shift has moved; when a card fails; those of `put`.
    pub fn write_memory(&mut self, n: usize, put: &mut Put) -> Result<()> {
        ensure!(n <= self.n_unmoved(), "{n} tokens of {}", self.n_unmoved());
        self.sit()?;
        self.remember();
        self.device.save_cache(&mut self.sequence)?;
        let memory = &self.sequence.memory;
        memory.kv().write_to(self.model.config.n_layer, n, put)?;
        memory.recurrent().map_or(Ok(()), |recurrent| recurrent.write_to(n, put))
    }

    /// Reads what [`Executor::write_memory`] has written of `tokens` with the same model and type of cache, and goes on behind the
    /// first `n_wanted` of them, or as few less as it must. Returns behind how many.
    ///
    /// # Errors
    /// Those of `take`; when what was written cannot be meant; when a card fails. Nothing is in the sequence then.
    pub fn read_memory(&mut self, tokens: &[u32], n_wanted: usize, take: &mut Take) -> Result<usize> {
        self.clear();
        let n = n_wanted.min(tokens.len()).min(self.params.n_ctx);
        self.read_parts(tokens.len(), n, take).inspect_err(|_| self.clear())?;
        self.sit()?;
        self.sequence.tokens.extend_from_slice(&tokens[..n]);
        self.sequence.memory.settle();
        self.sequence.forget_tokens();
        self.device.restore_cache(&self.sequence).inspect_err(|_| self.clear())?;
        // Wherever it is now, the device has not been.
        self.gone_back(usize::MAX)?;
        Ok(self.n_past())
    }

    fn read_parts(&mut self, n_stored: usize, n: usize, take: &mut Take) -> Result<()> {
        let memory = &mut self.sequence.memory;
        memory.kv_mut().read_from(self.model.config.n_layer, n_stored, n, take)?;
        memory.recurrent_mut().map_or(Ok(()), |recurrent| recurrent.read_from(n, take))
    }
}
