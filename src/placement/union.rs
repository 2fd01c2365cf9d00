//! How many neurons fire for any of several tokens that are computed at once.
//!
//! For tokens of different places each neuron fires as often as for any token, whatever the others do: it is missed by n of them
//! with (1 - rate)^n. Consecutive tokens have more in common. They are taken for fewer unrelated ones, so many that the union is
//! as large as was counted; between the numbers of tokens for which it was, the exponent e of n^e unrelated ones is what changes
//! evenly with the logarithm of n, and beyond them it stays.

use super::rates::bisect;
use crate::model::{CONSECUTIVE_SIZES, Model, NeuronIndex};

/// Tokens that are computed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// Of so many texts one each.
    Unrelated(usize),
    /// So many that follow each other.
    Consecutive(usize),
}

/// Mean number of neurons that fire for any of `n` unrelated tokens, one or more, where each fires for one with its rate.
pub fn of_unrelated(rates: &[f32], n: f64) -> f64 {
    rates.iter().map(|rate| at_least_once(f64::from(*rate), n)).sum()
}

/// How likely something that happens with `rate` happens at least once in `n` times.
pub fn at_least_once(rate: f64, n: f64) -> f64 {
    1.0 - (1.0 - rate.clamp(0.0, 1.0)).powf(n)
}

/// As how many unrelated tokens `n` consecutive ones count, where of neurons with these rates so many fire on average for any of
/// 2, 4, 8 and 16 of them.
fn unrelated_ones(rates: &[f32], unions: [f64; CONSECUTIVE_SIZES.len()], n: usize) -> f64 {
    let exponent = |size: usize| {
        let most = CONSECUTIVE_SIZES[size] as f64;
        let fitted = bisect(1.0, most, |m| of_unrelated(rates, m) >= unions[size]);
        fitted.ln() / most.ln()
    };
    let at = (n.max(1) as f64).log2() - 1.0;
    let (before, last) = (at.floor().clamp(0.0, 3.0) as usize, CONSECUTIVE_SIZES.len() - 1);
    let (low, high) = (exponent(before), exponent((before + 1).min(last)));
    (n.max(1) as f64).powf(low + (high - low) * (at - before as f64).clamp(0.0, 1.0))
}

/// Mean number of neurons of a group that fire for any of `tokens`, by what a variant says of it; `None` for consecutive ones
/// where it does not say.
pub fn of_group(index: &NeuronIndex, tokens: Tokens) -> Option<f64> {
    match tokens {
        Tokens::Unrelated(n) => Some(of_unrelated(&index.rates, n as f64)),
        Tokens::Consecutive(n) => {
            let unions = index.consecutive?.map(|share| f64::from(share) * index.rates.len() as f64);
            Some(of_unrelated(&index.rates, unrelated_ones(&index.rates, unions, n)))
        }
    }
}

/// The share of all neurons that fire for any of `tokens`, as a variant predicts it by what was counted for it; `None` where
/// nobody has counted.
pub fn of_model(model: &Model, tokens: Tokens) -> Option<f64> {
    if !model.has_counted_rates() {
        return None;
    }
    let (mut fired, mut all) = (0.0, 0.0);
    for (_, group) in model.weights.groups() {
        fired += of_group(group.index.as_ref()?, tokens)?;
        all += group.n_ff() as f64;
    }
    (all > 0.0).then(|| fired / all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::rates::power_law;

    fn rates() -> Vec<f32> {
        power_law(2000, 0.1).iter().map(|rate| *rate as f32).collect()
    }

    #[test]
    fn unrelated_tokens_miss_a_neuron_one_by_one() {
        assert!((of_unrelated(&[0.5, 1.0, 0.0, 0.1], 2.0) - (0.75 + 1.0 + 0.19)).abs() < 1e-7);
        let rates = rates();
        let unions: Vec<f64> = (1..20).map(|n| of_unrelated(&rates, f64::from(n))).collect();
        assert!((unions[0] - 200.0).abs() < 1e-2, "{}", unions[0]);
        assert!(unions.windows(2).all(|pair| pair[0] < pair[1]) && unions[7] < 8.0 * unions[0]);
    }

    #[test]
    fn consecutive_tokens_are_as_counted_and_even_between() {
        let rates = rates();
        // As if 2, 4, 8 and 16 were 1.8, 3.1, 5 and 9 unrelated ones.
        let unions = [1.8, 3.1, 5.0, 9.0].map(|m| of_unrelated(&rates, m));
        let counted = [(1, 1.0), (2, 1.8), (4, 3.1), (8, 5.0), (16, 9.0)];
        for (n, wanted) in counted {
            let found = unrelated_ones(&rates, unions, n);
            assert!((found - wanted).abs() < 1e-6, "{n}: {found}");
        }
        let all: Vec<f64> = (1..=64).map(|n| unrelated_ones(&rates, unions, n)).collect();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        assert!((all[63] - 64f64.powf(9f64.ln() / 16f64.ln())).abs() < 1e-6);
        // Unions that rates do not allow are taken as the nearest that they do.
        let odd = [[0.0; 4], [3000.0; 4]].map(|unions| unrelated_ones(&rates, unions, 8));
        assert!((odd[0] - 1.0).abs() < 1e-9 && (odd[1] - 8.0).abs() < 1e-6, "{odd:?}");
    }
}
