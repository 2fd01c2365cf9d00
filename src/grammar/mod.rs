//! Grammars: which tokens may come next, so that a text becomes what a grammar or a JSON schema describes.
//!
//! ```text
//! GBNF text ---> gbnf -----+
//! JSON schema -> schema ---+-> Rules -> graph over bytes -> automaton, state by state
//! Tokenizer -> vocabulary, in the order of bytes ---------+-> mask of the tokens that may come next
//! ```
//!
//! The automaton is exact: a text is accepted if and only if the grammar describes it. It keeps the states that it has found, so a
//! token costs a walk through the vocabulary at most, and nothing where the same state has been there before.

mod admits;
mod automaton;
#[cfg(test)]
mod combined;
mod decimals;
mod digits;
mod expr;
mod formats;
mod gbnf;
#[cfg(test)]
mod golden;
mod graph;
mod json;
mod keywords;
mod mask;
mod merge;
mod multiples;
mod numbers;
mod overlap;
mod pattern;
mod schema;
mod strings;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use expr::Rules;
pub use mask::Mask;

use crate::tokenizer::{Special, Tokenizer};
use anyhow::{Context, Result, bail, ensure};
use automaton::{Automaton, DEAD, State};
use graph::Graph;
use std::collections::HashMap;
use vocabulary::Vocabulary;

/// Masks that are kept.
const MOST_MASKS: usize = 64;

impl Rules {
    /// Reads a grammar in GBNF; `source` is the flag or the file that it comes from.
    ///
    /// # Errors
    /// In one line that names the source, the line and what is wrong there.
    pub fn from_gbnf(text: &str, source: &str) -> Result<Self> {
        gbnf::read(text, source)
    }

    /// The JSON that a JSON schema describes; `source` is the flag or the file that it comes from.
    ///
    /// # Errors
    /// When it is no JSON, and when it asks for something that cannot be kept to, which is named.
    pub fn from_json_schema(text: &str, source: &str) -> Result<Self> {
        schema::read(text, source).with_context(|| source.to_owned())
    }
}

/// A grammar that a text of tokens follows.
#[derive(Debug)]
pub struct Grammar {
    source: String,
    automaton: Automaton,
    vocabulary: Vocabulary,
    start: State,
    state: State,
    /// The mask of the present state; others are kept for when a state comes back.
    masks: HashMap<State, Mask>,
}

impl Grammar {
    /// At the beginning of a text.
    ///
    /// # Errors
    /// When the grammar is too large, when a rule can begin with itself, and when it names a token that there is not.
    pub fn new(rules: &Rules, tokenizer: &Tokenizer) -> Result<Self> {
        let vocabulary = Vocabulary::new(tokenizer);
        let token = |text: &str| match tokenizer.encode(text, Special::Parse)?[..] {
            [id] => Ok(id),
            _ => bail!("{text} is not one token of the model"),
        };
        let made = Graph::new(rules, vocabulary.n_tokens(), &token).and_then(Automaton::new);
        let (automaton, start) = made.with_context(|| rules.source.clone())?;
        ensure!(start != DEAD, "{}: no text fits the grammar", rules.source);
        let mut new =
            Self { source: rules.source.clone(), automaton, vocabulary, start, state: start, masks: HashMap::new() };
        new.find_mask()?;
        Ok(new)
    }

    /// Begins a new text.
    ///
    /// # Errors
    /// As [`Grammar::advance`].
    pub fn restart(&mut self) -> Result<()> {
        self.state = self.start;
        self.find_mask()
    }

    /// Whether a token may come next.
    pub fn allows(&self, token: u32) -> bool {
        self.masks.get(&self.state).is_some_and(|mask| mask.allows(token))
    }

    /// Whether the text is complete and nothing may follow it.
    pub fn is_over(&self) -> bool {
        let goes_on = self.masks.get(&self.state).is_some_and(|mask| self.vocabulary.goes_on(mask));
        self.automaton.is_complete(self.state) && !goes_on
    }

    /// Goes on by a token that is allowed.
    ///
    /// # Errors
    /// When the token is none that is allowed, when no token of the vocabulary can go on, and when the grammar is so ambiguous that
    /// it would take forever.
    pub fn advance(&mut self, token: u32) -> Result<()> {
        if self.vocabulary.is_end(token) && self.automaton.is_complete(self.state) {
            return Ok(());
        }
        let next = self.automaton.after_token(self.state, token, self.vocabulary.text(token));
        self.state = next.with_context(|| self.source.clone())?;
        ensure!(self.state != DEAD, "{}: token {token} does not fit the grammar", self.source);
        if self.automaton.is_full() {
            self.masks.clear();
            self.automaton.forget_all_but([&mut self.start, &mut self.state]);
        }
        self.find_mask()
    }

    /// Finds what may come next, where that is not known.
    fn find_mask(&mut self) -> Result<()> {
        if !self.masks.contains_key(&self.state) {
            if self.masks.len() >= MOST_MASKS {
                self.masks.clear();
            }
            let mask = self.vocabulary.mask(&mut self.automaton, self.state);
            let mask = mask.with_context(|| self.source.clone())?;
            ensure!(
                mask.count() > 0 || self.automaton.is_complete(self.state),
                "{}: no token of the model can go on here as the grammar wants",
                self.source
            );
            self.masks.insert(self.state, mask);
        }
        Ok(())
    }
}
