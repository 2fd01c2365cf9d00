//! How much faster one build is than another, and how sure that is.

use crate::measure::timing::spread;

/// A ratio of speeds, new over old, with an interval that holds the true one in 95 of 100 measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The best guess.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// What a slower build is: see [`Ratio::is_slower`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Slower beyond noise, and by more than 2 %.
    Usual,
    /// The interval lies below this ratio.
    Below(f64),
}

/// A difference that no machine keeps constant, and no user notices.
const NO_MATTER: f64 = 0.98;

impl Ratio {
    /// Whether the new build is slower: with [`Limit::Below`] the whole interval is below the limit, else it is below 1 and
    /// the ratio is below 0.98.
    pub fn is_slower(&self, limit: Limit) -> bool {
        match limit {
            Limit::Usual => self.high < 1.0 && self.ratio < NO_MATTER,
            Limit::Below(limit) => self.high < limit,
        }
    }

    /// Whether it is faster by as much as would be slower.
    pub fn is_faster(&self) -> bool {
        self.low > 1.0 && self.ratio > 1.0 / NO_MATTER
    }

    /// From logarithms.
    fn of_logs(middle: f64, low: f64, high: f64) -> Self {
        Self { ratio: middle.exp(), low: low.exp(), high: high.exp() }
    }
}

/// What was measured of one build: the speeds of each run of it, in tokens per second, all above 0.
pub type Runs = Vec<Vec<f64>>;

/// Runs of each build from which on they say themselves how much runs differ.
pub const SEVERAL: usize = 3;
/// What the logarithms of the speeds of two runs of one program differ by, as a standard deviation: where a program lies in
/// memory, what else the machine does in that minute. One run cannot show it.
const BETWEEN_RUNS: f64 = 0.01;
/// Standard errors from the middle to the end of an interval, of many values.
const Z: f64 = 1.959_963_984_540_054;

/// The ratio of two builds that were measured one after the other, by Welch's interval for the difference of two means, of
/// logarithms. Where both have three runs or more, a run is a value, by its median. Else each repetition is one, and what
/// runs differ by is added. `None` where a build has a single value.
pub fn apart(old: &Runs, new: &Runs) -> Option<Ratio> {
    let several = old.len() >= SEVERAL && new.len() >= SEVERAL;
    let side = |runs: &Runs| -> Option<Side> {
        let values: Vec<f64> = match several {
            true => runs.iter().map(|run| median(run).ln()).collect(),
            false => runs.iter().flatten().map(|speed| speed.ln()).collect(),
        };
        let n = values.len() as f64;
        let (mean, deviation) = spread(&values);
        let added = if several { 0.0 } else { BETWEEN_RUNS.powi(2) / runs.len() as f64 };
        (values.len() >= 2).then_some(Side { mean, n, seen: deviation.powi(2) / n, added })
    };
    let (old, new) = (side(old)?, side(new)?);
    let (seen, added) = (old.seen + new.seen, old.added + new.added);
    // By Welch and Satterthwaite; what was added is known, and not seen.
    let unsure: f64 = [&old, &new].iter().map(|side| side.seen.powi(2) / (side.n - 1.0)).sum();
    let freedom = if unsure > 0.0 { (seen + added).powi(2) / unsure } else { f64::INFINITY };
    let (middle, half) = (new.mean - old.mean, student(freedom) * (seen + added).sqrt());
    Some(Ratio::of_logs(middle, middle - half, middle + half))
}

struct Side {
    mean: f64,
    n: f64,
    /// Squared standard error of the mean.
    seen: f64,
    added: f64,
}

/// Pairs of measurements that an interval needs.
pub const LEAST_PAIRS: usize = 6;

/// The ratio of two builds that were measured in turns, from the ratio of each turn: the median, with the interval of the sign
/// test. What slows down both sides of a turn cancels; a turn that was disturbed counts no more than any other, and nothing
/// is assumed of how noise is distributed. `None` of fewer than six.
pub fn paired(ratios: &[f64]) -> Option<Ratio> {
    let n = ratios.len();
    if n < LEAST_PAIRS {
        return None;
    }
    let mut logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    logs.sort_by(f64::total_cmp);
    let beyond = beyond(n);
    Some(Ratio::of_logs(median(&logs), logs[beyond - 1], logs[n - beyond]))
}

/// The place, counted from either end, of the end of an interval that holds the median of `n` values in at least 95 of 100
/// cases: as many tosses of a coin come up tails, or fewer, in less than 2.5 of 100.
fn beyond(n: usize) -> usize {
    // Logarithms, since a power of 2 may be none that is above 0.
    let mut ways = -(n as f64) * 2f64.ln();
    let (mut chance, mut tails) = (ways.exp(), 0);
    while chance <= 0.025 && tails < n / 2 {
        ways += ((n - tails) as f64 / (tails + 1) as f64).ln();
        tails += 1;
        chance += ways.exp();
    }
    tails.max(1)
}

/// The value in the middle; of an even number the mean of both.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => f64::NAN,
        _ if n % 2 == 1 => sorted[n / 2],
        _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The value that Student's t exceeds in 2.5 of 100 cases, to a thousandth: Abramowitz and Stegun, 26.7.5. Below three
/// degrees of freedom that of the next whole number below.
fn student(freedom: f64) -> f64 {
    if freedom < 2.0 {
        return 12.706;
    }
    if freedom < 3.0 {
        return 4.303;
    }
    let z = |power: i32| Z.powi(power);
    let terms = [
        (z(3) + z(1)) / 4.0,
        (5.0 * z(5) + 16.0 * z(3) + 3.0 * z(1)) / 96.0,
        (3.0 * z(7) + 19.0 * z(5) + 17.0 * z(3) - 15.0 * z(1)) / 384.0,
        (79.0 * z(9) + 776.0 * z(7) + 1482.0 * z(5) - 1920.0 * z(3) - 945.0 * z(1)) / 92160.0,
    ];
    terms.iter().enumerate().fold(Z, |sum, (i, term)| sum + term / freedom.powi(i as i32 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between 0 and 1.
    fn uniform(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Numbers of a normal distribution, nearly.
    fn normal(seed: u64) -> impl FnMut() -> f64 {
        let mut next = uniform(seed);
        move || (0..12).map(|_| next()).sum::<f64>() - 6.0
    }

    #[test]
    fn student_is_that_of_the_tables() {
        for (freedom, t) in [(1.0, 12.706), (2.0, 4.303), (3.0, 3.182), (5.0, 2.571), (10.0, 2.228), (30.0, 2.042)] {
            assert!((student(freedom) / t - 1.0).abs() < 0.002, "{freedom}: {}", student(freedom));
        }
        assert!((student(f64::INFINITY) - 1.96).abs() < 0.001);
    }

    #[test]
    fn welchs_interval_is_that_of_a_textbook() {
        // Of logarithms 1, 2, 3 and 2, 4, 6, each a run of one: means 2 and 4, squared errors 1/3 and 4/3, 2.94 degrees of
        // freedom, for which the table's line of 2 is taken.
        let runs = |logs: [f64; 3]| logs.map(|log| vec![log.exp()]).to_vec();
        let ratio = apart(&runs([1.0, 2.0, 3.0]), &runs([2.0, 4.0, 6.0])).unwrap();
        let half = 4.303 * (5f64 / 3.0).sqrt();
        for (is, log) in [(ratio.ratio, 2.0), (ratio.low, 2.0 - half), (ratio.high, 2.0 + half)] {
            assert!((is.ln() - log).abs() < 1e-9, "{ratio:?}");
        }
    }

    #[test]
    fn a_single_run_is_not_surer_than_runs_are_alike() {
        let run = vec![vec![100.0; 50]];
        let ratio = apart(&run, &run).unwrap();
        assert_eq!(ratio.ratio, 1.0);
        assert!((ratio.high.ln() - Z * 0.01 * 2f64.sqrt()).abs() < 1e-9, "{ratio:?}");
        assert_eq!(apart(&vec![vec![1.0]], &run), None);
    }

    #[test]
    fn the_interval_of_a_median_is_that_of_the_tables() {
        for (n, place) in [(6, 1), (8, 1), (9, 2), (12, 3), (16, 4), (20, 6), (25, 8), (100, 40), (2000, 956)] {
            assert_eq!(beyond(n), place, "{n}");
        }
        let logs = [0.6f64, 0.1, 0.5, 0.2, 0.4, 0.3];
        let ratio = paired(&logs.map(f64::exp)).unwrap();
        for (is, log) in [(ratio.ratio, 0.35), (ratio.low, 0.1), (ratio.high, 0.6)] {
            assert!((is.ln() - log).abs() < 1e-9, "{ratio:?}");
        }
        assert_eq!(paired(&[1.0; 5]), None);
        assert_eq!(paired(&[0.95; 6]).map(|r| r.is_slower(Limit::Usual)), Some(true));
    }

    /// In how many of 1,000 trials equal builds and such that are 5 % slower are called slower.
    fn called(mut slower: impl FnMut(f64) -> bool) -> (usize, usize) {
        let mut count = |ratio: f64| (0..1000).filter(|_| slower(ratio)).count();
        (count(1.0), count(0.95))
    }

    #[test]
    fn turns_tell_five_percent_apart_on_a_machine_that_drifts() {
        let (mut noise, mut disturbs) = (normal(1), uniform(2));
        // Turns of 2 % noise on each side; one side in ten is disturbed and takes up to half longer.
        let mut speed = |ratio: f64| {
            let disturbed = if disturbs() < 0.1 { 1.0 - 0.33 * disturbs() } else { 1.0 };
            ratio * (0.02 * noise()).exp() * disturbed
        };
        // Of three measurements of a side the one in the middle.
        let mut side = |ratio: f64| median(&[speed(ratio), speed(ratio), speed(ratio)]);
        let trial = |ratio: f64| {
            let turns: Vec<f64> = (0..12).map(|_| side(ratio) / side(1.0)).collect();
            paired(&turns).unwrap().is_slower(Limit::Usual)
        };
        let (equal, slower) = called(trial);
        assert!(equal <= 5 && slower >= 980, "of 1,000: {equal} false alarms, {slower} found");
    }

    #[test]
    fn runs_apart_tell_five_percent_apart_where_they_differ_as_usual() {
        let (mut drift, mut noise) = (normal(3), normal(4));
        // Runs that differ by 1 % beyond what their repetitions do.
        let mut run = |ratio: f64| -> Vec<f64> {
            let speed = ratio * (0.01 * drift()).exp();
            (0..10).map(|_| speed * (0.02 * noise()).exp()).collect()
        };
        for (n_runs, found) in [(1, 800), (4, 980)] {
            let trial = |ratio: f64| {
                let old: Runs = (0..n_runs).map(|_| run(1.0)).collect();
                let new: Runs = (0..n_runs).map(|_| run(ratio)).collect();
                apart(&old, &new).unwrap().is_slower(Limit::Usual)
            };
            let (equal, slower) = called(trial);
            assert!(equal <= 30 && slower >= found, "{n_runs} runs, of 1,000: {equal} false alarms, {slower} found");
        }
    }

    #[test]
    fn the_limit_is_compared_with_the_end_of_the_interval() {
        let ratio = |ratio, low, high| Ratio { ratio, low, high };
        assert!(ratio(0.9, 0.88, 0.94).is_slower(Limit::Below(0.95)));
        assert!(!ratio(0.9, 0.85, 0.96).is_slower(Limit::Below(0.95)));
        assert!(ratio(0.9, 0.85, 0.96).is_slower(Limit::Usual));
        assert!(!ratio(0.985, 0.98, 0.99).is_slower(Limit::Usual), "sure, and no matter");
        assert!(!ratio(0.9, 0.8, 1.01).is_slower(Limit::Usual), "much, and not sure");
        assert!(ratio(1.1, 1.05, 1.2).is_faster() && !ratio(1.01, 1.005, 1.02).is_faster());
    }
}
