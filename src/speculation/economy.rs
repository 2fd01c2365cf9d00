//! Whether a draft pays: what passes of several tokens bring, and an account of what has been lost by trying.

use super::pace::Pace;
use std::time::Duration;

/// A draft is made where it is expected to be this much faster than none.
const GAIN: f64 = 1.04;
/// Of all the time, what drafts that did not pay may take.
const MOST_LOST: f64 = 0.02;
/// Of gains, single tokens' times that may be lost again.
const MOST_KEPT: f64 = 50.0;
/// Tokens between trials of what is expensive to ask and has not paid, at the least and at the most: twice as many after each that
/// did not pay.
const PATIENCE: [usize; 2] = [32, 2048];
/// Drafts one after the other until a single token is computed, to compare: at the least and at the most, twice as many each time
/// that they have turned out to gain much.
const UNCOMPARED: [usize; 2] = [4, 64];
const MUCH: f64 = 1.1;

/// What passes take, and an account of what drafts have gained and lost.
#[derive(Debug, Clone)]
pub struct Economy {
    pace: Pace,
    /// Seconds of all passes.
    elapsed: f64,
    /// Seconds that drafts have cost more than single tokens would have; below 0 where they have gained.
    lost: f64,
    /// Seconds that drafts have gained in all; below 0 where they have lost.
    saved: f64,
    /// Tokens since the last trial, and those to wait for the next one.
    since_trial: usize,
    patience: usize,
    /// Drafts since the last single token: how many, their tokens that stayed, and their seconds.
    run: (usize, usize, f64),
    /// Drafts until the next one.
    trust: usize,
}

impl Economy {
    /// One for drafts of at most so many tokens.
    pub fn new(most: usize) -> Self {
        Self {
            pace: Pace::new(most + 1),
            elapsed: 0.0,
            lost: 0.0,
            saved: 0.0,
            since_trial: 0,
            patience: PATIENCE[0],
            run: (0, 0, 0.0),
            trust: UNCOMPARED[0],
        }
    }

    /// A pass of `n` tokens has taken so long: the computing, and the making of its draft. `n_taken` tokens stay of it.
    pub fn record(&mut self, n: usize, computing: Duration, drafting: Duration, n_taken: usize) {
        let seconds = computing.as_secs_f64();
        self.pace.record(n, seconds);
        let spent = seconds + drafting.as_secs_f64();
        self.elapsed += spent;
        self.since_trial += n_taken;
        let single = self.seconds(1);
        let gain = if n > 1 { single * n_taken as f64 - spent } else { -drafting.as_secs_f64() };
        self.saved += gain;
        self.lost = (self.lost - gain).max(-MOST_KEPT * single);
        if n > 1 {
            self.run = (self.run.0 + 1, self.run.1 + n_taken, self.run.2 + spent);
            if gain > 0.0 {
                self.patience = PATIENCE[0];
            }
        } else {
            if self.must_compare() {
                let gains_much = self.run.1 as f64 * single >= MUCH * self.run.2;
                self.trust = if gains_much { (2 * self.trust).min(UNCOMPARED[1]) } else { UNCOMPARED[0] };
            }
            self.run = (0, 0, 0.0);
        }
    }

    /// Seconds that drafts have gained so far, as far as that is known.
    pub fn saved(&self) -> f64 {
        self.saved
    }

    /// Whether it is known how long a single token takes.
    pub fn is_ready(&self) -> bool {
        self.pace.is_known()
    }

    /// Whether a single token is to be computed, since nothing else tells what drafts gain.
    pub fn must_compare(&self) -> bool {
        self.run.0 >= self.trust
    }

    /// Seconds that a pass of `n` tokens is expected to take.
    pub fn seconds(&self, n: usize) -> f64 {
        self.pace.seconds(n)
    }

    /// How many times as fast as single tokens a pass of a draft of `n` is that took `drafting` seconds to make, and that gives
    /// `tokens` on average.
    pub fn gain(&self, n: usize, drafting: f64, tokens: f64) -> f64 {
        self.over_single(self.seconds(n + 1) + drafting, tokens)
    }

    /// The same as far as it can be hoped for: of a pass that was hardly measured yet, more.
    pub fn hope(&self, n: usize, drafting: f64, tokens: f64) -> f64 {
        self.over_single(self.pace.least_seconds(n + 1) + drafting, tokens)
    }

    fn over_single(&self, seconds: f64, tokens: f64) -> f64 {
        // Nothing is known before the first pass.
        if seconds > 0.0 { tokens * self.seconds(1) / seconds } else { 0.0 }
    }

    /// Whether a draft of that gain pays.
    pub fn pays(&self, gain: f64) -> bool {
        gain >= GAIN
    }

    /// Whether there is room for losing all of a draft of `n` that takes `drafting` seconds.
    pub fn can_lose(&self, n: usize, drafting: f64) -> bool {
        let loss = self.seconds(n + 1) - self.seconds(1) + drafting;
        self.lost + loss <= MOST_LOST * self.elapsed
    }

    /// Whether the machine is as fast as it was a moment ago.
    pub fn is_steady(&self) -> bool {
        self.pace.is_steady()
    }

    /// Whether it is time to try out again what is not expected to pay. The next time comes later, unless a draft pays.
    pub fn tries(&mut self) -> bool {
        let tries = self.since_trial >= self.patience;
        if tries {
            self.since_trial = 0;
            self.patience = (2 * self.patience).min(PATIENCE[1]);
        }
        tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn measured(passes: &[(usize, u32)]) -> Economy {
        let mut economy = Economy::new(30);
        for (n, ms) in passes {
            economy.record(*n, MS * *ms, Duration::ZERO, 1);
        }
        economy
    }

    #[test]
    fn losses_end_where_they_are_a_small_share_from_the_beginning_on() {
        let mut economy = measured(&[(1, 10); 10]);
        let (mut n_single, mut n_drafts) = (10, 0);
        for _ in 0..2000 {
            if economy.can_lose(4, 0.0) {
                economy.record(5, MS * 30, Duration::ZERO, 1);
                n_drafts += 1;
            } else {
                economy.record(1, MS * 10, Duration::ZERO, 1);
                n_single += 1;
            }
            // The first one takes longer than is expected.
            let lost = f64::from(n_drafts * 20);
            assert!(lost <= 8.1 + 0.0201 * f64::from(n_single * 10 + n_drafts * 30), "{n_drafts} of {n_single}");
        }
        assert!(n_drafts > 5 && (economy.saved() + f64::from(n_drafts * 20) / 1e3).abs() < 1e-3);
    }

    #[test]
    fn gains_allow_for_losses_but_not_for_ever() {
        let mut economy = measured(&[(1, 10); 10]);
        (0..1000).for_each(|_| economy.record(4, MS * 20, Duration::ZERO, 4));
        assert!(economy.can_lose(25, 0.0));
        let lost = (0..2000).take_while(|_| {
            economy.record(4, MS * 20, Duration::ZERO, 1);
            economy.can_lose(3, 0.0)
        });
        assert!((50..110).contains(&lost.count()));
    }

    #[test]
    fn a_single_token_is_computed_from_time_to_time_to_compare_with() {
        let mut economy = measured(&[(1, 10); 10]);
        let mut runs = Vec::new();
        for _ in 0..7 {
            let mut n = 0;
            while !economy.must_compare() {
                economy.record(4, MS * 20, Duration::ZERO, 4);
                n += 1;
            }
            economy.record(1, MS * 10, Duration::ZERO, 1);
            runs.push(n);
        }
        assert_eq!(runs, [4, 8, 16, 32, 64, 64, 64]);
    }

    #[test]
    fn trials_become_rare() {
        let mut economy = measured(&[(1, 10); 10]);
        let tried = (0..10_000).filter(|_| {
            economy.record(1, MS * 10, Duration::ZERO, 1);
            economy.tries()
        });
        assert!((5..12).contains(&tried.count()));
    }
}
