//! Sequence breakers of DRY: texts, such as line breaks, that no repetition goes beyond.

use crate::tokenizer::{Special, Tokenizer};
use std::collections::HashMap;

/// Ways to write the breakers in tokens. Since a token may hold a breaker's beginning and something before it, or all of it and
/// something around it, there are many.
#[derive(Debug, Clone, Default)]
pub struct Breakers {
    /// By the first token: the tokens that must follow it.
    tails: HashMap<u32, Vec<Vec<u32>>>,
}

/// Bytes of a breaker that are looked at.
const LONGEST: usize = 40;
/// Tokens after the first that are looked at.
const LONGEST_TAIL: usize = 20;

impl Breakers {
    /// Finds the ways to write `breakers`; empty ones break nothing.
    pub fn new(breakers: &[String], tokenizer: &Tokenizer) -> Self {
        let mut found = Self::default();
        for breaker in breakers.iter().filter(|breaker| !breaker.is_empty()) {
            let breaker = &breaker.as_bytes()[..breaker.len().min(LONGEST)];
            for id in 0..tokenizer.n_tokens() as u32 {
                let special = tokenizer.unprinted_text(id);
                let text = if special.is_empty() { tokenizer.token_bytes(id) } else { special.as_bytes() };
                found.add(id, text, breaker, tokenizer);
            }
        }
        found
    }

    fn add(&mut self, id: u32, text: &[u8], breaker: &[u8], tokenizer: &Tokenizer) {
        if text.windows(breaker.len()).any(|part| part == breaker) {
            self.insert(id, Vec::new());
            return;
        }
        for begun in (1..breaker.len()).filter(|n| text.ends_with(&breaker[..*n])) {
            if let Some(mut tail) = tokens_of(&breaker[begun..], tokenizer) {
                tail.truncate(LONGEST_TAIL);
                self.insert(id, tail);
            }
        }
    }

    fn insert(&mut self, head: u32, tail: Vec<u32>) {
        let tails = self.tails.entry(head).or_default();
        if !tails.contains(&tail) {
            tails.push(tail);
        }
    }

    /// Whether the token holds a whole breaker.
    pub fn is_one(&self, token: u32) -> bool {
        self.tails.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// How many tokens have come since the last breaker. `recent` has the newest token first.
    pub fn distance(&self, recent: &[u32]) -> Option<usize> {
        if self.tails.is_empty() {
            return None;
        }
        recent.iter().enumerate().find_map(|(at, token)| {
            let tails = self.tails.get(token)?;
            let follows =
                |tail: &&Vec<u32>| tail.len() <= at && tail.iter().eq(recent[at - tail.len()..at].iter().rev());
            let longest = tails.iter().filter(follows).map(Vec::len).max()?;
            Some(at - longest)
        })
    }
}

/// The tokens that write `text`, where there are any. Half a character has none but those of its bytes.
fn tokens_of(text: &[u8], tokenizer: &Tokenizer) -> Option<Vec<u32>> {
    if let Ok(text) = std::str::from_utf8(text) {
        return tokenizer.encode(text, Special::AsText).ok();
    }
    let of_byte = |byte: &u8| (0..tokenizer.n_tokens() as u32).find(|id| tokenizer.token_bytes(*id) == [*byte]);
    text.iter().map(of_byte).collect()
}
