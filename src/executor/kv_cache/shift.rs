//! Making room in a full cache: what stays moves to earlier positions, and its keys are turned by the difference.

use super::{KvCache, Plane};
use crate::executor::cpu::Rotation;
use crate::quant::convert::{Dequantize, dequantizer};
use anyhow::{Result, ensure};
use std::ops::Range;

/// By how much keys turn when they move to earlier positions.
pub(in crate::executor) struct Turn {
    /// Elements of a head that turn with each other, by frequency.
    pairs: Vec<(usize, usize)>,
    /// Sine and cosine of the difference, `[positions][n_pairs]`.
    by: Vec<(f32, f32)>,
}

impl Turn {
    /// That of the keys at `positions`, rotated by `rotation`, when they move `back` positions to the front. The angle is the
    /// difference of the two that the rotation itself takes, so that its rounding does not grow with the position.
    pub fn new(rotation: &Rotation, positions: Range<usize>, back: usize) -> Self {
        let pairs = rotation.pairs().collect();
        let frequencies = rotation.frequencies();
        let angle = |position: usize, frequency: f32| f64::from(position as f32 * frequency);
        let of = |position: usize, frequency: f32| {
            let (sin, cos) = (angle(position - back, frequency) - angle(position, frequency)).sin_cos();
            (sin as f32, cos as f32)
        };
        let by = positions.flat_map(|position| frequencies.iter().map(move |f| of(position, *f))).collect();
        Self { pairs, by }
    }

    /// Turns the keys of one head of number `i` of the positions.
    pub fn apply(&self, i: usize, head: &mut [f32]) {
        let n = self.pairs.len();
        for ((a, b), (sin, cos)) in self.pairs.iter().zip(&self.by[i * n..][..n]) {
            let (x, y) = (head[*a], head[*b]);
            head[*a] = x * cos - y * sin;
            head[*b] = x * sin + y * cos;
        }
    }
}

impl KvCache {
    /// Up to `wanted` tokens behind the first `n_keep`: as many as may be dropped so that what the next token looks back on
    /// is there. A layer with a window has given up the first tokens, and must not come to look back on them again.
    ///
    /// # Errors
    /// When not even one may be.
    pub fn droppable(&self, n_keep: usize, wanted: usize) -> Result<usize> {
        let wanted = wanted.min(self.n_past.saturating_sub(n_keep));
        let found = (1..=wanted).rev().find(|n| self.looks_back_well(n_keep, *n));
        ensure!(wanted > 0, "all {} tokens are to stay", self.n_past);
        let Some(found) = found else {
            anyhow::bail!("layers with a window have given up the first {n_keep} tokens, which are to stay")
        };
        Ok(found)
    }

    /// Whether no layer misses what the next token looks back on.
    pub fn goes_on(&self) -> bool {
        self.looks_back_well(usize::MAX, 0)
    }

    /// Whether no layer misses what the next token looks back on, once `n_drop` tokens behind the first `n_keep` are dropped.
    fn looks_back_well(&self, n_keep: usize, n_drop: usize) -> bool {
        let layers = (0..self.places.len()).filter(|layer| self.places[*layer].n_rows > 0);
        let n_past = self.n_past - n_drop;
        layers.into_iter().all(|layer| {
            let from = (n_past + 1).saturating_sub(self.places[layer].window);
            self.first_kept_after(layer, n_keep, n_drop) <= from
        })
    }

    /// The first position of a layer that it still has, once `n_drop` tokens behind the first `n_keep` are dropped.
    fn first_kept_after(&self, layer: usize, n_keep: usize, n_drop: usize) -> usize {
        let kept = self.first_kept(layer);
        if kept <= n_keep { kept } else { kept.max(n_keep + n_drop) - n_drop }
    }

    /// Drops `n_drop` tokens behind the first `n_keep`, as many as [`KvCache::droppable`] allows. The others move to their
    /// places, with keys turned as `turn` says of each layer; where it says nothing, bytes move as they are.
    ///
    /// # Errors
    /// When the type of the cache cannot be read, or there is no memory for a copy of what another cache holds, too.
    pub fn shift<'a>(&mut self, n_keep: usize, n_drop: usize, turn: impl Fn(usize) -> Option<&'a Turn>) -> Result<()> {
        let dequantize = dequantizer(self.kind.k)?;
        self.reserve(n_keep..self.n_past, |_| false)?;
        let lost: Vec<_> = (0..self.places.len()).map(|i| self.first_kept_after(i, n_keep, n_drop)).collect();
        for (layer, lost) in lost.iter().enumerate() {
            if self.places[layer].n_rows > 0 {
                // Of the tokens that move, those that the layer still has.
                let moved = lost.max(&n_keep) + n_drop..self.n_past;
                self.shift_layer(layer, moved, (n_keep + n_drop, n_drop), turn(layer), dequantize);
            }
        }
        self.lost = lost;
        self.n_past -= n_drop;
        self.n_stored = self.n_past;
        Ok(())
    }

    /// Moves the positions `moved` of a layer by `n_drop` to the front; those that `turn` knows begin with `first`.
    fn shift_layer(
        &mut self,
        layer: usize,
        moved: Range<usize>,
        (first, n_drop): (usize, usize),
        turn: Option<&Turn>,
        dequantize: Dequantize,
    ) {
        let (mut key, mut rows) = (vec![0.0; self.head_dim], Vec::new());
        for head in 0..self.n_head_kv {
            for plane in Plane::BOTH {
                // All of them first: a row may take the place of one that has yet to move, where a window goes round.
                rows.clear();
                self.copy_rows(layer, head, plane, moved.clone(), &mut rows);
                if let Some(turn) = turn.filter(|_| plane == Plane::Keys) {
                    for (position, row) in moved.clone().zip(rows.chunks_exact_mut(self.key_bytes)) {
                        dequantize(row, &mut key);
                        turn.apply(position - first, &mut key);
                        (self.write_key)(&key, row);
                    }
                }
                self.put_rows(layer, head, plane, moved.start - n_drop, &rows);
            }
        }
    }
}
