//! Measuring a model: perplexity, divergence from another one, and speed.

pub mod density;
pub mod kl;
pub mod perplexity;
pub mod roofline;
pub mod row;
pub mod speed;

/// A few hundred words of plain story, written for this project: real text where the user gives none.
pub const STORY: &str = include_str!("story.txt");

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
}
