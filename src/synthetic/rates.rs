//! Which threshold makes a neuron fire as often as it should, from theory.

use crate::placement::rates::bisect;
use std::f64::consts::PI;

/// A neuron that fires when a standard normal number is above `threshold`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// What is subtracted from the pre-activation.
    pub threshold: f64,
    /// Mean of the activation.
    pub mean: f64,
    /// Mean square of the activation.
    pub square: f64,
    /// Mean fourth power of the activation.
    pub fourth: f64,
}

impl Unit {
    /// One that fires with probability `rate`.
    pub fn firing(rate: f64) -> Self {
        let rate = rate.clamp(1e-7, 1.0 - 1e-7);
        let t = bisect(-6.0, 6.0, |t| upper_tail(t) <= rate);
        let (tail, density) = (upper_tail(t), (-t * t / 2.0).exp() / (2.0 * PI).sqrt());
        Self {
            threshold: t,
            mean: density - t * tail,
            square: (1.0 + t * t) * tail - t * density,
            fourth: (t.powi(4) + 6.0 * t * t + 3.0) * tail - (t.powi(3) + 5.0 * t) * density,
        }
    }
}

/// Probability that a standard normal number is above `t`.
pub(super) fn upper_tail(t: f64) -> f64 {
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
    fn thresholds_are_quantiles_of_the_normal_distribution() {
        for (rate, threshold) in [(0.5, 0.0), (0.158_655_25, 1.0), (0.022_750_13, 2.0), (0.977_249_87, -2.0)] {
            let unit = Unit::firing(rate);
            assert!((unit.threshold - threshold).abs() < 1e-5, "{unit:?}");
        }
        let half = Unit::firing(0.5);
        assert!((half.mean - 1.0 / (2.0 * PI).sqrt()).abs() < 1e-6 && (half.square - 0.5).abs() < 1e-6, "{half:?}");
        assert!((half.fourth - 1.5).abs() < 1e-6, "{half:?}");
    }

    #[test]
    fn moments_are_those_of_what_is_above_the_threshold() {
        let unit = Unit::firing(0.1);
        let (mut square, mut fourth) = (0.0, 0.0);
        for i in 0..200_000 {
            let z = unit.threshold + f64::from(i) * 5e-5;
            let weight = (-z * z / 2.0).exp() / (2.0 * PI).sqrt() * 5e-5;
            square += (z - unit.threshold).powi(2) * weight;
            fourth += (z - unit.threshold).powi(4) * weight;
        }
        assert!((unit.square / square - 1.0).abs() < 1e-3 && (unit.fourth / fourth - 1.0).abs() < 1e-3, "{unit:?}");
    }
}
