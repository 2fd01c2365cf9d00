//! Who may fire: a predictor's scores, and the list that follows from them.

use super::matvec::{MatVec, Wanted};
use crate::cpu::pool::{Pool, Region, Work};
use crate::cpu::{Activations, Isa, signs};
use crate::model::{Predictor, Scores, Signs};
use std::ops::Range;

/// Computes predictions; keeps its buffers from token to token.
#[derive(Default)]
pub(super) struct Predictions {
    products: MatVec,
    hidden: Vec<f32>,
    forms: Activations,
    signs: Region<SignScores>,
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
    /// The slots of `slots` that are active for the token with the FFN input `x`, in rising order: `active` becomes
    /// these.
    pub fn select(
        &mut self,
        pool: &Pool,
        isa: Isa,
        predictor: &Predictor,
        x: &Activations,
        slots: Range<usize>,
        active: &mut Vec<u32>,
    ) {
        let scored = predictor.scored(slots.clone());
        let n_always = scored.start - slots.start;
        active.clear();
        active.resize(slots.len(), 0);
        active[..n_always].iter_mut().zip(slots.start as u32..).for_each(|(a, slot)| *a = slot);
        if scored.is_empty() {
            return;
        }
        let scores = match &predictor.scores {
            Scores::Signs(all) => pool.run(&mut self.signs, scored.len(), SIGN_ROWS, |work: &mut SignScores| {
                work.signs = Some(all.clone());
                work.first = scored.start;
                signs::pack(x.row(0).f32, &mut work.x);
            }),
            Scores::Factors { input, bias, output } => {
                let hidden = self.products.all(pool, isa, x, &[input]);
                self.hidden.clear();
                self.hidden.extend_from_slice(hidden);
                if let Some(bias) = bias {
                    self.hidden.iter_mut().zip(bias).for_each(|(h, b)| *h = (*h + b).max(0.0));
                }
                self.forms.load(&self.hidden, output.n_cols, [isa.kernels(output.dtype()).act]);
                self.products.some(pool, isa, &self.forms, output, &Wanted::Range(scored.clone()), None)
            }
        };
        // Written whether it is active or not, so that nothing has to be guessed.
        let mut n = n_always;
        for ((slot, score), bias) in scored.clone().zip(scores).zip(&predictor.bias[scored]) {
            active[n] = slot as u32;
            n += usize::from(score + bias >= 0.0);
        }
        active.truncate(n);
    }
}
