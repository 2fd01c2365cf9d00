//! How many neurons behind a hot prefix fire for one token: quantiles, for some sizes of the prefix.

use anyhow::{Result, ensure};

/// More points or quantiles than this are refused.
const MOST: usize = 1024;

/// How many cold neurons of a layer fire for one token, as quantiles over tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ColdQuantiles {
    /// Sizes of the hot prefix, never falling, from 0 to all neurons.
    pub n_hot: Vec<usize>,
    /// For each of them as many counts of fired neurons behind the prefix, never falling: means over equally likely parts.
    pub fired: Vec<Vec<f32>>,
}

impl ColdQuantiles {
    /// `n_points` sizes of a prefix in `n_ff` neurons; closer to each other where the neurons are hot, since there a
    /// neuron changes most.
    pub fn sizes(n_ff: usize, n_points: usize) -> Vec<usize> {
        let last = n_points.saturating_sub(1).max(1) as u128;
        // Fits, as no point is beyond the last one.
        (0..n_points as u128).map(|i| (n_ff as u128 * i * i / (last * last)) as usize).collect()
    }

    /// `n_quantiles` for each of `n_points` sizes of the prefix, where `sorted(n_hot)` gives the counts of some tokens in
    /// rising order; `None` where it gives none.
    pub fn of_counts(
        n_ff: usize,
        n_points: usize,
        n_quantiles: usize,
        sorted: &dyn Fn(usize) -> Vec<u32>,
    ) -> Option<Self> {
        let n_hot = Self::sizes(n_ff, n_points);
        let fired: Vec<_> = n_hot.iter().map(|n| means_of_parts(&sorted(*n), n_quantiles)).collect();
        fired.iter().all(|q| !q.is_empty()).then_some(Self { n_hot, fired })
    }

    /// Checks and takes what a file holds: `[n_points][n_quantiles]` for a layer of `n_ff` neurons.
    ///
    /// # Errors
    /// When the sizes are none, or a count is impossible, falls from one quantile to the next or rises with the prefix.
    pub fn new(values: &[f32], n_points: usize, n_quantiles: usize, n_ff: usize) -> Result<Self> {
        let sizes = 2..=MOST;
        ensure!(
            sizes.contains(&n_points) && (1..=MOST).contains(&n_quantiles) && values.len() == n_points * n_quantiles,
            "{n_points} prefixes with {n_quantiles} quantiles each: 2 to {MOST} and 1 to {MOST} are possible"
        );
        let n_hot = Self::sizes(n_ff, n_points);
        let fired: Vec<Vec<f32>> = values.chunks_exact(n_quantiles).map(<[f32]>::to_vec).collect();
        for (n_hot, fired) in n_hot.iter().zip(&fired) {
            let possible = 0.0..=(n_ff - n_hot) as f32;
            let wrong = fired.iter().find(|n| !possible.contains(n));
            ensure!(wrong.is_none(), "{:?} of the {} neurons behind {n_hot} fire", wrong, n_ff - n_hot);
            ensure!(fired.is_sorted(), "quantiles behind {n_hot} neurons fall");
        }
        let falls = |pair: &[Vec<f32>]| pair[0].iter().zip(&pair[1]).all(|(a, b)| a >= b);
        ensure!(fired.windows(2).all(falls), "more neurons fire behind a longer prefix");
        Ok(Self { n_hot, fired })
    }
}

/// Means of `n` equally large parts of rising `counts`, which may cut a count in two.
fn means_of_parts(counts: &[u32], n: usize) -> Vec<f32> {
    let len = counts.len() as u64;
    if len == 0 {
        return Vec::new();
    }
    let n = n as u64;
    // A count is `n` wide and a part as wide as there are counts, so all edges are integers.
    let mean = |part: u64| {
        let (start, end) = (part * len, (part + 1) * len);
        let touched = start / n..end.div_ceil(n);
        let overlap = |i: u64| end.min((i + 1) * n) - start.max(i * n);
        let sum: u64 = touched.map(|i| overlap(i) * u64::from(counts[i as usize])).sum();
        (sum as f64 / len as f64) as f32
    };
    (0..n).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_mean_of_the_whole_however_many_there_are() {
        assert_eq!(means_of_parts(&[1, 2, 3, 6], 4), [1.0, 2.0, 3.0, 6.0]);
        assert_eq!(means_of_parts(&[1, 2, 3, 6], 2), [1.5, 4.5]);
        assert_eq!(means_of_parts(&[3, 6], 3), [3.0, 4.5, 6.0]);
        assert_eq!(means_of_parts(&[5], 3), [5.0; 3]);
        assert!(means_of_parts(&[], 3).is_empty());
        let counts: Vec<u32> = (0..1000).map(|i| i * i / 7).collect();
        let mean = |v: &[f32]| v.iter().map(|x| f64::from(*x)).sum::<f64>() / v.len() as f64;
        let whole = counts.iter().map(|c| f64::from(*c)).sum::<f64>() / 1000.0;
        for n in [1, 7, 16, 999, 1000, 1001] {
            let parts = means_of_parts(&counts, n);
            assert!((mean(&parts) / whole - 1.0).abs() < 1e-6 && parts.is_sorted(), "{n}");
        }
    }

    #[test]
    fn sizes_begin_with_nothing_and_end_with_all() {
        assert_eq!(ColdQuantiles::sizes(64, 5), [0, 4, 16, 36, 64]);
        assert_eq!(ColdQuantiles::sizes(3, 5), [0, 0, 0, 1, 3]);
        let large = ColdQuantiles::sizes(u32::MAX as usize, MOST);
        assert!(large.is_sorted() && large.last() == Some(&(u32::MAX as usize)));
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let new = |values: &[f32]| ColdQuantiles::new(values, 3, 2, 8);
        let good = [2.0, 4.0, 1.0, 4.0, 0.0, 0.0];
        assert_eq!(new(&good).unwrap().n_hot, [0, 2, 8]);
        for (at, value) in [(0, f32::NAN), (0, -1.0), (1, 9.0), (1, f32::INFINITY), (2, 2.5), (3, 0.5), (5, 1.0)] {
            let mut bad = good;
            bad[at] = value;
            assert!(new(&bad).is_err(), "{bad:?}");
        }
        assert!(new(&good[..4]).is_err());
        assert!(ColdQuantiles::new(&[], 3, 0, 8).is_err() && ColdQuantiles::new(&[1.0], 1, 1, 8).is_err());
    }
}
