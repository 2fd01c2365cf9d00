//! DRY: a token that would go on with a repetition becomes less likely, the longer the repetition is.

use super::breakers::Breakers;
use super::candidates::Candidates;
use super::params::SamplerParams;
use super::step::Step;
use std::collections::{HashMap, VecDeque};

/// Subtracts `multiplier * base ^ (length - allowed)` from the logit of each token that would lengthen a repetition of `length`
/// tokens at the end of the text. Source: github.com/oobabooga/text-generation-webui, pull request 5677.
#[derive(Debug)]
pub struct Dry {
    /// How strong.
    multiplier: f64,
    /// How fast it grows with the length.
    base: f64,
    /// Repetitions shorter than this are left alone.
    allowed: usize,
    /// Tokens looked back at most; `None` is all.
    last_n: Option<usize>,
    /// What no repetition goes beyond.
    breakers: Breakers,
    /// The last tokens, the newest first.
    recent: VecDeque<u32>,
    /// See [`common_beginnings`].
    lengths: Vec<usize>,
    /// The longest repetition that each token would lengthen.
    longest: HashMap<u32, usize>,
}

impl Dry {
    /// As `params` has it.
    pub fn new(params: &SamplerParams, breakers: Breakers) -> Self {
        Self {
            multiplier: params.dry_multiplier.into(),
            base: params.dry_base.into(),
            allowed: usize::try_from(params.dry_allowed_length).unwrap_or(0),
            last_n: usize::try_from(params.dry_penalty_last_n).ok(),
            breakers,
            recent: VecDeque::new(),
            lengths: Vec::new(),
            longest: HashMap::new(),
        }
    }

    fn penalty(&self, length: usize) -> f64 {
        let mut penalty = 1.0;
        for _ in 0..length - self.allowed {
            let next = penalty * self.base;
            // Of the powers that llama.cpp's numbers can hold, the last.
            if next == penalty || next > f64::from(f32::MAX) {
                break;
            }
            penalty = next;
        }
        self.multiplier * penalty
    }
}

impl Step for Dry {
    fn apply(&mut self, candidates: &mut Candidates, _draw: &mut dyn FnMut() -> f64) {
        let recent = self.recent.make_contiguous();
        if recent.len() <= self.allowed {
            return;
        }
        let most = self.breakers.distance(recent).unwrap_or(recent.len());
        if most < self.allowed {
            return;
        }
        common_beginnings(recent, &mut self.lengths);
        self.longest.clear();
        for (&next, &length) in recent.iter().zip(&self.lengths[1..]) {
            let length = length.min(most);
            if length >= self.allowed && !self.breakers.is_one(next) {
                let longest = self.longest.entry(next).or_default();
                *longest = length.max(*longest);
            }
        }
        let penalty = |id: u32| self.longest.get(&id).map_or(0.0, |length| self.penalty(*length));
        if candidates.in_order_of_ids() {
            candidates.set_logits_of(self.longest.keys().copied(), |c| c.logit - penalty(c.id));
        } else {
            candidates.set_logits(|c| c.logit - penalty(c.id));
        }
    }

    fn accept(&mut self, token: u32) {
        self.recent.push_front(token);
        self.recent.truncate(self.last_n.unwrap_or(usize::MAX));
    }

    fn forget(&mut self) {
        self.recent.clear();
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.recent.capacity() + self.lengths.capacity() + self.longest.capacity().next_power_of_two()
    }
}

/// For each position of `text`, how many tokens from there on are the same as from its beginning: the Z function, in a time that
/// grows with the length of the text alone.
fn common_beginnings(text: &[u32], lengths: &mut Vec<usize>) {
    lengths.clear();
    lengths.resize(text.len(), 0);
    // The stretch found so far that ends last.
    let (mut begin, mut end) = (0, 0);
    for at in 1..text.len() {
        let mut length = if at < end { lengths[at - begin].min(end - at) } else { 0 };
        while at + length < text.len() && text[length] == text[at + length] {
            length += 1;
        }
        if at + length > end {
            (begin, end) = (at, at + length);
        }
        lengths[at] = length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_beginnings_are_what_counting_finds() {
        let mut state = 1u32;
        let mut lengths = Vec::new();
        for n in 0..200usize {
            let text: Vec<u32> = (0..n)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) % (1 + n as u32 % 4)
                })
                .collect();
            common_beginnings(&text, &mut lengths);
            assert_eq!(lengths.len(), n);
            for at in 1..n {
                let counted = text.iter().zip(&text[at..]).take_while(|(a, b)| a == b).count();
                assert_eq!(lengths[at], counted, "{text:?} at {at}");
            }
        }
    }
}
