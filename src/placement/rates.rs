//! How often each neuron fires, and each expert is chosen, where no profile has counted it: power laws.

/// Rates fall with the rank to this power. With it, a tenth of the neurons firing on average, 80 % of the firings are
/// those of 44 % of the neurons; PowerInfer (arXiv 2312.12456, 2.2) found 43 % in a ReGLU LLaMA of 70B.
const EXPONENT: f64 = 0.9;
/// No neuron fires more often than this, unless nearly all of them are to.
const MOST: f64 = 0.95;

/// Share of tokens for which each of `n` neurons fires, falling; their mean is `density`.
pub fn power_law(n: usize, density: f64) -> Vec<f64> {
    falling(n, density, EXPONENT, MOST.max((1.0 + density) / 2.0))
}

/// Share of tokens for which each of `n` experts is among the `n_used` that are chosen, falling: with the rank to the power
/// of `exponent`, from 1 at most. Their sum is `n_used`; with an exponent of 0 all are chosen equally often.
pub fn popularity(n: usize, n_used: usize, exponent: f64) -> Vec<f64> {
    falling(n, n_used as f64 / n as f64, exponent, 1.0)
}

/// `n` shares that fall with the rank to the power of `exponent`, from `most` at most; their mean is `wanted`.
fn falling(n: usize, wanted: f64, exponent: f64, most: f64) -> Vec<f64> {
    let shape: Vec<f64> = (1..=n).map(|k| (k as f64).powf(-exponent)).collect();
    let scaled = |scale: f64| shape.iter().map(move |s| (s * scale).min(most));
    let mean = |scale: f64| scaled(scale).sum::<f64>() / n as f64;
    let scale = bisect(0.0, (n as f64).powf(exponent), |scale| mean(scale) >= wanted);
    scaled(scale).collect()
}

/// The least `x` for which `enough` holds, where it holds from there on.
pub(crate) fn bisect(mut low: f64, mut high: f64, enough: impl Fn(f64) -> bool) -> f64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_and_have_the_mean_that_was_asked_for() {
        for density in [0.001, 0.03, 0.1, 0.5, 0.97, 1.0] {
            let rates = power_law(11_008, density);
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            assert!((mean - density).abs() < 1e-6, "{mean} instead of {density}");
            assert!(rates.is_sorted_by(|a, b| a >= b) && rates.iter().all(|r| (0.0..=1.0).contains(r)));
        }
    }

    #[test]
    fn as_many_experts_are_chosen_as_were_asked_for() {
        for (n, n_used) in [(8, 2), (32, 4), (128, 6), (512, 22), (8, 8)] {
            for exponent in [0.0, 0.5, 1.0, 2.0, 4.0] {
                let shares = popularity(n, n_used, exponent);
                let sum: f64 = shares.iter().sum();
                assert!((sum - n_used as f64).abs() < 1e-6, "{sum} of {n} instead of {n_used}");
                assert!(shares.is_sorted_by(|a, b| a >= b) && shares.iter().all(|s| (0.0..=1.0).contains(s)));
                assert!(exponent > 0.0 || shares[0] == shares[n - 1], "{shares:?}");
            }
        }
        // A tenth of 128 experts, of which 6 are chosen, take 80 % of the choices of some models (exponent about 1.5).
        let hits = |exponent| popularity(128, 6, exponent)[..13].iter().sum::<f64>() / 6.0;
        assert!(hits(0.5) < 0.35 && (0.75..0.9).contains(&hits(1.5)), "{} {}", hits(0.5), hits(1.5));
    }

    #[test]
    fn few_neurons_fire_most_of_the_time() {
        let rates = power_law(11_008, 0.1);
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
}
