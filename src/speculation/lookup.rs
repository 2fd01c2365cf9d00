//! Drafts from the text itself: what followed the last tokens where they stood before.

use super::drafter::{Drafter, Guess, N_CLASSES};
use anyhow::Result;

/// Lengths of the sequences that are looked up, the longest first.
const LENGTHS: [usize; 3] = [6, 3, 2];
/// Places of each length that are remembered at the least and at the most.
const PLACES: [usize; 2] = [1 << 10, 1 << 18];
/// Tokens that may agree before they count as many.
const LONGEST: usize = 64;

/// Finds the last place where a text had the same tokens as at its end. It remembers a limited number of places.
pub struct Lookup {
    /// By length and the hash of so many tokens: the number of tokens up to their last place; 0 where there was none.
    places: [Vec<u32>; LENGTHS.len()],
    /// Tokens whose places are known.
    n_known: usize,
    /// Where the guess that a draft began with stands, and how many tokens agree before it.
    found: Option<(usize, usize)>,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| vec![0; PLACES[0]]), n_known: 0, found: None }
    }
}

impl Lookup {
    /// Bytes that it takes.
    pub fn n_bytes(&self) -> usize {
        self.places.iter().map(|places| places.len() * size_of::<u32>()).sum()
    }

    /// Gets to know the places up to the end of `text`, but for the end itself.
    fn learn(&mut self, text: &[u32]) {
        let n_places = (2 * text.len()).next_power_of_two().clamp(PLACES[0], PLACES[1]);
        if n_places > self.places[0].len() {
            self.places = std::array::from_fn(|_| vec![0; n_places]);
            self.n_known = 0;
        }
        let end = text.len().min(u32::MAX as usize);
        for n in self.n_known + 1..end {
            for (places, length) in self.places.iter_mut().zip(LENGTHS) {
                if let Some(from) = n.checked_sub(length) {
                    let slot = slot(&text[from..n], places.len());
                    places[slot] = n as u32;
                }
            }
        }
        self.n_known = self.n_known.max(end.saturating_sub(1));
    }

    /// The place behind the last tokens that agree with the end of `text`, and how many do.
    fn find(&self, text: &[u32]) -> Option<(usize, usize)> {
        self.places.iter().zip(LENGTHS).find_map(|(places, length)| {
            let last = &text[text.len().checked_sub(length)?..];
            // It may be of other tokens, or of a text that has been taken back.
            let at = Some(places[slot(last, places.len())] as usize).filter(|at| (1..text.len()).contains(at))?;
            let pairs = text[..at].iter().rev().zip(text.iter().rev());
            let n = pairs.take(LONGEST).take_while(|(a, b)| a == b).count();
            (n >= length).then_some((at, n))
        })
    }
}

fn slot(tokens: &[u32], n_places: usize) -> usize {
    let mix = |hash: u64, token: &u32| (hash ^ u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let hash = tokens.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    (hash >> 20) as usize & (n_places - 1)
}

impl Drafter for Lookup {
    fn name(&self) -> &'static str {
        "lookup"
    }

    fn guess(&mut self, text: &[u32], draft: &[u32]) -> Result<Option<Guess>> {
        if draft.is_empty() {
            self.learn(text);
            self.found = self.find(text);
        }
        let Some((at, n)) = self.found else { return Ok(None) };
        // What repeats itself goes on behind the end of the text.
        let at = at + draft.len();
        let token = text.get(at).or_else(|| draft.get(at - text.len()));
        Ok(token.map(|token| Guess { token: *token, class: class(n + draft.len()) }))
    }

    fn rewind(&mut self, n: usize) {
        self.n_known = self.n_known.min(n);
        self.found = None;
    }

    fn is_free(&self) -> bool {
        true
    }

    fn expected(&self, class: usize) -> f64 {
        [0.0, 0.0, 0.2, 0.3, 0.4, 0.5, 0.6].get(class).copied().unwrap_or(0.7)
    }
}

/// The class of a guess before which `n` tokens agree.
fn class(n: usize) -> usize {
    let class = match n {
        0..=8 => n,
        9..=12 => 9,
        13..=16 => 10,
        17..=24 => 11,
        25..=32 => 12,
        33..=48 => 13,
        49..64 => 14,
        _ => 15,
    };
    class.min(N_CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All guesses behind `text`, up to `most`.
    fn draft(lookup: &mut Lookup, text: &[u32], most: usize) -> Vec<u32> {
        let mut draft = Vec::new();
        while draft.len() < most
            && let Some(guess) = lookup.guess(text, &draft).unwrap()
        {
            draft.push(guess.token);
        }
        draft
    }

    #[test]
    fn what_followed_the_longest_agreement_follows_again() {
        let mut lookup = Lookup::default();
        // 7 8 is followed by 1 at last, but 1 2 3 4 7 8 by 9 10.
        let text = [1, 2, 3, 4, 7, 8, 9, 10, 11, 7, 8, 1, 5, 1, 2, 3, 4, 7, 8];
        assert_eq!(draft(&mut lookup, &text, 3), [9, 10, 11]);
        assert_eq!(draft(&mut Lookup::default(), &text[9..11], 3), [] as [u32; 0]);
        let mut lookup = Lookup::default();
        assert_eq!(draft(&mut lookup, &text[..11], 2), [9, 10]);
        assert_eq!(draft(&mut lookup, &[1, 2, 3, 4, 7, 8, 9, 10, 11, 7, 8, 30], 2), [] as [u32; 0]);
    }

    #[test]
    fn what_repeats_itself_goes_on() {
        let text = [5, 1, 2, 3, 1, 2, 3, 1, 2];
        assert_eq!(draft(&mut Lookup::default(), &text, 8), [3, 1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn a_text_that_was_taken_back_is_not_found() {
        let mut lookup = Lookup::default();
        let text: Vec<u32> = (0..100).collect();
        draft(&mut lookup, &text, 1);
        lookup.rewind(50);
        let other: Vec<u32> = (0..50).chain(200..240).chain([70, 71, 72]).collect();
        assert_eq!(draft(&mut lookup, &other, 4), [] as [u32; 0]);
        let back = [&other[..], &[220, 221]].concat();
        assert_eq!(draft(&mut lookup, &back, 4), [222, 223, 224, 225]);
    }

    #[test]
    fn a_place_is_found_again_in_texts_of_any_length_within_bounds() {
        let mut lookup = Lookup::default();
        let mut text: Vec<u32> = Vec::new();
        for i in 0..40_000u32 {
            text.push(i.wrapping_mul(2_654_435_761) >> 12);
        }
        draft(&mut lookup, &text, 1);
        let at = text.len() - 5000;
        let again = text[at..at + 6].to_vec();
        text.extend(&again);
        assert_eq!(draft(&mut lookup, &text, 2), text[at + 6..at + 8]);
        assert!(lookup.n_bytes() <= LENGTHS.len() * PLACES[1] * 4);
        let long = vec![3; 3 * PLACES[1]];
        lookup.rewind(0);
        draft(&mut lookup, &long, 1);
        assert_eq!(lookup.n_bytes(), LENGTHS.len() * PLACES[1] * 4);
    }

    #[test]
    fn longer_agreements_are_of_higher_classes() {
        let classes: Vec<usize> = (0..200).map(class).collect();
        assert!(classes.is_sorted() && classes[199] < N_CLASSES);
    }
}
