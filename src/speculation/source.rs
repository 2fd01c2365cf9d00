//! A drafter, with what is known of its guesses.

use super::drafter::{Drafter, Guess, N_CLASSES};
use std::time::Duration;

/// Guesses that what is expected of a class counts as.
const PRIOR: f64 = 3.0;
/// Guesses that count the most: texts change.
const REMEMBERED: f64 = 32.0;

/// How often guesses of a class come true.
#[derive(Debug, Clone, Copy, Default)]
struct Class {
    share: f64,
    n_seen: f64,
}

/// What a source of drafts has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drafted {
    /// Tokens that were drafted and computed.
    pub n_drafted: usize,
    /// Those of them that stayed.
    pub n_taken: usize,
}

/// A drafter and its record.
pub struct Source<'d> {
    /// The drafter.
    pub drafter: Box<dyn Drafter + 'd>,
    classes: [Class; N_CLASSES],
    /// Share of all its guesses that come true.
    all: Class,
    /// Seconds that a guess takes.
    seconds: Option<f64>,
    /// Whether it has guessed behind the prompt, which it has to read for that.
    pub has_read: bool,
    /// What it has done.
    pub drafted: Drafted,
}

impl Class {
    fn learn(&mut self, came_true: bool) {
        self.n_seen = (self.n_seen + 1.0).min(REMEMBERED);
        self.share += (f64::from(u8::from(came_true)) - self.share) / (self.n_seen + PRIOR);
    }
}

impl<'d> Source<'d> {
    /// One of which nothing is known.
    pub fn new(drafter: Box<dyn Drafter + 'd>) -> Self {
        let class = |class: usize| Class { share: drafter.expected(class), n_seen: 0.0 };
        let classes = std::array::from_fn(class);
        let all = Class { share: 0.6, n_seen: 0.0 };
        Self { drafter, classes, all, seconds: None, has_read: false, drafted: Drafted::default() }
    }

    /// The share of guesses of the class of `guess` that come true.
    pub fn share(&self, guess: Guess) -> f64 {
        self.classes[guess.class.min(N_CLASSES - 1)].share
    }

    /// The share of all guesses that come true.
    pub fn share_of_all(&self) -> f64 {
        self.all.share
    }

    /// A guess, all before which in its draft had come true, has come true or not.
    pub fn learn(&mut self, guess: Guess, came_true: bool) {
        self.classes[guess.class.min(N_CLASSES - 1)].learn(came_true);
        self.all.learn(came_true);
    }

    /// A guess has taken so long.
    pub fn took(&mut self, time: Duration) {
        let time = time.as_secs_f64();
        self.seconds = Some(self.seconds.map_or(time, |seconds| seconds + (time - seconds) / 8.0));
    }

    /// Seconds that `n` guesses take; as long as that is not known, nothing.
    pub fn seconds(&self, n: usize) -> f64 {
        if self.drafter.is_free() { 0.0 } else { self.seconds.unwrap_or(0.0) * n as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculation::Lookup;

    #[test]
    fn shares_of_classes_are_learned_and_forgotten() {
        let mut source = Source::new(Box::new(Lookup::default()));
        let [short, long] = [Guess { token: 1, class: 2 }, Guess { token: 1, class: 12 }];
        assert!(source.share(short) < source.share(long));
        (0..200).for_each(|i| {
            source.learn(short, i % 4 != 0);
            source.learn(long, false);
        });
        assert!((source.share(short) - 0.75).abs() < 0.1 && source.share(long) < 0.02);
        (0..100).for_each(|_| source.learn(long, true));
        assert!(source.share(long) > 0.9);
        source.took(Duration::from_secs(1));
        assert_eq!(source.seconds(3), 0.0, "what takes no time worth counting");
    }
}
