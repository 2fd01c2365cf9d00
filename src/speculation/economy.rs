//! What passes of several tokens cost, and whether a draft pays.

use std::time::Duration;

/// Times of the last passes of a size that count.
const REMEMBERED: usize = 5;
/// What a further token of a pass is expected to add before any is measured, as a share of the time of a single one; counts as
/// one measured size.
const FURTHER: f64 = 0.3;
/// A draft is made where it is expected to be this much faster than none.
const GAIN: f64 = 1.04;
/// Of all the time, what drafts that did not pay may take, and single tokens' times beside that.
const MOST_LOST: (f64, f64) = (0.01, 2.5);
/// Of gains, single tokens' times that may be lost again.
const MOST_KEPT: f64 = 50.0;
/// Tokens between trials of what has not paid, at the least and at the most: twice as many after each that did not pay.
const PATIENCE: [usize; 2] = [32, 2048];

/// Measured times of passes, and an account of what drafts have gained and lost.
#[derive(Debug, Clone)]
pub struct Economy {
    /// By size less one: the times of the last passes of that size in seconds, and how many there were.
    passes: Vec<(Vec<f64>, usize)>,
    /// Seconds of all passes.
    elapsed: f64,
    /// Seconds that drafts have cost more than single tokens would have; below 0 where they have gained.
    lost: f64,
    /// Seconds that drafts have gained in all; below 0 where they have lost.
    saved: f64,
    /// Tokens since the last trial, and those to wait for the next one.
    since_trial: usize,
    patience: usize,
}

impl Default for Economy {
    fn default() -> Self {
        let (elapsed, lost, saved) = (0.0, 0.0, 0.0);
        Self { passes: Vec::new(), elapsed, lost, saved, since_trial: 0, patience: PATIENCE[0] }
    }
}

impl Economy {
    /// A pass of `n` tokens has taken so long: the computing, and the making of its draft. `n_taken` tokens stay of it.
    pub fn record(&mut self, n: usize, computing: Duration, drafting: Duration, n_taken: usize) {
        if self.passes.len() < n {
            self.passes.resize(n, (Vec::new(), 0));
        }
        let seconds = computing.as_secs_f64();
        let (times, count) = &mut self.passes[n - 1];
        // The first pass of a size takes memory that others have.
        if *count == 1 {
            times.clear();
        }
        if times.len() == REMEMBERED {
            times.remove(0);
        }
        times.push(seconds);
        *count += 1;
        let spent = seconds + drafting.as_secs_f64();
        self.elapsed += spent;
        self.since_trial += n_taken;
        if n > 1 {
            let single = self.seconds(1);
            let gain = single * n_taken as f64 - spent;
            self.saved += gain;
            self.lost = (self.lost - gain).max(-MOST_KEPT * single);
            if gain > 0.0 {
                self.patience = PATIENCE[0];
            }
        }
    }

    /// Seconds that drafts have gained so far, as far as that is known.
    pub fn saved(&self) -> f64 {
        self.saved
    }

    /// Whether it is known how long a single token takes.
    pub fn is_ready(&self) -> bool {
        self.passes.first().is_some_and(|(_, count)| *count > 1)
    }

    /// Median of the last passes of `n` tokens, and how many count.
    fn measured(&self, n: usize) -> Option<(f64, usize)> {
        let (times, _) = self.passes.get(n.checked_sub(1)?)?;
        let mut sorted = times.clone();
        sorted.sort_by(f64::total_cmp);
        Some((*sorted.get(sorted.len() / 2)?, sorted.len()))
    }

    /// Seconds that a pass of `n` tokens is expected to take: what was measured, drawn towards a straight line through all sizes
    /// as long as there is little of it.
    pub fn seconds(&self, n: usize) -> f64 {
        let Some((single, _)) = self.measured(1) else { return 0.0 };
        if n <= 1 {
            return single;
        }
        let further = |m: usize| {
            let (seconds, count) = self.measured(m)?;
            Some(((seconds / single - 1.0).max(0.0) / (m - 1) as f64, count as f64))
        };
        let (sum, weight) = (2..=self.passes.len())
            .filter_map(further)
            .fold((FURTHER, 1.0), |(sum, weight), (further, count)| (sum + further * count, weight + count));
        let line = single * (1.0 + sum / weight * (n - 1) as f64);
        match self.measured(n) {
            Some((seconds, count)) => (seconds * count as f64 + line) / (count as f64 + 1.0),
            None => line,
        }
    }

    /// How many times as fast as single tokens a pass of a draft of `n` is that took `drafting` seconds to make, and that gives
    /// `tokens` on average.
    pub fn gain(&self, n: usize, drafting: f64, tokens: f64) -> f64 {
        let seconds = self.seconds(n + 1) + drafting;
        // Nothing is known before the first pass.
        if seconds > 0.0 { tokens * self.seconds(1) / seconds } else { 0.0 }
    }

    /// Whether a draft of that gain is expected to pay.
    pub fn pays(&self, gain: f64) -> bool {
        gain >= GAIN
    }

    /// Whether there is room for losing all of a draft of `n` that takes `drafting` seconds.
    pub fn can_lose(&self, n: usize, drafting: f64) -> bool {
        let single = self.seconds(1);
        let loss = self.seconds(n + 1) - single + drafting;
        self.lost + loss <= MOST_LOST.0 * self.elapsed + MOST_LOST.1 * single
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
        let mut economy = Economy::default();
        for (n, ms) in passes {
            economy.record(*n, MS * *ms, Duration::ZERO, 1);
        }
        economy
    }

    #[test]
    fn a_pass_takes_what_passes_of_its_size_took_and_others_lie_on_a_line() {
        let economy = measured(&[(1, 90), (1, 10), (1, 10), (1, 11), (1, 10)]);
        assert!((economy.seconds(1) - 0.010).abs() < 1e-9, "the first does not count, nor one that was disturbed");
        assert!((economy.seconds(4) - 0.019).abs() < 1e-9);
        let mut many = economy.clone();
        (0..20).for_each(|_| many.record(4, MS * 13, Duration::ZERO, 1));
        assert!((many.seconds(4) - 0.0135).abs() < 6e-4, "{}", many.seconds(4));
        assert!((many.seconds(3) - 0.0125).abs() < 1e-3, "{}", many.seconds(3));
        assert!(many.gain(3, 0.0, 2.6) > 1.8 && !many.pays(many.gain(3, 0.0, 1.2)));
    }

    #[test]
    fn losses_end_where_they_are_a_hundredth() {
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
        }
        let lost = f64::from(n_drafts * 20);
        assert!(n_drafts > 5 && lost <= 0.011 * f64::from(n_single * 10 + n_drafts * 30) + 25.0, "{n_drafts} drafts");
        assert!((economy.saved() + lost / 1e3).abs() < 1e-6);
    }

    #[test]
    fn gains_allow_for_losses_but_not_for_ever() {
        let mut economy = measured(&[(1, 10); 10]);
        (0..1000).for_each(|_| economy.record(4, MS * 20, Duration::ZERO, 4));
        assert!(economy.can_lose(30, 0.0));
        let lost = (0..1000).take_while(|_| {
            economy.record(4, MS * 20, Duration::ZERO, 1);
            economy.can_lose(3, 0.0)
        });
        assert!((50..110).contains(&lost.count()));
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
