//! How far decoding one way is from decoding another: KL divergence, and what llama.cpp's tool says beside it.

use super::kl::kl_normed;
use super::perplexity::{Perplexity, scored, windows};
use super::{log_sum_exp, mean_and_error};
use crate::executor::Executor;
use crate::model::Model;
use crate::progress::{self, Progress};
use crate::tokenizer::read_vocab;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Predictions of a text compared with those of a reference. Errors are standard errors over the predictions; shares
/// and probabilities are between 0 and 1. The names are those of the columns in tables.
#[derive(Debug, Clone)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Divergence {
    /// Predictions that were compared.
    pub kl_tokens: usize,
    /// Mean of KL(reference || other) in nats.
    pub kl_mean: f64,
    /// Error of the mean.
    pub kl_stderr: f64,
    /// Half of the predictions diverge less.
    pub kl_median: f64,
    /// 90 % of the predictions diverge less.
    pub kl_90: f64,
    /// 95 % of the predictions diverge less.
    pub kl_95: f64,
    /// 99 % of the predictions diverge less.
    pub kl_99: f64,
    /// 99.9 % of the predictions diverge less.
    pub kl_99_9: f64,
    /// The prediction that diverges most.
    pub kl_max: f64,
    /// Share of predictions in which both hold the same token for the likeliest.
    pub same_top: f64,
    /// Error of the share.
    pub same_top_stderr: f64,
    /// Perplexity of the reference.
    pub base_perplexity: f64,
    /// Error of the reference's perplexity.
    pub base_stderr: f64,
    /// Perplexity over that of the reference.
    pub perplexity_ratio: f64,
    /// Error of the ratio, of pairs: what makes a token hard for both is not in it.
    pub perplexity_ratio_stderr: f64,
    /// Mean of p(true token) minus that of the reference.
    pub dp_mean: f64,
    /// Error of the mean change.
    pub dp_mean_stderr: f64,
    /// Root mean square of that change.
    pub dp_rms: f64,
    /// Error of the root.
    pub dp_rms_stderr: f64,
}

/// What [`divergence`] found.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Other against reference.
    pub divergence: Divergence,
    /// The other alone.
    pub perplexity: Perplexity,
    /// Time that the other took to decode, without the reference and without comparing.
    pub decoding: Duration,
}

/// Whether two models mean the same by their token ids.
///
/// # Errors
/// Names both files and the first difference, or the file that has no vocabulary.
pub fn check_vocabularies(base: &Model, model: &Model) -> Result<()> {
    let [(base_name, a), (name, b)] = [base, model].map(|m| (m.gguf.source().name(), m.config.n_vocab));
    let unlike = format!("{base_name}: its vocabulary is not that of {name}");
    ensure!(a == b, "{unlike}: {a} tokens and {b}; KL needs models of one vocabulary");
    let (a, b) = (read_vocab(&base.gguf)?.tokens, read_vocab(&model.gguf)?.tokens);
    ensure!(a.len() == b.len(), "{unlike}: {} tokens and {}; KL needs models of one vocabulary", a.len(), b.len());
    if let Some(id) = a.iter().zip(&b).position(|(a, b)| a != b) {
        let [a, b] = [&a[id], &b[id]].map(|token| token.escape_ascii());
        anyhow::bail!("{unlike}: token {id} is \"{a}\" there and \"{b}\" here; KL needs models of one vocabulary");
    }
    Ok(())
}

/// Decodes windows of `n_ctx` tokens with both, token by token, and compares the predictions of the second half. Windows
/// and `bos` are those of [`perplexity`](super::perplexity::perplexity); logits are compared as they are, in f32.
///
/// # Errors
/// When the text is shorter than a window, a window does not fit, vocabularies differ in size, predictions are not
/// finite, or the user stops it.
pub fn divergence(
    reference: &mut Executor,
    other: &mut Executor,
    tokens: &[u32],
    n_ctx: usize,
    bos: Option<u32>,
    max_windows: Option<usize>,
    progress: &dyn Progress,
) -> Result<Compared> {
    let windows = windows(tokens, n_ctx, bos, max_windows)?;
    let n_windows = windows.len();
    progress.begin("KL divergence", (n_windows * n_ctx) as u64);
    let mut predictions = Vec::with_capacity(n_windows * scored(n_ctx).len());
    let mut decoding = Duration::ZERO;
    reference.reset_stats();
    other.reset_stats();
    for window in windows {
        reference.clear();
        other.clear();
        for (position, token) in window.iter().enumerate() {
            progress::check(progress)?;
            let p = reference.decode(*token)?;
            let start = Instant::now();
            let q = other.decode(*token)?;
            decoding += start.elapsed();
            if scored(n_ctx).contains(&position) {
                predictions.push(Prediction::new(p, q, window[position + 1])?);
            }
            progress.advance(1);
        }
    }
    let (mean, error) = mean_and_error(predictions.iter().map(|p| p.nats));
    let value = mean.exp();
    let (ffn_density, ffn_opened) = (other.stats().density(), other.stats().opened());
    let n_scored = predictions.len();
    let perplexity = Perplexity { value, stderr: value * error, n_scored, n_windows, ffn_density, ffn_opened };
    Ok(Compared { divergence: summary(&predictions), perplexity, decoding })
}

/// Both predictions of one token.
struct Prediction {
    kl: f64,
    same_top: bool,
    /// `-ln p(true token)` of the reference.
    base_nats: f64,
    /// That of the other.
    nats: f64,
}

impl Prediction {
    fn new(p: &[f32], q: &[f32], token: u32) -> Result<Self> {
        ensure!(p.len() == q.len(), "vocabularies of {} and {} tokens cannot be compared", p.len(), q.len());
        for (logits, whose) in [(p, "the reference's"), (q, "the model's")] {
            let whole = logits.iter().all(|l| l.is_finite());
            ensure!(whole, "{whose} predictions are not finite numbers; are its weights whole?");
        }
        let (p_norm, q_norm) = (log_sum_exp(p), log_sum_exp(q));
        Ok(Self {
            kl: kl_normed((p, p_norm), (q, q_norm)),
            same_top: top(p) == top(q),
            base_nats: p_norm - f64::from(p[token as usize]),
            nats: q_norm - f64::from(q[token as usize]),
        })
    }

    /// How much likelier the other holds the true token.
    fn dp(&self) -> f64 {
        (-self.nats).exp() - (-self.base_nats).exp()
    }
}

/// The likeliest token, the first of equals.
fn top(logits: &[f32]) -> usize {
    let better = |best: usize, (i, l): (usize, &f32)| if *l > logits[best] { i } else { best };
    logits.iter().enumerate().fold(0, better)
}

fn summary(predictions: &[Prediction]) -> Divergence {
    let mut kl: Vec<f64> = predictions.iter().map(|p| p.kl).collect();
    let (kl_mean, kl_stderr) = mean_and_error(kl.iter().copied());
    kl.sort_by(f64::total_cmp);
    let n = predictions.len() as f64;
    let same_top = predictions.iter().filter(|p| p.same_top).count() as f64 / n;
    let (base_nats, base_error) = mean_and_error(predictions.iter().map(|p| p.base_nats));
    let (log_ratio, ratio_error) = mean_and_error(predictions.iter().map(|p| p.nats - p.base_nats));
    let (dp_mean, dp_mean_stderr) = mean_and_error(predictions.iter().map(Prediction::dp));
    let (dp_square, dp_square_error) = mean_and_error(predictions.iter().map(|p| p.dp().powi(2)));
    let dp_rms = dp_square.sqrt();
    Divergence {
        kl_tokens: predictions.len(),
        kl_mean,
        kl_stderr,
        kl_median: percentile(&kl, 0.5),
        kl_90: percentile(&kl, 0.9),
        kl_95: percentile(&kl, 0.95),
        kl_99: percentile(&kl, 0.99),
        kl_99_9: percentile(&kl, 0.999),
        kl_max: percentile(&kl, 1.0),
        same_top,
        same_top_stderr: (same_top * (1.0 - same_top) / (n - 1.0).max(1.0)).sqrt(),
        base_perplexity: base_nats.exp(),
        base_stderr: base_nats.exp() * base_error,
        perplexity_ratio: log_ratio.exp(),
        perplexity_ratio_stderr: log_ratio.exp() * ratio_error,
        dp_mean,
        dp_mean_stderr,
        dp_rms,
        // d(sqrt x) = dx / (2 sqrt x)
        dp_rms_stderr: if dp_rms > 0.0 { dp_square_error / (2.0 * dp_rms) } else { 0.0 },
    }
}

/// The value below which `share` of the `sorted` ones are, between two of them by their distance.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of a distribution.
    fn logits(p: &[f64]) -> Vec<f32> {
        p.iter().map(|p| p.ln() as f32).collect()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn percentiles_lie_between_the_values_around_them() {
        let sorted: Vec<f64> = (0..=1000).map(f64::from).collect();
        for (share, expected) in [(0.5, 500.0), (0.9, 900.0), (0.999, 999.0), (1.0, 1000.0)] {
            assert!(close(percentile(&sorted, share), expected), "{share}");
        }
        assert!(close(percentile(&[1.0, 2.0], 0.5), 1.5));
        assert!(close(percentile(&[1.0, 2.0, 4.0], 0.75), 3.0));
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn known_distributions_have_their_divergence_and_likelihoods() {
        let (p, q) = (logits(&[0.5, 0.25, 0.25]), logits(&[0.25, 0.5, 0.25]));
        let prediction = Prediction::new(&p, &q, 1).unwrap();
        // 1/2 ln 2 + 1/4 ln 1/2
        assert!(close(prediction.kl, 0.25 * 2f64.ln()), "{}", prediction.kl);
        assert!(!prediction.same_top);
        assert!(close(prediction.base_nats, 4f64.ln()) && close(prediction.nats, 2f64.ln()));
        assert!(close(prediction.dp(), 0.25));
    }

    #[test]
    fn a_summary_of_known_predictions_is_right() {
        let (p, q) = (logits(&[0.5, 0.25, 0.25]), logits(&[0.25, 0.5, 0.25]));
        let predictions = [(&p, &p, 0), (&p, &q, 1), (&p, &q, 0), (&p, &p, 2)];
        let found = summary(&predictions.map(|(p, q, token)| Prediction::new(p, q, token).unwrap()));
        let kl = 0.25 * 2f64.ln();
        assert_eq!(found.kl_tokens, 4);
        assert!(close(found.kl_mean, kl / 2.0) && close(found.kl_median, kl / 2.0), "{found:?}");
        // Four values at half their distance from the mean: squares 4 (kl/2)^2, over 3, over 4.
        assert!(close(found.kl_stderr, kl / 12f64.sqrt()), "{found:?}");
        assert!(close(found.kl_90, kl) && close(found.kl_max, kl), "{found:?}");
        assert!(close(found.same_top, 0.5) && close(found.same_top_stderr, 12f64.sqrt().recip()), "{found:?}");
        // Nats of the reference: ln 2, ln 4, ln 2, ln 4. The other wins ln 2 once and loses it once.
        assert!(close(found.base_perplexity, 8f64.sqrt()) && close(found.perplexity_ratio, 1.0), "{found:?}");
        assert!(close(found.perplexity_ratio_stderr, 2f64.ln() / 6f64.sqrt()), "{found:?}");
        // Changes 0, 1/4, -1/4, 0; squares 0, 1/16, 1/16, 0.
        assert!(close(found.dp_mean, 0.0) && close(found.dp_rms, 0.125f64.sqrt() / 2.0), "{found:?}");
        let of_squares = 0.0625 / 12f64.sqrt();
        assert!(close(found.dp_rms_stderr, of_squares / (2.0 * found.dp_rms)), "{found:?}");
    }

    #[test]
    fn the_ratios_error_is_of_pairs() {
        let sure = logits(&[0.9, 0.05, 0.05]);
        let unsure = logits(&[0.4, 0.3, 0.3]);
        // However far hard and easy tokens are apart: where both agree there is no doubt about the ratio.
        let found = summary(&[0, 1].map(|token| Prediction::new(&sure, &sure, token).unwrap()));
        assert!(found.base_stderr > 0.1 && found.perplexity_ratio == 1.0, "{found:?}");
        assert_eq!([found.perplexity_ratio_stderr, found.kl_max, found.dp_rms, found.dp_rms_stderr], [0.0; 4]);
        let found = summary(&[Prediction::new(&sure, &unsure, 0).unwrap()]);
        assert!(close(found.perplexity_ratio, 0.9 / 0.4), "{found:?}");
        assert_eq!([found.kl_stderr, found.perplexity_ratio_stderr], [0.0; 2]);
    }

    #[test]
    fn predictions_that_are_not_numbers_are_refused() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (p, q) = ([1.0, 2.0], [1.0, broken]);
            let error = Prediction::new(&p, &q, 0).err().unwrap().to_string();
            assert!(error.contains("the model's predictions"), "{error}");
            let error = Prediction::new(&q, &p, 0).err().unwrap().to_string();
            assert!(error.contains("the reference's predictions"), "{error}");
        }
        assert!(Prediction::new(&[1.0], &[1.0, 2.0], 0).is_err());
    }

    #[test]
    fn of_equal_logits_the_first_is_the_top() {
        assert_eq!(top(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(top(&[-0.0, 0.0]), 0);
    }
}
