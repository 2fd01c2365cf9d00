//! What passes of several tokens take, learned from passes on a machine whose speed changes.
//!
//! Times are known by their logarithms: of a single token, and of a pass of `n` tokens as a multiple of that. All are estimated
//! together by a Kalman filter. The speed of a machine wanders from pass to pass, the multiples hardly do: so a pass tells
//! of its multiple where single tokens have been measured next to it, and of the speed where its multiple is known.

/// What a further token of a pass is expected to add before any is measured, as a share of the time of a single one.
const FURTHER: f64 = 0.3;
/// Variance of how far multiples lie between that and one token after the other.
const SLOPE: f64 = 0.5;
/// Variances of what a multiple has for itself, and shares with its neighbours up to so many tokens away.
const OWN: f64 = 0.002;
const SHARED: (f64, f64) = (0.01, 3.0);
/// Variances that a pass adds: to the speed of the machine, to each multiple, and of what disturbs that pass alone.
const WANDERS: f64 = 0.01;
const AGES: f64 = 5e-6;
const DISTURBS: f64 = 0.0025;
/// Standard deviations at the most that a pass counts as being away from what was expected.
const MOST_AWAY: f64 = 2.5;

/// Estimates of what passes take.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Logarithms: seconds of a single token, and then multiples of that for 2, 3, ... tokens.
    mean: Vec<f64>,
    /// Their covariances, `[n][n]`.
    covariance: Vec<f64>,
    /// Single tokens that were measured; nothing is known before the second one.
    n_single: usize,
    /// Tokens of the widest pass so far.
    widest: usize,
    /// Whether the last pass was far away from what was expected.
    surprised: bool,
}

impl Pace {
    /// Of passes of up to `most` tokens, none of which has been measured.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        let mean = (0..most).map(|i| (1.0 + FURTHER * i as f64).ln()).collect();
        // From what is expected to one token after the other.
        let slope = |i: usize| ((i + 1) as f64 / (1.0 + FURTHER * i as f64)).ln();
        let covariance = |i: usize, j: usize| {
            let away = i.abs_diff(j) as f64;
            let own = if i == j { OWN } else { 0.0 };
            SLOPE * slope(i) * slope(j) + SHARED.0 * (-away / SHARED.1).exp() + own
        };
        let single = |i: usize, j: usize| if i == 0 || j == 0 { 0.0 } else { covariance(i, j) };
        let covariance = (0..most * most).map(|at| single(at / most, at % most)).collect();
        Self { mean, covariance, n_single: 0, widest: 1, surprised: false }
    }

    /// A pass of `n` tokens has taken so many seconds.
    pub fn record(&mut self, n: usize, seconds: f64) {
        let seconds = seconds.max(1e-9).ln();
        if n <= 1 {
            self.n_single += 1;
            // The first ones find the machine in another state.
            if self.n_single <= 2 {
                self.mean[0] = seconds;
                self.covariance[0] = WANDERS;
                return;
            }
        }
        let i = n.min(self.mean.len()) - 1;
        let expected = self.mean[0] + if i > 0 { self.mean[i] } else { 0.0 };
        // A pass that is wider than any before takes memory that others have.
        let is_first = n > self.widest;
        self.widest = self.widest.max(n);
        if is_first && seconds > expected {
            return;
        }
        self.age();
        self.learn(i, seconds - expected);
    }

    fn age(&mut self) {
        let most = self.mean.len();
        self.covariance[0] += WANDERS;
        (1..most).for_each(|i| self.covariance[i * most + i] += AGES);
    }

    /// What was measured for multiple `i`, and for the single token that it is a multiple of, was `away` from what was expected.
    fn learn(&mut self, i: usize, away: f64) {
        let most = self.mean.len();
        let with: Vec<f64> = (0..most)
            .map(|j| self.covariance[j * most] + if i > 0 { self.covariance[j * most + i] } else { 0.0 })
            .collect();
        let variance = with[0] + if i > 0 { with[i] } else { 0.0 } + DISTURBS;
        let bound = MOST_AWAY * variance.sqrt();
        self.surprised = away.abs() > bound;
        let away = away.clamp(-bound, bound);
        for (j, with_j) in with.iter().enumerate() {
            self.mean[j] += with_j / variance * away;
            for (k, with_k) in with.iter().enumerate() {
                self.covariance[j * most + k] -= with_j * with_k / variance;
            }
        }
    }

    /// Whether it is known how long a single token takes.
    pub fn is_known(&self) -> bool {
        self.n_single > 1
    }

    /// Whether the machine is as fast as it was a moment ago, as far as can be seen.
    pub fn is_steady(&self) -> bool {
        !self.surprised
    }

    /// Seconds that a pass of `n` tokens is expected to take; 0 before that of a single one is known.
    pub fn seconds(&self, n: usize) -> f64 {
        self.away(n, 0.0)
    }

    /// The same where it takes as little as is likely.
    pub fn least_seconds(&self, n: usize) -> f64 {
        self.away(n, -1.0)
    }

    /// Seconds of a pass of `n` tokens of which the multiple lies so many standard deviations away from what is expected.
    fn away(&self, n: usize, deviations: f64) -> f64 {
        if !self.is_known() {
            return 0.0;
        }
        let (most, single) = (self.mean.len(), self.mean[0].exp());
        let i = n.clamp(1, most) - 1;
        if i == 0 {
            return single;
        }
        let deviation = self.covariance[i * most + i].max(0.0).sqrt();
        single * (self.mean[i] + deviations * deviation).exp().max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What single tokens and then passes of `n` take, in turns.
    fn measured(pace: &mut Pace, n: usize, seconds: f64, times: usize) {
        for _ in 0..times {
            pace.record(1, 0.010);
            pace.record(n, seconds);
        }
    }

    #[test]
    fn a_pass_takes_what_passes_of_its_width_took_and_others_lie_near() {
        let mut pace = Pace::new(17);
        pace.record(1, 0.090);
        assert_eq!((pace.is_known(), pace.seconds(3)), (false, 0.0));
        pace.record(1, 0.010);
        assert!((pace.seconds(1) - 0.010).abs() < 1e-9, "the first does not count");
        assert!((pace.seconds(4) - 0.019).abs() < 1e-9 && pace.least_seconds(4) < 0.013);
        measured(&mut pace, 4, 0.013, 20);
        assert!((pace.seconds(4) - 0.013).abs() < 2e-4, "{}", pace.seconds(4));
        assert!((0.0105..0.0125).contains(&pace.seconds(3)), "{}", pace.seconds(3));
        assert!((0.013..0.035).contains(&pace.seconds(16)), "{}", pace.seconds(16));
        assert!(pace.least_seconds(4) > 0.0115 && pace.least_seconds(1) == pace.seconds(1));
    }

    #[test]
    fn the_first_pass_that_is_wider_than_any_other_counts_only_where_it_is_fast() {
        let mut pace = Pace::new(17);
        (0..3).for_each(|_| pace.record(1, 0.010));
        let expected = pace.seconds(3);
        pace.record(3, 0.100);
        assert_eq!(pace.seconds(3), expected);
        pace.record(3, 0.030);
        assert!(pace.seconds(3) > 1.3 * expected && pace.seconds(8) > 1.3 * 0.031);
        let expected = pace.seconds(5);
        pace.record(5, 0.012);
        assert!(pace.seconds(5) < 0.8 * expected, "{} of {expected}", pace.seconds(5));
    }

    #[test]
    fn a_machine_that_becomes_slower_or_faster_does_not_change_what_passes_cost() {
        let mut pace = Pace::new(8);
        measured(&mut pace, 2, 0.012, 20);
        for factor in [1.45, 1.0, 3.0] {
            // It is seen by drafts alone.
            (0..8).for_each(|_| pace.record(2, 0.012 * factor));
            assert!((pace.seconds(1) / (0.010 * factor) - 1.0).abs() < 0.1, "{factor}: {}", pace.seconds(1));
            assert!((pace.seconds(2) / pace.seconds(1) - 1.2).abs() < 0.1);
            measured(&mut pace, 2, 0.012, 5);
        }
    }

    #[test]
    fn one_pass_that_was_disturbed_changes_little() {
        let mut pace = Pace::new(8);
        measured(&mut pace, 3, 0.015, 20);
        pace.record(3, 0.500);
        assert!((pace.seconds(3) / pace.seconds(1) - 1.5).abs() < 0.15 && !pace.is_steady());
        measured(&mut pace, 3, 0.015, 3);
        assert!((pace.seconds(1) - 0.010).abs() < 1e-3 && pace.is_steady());
    }
}
