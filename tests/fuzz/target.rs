//! What is fuzzed: a reader, and inputs that it accepts.

use super::bytes;
use crate::support::Random;
use anyhow::Result;

/// An input before it is bytes, so that a change can keep lengths and checksums right.
pub trait Form: Clone {
    /// Changes it in one place. `other` is another input, `words` are the target's.
    fn change(&mut self, other: &Self, words: &[&str], random: &mut Random);

    fn bytes(&self) -> Vec<u8>;
}

impl Form for Vec<u8> {
    fn change(&mut self, other: &Self, words: &[&str], random: &mut Random) {
        bytes::change(self, other, words, random);
    }

    fn bytes(&self) -> Vec<u8> {
        self.clone()
    }
}

pub trait Target {
    type Form: Form;

    fn name(&self) -> &'static str;

    /// Inputs that are accepted.
    fn seeds(&self) -> Vec<Self::Form>;

    /// What may be put into an input.
    fn words(&self) -> &[&str] {
        &[]
    }

    /// Whether a fault is none of ours.
    fn is_known(&self, _fault: &str) -> bool {
        false
    }

    /// Reads an input, and does with what it holds what the commands would.
    ///
    /// # Errors
    /// When it is refused.
    ///
    /// # Panics
    /// When what must hold for every input does not.
    fn run(&self, input: &[u8]) -> Result<()>;
}
