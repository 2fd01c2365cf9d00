//! What a predictor misses, found by computing some tokens' masks in full.

use super::active::Active;
use super::compute::Compute;
use super::matvec::MatVec;
use super::predict::Predictions;
use crate::cpu::{Activations, Which};
use crate::executor::stats::Recall;
use crate::model::{Activation, Matrix, NeuronGroup, Predictor};

/// Compares predictions with what fires. Changes nothing of what is computed for the token.
#[derive(Default)]
pub(super) struct Audit {
    predictions: Predictions,
    products: MatVec,
    forms: Activations,
    predictor_forms: Activations,
    predicted: Active,
    fired: Vec<u32>,
    act: Vec<f32>,
}

/// What is compared for one token in one group.
pub(super) struct AuditWork<'a> {
    pub group: &'a NeuronGroup,
    pub predictor: &'a Predictor,
    /// The slots that the predictor is asked for.
    pub slots: Which<'a>,
    /// The normalised input, `[n_embd]`.
    pub x: &'a [f32],
    /// What the predictor looks at, `[n_embd]`.
    pub predictor_x: &'a [f32],
    pub activation: Activation,
    pub cx: Compute<'a>,
}

impl Audit {
    /// Recall over all slots; those that the predictor is not asked for are always found.
    pub fn recall(&mut self, work: &AuditWork) -> Recall {
        let AuditWork { group, predictor, slots, x, predictor_x, activation, cx } = *work;
        let kind = |m: &Matrix| cx.isa.kernels(m.dtype()).act;
        self.predictor_forms.load(predictor_x, x.len(), predictor.input().map(kind));
        self.predictions.select(cx, predictor, &self.predictor_forms, &[0], 0..group.n_ff(), &mut self.predicted);
        self.forms.load(x, x.len(), [group.mask_matrix(), group.ffn_up()].map(kind));
        let all = Which::from(0..group.n_ff());
        let act = self.products.some(cx, &self.forms, group.mask(), all, Some(activation));
        self.act.clear();
        self.act.extend(act.iter().filter(|a| **a != 0.0));
        self.fired.clear();
        self.fired.extend((0u32..).zip(act).filter(|(_, a)| **a != 0.0).map(|(slot, _)| slot));
        if group.gate.is_some() {
            let up = self.products.some(cx, &self.forms, &group.up, Which::List(&self.fired), None);
            self.act.iter_mut().zip(up).for_each(|(a, up)| *a = activation.gated(*a, *up));
        }
        if activation.has_two_masks() {
            let mut masses = self.act.iter();
            self.fired.retain(|_| masses.next().is_some_and(|mass| *mass != 0.0));
            self.act.retain(|mass| *mass != 0.0);
        }
        let mut recall = Recall::default();
        let mut predicted = self.predicted.of(0).iter().peekable();
        for (slot, mass) in self.fired.iter().zip(&self.act) {
            while predicted.next_if(|p| *p < slot).is_some() {}
            let found = !slots.contains(*slot) || predicted.peek() == Some(&slot);
            recall.add(f64::from(mass.abs()), found);
        }
        recall
    }
}
