//! Strips of queries that meet the keys and values of one head, block by block.

use crate::cpu::attention::{Block, KEYS, Kernels, LANES, Lanes, Strip};
use crate::executor::kv_cache::{HeadCache, Plane};
use crate::quant::convert::Dequantize;
use std::sync::{Mutex, PoisonError};

/// What the strips of a piece need, kept from call to call.
pub(super) struct Scratch {
    /// Of which the first `n` are in use.
    pub strips: Vec<Strip>,
    n: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: [Lanes; KEYS],
}

impl Default for Scratch {
    fn default() -> Self {
        Self { strips: Vec::new(), n: 0, keys: Vec::new(), values: Vec::new(), scores: [Lanes::all(0.0); KEYS] }
    }
}

impl Scratch {
    /// So many strips, with nothing in them; there may be more, which are not used.
    pub fn take(&mut self, n: usize, (head_dim, value_dim): (usize, usize)) {
        self.strips.resize_with(n.max(self.strips.len()), Strip::default);
        self.n = n;
        self.strips[..n].iter_mut().for_each(|strip| strip.clear(head_dim, value_dim));
    }

    /// Has the strips attend to all that they see.
    pub fn attend(
        &mut self,
        kernels: &Kernels,
        cache: &HeadCache,
        [read_key, read_value]: [Dequantize; 2],
        cap: Option<f32>,
        (head_dim, value_dim): (usize, usize),
    ) {
        let Self { strips, n, keys, values, scores } = self;
        let strips = &mut strips[..*n];
        let seen = strips.iter().map(Strip::seen).reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        let Some(seen) = seen else { return };
        for first in (seen.start / KEYS * KEYS..seen.end).step_by(KEYS) {
            let positions = first.max(seen.start)..seen.end.min(first + KEYS);
            keys.resize(positions.len() * head_dim, 0.0);
            values.resize(positions.len() * value_dim, 0.0);
            for stretch in cache.stretches(positions.clone()) {
                let own = stretch.start - positions.start..stretch.end - positions.start;
                read_key(cache.stored(Plane::Keys, &stretch), &mut keys[own.start * head_dim..own.end * head_dim]);
                read_value(
                    cache.stored(Plane::Values, &stretch),
                    &mut values[own.start * value_dim..own.end * value_dim],
                );
            }
            let finite = values.iter().fold(true, |all, value| all & value.is_finite());
            let block = Block { first: positions.start, keys, values, finite };
            strips.iter_mut().for_each(|strip| strip.attend(kernels, &block, cap, scores));
        }
    }
}

/// Scratches that no thread uses now.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<Box<Scratch>>>);

impl Spare {
    /// Calls `work` with one of them, or a new one.
    pub fn with(&self, work: impl FnOnce(&mut Scratch)) {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = spare.unwrap_or_default();
        work(&mut scratch);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }

    /// Makes `n` of them, with room for so many queries.
    pub fn reserve(&mut self, n: usize, n_queries: usize, (head_dim, value_dim): (usize, usize)) {
        let spare = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        while spare.len() < n {
            spare.push(Box::default());
        }
        for scratch in spare {
            if scratch.strips.len() < n_queries.div_ceil(LANES) {
                scratch.take(n_queries.div_ceil(LANES), (head_dim, value_dim));
            }
            scratch.keys.resize(KEYS * head_dim, 0.0);
            scratch.values.resize(KEYS * value_dim, 0.0);
        }
    }
}
