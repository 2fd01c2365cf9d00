//! What guesses at the next tokens of a text.

use anyhow::Result;

/// Classes of guesses.
pub const N_CLASSES: usize = 16;

/// A guess at a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guess {
    /// The token.
    pub token: u32,
    /// Below [`N_CLASSES`]: guesses of a class come true about equally often.
    pub class: usize,
}

/// A source of drafts. Whatever it guesses, the text is the same.
pub trait Drafter {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// The token that may follow `text` and, behind it, `draft`, which are its own guesses since; `None` where it has none.
    /// `text` has grown since the last call, unless [`Drafter::rewind`] has said otherwise.
    ///
    /// # Errors
    /// When it cannot be computed.
    fn guess(&mut self, text: &[u32], draft: &[u32]) -> Result<Option<Guess>>;

    /// Of what `text` was, only the first `n` tokens are as before.
    fn rewind(&mut self, n: usize);

    /// Whether a guess takes no time that is worth counting.
    fn is_free(&self) -> bool;

    /// Share of guesses of a class that come true, as far as that can be said before any did.
    fn expected(&self, class: usize) -> f64;
}
