//! How many cold neurons fire for a token: a distribution, because the slower side decides token by token.

use super::workload::NeuronStats;
use crate::model::ColdQuantiles;

/// Middles of nine equally likely parts of a standard normal distribution.
pub(super) const NORMAL: [f64; 9] = [-1.5932, -0.9674, -0.5895, -0.2822, 0.0, 0.2822, 0.5895, 0.9674, 1.5932];
/// How far the number of neurons that fire strays from token to token beyond what independent neurons would do, as a
/// share of its mean. Neurons are not independent: some tokens excite many. Assumed where no histogram was counted.
const OVERDISPERSION: f64 = 0.2;

/// Whether `cold` is for a group of `n_ff` neurons.
fn fits(cold: &ColdQuantiles, n_ff: usize) -> bool {
    !cold.n_hot.is_empty() && cold.n_hot.len() == cold.fired.len() && cold.n_hot.iter().all(|n| *n <= n_ff)
}

/// Neurons of a group that fire before and behind one hot prefix, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sums {
    /// Those of the prefix.
    pub hot: f64,
    /// Those behind it.
    pub cold: f64,
    /// Variance of the number of those behind it.
    pub variance: f64,
    /// Rows of `up` that are read for each that fires, of the prefix: 1 and more.
    pub hot_opened: f64,
    /// The same of those behind it.
    pub cold_opened: f64,
    /// Tokens of a pass that want a neuron behind the prefix which any of them wants: 1 and more.
    pub cold_wanted: f64,
    /// Mean activation mass of the prefix, and of all neurons.
    pub mass: (f64, f64),
}

impl Sums {
    /// Those of the prefix of `n_hot` neurons.
    pub fn of(stats: &NeuronStats, n_hot: usize) -> Self {
        Self::between(stats, [n_hot].into_iter())[0]
    }

    /// Those of all prefixes of a multiple of `step` neurons, and of all neurons.
    pub fn at_every(stats: &NeuronStats, step: usize) -> Vec<Self> {
        let n_ff = stats.rates.len();
        Self::between(stats, (0..n_ff).step_by(step.max(1)).chain([n_ff]))
    }

    /// Those of rising prefixes.
    fn between(stats: &NeuronStats, prefixes: impl Iterator<Item = usize>) -> Vec<Self> {
        let n_ff = stats.rates.len();
        let open = stats.open_rates.as_ref().filter(|open| open.len() == n_ff);
        // Mean and variance of what fires, then rows that are opened, mass, and what tokens want, of the first neurons.
        let mut sum = [0.0; 5];
        let mut next = 0;
        let mut add_up_to = |sum: &mut [f64; 5], end: usize| {
            for i in next..end {
                let rate = f64::from(stats.rates[i]);
                sum[0] += rate;
                sum[1] += rate * (1.0 - rate);
                sum[2] += open.map_or(rate, |open| f64::from(open[i]));
                sum[3] += f64::from(stats.mass[i]);
                sum[4] += stats.wanted.as_ref().map_or(rate, |wanted| f64::from(wanted[i]));
            }
            next = next.max(end);
        };
        let mut at: Vec<(usize, [f64; 5])> = Vec::new();
        for n_hot in prefixes {
            add_up_to(&mut sum, n_hot);
            at.push((n_hot, sum));
        }
        add_up_to(&mut sum, n_ff);
        let all = sum;
        let of_prefix = |(n_hot, hot): (usize, [f64; 5])| {
            let cold = all[0] - hot[0];
            Self {
                hot: hot[0],
                cold,
                variance: variance(cold, all[1] - hot[1], (n_ff - n_hot) as f64),
                hot_opened: ratio(hot[2], hot[0]),
                cold_opened: ratio(all[2] - hot[2], cold),
                cold_wanted: ratio(all[4] - hot[4], cold),
                mass: (hot[3], all[3]),
            }
        };
        at.into_iter().map(of_prefix).collect()
    }
}

/// Variance of how many of `n` neurons fire, of which `mean` do on average, and which would stray by `independent` if they
/// were independent.
fn variance(mean: f64, independent: f64, n: f64) -> f64 {
    // Neurons that always fire do not stray.
    let room = if n > 0.0 { (1.0 - mean / n).clamp(0.0, 1.0) } else { 0.0 };
    independent.max(0.0) + (OVERDISPERSION * mean * room).powi(2)
}

/// Fired neurons before and behind every hot prefix of a group.
pub(super) struct Fired<'a> {
    /// Sums of the first rates, and of their variances.
    sums: Vec<(f64, f64)>,
    /// Sums of the first rates at which rows of `up` are read; empty where these are the same.
    open_sums: Vec<f64>,
    /// Sums of how many tokens of a pass want the first neurons; empty where there is one token.
    wanted_sums: Vec<f64>,
    cold: Option<&'a ColdQuantiles>,
}

impl<'a> Fired<'a> {
    pub fn new(stats: &'a NeuronStats) -> Self {
        let mut sums = Vec::with_capacity(stats.rates.len() + 1);
        let (mut mean, mut variance) = (0.0, 0.0);
        sums.push((0.0, 0.0));
        for rate in &stats.rates {
            let rate = f64::from(*rate);
            mean += rate;
            variance += rate * (1.0 - rate);
            sums.push((mean, variance));
        }
        let sums_of = |values: &Option<Vec<f32>>| {
            let mut sums: Vec<f64> = Vec::new();
            for value in values.iter().filter(|values| values.len() == stats.rates.len()).flatten() {
                let before = sums.last().copied().unwrap_or(0.0);
                sums.push(before + f64::from(*value));
            }
            if !sums.is_empty() {
                sums.insert(0, 0.0);
            }
            sums
        };
        let (open_sums, wanted_sums) = (sums_of(&stats.open_rates), sums_of(&stats.wanted));
        Self { sums, open_sums, wanted_sums, cold: stats.cold.as_ref().filter(|c| fits(c, stats.rates.len())) }
    }

    /// Mean number of the first `n_hot` neurons that fire.
    pub fn hot(&self, n_hot: usize) -> f64 {
        self.sums[n_hot].0
    }

    /// Mean number of those behind them.
    pub fn cold(&self, n_hot: usize) -> f64 {
        self.sums[self.sums.len() - 1].0 - self.sums[n_hot].0
    }

    /// Rows of `up` that are read for each neuron that fires, of the first `n_hot`: 1 and more.
    pub fn opened_per_hot(&self, n_hot: usize) -> f64 {
        self.open_sums.get(n_hot).map_or(1.0, |opened| ratio(*opened, self.hot(n_hot)))
    }

    /// The same of those behind them.
    pub fn opened_per_cold(&self, n_hot: usize) -> f64 {
        let (Some(all), Some(hot)) = (self.open_sums.last(), self.open_sums.get(n_hot)) else { return 1.0 };
        ratio(all - hot, self.cold(n_hot))
    }

    /// Tokens of a pass that want a neuron behind the first `n_hot` which any of them wants: 1 and more.
    pub fn wanted_per_cold(&self, n_hot: usize) -> f64 {
        let (Some(all), Some(hot)) = (self.wanted_sums.last(), self.wanted_sums.get(n_hot)) else { return 1.0 };
        ratio(all - hot, self.cold(n_hot))
    }

    /// Equally likely numbers of neurons behind the first `n_hot` that fire.
    pub fn cold_quantiles(&self, n_hot: usize, out: &mut Vec<f64>) {
        out.clear();
        let n_cold = (self.sums.len() - 1 - n_hot) as f64;
        if let Some(cold) = self.cold {
            let after = cold.n_hot.partition_point(|n| *n <= n_hot).min(cold.n_hot.len() - 1);
            let before = after.saturating_sub(1);
            // In proportion to what fires between the two, not to how many lie there: rates fall steeply.
            let (a, b) = (self.cold(cold.n_hot[before]), self.cold(cold.n_hot[after]));
            let share = if a > b { ((a - self.cold(n_hot)) / (a - b)).clamp(0.0, 1.0) } else { 0.0 };
            let pairs = cold.fired[before].iter().zip(&cold.fired[after]);
            out.extend(pairs.map(|(a, b)| (f64::from(*a) * (1.0 - share) + f64::from(*b) * share).clamp(0.0, n_cold)));
            if !out.is_empty() {
                return;
            }
        }
        let mean = self.cold(n_hot);
        let independent = self.sums[self.sums.len() - 1].1 - self.sums[n_hot].1;
        let deviation = variance(mean, independent, n_cold).sqrt();
        out.extend(NORMAL.iter().map(|z| (mean + z * deviation).clamp(0.0, n_cold)));
    }
}

/// Where nothing fires, what is read beside it is not known by a ratio.
fn ratio(opened: f64, fired: f64) -> f64 {
    if fired > 0.0 { (opened / fired).max(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(rates: Vec<f32>, cold: Option<ColdQuantiles>) -> NeuronStats {
        NeuronStats { mass: rates.clone(), rates, open_rates: None, wanted: None, cold }
    }

    #[test]
    fn without_a_histogram_counts_spread_around_the_mean() {
        let stats = stats((0..1000).map(|i| 1.0 / (i + 1) as f32).collect(), None);
        let fired = Fired::new(&stats);
        let mut out = Vec::new();
        for n_hot in [0, 10, 999] {
            fired.cold_quantiles(n_hot, &mut out);
            assert_eq!(out.len(), 9);
            assert!(out.is_sorted() && out[0] < out[8], "{out:?}");
            assert!(n_hot == 999 || (out.iter().sum::<f64>() / 9.0 / fired.cold(n_hot) - 1.0).abs() < 0.01, "{out:?}");
        }
        fired.cold_quantiles(1000, &mut out);
        assert!(out.iter().all(|q| *q == 0.0), "{out:?}");
        let always =
            NeuronStats { rates: vec![1.0; 64], mass: vec![1.0; 64], open_rates: None, wanted: None, cold: None };
        Fired::new(&always).cold_quantiles(24, &mut out);
        assert!(out.iter().all(|q| *q == 40.0), "{out:?}");
    }

    #[test]
    fn rows_of_up_are_read_where_gates_are_above_zero() {
        let with = |open_rates| NeuronStats { open_rates, ..stats(vec![0.5, 0.25, 0.25, 0.0], None) };
        let of_two = with(Some(vec![0.5, 0.75, 0.5, 0.25]));
        let fired = Fired::new(&of_two);
        assert_eq!([0, 1, 2, 4].map(|n| fired.opened_per_hot(n)), [1.0, 1.0, 1.25 / 0.75, 2.0]);
        assert_eq!([0, 1, 2, 3, 4].map(|n| fired.opened_per_cold(n)), [2.0, 3.0, 3.0, 1.0, 1.0]);
        let of_one = with(None);
        assert_eq!((Fired::new(&of_one).opened_per_hot(2), Fired::new(&of_one).opened_per_cold(2)), (1.0, 1.0));
    }

    #[test]
    fn sums_of_one_prefix_are_those_among_all() {
        let rates: Vec<f32> = (0..100).map(|i| 1.0 / (i + 1) as f32).collect();
        let open = rates.iter().map(|r| (2.0 * r).min(1.0)).collect();
        let stats = NeuronStats { open_rates: Some(open), ..stats(rates, None) };
        let (all, fired) = (Sums::at_every(&stats, 32), Fired::new(&stats));
        assert_eq!(all.len(), 5);
        for (sums, n_hot) in all.iter().zip([0, 32, 64, 96, 100]) {
            assert_eq!(*sums, Sums::of(&stats, n_hot));
            assert_eq!((sums.hot, sums.cold), (fired.hot(n_hot), fired.cold(n_hot)));
            assert_eq!(sums.hot_opened, fired.opened_per_hot(n_hot));
            assert!((sums.cold_opened - fired.opened_per_cold(n_hot)).abs() < 1e-9);
        }
        assert_eq!((all[4].cold, all[4].variance), (0.0, 0.0));
    }

    #[test]
    fn a_histogram_is_read_between_its_points() {
        let cold =
            ColdQuantiles { n_hot: vec![0, 10, 20], fired: vec![vec![4.0, 8.0], vec![2.0, 4.0], vec![0.0, 0.0]] };
        let stats = stats(vec![0.25; 20], Some(cold));
        let fired = Fired::new(&stats);
        let mut out = Vec::new();
        for (n_hot, expected) in
            [(0, [4.0, 8.0]), (5, [3.0, 6.0]), (10, [2.0, 4.0]), (15, [1.0, 2.0]), (20, [0.0, 0.0])]
        {
            fired.cold_quantiles(n_hot, &mut out);
            assert_eq!(out, expected, "{n_hot}");
        }
    }
}
