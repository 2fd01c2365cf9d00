//! Whether a draft pays: what passes of several tokens bring, and an account of what has been lost by trying.

use super::pace::Pace;
use std::time::Duration;

/// A draft is made where it is expected to be this much faster than none.
const GAIN: f64 = 1.04;
/// Gains count only beyond this factor: noise looks like a gain, too.
const CERTAIN: f64 = 1.05;
/// Of all the time, what drafts that did not pay may take.
const MOST_LOST: f64 = 0.02;
/// Of gains, single tokens' times that may be lost again.
const MOST_KEPT: f64 = 50.0;
/// Tokens between trials of what is not expected to pay, at the least and at the most: twice as many after each that did not.
const PATIENCE: [usize; 2] = [128, 2048];
/// Drafts one after the other until a single token is computed, to compare: at the least and at the most, twice as many each time
/// that they have turned out to gain much.
const UNCOMPARED: [usize; 2] = [4, 64];
const MUCH: f64 = 1.2;
/// Single tokens of which an average is kept.
const USUAL: usize = 32;

/// What passes take, and an account of what drafts have gained and lost.
#[derive(Debug, Clone)]
pub struct Economy {
    pace: Pace,
    /// Seconds of all passes.
    elapsed: f64,
    /// Seconds that drafts have cost more than single tokens would have, at the most; below 0 where they have gained for certain.
    lost: f64,
    /// Seconds that drafts are likely to have gained in all; below 0 where they have lost.
    saved: f64,
    /// Tokens since the last trial, and those to wait for the next one.
    since_trial: usize,
    patience: usize,
    /// Drafts since the last single token.
    run: Run,
    /// Seconds that a single token took when the last one was computed, and on average.
    single: f64,
    usual: f64,
    n_single: usize,
    /// Drafts until the next one.
    trust: usize,
}

/// Drafts one after the other.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    n: usize,
    /// Tokens of them that stayed.
    n_tokens: usize,
    seconds: f64,
    /// Seconds that they seem to have gained, and those that some of them seem to have lost, before the next single token shows it.
    gained: f64,
    lost: f64,
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
            run: Run::default(),
            single: 0.0,
            usual: 0.0,
            n_single: 0,
            trust: UNCOMPARED[0],
        }
    }

    /// A pass of `n` tokens has taken so long: the computing, and the making of its draft. `n_taken` tokens stay of it.
    pub fn record(&mut self, n: usize, computing: Duration, drafting: Duration, n_taken: usize) {
        let (seconds, drafting) = (computing.as_secs_f64(), drafting.as_secs_f64());
        self.pace.record(n, seconds);
        self.elapsed += seconds + drafting;
        self.since_trial += n_taken;
        if n > 1 {
            let gain = self.seconds(1) * n_taken as f64 - seconds - drafting;
            self.run.n += 1;
            self.run.n_tokens += n_taken;
            self.run.seconds += seconds + drafting;
            self.run.gained += gain;
            self.run.lost += (-gain).max(0.0);
        } else {
            self.settle(self.seconds(1));
            self.lost += drafting;
            self.saved -= drafting;
        }
    }

    /// Settles the account of the drafts since the last single token, now that there is another one, of so many seconds.
    fn settle(&mut self, single: f64) {
        let run = std::mem::take(&mut self.run);
        if !self.is_ready() {
            return;
        }
        let before = if self.single > 0.0 { self.single } else { single };
        self.single = single;
        self.n_single = (self.n_single + 1).min(USUAL);
        self.usual += (single - self.usual) / self.n_single as f64;
        if run.n == 0 {
            return;
        }
        // How fast the machine was in between is not known: it may have changed, to either side.
        let n_tokens = run.n_tokens as f64;
        let likely = (before * single).sqrt();
        self.saved += likely * n_tokens - run.seconds;
        let alone = likely.min(self.usual) * n_tokens;
        let gain = alone / CERTAIN - run.seconds;
        self.lost = (self.lost - gain).max(-MOST_KEPT * single);
        if gain > 0.0 {
            self.patience = PATIENCE[0];
        }
        if run.n >= self.trust {
            let gains_much = alone >= MUCH * run.seconds;
            self.trust = if gains_much { (2 * self.trust).min(UNCOMPARED[1]) } else { UNCOMPARED[0] };
        }
    }

    /// Seconds that drafts have gained so far, as far as that is known.
    pub fn saved(&self) -> f64 {
        self.saved + self.run.gained
    }

    /// Whether it is known how long a single token takes.
    pub fn is_ready(&self) -> bool {
        self.pace.is_known()
    }

    /// Whether a single token is to be computed, since nothing else tells what drafts gain.
    pub fn must_compare(&self) -> bool {
        self.run.n >= self.trust
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
        self.lost + self.run.lost + loss <= MOST_LOST * self.elapsed
    }

    /// Whether the machine is as fast as it was a moment ago.
    pub fn is_steady(&self) -> bool {
        self.pace.is_steady()
    }

    /// Whether it is time to try out again what is not expected to pay.
    pub fn is_due(&self) -> bool {
        self.since_trial >= self.patience
    }

    /// That has been tried out. The next time comes later, unless drafts turn out to gain for certain.
    pub fn tried(&mut self) {
        self.since_trial = 0;
        self.patience = (2 * self.patience).min(PATIENCE[1]);
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

    /// Passes of four tokens of which so many stay, and single tokens between them where that is asked for.
    fn drafted(economy: &mut Economy, n_passes: usize, n_taken: usize) {
        for _ in 0..n_passes {
            if economy.must_compare() {
                economy.record(1, MS * 10, Duration::ZERO, 1);
            }
            economy.record(4, MS * 20, Duration::ZERO, n_taken);
        }
    }

    #[test]
    fn gains_allow_for_losses_but_not_for_ever() {
        let mut economy = measured(&[(1, 10); 10]);
        drafted(&mut economy, 1000, 4);
        assert!(economy.can_lose(25, 0.0));
        let lost = (0..2000).take_while(|_| {
            drafted(&mut economy, 1, 1);
            economy.can_lose(3, 0.0)
        });
        assert!((50..110).contains(&lost.count()));
    }

    #[test]
    fn gains_count_when_a_single_token_shows_them_and_losses_at_once() {
        let mut economy = measured(&[(1, 10); 40]);
        // The machine has become faster while drafts were computed: they seem to gain, and do not.
        (0..3).for_each(|_| economy.record(4, MS * 36, Duration::ZERO, 4));
        assert_eq!(economy.lost, 0.0);
        economy.record(1, MS * 7, Duration::ZERO, 1);
        assert!((0.005..0.02).contains(&economy.lost), "{}", economy.lost);
        // They do gain, which is seen at once, but does not count.
        let mut economy = measured(&[(1, 10); 40]);
        (0..3).for_each(|_| economy.record(4, MS * 20, Duration::ZERO, 4));
        assert!(economy.lost == 0.0 && economy.saved() > 0.05, "{} {}", economy.lost, economy.saved());
        economy.record(1, MS * 10, Duration::ZERO, 1);
        assert!((-0.06..-0.04).contains(&economy.lost), "{}", economy.lost);
        let before = economy.can_lose(6, 0.0);
        (0..2).for_each(|_| economy.record(4, MS * 45, Duration::ZERO, 1));
        assert!(before && !economy.can_lose(6, 0.0), "{} {}", economy.lost, economy.run.lost);
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
            let is_due = economy.is_due();
            if is_due {
                economy.tried();
            }
            is_due
        });
        assert!((5..12).contains(&tried.count()));
    }
}
