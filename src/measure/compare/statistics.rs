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
/// Half of a narrow interval.
const CLOSE: f64 = 0.0125;

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

    /// Whether more turns would tell nothing new: the interval ends 1.25 % from its middle, so that a build that is 5 % slower is
    /// found, and one that is the same is not taken for one that is 2 % slower.
    pub fn is_close(&self) -> bool {
        (self.high / self.low).ln() <= 2.0 * CLOSE
    }

    /// From logarithms.
    fn of_logs(middle: f64, low: f64, high: f64) -> Self {
        Self { ratio: middle.exp(), low: low.exp(), high: high.exp() }
    }
}

/// What was measured of one build: the speeds of each run of it, in tokens per second, all above 0.
pub type Runs = Vec<Vec<f64>>;

/// Runs of each build from which on they say themselves how much runs differ: the fewest that can be ordered in more than 40
/// ways.
pub const SEVERAL: usize = 4;
/// What the logarithms of the speeds of two runs of one program differ by, as a standard deviation: where a program lies in
/// memory, what else the machine does in that minute. One run cannot show it; where its repetitions differ much, runs do, too: by
/// half as much at the least.
const BETWEEN_RUNS: f64 = 0.01;
/// Standard errors from the middle to the end of an interval, of many values.
const Z: f64 = 1.959_963_984_540_054;

/// The ratio of two builds that were measured one after the other. Where both have four runs or more, a run is a value, by its
/// fastest repetition: what else a machine does only ever slows a program down. The ratio is then the median of the ratios of all
/// pairs, and the interval that of the rank-sum test (Hodges and Lehmann 1963), which assumes nothing of how noise is distributed.
/// Else each repetition is a value, and the interval is Welch's for the difference of the means of logarithms, with what runs differ
/// by added, and the ratio of the fastest repetitions within; of that ratio and the one of the means, the one nearer to 1 is told. `None` where a build has a single value.
pub fn apart(old: &Runs, new: &Runs) -> Option<Ratio> {
    let logs = |runs: &Runs| -> Vec<f64> { runs.iter().map(|run| fastest(run).ln()).collect() };
    if old.len() >= SEVERAL && new.len() >= SEVERAL {
        return Some(by_ranks(&logs(old), &logs(new)));
    }
    let side = |runs: &Runs| -> Option<Side> {
        let values: Vec<f64> = runs.iter().flatten().map(|speed| speed.ln()).collect();
        let n = values.len() as f64;
        let (mean, deviation) = spread(&values);
        let added = (deviation / 2.0).max(BETWEEN_RUNS).powi(2) / runs.len() as f64;
        (values.len() >= 2).then_some(Side { mean, n, seen: deviation.powi(2) / n, added })
    };
    let best = |runs: &Runs| logs(runs).into_iter().fold(f64::NEG_INFINITY, f64::max);
    let of_fastest = best(new) - best(old);
    let (old, new) = (side(old)?, side(new)?);
    let (seen, added) = (old.seen + new.seen, old.added + new.added);
    // By Welch and Satterthwaite; what was added is known, and not seen.
    let unsure: f64 = [&old, &new].iter().map(|side| side.seen.powi(2) / (side.n - 1.0)).sum();
    let freedom = if unsure > 0.0 { (seen + added).powi(2) / unsure } else { f64::INFINITY };
    let (mean, half) = (new.mean - old.mean, student(freedom) * (seen + added).sqrt());
    // Of the two, what says less.
    let middle = if mean < 0.0 { mean.max(of_fastest).min(0.0) } else { mean.min(of_fastest).max(0.0) };
    Some(Ratio::of_logs(middle, (mean - half).min(of_fastest), (mean + half).max(of_fastest)))
}

/// The median difference of all pairs, with the interval of the rank-sum test.
fn by_ranks(old: &[f64], new: &[f64]) -> Ratio {
    let mut differences: Vec<f64> = new.iter().flat_map(|new| old.iter().map(move |old| new - old)).collect();
    differences.sort_by(f64::total_cmp);
    let beyond = beyond_pairs(old.len(), new.len());
    Ratio::of_logs(median(&differences), differences[beyond - 1], differences[differences.len() - beyond])
}

/// Runs on a side for which the ways to order them are counted; of more, their normal approximation is close enough.
const MOST_COUNTED: usize = 30;

/// The place, counted from either end, of the end of an interval that holds the median difference of `n` and `m` values in at
/// least 95 of 100 cases: Mann and Whitney's count of pairs is smaller in at most 2.5 of 100.
fn beyond_pairs(n: usize, m: usize) -> usize {
    let (pairs, both) = ((n * m) as f64, (n + m) as f64);
    if n.max(m) > MOST_COUNTED {
        let deviation = (pairs * (both + 1.0) / 12.0).sqrt();
        return ((pairs / 2.0 - Z * deviation).floor() as usize).max(1);
    }
    // ways[i][u]: orders of i new values and the old ones so far in which u pairs have the new one first. Another old value
    // is behind some of the new ones.
    let mut ways = vec![vec![0.0; n * m + 1]; n + 1];
    for row in &mut ways {
        row[0] = 1.0;
    }
    for _ in 0..m {
        // In place: an order that ends with an old value has i more pairs than without it; one that ends with a new value
        // has as many.
        let mut next = vec![vec![0.0; n * m + 1]; n + 1];
        next[0] = ways[0].clone();
        for i in 1..=n {
            for u in 0..=n * m {
                let with_old = if u >= i { ways[i][u - i] } else { 0.0 };
                next[i][u] = with_old + next[i - 1][u];
            }
        }
        ways = next;
    }
    let all: f64 = ways[n].iter().sum();
    let (mut chance, mut place) = (0.0, 0);
    for ways in &ways[n] {
        chance += ways / all;
        if chance > 0.025 {
            break;
        }
        place += 1;
    }
    place.max(1)
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

/// The highest speed, which is the least disturbed.
pub fn fastest(speeds: &[f64]) -> f64 {
    speeds.iter().copied().fold(f64::NAN, f64::max)
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
        // Of logarithms 1, 2, 3 and 2, 4, 6, each a run of one: means 2 and 4, squared errors 1/3 and 4/3 and what runs differ by,
        // 4.6 degrees of freedom.
        let runs = |logs: [f64; 3]| logs.map(|log| vec![log.exp()]).to_vec();
        let ratio = apart(&runs([1.0, 2.0, 3.0]), &runs([2.0, 4.0, 6.0])).unwrap();
        // What runs differ by is half the deviations of 1 and 2.
        let half = 2.64 * (5f64 / 3.0 + (0.25 + 1.0) / 3.0).sqrt();
        for (is, log) in [(ratio.ratio, 2.0), (ratio.low, 2.0 - half), (ratio.high, 2.0 + half)] {
            assert!((is.ln() - log).abs() < 0.01, "{ratio:?}");
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
    fn a_few_runs_are_not_surer_than_their_fastest_repetitions_are_alike() {
        // A run in a slow hour, but for one of its repetitions.
        let (old, new) = (vec![vec![100.0; 10]], vec![[&[99.0][..], &[80.0; 9]].concat()]);
        let ratio = apart(&old, &new).unwrap();
        assert!((ratio.ratio - 0.99).abs() < 1e-9 && ratio.low < 0.85, "{ratio:?}");
    }

    #[test]
    fn the_interval_of_ranks_is_that_of_the_tables() {
        // One more than the critical values of U for two-sided 5 %.
        for (n, m, place) in [(4, 4, 1), (4, 6, 3), (5, 5, 3), (8, 8, 14), (10, 10, 24), (5, 20, 21), (20, 20, 128)] {
            assert_eq!((beyond_pairs(n, m), beyond_pairs(m, n)), (place, place), "{n} and {m}");
        }
        // The approximation goes on where counting ends.
        let (counted, approximate) = (beyond_pairs(30, 30), beyond_pairs(30, 31));
        assert!((counted..counted + 20).contains(&approximate), "{counted}, {approximate}");
        let runs = |logs: [f64; 4]| logs.map(|log: f64| vec![(log - 1.0).exp(), log.exp()]).to_vec();
        let ratio = apart(&runs([0.0, 1.0, 2.0, 3.0]), &runs([4.0, 5.0, 6.0, 7.0])).unwrap();
        for (is, log) in [(ratio.ratio, 4.0), (ratio.low, 1.0), (ratio.high, 7.0)] {
            assert!((is.ln() - log).abs() < 1e-9, "{ratio:?}");
        }
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
        let mut side = |ratio: f64| fastest(&[speed(ratio), speed(ratio), speed(ratio)]);
        let trial = |ratio: f64| {
            let turns: Vec<f64> = (0..12).map(|_| side(ratio) / side(1.0)).collect();
            paired(&turns).unwrap().is_slower(Limit::Usual)
        };
        let (equal, slower) = called(trial);
        assert!(equal <= 5 && slower >= 980, "of 1,000: {equal} false alarms, {slower} found");
    }

    /// Speeds on a core whose other half is busy now and then, for some measurements on end: 30 % are lost.
    fn shared(seed: u64) -> impl FnMut(f64) -> f64 {
        let (mut noise, mut changes, mut slow) = (normal(seed), uniform(seed + 1), false);
        move |ratio| {
            if changes() < if slow { 0.1 } else { 0.05 } {
                slow = !slow;
            }
            ratio * (0.02 * noise()).exp() * if slow { 0.7 } else { 1.0 }
        }
    }

    #[test]
    fn turns_go_on_until_a_noisy_machine_tells_five_percent_apart() {
        let mut speed = shared(5);
        let mut most = 0;
        let mut trial = |ratio: f64| {
            let mut turns = Vec::new();
            loop {
                let mut side = |ratio: f64| fastest(&[speed(ratio), speed(ratio), speed(ratio)]);
                turns.push(side(ratio) / side(1.0));
                match paired(&turns) {
                    Some(found) if turns.len() >= 12 && found.is_close() => {
                        most = most.max(turns.len());
                        return found.is_slower(Limit::Usual);
                    }
                    _ => {}
                }
            }
        };
        let (equal, slower) = called(&mut trial);
        assert!(equal <= 10 && slower >= 980, "of 1,000: {equal} false alarms, {slower} found");
        assert!(most > 12 && most < 300, "{most} turns");
    }

    #[test]
    fn runs_apart_are_never_surer_than_a_noisy_machine_allows() {
        let mut speed = shared(7);
        for (n_runs, alarms, found) in [(1, 60, 50), (4, 30, 700), (8, 30, 950)] {
            let mut run = |ratio: f64| -> Vec<f64> { (0..20).map(|_| speed(ratio)).collect() };
            let trial = |ratio: f64| {
                let old: Runs = (0..n_runs).map(|_| run(1.0)).collect();
                let new: Runs = (0..n_runs).map(|_| run(ratio)).collect();
                apart(&old, &new).unwrap().is_slower(Limit::Usual)
            };
            let (equal, slower) = called(trial);
            assert!(
                equal <= alarms && slower >= found,
                "{n_runs} runs, of 1,000: {equal} false alarms, {slower} found"
            );
        }
    }

    #[test]
    fn runs_apart_tell_five_percent_apart_where_they_differ_as_usual() {
        let (mut drift, mut noise) = (normal(3), normal(4));
        // Runs that differ by 1 % beyond what their repetitions do.
        let mut run = |ratio: f64| -> Vec<f64> {
            let speed = ratio * (0.01 * drift()).exp();
            (0..10).map(|_| speed * (0.02 * noise()).exp()).collect()
        };
        for (n_runs, found) in [(1, 700), (4, 900), (8, 980)] {
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
