//! How often each neuron fires, and what follows from that for its threshold, all from theory.

use std::f64::consts::PI;

/// Rates fall with the rank to this power. With it, a tenth of the neurons firing on average, 80 % of the firings are
/// those of 44 % of the neurons; PowerInfer (arXiv 2312.12456, 2.2) found 43 % in a ReGLU LLaMA of 70B.
const EXPONENT: f64 = 0.9;
/// No neuron fires more often than this, unless nearly all of them are to.
const MOST: f64 = 0.95;

/// Share of tokens for which each of `n` neurons fires, falling; their mean is `density`.
pub(super) fn rates(n: usize, density: f64) -> Vec<f64> {
    let most = MOST.max((1.0 + density) / 2.0);
    let shape: Vec<f64> = (1..=n).map(|k| (k as f64).powf(-EXPONENT)).collect();
    let scaled = |scale: f64| shape.iter().map(move |s| (s * scale).min(most));
    let mean = |scale: f64| scaled(scale).sum::<f64>() / n as f64;
    let scale = bisect(0.0, (n as f64).powf(EXPONENT), |scale| mean(scale) >= density);
    scaled(scale).collect()
}

/// The least `x` for which `enough` holds, where it holds from there on.
fn bisect(mut low: f64, mut high: f64, enough: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// A neuron that fires when a standard normal number is above `threshold`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// What the pre-activation is lowered by.
    pub threshold: f64,
    /// Mean of the activation.
    pub mean: f64,
    /// Mean square of the activation.
    pub square: f64,
}

impl Unit {
    /// One that fires with probability `rate`.
    pub fn firing(rate: f64) -> Self {
        let rate = rate.clamp(1e-7, 1.0 - 1e-7);
        let t = bisect(-6.0, 6.0, |t| upper_tail(t) <= rate);
        let (tail, density) = (upper_tail(t), (-t * t / 2.0).exp() / (2.0 * PI).sqrt());
        Self { threshold: t, mean: density - t * tail, square: (1.0 + t * t) * tail - t * density }
    }
}

/// Probability that a standard normal number is above `t`.
fn upper_tail(t: f64) -> f64 {
    erfc(t / 2f64.sqrt()) / 2.0
}

/// Complementary error function, to a relative error of 1.2e-7 (Numerical Recipes, 6.2).
fn erfc(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + x.abs() / 2.0);
    let polynomial = COEFFICIENTS.iter().rev().fold(0.0, |sum, c| sum * t + c);
    let positive = t * (polynomial - x * x).exp();
    if x >= 0.0 { positive } else { 2.0 - positive }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_and_have_the_mean_that_was_asked_for() {
        for density in [0.001, 0.03, 0.1, 0.5, 0.97, 1.0] {
            let rates = rates(11_008, density);
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            assert!((mean - density).abs() < 1e-6, "{mean} instead of {density}");
            assert!(rates.is_sorted_by(|a, b| a >= b) && rates.iter().all(|r| (0.0..=1.0).contains(r)));
        }
    }

    #[test]
    fn few_neurons_fire_most_of_the_time() {
        let rates = rates(11_008, 0.1);
        let hot = rates
            .iter()
            .scan(0.0, |sum, r| {
                *sum += r;
                Some(*sum)
            })
            .filter(|sum| *sum < 0.8 * 1100.8)
            .count();
        assert!((0.43..0.44).contains(&(hot as f64 / 11_008.0)), "{hot}");
    }

    #[test]
    fn thresholds_are_quantiles_of_the_normal_distribution() {
        for (rate, threshold) in [(0.5, 0.0), (0.158_655_25, 1.0), (0.022_750_13, 2.0), (0.977_249_87, -2.0)] {
            let unit = Unit::firing(rate);
            assert!((unit.threshold - threshold).abs() < 1e-5, "{unit:?}");
        }
        let half = Unit::firing(0.5);
        assert!((half.mean - 1.0 / (2.0 * PI).sqrt()).abs() < 1e-6 && (half.square - 0.5).abs() < 1e-6, "{half:?}");
    }
}
