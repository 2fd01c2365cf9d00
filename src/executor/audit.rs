//! What a predictor misses, found by computing some tokens' masks in full.

use super::ffn::Slots;
use super::matvec::{MatVec, Wanted};
use super::predict::Predictions;
use super::stats::Recall;
use crate::cpu::{Activations, Isa, Pool};
use crate::model::{Activation, NeuronGroup, Predictor};

/// Compares predictions with what fires. Changes nothing of what is computed for the token.
#[derive(Default)]
pub(super) struct Audit {
    predictions: Predictions,
    products: MatVec,
    predicted: Vec<u32>,
    fired: Vec<u32>,
    act: Vec<f32>,
}

/// What is compared for one token in one layer.
pub(super) struct AuditWork<'a> {
    pub group: &'a NeuronGroup,
    pub predictor: &'a Predictor,
    /// The slots that the predictor is asked for.
    pub slots: Slots<'a>,
    pub x: &'a Activations,
    pub activation: Activation,
    pub pool: &'a Pool,
    pub isa: Isa,
}

impl Audit {
    /// Recall over all slots; those that the predictor is not asked for are always found.
    pub fn recall(&mut self, work: &AuditWork) -> Recall {
        let AuditWork { group, predictor, slots, x, activation, pool, isa } = work;
        self.predictions.select(pool, *isa, predictor, x, 0..group.n_ff(), &mut self.predicted);
        let all = Wanted::Range(0..group.n_ff());
        let act = self.products.some(pool, *isa, x, group.mask_matrix(), &all, Some(*activation));
        self.act.clear();
        self.act.extend(act.iter().filter(|a| **a != 0.0));
        self.fired.clear();
        self.fired.extend((0u32..).zip(act).filter(|(_, a)| **a != 0.0).map(|(slot, _)| slot));
        if group.ffn_gate.is_some() {
            let up = self.products.some(pool, *isa, x, &group.ffn_up, &Wanted::List(&self.fired), None);
            self.act.iter_mut().zip(up).for_each(|(a, up)| *a *= up);
        }
        let mut recall = Recall::default();
        let mut predicted = self.predicted.iter().peekable();
        for (slot, mass) in self.fired.iter().zip(&self.act) {
            while predicted.next_if(|p| *p < slot).is_some() {}
            let found = !slots.contains(*slot) || predicted.peek() == Some(&slot);
            recall.add(f64::from(mass.abs()), found);
        }
        recall
    }
}
