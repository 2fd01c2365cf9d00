//! What a model remembers of a sequence: keys and values of its layers with attention, states of those that recur.

use super::kv_cache::{KvCache, Turn};
use super::params::ExecutorParams;
use super::recurrent::{Recurrent, State};
use crate::model::Model;
use anyhow::Result;
use std::ops::Range;

/// The memory of one sequence.
pub struct Memory {
    kv: KvCache,
    recurrent: Option<Recurrent>,
}

impl Memory {
    /// An empty memory for as many tokens of `model` as the context of a run has.
    ///
    /// # Errors
    /// When it does not fit in memory, or heads are not whole blocks of the type.
    pub(super) fn new(model: &Model, run: &ExecutorParams) -> Result<Self> {
        let kv = KvCache::new(model, run.n_ctx, run.n_ubatch, run.kv_type)?;
        Ok(Self { kv, recurrent: Recurrent::new(model)? })
    }

    /// Keys and values.
    pub(super) fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// Keys and values, to put such there that a device has.
    pub(super) fn kv_mut(&mut self) -> &mut KvCache {
        &mut self.kv
    }

    /// States of layers that recur, where there are any.
    pub(super) fn recurrent(&self) -> Option<&Recurrent> {
        self.recurrent.as_ref()
    }

    /// The same, to put others there.
    pub(super) fn recurrent_mut(&mut self) -> Option<&mut Recurrent> {
        self.recurrent.as_mut()
    }

    /// What was put there from elsewhere is the memory from now on: of as many tokens as it has all of.
    pub(super) fn settle(&mut self) {
        let n_past = self.n_past();
        let places = self.recurrent.as_ref().map_or_else(|| vec![n_past], |recurrent| recurrent.kept(n_past));
        let whole = |n: &usize| self.kv.truncate(*n).is_ok() && self.kv.goes_on();
        match places.into_iter().find(whole) {
            Some(n) => self.recurrent.iter_mut().for_each(|recurrent| recurrent.go_back(n)),
            None => self.clear(),
        }
    }

    /// Stores `[n_head_kv][head_dim]` keys and `[n_head_kv][value_dim]` values of one token in a layer with attention.
    pub(super) fn store(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        self.kv.store(layer, position, k, v);
    }

    /// The state of a layer that recurs.
    ///
    /// # Panics
    /// When the layer does not.
    pub(super) fn state(&mut self, layer: usize) -> &mut State {
        match &mut self.recurrent {
            Some(recurrent) => recurrent.state(layer),
            None => panic!("layer {layer} does not recur"),
        }
    }

    /// That of a layer that recurs, to be written anew as a whole: what it holds is of no use.
    ///
    /// # Panics
    /// When the layer does not.
    pub(super) fn replaced_state(&mut self, layer: usize) -> &mut State {
        match &mut self.recurrent {
            Some(recurrent) => recurrent.replaced(layer),
            None => panic!("layer {layer} does not recur"),
        }
    }

    /// That of a layer that recurs, as it is.
    ///
    /// # Panics
    /// When the layer does not.
    pub(super) fn kept_state(&self, layer: usize) -> &State {
        match self.recurrent.as_ref().and_then(|recurrent| recurrent.of_layer(layer)) {
            Some(state) => state,
            None => panic!("layer {layer} does not recur"),
        }
    }

    /// Further tokens have gone through all layers.
    pub(super) fn advance(&mut self, n_tokens: usize) {
        self.kv.advance(n_tokens);
    }

    /// The next `n_tokens` tokens may be taken back.
    pub(super) fn mark(&mut self, n_tokens: usize) {
        self.kv.mark(n_tokens);
        self.recurrent.iter_mut().for_each(Recurrent::mark);
    }

    /// Of the tokens since the mark, those before `n_past` stay, but none where layers recur and some are to go: their states
    /// are known before the first and behind the last. All is as if the others had never been there.
    pub(super) fn take_back(&mut self, first: usize, n_past: usize) {
        // None are there where the pass has ended in its middle.
        let stay = n_past == self.n_past() && n_past > first;
        let n_past = if self.recurs() && !stay { first } else { n_past };
        self.recurrent.iter_mut().for_each(|recurrent| recurrent.leave_mark(stay));
        self.kv.take_back(n_past);
    }

    /// Whether it has room for the same as `other`.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let recurrent = match (&self.recurrent, &other.recurrent) {
            (Some(own), Some(other)) => own.is_like(other),
            (own, other) => own.is_none() && other.is_none(),
        };
        recurrent && self.kv.is_like(&other.kv)
    }

    /// Has room for the rows of further tokens in layers that are not `elsewhere`: pages that no other memory holds.
    ///
    /// # Errors
    /// When the system has not that much memory.
    pub(super) fn reserve(&mut self, positions: Range<usize>, elsewhere: impl Fn(usize) -> bool) -> Result<()> {
        self.kv.reserve(positions, elsewhere)
    }

    /// Bytes that it takes once it is full, copies of earlier states among them.
    pub fn n_bytes(&self) -> usize {
        self.kv.n_bytes() + self.recurrent.as_ref().map_or(0, Recurrent::n_bytes)
    }

    /// Bytes that it takes once it has `n_tokens`, of which rows that were never written take none, as those of layers that are
    /// `elsewhere`.
    pub(super) fn n_bytes_for(&self, n_tokens: usize, elsewhere: impl Fn(usize) -> bool) -> usize {
        self.kv.n_bytes_for(n_tokens, elsewhere) + self.recurrent.as_ref().map_or(0, Recurrent::n_bytes)
    }

    /// Bytes of them that it has together with others for certain, once all of them hold the same `n` tokens.
    pub(super) fn n_bytes_shared(&self, n: usize, elsewhere: impl Fn(usize) -> bool) -> usize {
        // States are copied, where there are such of these tokens.
        if self.recurs() { 0 } else { self.kv.n_bytes_shared(n, elsewhere) }
    }

    /// Tokens that fit.
    pub fn n_ctx(&self) -> usize {
        self.kv.n_ctx()
    }

    /// Tokens that are in.
    pub fn n_past(&self) -> usize {
        self.kv.n_past()
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.kv.clear();
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.clear();
        }
    }

    /// Gives up room that its tokens do not need.
    pub fn give_up_unused(&mut self) {
        self.kv.give_up_unused();
    }

    /// Holds the first `n` tokens of `other`, which is like it and has as many, and nothing else; the pages of their keys and values
    /// are those of both until one of them writes there. Those of layers that are `elsewhere` are of no use, and not taken. `false`
    /// where that has given up what these need; then it holds nothing.
    pub(super) fn copy_from(&mut self, other: &Self, n: usize, elsewhere: impl Fn(usize) -> bool) -> bool {
        self.clear();
        let recurrent = self.recurrent.as_mut().zip(other.recurrent.as_ref());
        let copied = self.kv.share_with(&other.kv, n, elsewhere)
            && recurrent.is_none_or(|(own, of_other)| own.copy_from(of_other, n, other.kv.n_past()));
        if !copied {
            self.clear();
        }
        copied
    }

    /// Whether it must be told of the places that it is to go back to: [`Memory::remember`].
    pub fn recurs(&self) -> bool {
        self.recurrent.is_some()
    }

    /// Makes it possible to go back to where it is now. A few such places are kept, the latest ones; where nothing
    /// recurs all are.
    pub fn remember(&mut self) {
        let n_past = self.n_past();
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.keep(n_past);
        }
    }

    /// Forgets everything after the first `n_past` tokens.
    ///
    /// # Errors
    /// Where what is left needs what has been given up for it: of layers with a window, and of layers that recur, where
    /// [`Memory::remember`] was not called behind that token.
    pub fn truncate(&mut self, n_past: usize) -> Result<()> {
        if n_past >= self.n_past() {
            return Ok(());
        }
        if let Some(recurrent) = &self.recurrent {
            recurrent.check_return(self.n_past(), n_past)?;
        }
        self.kv.truncate(n_past)?;
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.go_back(n_past);
        }
        Ok(())
    }

    /// Drops `n_drop` tokens behind the first `n_keep`: [`KvCache::shift`]. Nothing recurs.
    ///
    /// # Errors
    /// When the type of the cache cannot be read.
    pub(super) fn shift<'a>(
        &mut self,
        n_keep: usize,
        n_drop: usize,
        turn: impl Fn(usize) -> Option<&'a Turn>,
    ) -> Result<()> {
        self.kv.shift(n_keep, n_drop, turn)
    }

    /// Goes back to where states of recurrent layers are whole, after a pass that has ended in its middle.
    pub(super) fn recover(&mut self) {
        let n_past = self.n_past();
        let Some(recurrent) = &mut self.recurrent else { return };
        match recurrent.kept(n_past).into_iter().find(|n| self.kv.truncate(*n).is_ok()) {
            Some(n) => recurrent.go_back(n),
            None => self.clear(),
        }
    }

    /// Forgets everything after the first `n_past` tokens, and as few of these as it must. Returns how many are left.
    pub fn keep(&mut self, n_past: usize) -> usize {
        let earlier = self.recurrent.as_ref().map_or_else(Vec::new, |recurrent| recurrent.kept(n_past));
        if ![n_past].into_iter().chain(earlier).any(|n| self.truncate(n).is_ok()) {
            self.clear();
        }
        self.n_past()
    }
}
