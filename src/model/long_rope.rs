//! Rotations with other frequencies for long contexts than for short ones (LongRoPE, arXiv 2402.13753).

use super::config::Rope;
use super::keys::Keys;
use super::part::Role;
use super::weights::Weights;
use anyhow::{Result, ensure};

impl Keys<'_> {
    /// The original context of a file that has divisors of frequencies for longer ones and for others; `None` where it has
    /// neither.
    ///
    /// # Errors
    /// When it has one of the two only, or `rope_freqs` as well.
    pub fn long_from(&self, n_ctx_train: usize) -> Result<Option<usize>> {
        let names = [Role::RopeFactorsLong, Role::RopeFactorsShort].map(|role| format!("{}.weight", role.tensor()));
        let there = names.each_ref().map(|name| self.has_tensor(name));
        if there == [false, false] {
            return Ok(None);
        }
        for (name, there) in names.iter().zip(there) {
            ensure!(there, "{name}: the tensor is missing beside that for contexts of another length");
        }
        let freqs = format!("{}.weight", Role::RopeFreqs.tensor());
        ensure!(!self.has_tensor(&freqs), "{freqs}: stands beside {}; which one counts?", names[0]);
        let original = self.whole("rope.scaling.original_context_length")?.filter(|n| *n != 0);
        Ok(Some(original.unwrap_or(n_ctx_train)))
    }
}

impl Weights {
    /// What the frequencies of `rope` are divided by in a context of `n_ctx` tokens (`[n_dims / 2]`), where the model has
    /// that: the choice is by the room that a run has, not by how much of it is in use, as in llama.cpp.
    pub fn rope_divisors(&self, rope: &Rope, n_ctx: usize) -> Option<&[f32]> {
        let role = match rope.long_from {
            None => Role::RopeFreqs,
            Some(original) if n_ctx > original => Role::RopeFactorsLong,
            Some(_) => Role::RopeFactorsShort,
        };
        self.find(role).map(|part| part.vector())
    }
}
