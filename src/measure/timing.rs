//! How long the repetitions of a measurement took, as llama-bench says it.

/// Times and speeds of repetitions that had equally many tokens.
#[derive(Debug, Clone, Default)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Timing {
    /// Mean nanoseconds of a repetition.
    pub avg_ns: u64,
    /// Their standard deviation (n - 1), 0 for a single one.
    pub stddev_ns: u64,
    /// Mean tokens per second.
    pub avg_ts: f64,
    /// Their standard deviation (n - 1), 0 for a single one.
    pub stddev_ts: f64,
    /// Nanoseconds of each repetition.
    pub samples_ns: Vec<u64>,
    /// Tokens per second of each repetition.
    pub samples_ts: Vec<f64>,
}

impl Timing {
    /// Of repetitions of `n_tokens` that took so many nanoseconds.
    pub fn of(n_tokens: usize, samples_ns: Vec<u64>) -> Self {
        let samples_ts: Vec<f64> = samples_ns.iter().map(|ns| 1e9 * n_tokens as f64 / (*ns).max(1) as f64).collect();
        let times: Vec<f64> = samples_ns.iter().map(|ns| *ns as f64).collect();
        let ((avg_ns, stddev_ns), (avg_ts, stddev_ts)) = (spread(&times), spread(&samples_ts));
        Self { avg_ns: avg_ns as u64, stddev_ns: stddev_ns as u64, avg_ts, stddev_ts, samples_ns, samples_ts }
    }
}

/// Mean and standard deviation (n - 1) of a sample; zeros of an empty one.
pub fn spread(samples: &[f64]) -> (f64, f64) {
    let n = samples.len().max(1) as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|s| (s - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        assert_eq!(spread(&[1.0, 3.0]), (2.0, 2f64.sqrt()));
        assert_eq!(spread(&[5.0]), (5.0, 0.0));
        assert_eq!(spread(&[]), (0.0, 0.0));
    }

    #[test]
    fn speeds_are_tokens_over_times() {
        let timing = Timing::of(8, vec![1_000_000_000, 2_000_000_000]);
        assert_eq!((timing.avg_ns, timing.samples_ts.as_slice()), (1_500_000_000, &[8.0, 4.0][..]));
        assert_eq!((timing.avg_ts, timing.stddev_ts, timing.stddev_ns), (6.0, 8f64.sqrt(), 707_106_781));
        assert_eq!(Timing::of(8, vec![0]).avg_ts, 8e9, "a clock that stood still divides by nothing");
    }
}
