//! Batches: tokens that are computed at once.

use anyhow::{Result, ensure};

/// A token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Number of its sequence, among those that come with the batch.
    pub sequence: usize,
    /// Its position in that sequence.
    pub position: usize,
    /// Which token it is.
    pub token: u32,
    /// Whether its logits are wanted.
    pub wants_logits: bool,
}

/// Tokens of one or several sequences, those of each sequence in rising order of position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    entries: Vec<Entry>,
}

impl Batch {
    /// Takes all tokens out.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Adds a token.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// The tokens.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Position of the first token.
    pub(super) fn first(&self) -> usize {
        self.entries.first().map_or(0, |entry| entry.position)
    }

    /// Number of tokens whose logits are wanted.
    pub fn n_wanted(&self) -> usize {
        self.entries.iter().filter(|entry| entry.wants_logits).count()
    }

    /// Whether the batch goes on where sequences with `n_past` tokens each have room for `n_ctx`, with tokens of a
    /// vocabulary of `n_vocab`.
    pub(super) fn check(&self, n_past: impl Fn(usize) -> Option<usize>, n_ctx: usize, n_vocab: usize) -> Result<()> {
        ensure!(!self.is_empty(), "no tokens to compute");
        for (i, entry) in self.entries.iter().enumerate() {
            let Entry { sequence, position, token, .. } = *entry;
            ensure!((token as usize) < n_vocab, "token {token} is not in the model's vocabulary of {n_vocab}");
            let Some(n_past) = n_past(sequence) else { anyhow::bail!("the batch has no sequence {sequence}") };
            let before = self.entries[..i].iter().rev().find(|e| e.sequence == sequence);
            let next = before.map_or(n_past, |before| before.position + 1);
            ensure!(position == next, "sequence {sequence} goes on at position {next}, not at {position}");
        }
        let fullest = self.entries.iter().map(|entry| entry.position + 1).max().unwrap_or(0);
        ensure!(fullest <= n_ctx, "{fullest} tokens do not fit in a context of {n_ctx}; raise -c");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(entries: &[(usize, usize, u32)]) -> Batch {
        let mut batch = Batch::default();
        for (sequence, position, token) in entries {
            batch.push(Entry { sequence: *sequence, position: *position, token: *token, wants_logits: true });
        }
        batch
    }

    #[test]
    fn each_sequence_goes_on_where_it_was() {
        let n_past = |sequence: usize| [3usize, 0].get(sequence).copied();
        let check = |entries: &[(usize, usize, u32)]| batch(entries).check(n_past, 5, 10);
        assert!(check(&[(0, 3, 1), (1, 0, 2), (0, 4, 9), (1, 1, 0)]).is_ok());
        for (wrong, why) in [
            (&[][..], "no tokens"),
            (&[(0, 4, 1)], "goes on at position 3"),
            (&[(0, 3, 1), (0, 3, 1)], "goes on at position 4"),
            (&[(2, 0, 1)], "no sequence 2"),
            (&[(0, 3, 10)], "vocabulary"),
            (&[(0, 3, 1), (0, 4, 1), (0, 5, 1)], "do not fit"),
        ] {
            let error = check(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
