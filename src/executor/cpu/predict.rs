//! Which neurons may fire: a predictor's scores, and the lists that follow from them.

use super::active::{Active, WantedBy};
use super::compute::Compute;
use super::matvec::{MatVec, Piece, untangle};
use crate::cpu::pool::{Region, Work};
use crate::cpu::{Activations, Which, signs};
use crate::model::{Predictor, Scores, Signs};
use std::ops::Range;

/// Computes predictions; keeps its buffers from token to token.
#[derive(Default)]
pub(super) struct Predictions {
    products: MatVec,
    hidden: Vec<f32>,
    forms: Activations,
    signs: Region<SignScores>,
    /// `[n_tokens][scored]`.
    scores: Vec<f32>,
    /// Of one token.
    named: Vec<u32>,
}

/// Scores by signs.
#[derive(Default)]
struct SignScores {
    signs: Option<Signs>,
    first: usize,
    x: Vec<u64>,
}

/// Rows of signs in a chunk.
const SIGN_ROWS: usize = 256;

impl Work for SignScores {
    fn compute(&self, start: usize, out: &mut [f32]) {
        if let Some(signs) = &self.signs {
            signs.scores(self.first + start, &self.x, out);
        }
    }
}

impl Predictions {
    /// Of `slots` those that are active for each of `tokens`, of those with what the predictor looks at, `x`: `active`
    /// becomes these.
    pub fn select(
        &mut self,
        cx: Compute,
        predictor: &Predictor,
        x: &Activations,
        tokens: &[u32],
        slots: Range<usize>,
        active: &mut Active,
    ) {
        active.clear();
        let scored = predictor.scored(slots.clone());
        let (always, n) = (slots.start..scored.start, tokens.len());
        if scored.is_empty() {
            return (0..n).for_each(|_| active.push(always.clone().map(|slot| slot as u32)));
        }
        match &predictor.scores {
            Scores::Signs(all) => {
                self.scores.clear();
                for token in tokens {
                    let scores = cx.pool.run(&mut self.signs, scored.len(), SIGN_ROWS, |work: &mut SignScores| {
                        work.signs = Some(all.clone());
                        work.first = scored.start;
                        signs::pack(x.row(*token as usize).f32, &mut work.x);
                    });
                    self.scores.extend_from_slice(scores);
                }
            }
            Scores::Factors { input, bias, output } => {
                let rows = WantedBy::All(Which::from(0..input.n_rows));
                let piece = Piece { matrix: input, bias: None, rows, vectors: Some(tokens), followed: None };
                untangle(self.products.of(cx, x, std::iter::once(piece), None), n, &mut self.hidden);
                if let Some(bias) = bias {
                    for hidden in self.hidden.chunks_exact_mut(bias.len()) {
                        hidden.iter_mut().zip(bias).for_each(|(h, b)| *h = (*h + b).max(0.0));
                    }
                }
                self.forms.load(&self.hidden, output.n_cols, [cx.isa.kernels(output.dtype()).act]);
                let rows = self.products.rows(cx, &self.forms, output, scored.clone().into());
                untangle(rows, n, &mut self.scores);
            }
        }
        for scores in self.scores.chunks_exact(scored.len()) {
            // Written whether it is active or not, so that nothing has to be guessed.
            self.named.clear();
            self.named.resize(slots.len(), 0);
            self.named[..always.len()].iter_mut().zip(always.clone()).for_each(|(a, slot)| *a = slot as u32);
            let mut found = always.len();
            for ((slot, score), bias) in scored.clone().zip(scores).zip(&predictor.bias[scored.clone()]) {
                self.named[found] = slot as u32;
                found += usize::from(score + bias >= 0.0);
            }
            active.push(self.named[..found].iter().copied());
        }
    }
}
