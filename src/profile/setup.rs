//! A profile that is being made: what is known before the model runs, and what is done.

use super::counter::{Gathered, Marks};
use super::fingerprint::Fingerprint;
use super::windows::{CorpusPart, Window};
use crate::model::Model;
use crate::tokenizer::Special;

/// How to profile.
#[derive(Debug, Clone)]
pub struct CollectParams {
    /// Length of the windows that texts are cut into, in tokens.
    pub n_ctx: usize,
    /// Tokens to use at most, shared evenly between the texts; of all parts together.
    pub max_tokens: Option<u64>,
    /// Windows computed at the same time.
    pub n_threads: usize,
    /// Whether special tokens written in the texts count as such.
    pub special: Special,
    /// Which of the windows to take.
    pub part: CorpusPart,
    /// Chooses the tokens that are sampled, and random tokens.
    pub seed: u64,
    /// Tokens whose FFN inputs are kept.
    pub n_samples: usize,
}

impl CollectParams {
    /// Everything, in windows of `n_ctx` tokens, by one thread, without samples.
    pub fn new(n_ctx: usize) -> Self {
        Self {
            n_ctx,
            max_tokens: None,
            n_threads: 1,
            special: Special::AsText,
            part: CorpusPart::WHOLE,
            seed: 0,
            n_samples: 0,
        }
    }
}

/// All that is known before the model runs.
pub(super) struct Setup<'m> {
    pub(super) model: &'m Model,
    pub(super) params: CollectParams,
    pub(super) fingerprint: Fingerprint,
    pub(super) windows: Vec<Window>,
    /// By window.
    pub(super) marks: Vec<Marks>,
    /// Names and values of all that the result depends on.
    pub(super) about: Vec<(String, String)>,
}

/// What is done. A window is added whole and at once, so a checkpoint never has a part of one.
pub(super) struct State {
    pub(super) gathered: Gathered,
    /// By window.
    pub(super) done: Vec<bool>,
}

impl Setup<'_> {
    /// Places of samples that windows which are done have filled, sorted.
    pub(super) fn filled(&self, done: &[bool], of: fn(&Marks) -> &Vec<(usize, usize)>) -> Vec<usize> {
        let marks = self.marks.iter().zip(done).filter(|(_, done)| **done).flat_map(|(marks, _)| of(marks));
        let mut places: Vec<usize> = marks.map(|(_, place)| *place).collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}
