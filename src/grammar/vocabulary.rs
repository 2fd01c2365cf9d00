//! The tokens of a model in the order of their bytes, so that what they share is looked at once.

use super::automaton::{Automaton, DEAD, State};
use super::mask::Mask;
use crate::tokenizer::Tokenizer;
use anyhow::Result;

/// Tokens by what they print.
#[derive(Debug)]
pub struct Vocabulary {
    /// What each token prints, by id; nothing for those that end a generation, even if they do.
    texts: Vec<Box<[u8]>>,
    /// The printing ones, in the order of their bytes.
    order: Vec<u32>,
    /// How many of its first bytes each of them shares with the one before it.
    shared: Vec<u32>,
    /// The tokens that end a generation.
    ends: Vec<u32>,
}

impl Vocabulary {
    /// The tokens of a model.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let ids = || 0..tokenizer.n_tokens() as u32;
        let text = |id: u32| if tokenizer.is_end_of_generation(id) { &[] } else { tokenizer.token_bytes(id) };
        let texts: Vec<Box<[u8]>> = ids().map(|id| text(id).into()).collect();
        let mut order: Vec<u32> = ids().filter(|id| !text(*id).is_empty()).collect();
        order.sort_by_key(|id| text(*id));
        let before = std::iter::once(&[][..]).chain(order.iter().map(|id| text(*id)));
        let same = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count() as u32;
        let shared = before.zip(&order).map(|(before, id)| same(before, text(*id))).collect();
        Self { texts, order, shared, ends: ids().filter(|id| tokenizer.is_end_of_generation(*id)).collect() }
    }

    /// Tokens, printing or not.
    pub fn n_tokens(&self) -> usize {
        self.texts.len()
    }

    /// What a token prints; nothing where it ends a generation.
    pub fn text(&self, id: u32) -> &[u8] {
        self.texts.get(id as usize).map_or(&[], |text| text)
    }

    /// Whether a token ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The tokens that may come next: those whose text fits, those that the grammar names, and where the text may end those that
    /// end it.
    ///
    /// # Errors
    /// As [`Automaton::after`].
    pub fn mask(&self, automaton: &mut Automaton, state: State) -> Result<Mask> {
        let mut mask = Mask::none(self.n_tokens());
        // The state after each byte of the token that is looked at, as far as it has any.
        let mut states = vec![state];
        for (&id, &shared) in self.order.iter().zip(&self.shared) {
            // A token that begins as one that does not fit does not fit either.
            if shared as usize >= states.len() {
                continue;
            }
            states.truncate(shared as usize + 1);
            let text = &self.text(id)[shared as usize..];
            let mut now = states.last().copied().unwrap_or(DEAD);
            for byte in text {
                now = automaton.after(now, *byte)?;
                if now == DEAD {
                    break;
                }
                states.push(now);
            }
            if now != DEAD {
                mask.allow(id);
            }
        }
        for (id, other) in automaton.tokens(state) {
            if other {
                (0..self.n_tokens() as u32).filter(|any| *any != id).for_each(|any| mask.allow(any));
            } else {
                mask.allow(id);
            }
        }
        if automaton.is_complete(state) {
            self.ends.iter().for_each(|id| mask.allow(*id));
        }
        Ok(mask)
    }

    /// Whether `mask` allows anything but to end.
    pub fn goes_on(&self, mask: &Mask) -> bool {
        mask.count() > self.ends.iter().filter(|id| mask.allows(**id)).count()
    }
}
