//! Measuring a model (perplexity, divergence from another one, speed) and the machine.

pub mod batched;
pub mod columns;
pub mod compare;
pub mod density;
pub mod divergence;
pub mod doubt;
pub mod drafted;
pub mod export;
pub mod kernels;
pub mod kl;
pub mod lists;
pub mod machine;
pub mod model_type;
pub mod perplexity;
pub mod roofline;
pub mod row;
pub mod speed;
mod table;
pub mod threshold_search;
pub mod timing;

/// A few hundred words of plain story, written for this project: real text where the user gives none.
pub const STORY: &str = include_str!("story.txt");

/// A mean, and its standard error.
fn mean_and_error(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let variance = values.map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}

/// `-ln p(token)` of a logit vector, in nats.
fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    log_sum_exp(logits) - f64::from(logits[token as usize])
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - max).exp()).sum();
    f64::from(max) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_are_a_uniform_distribution() {
        let nats = negative_log_likelihood(&[5.0; 8], 3);
        assert!((nats - 8f64.ln()).abs() < 1e-12, "{nats}");
    }

    #[test]
    fn the_error_of_a_mean_is_that_of_a_sample() {
        let (mean, error) = mean_and_error([1.0, 2.0, 3.0, 6.0].into_iter());
        assert_eq!(mean, 3.0);
        // Squares 4 + 1 + 0 + 9, over 3, over 4.
        assert!((error - (14.0 / 12.0f64).sqrt()).abs() < 1e-12, "{error}");
        assert_eq!(mean_and_error([5.0].into_iter()), (5.0, 0.0));
    }
}
