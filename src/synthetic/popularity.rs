//! What is added to a router's scores, so that experts are chosen as often as they should be.
//!
//! A score is a standard normal number, which the token decides, and the expert's offset. Whether an expert is chosen depends on the
//! offsets of all: they are found by drawing the scores of many tokens and moving each offset until the share of tokens that
//! choose its expert is right. That share is not counted but computed, from what the others leave: the expert is
//! chosen if its score is above the `n_used`-th of theirs.

use super::random::Stream;
use super::rates::{Unit, upper_tail};
use crate::model::Gating;
use crate::placement::rates::popularity;
use crate::shapes::ExpertShape;

/// Tokens that are drawn.
const TOKENS: usize = 1024;
/// Times that offsets are moved: shares are then right to less than the draw's own error.
const ROUNDS: usize = 24;
/// Of the random numbers.
const SEED: [u64; 2] = [0x0065_7870_6572_7473, 1];

/// How the experts of a layer are chosen, by rank: the most popular first.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    /// Share of tokens that choose each.
    pub shares: Vec<f64>,
    /// What each score is above a standard normal number.
    pub offsets: Vec<f64>,
    /// Mean sum of squares of the weights that a token's experts count with.
    pub squares: f64,
}

impl Choice {
    /// How experts are chosen whose popularity falls with the rank to the power of `exponent`.
    pub fn new(experts: &ExpertShape, exponent: f64) -> Self {
        let (n, n_used) = (experts.n, experts.router.n_used);
        let shares = popularity(n, n_used, exponent);
        let mut offsets: Vec<f64> = shares.iter().map(|share| -Unit::firing(*share).threshold).collect();
        let noise = noise(n);
        if n_used < n {
            let wanted: Vec<f64> = shares.iter().map(|share| Unit::firing(*share).threshold).collect();
            for _ in 0..ROUNDS {
                let (found, level) = chosen(&noise, &offsets, n_used);
                for ((offset, found), wanted) in offsets.iter_mut().zip(found).zip(&wanted) {
                    // Only differences count: scores that are enough lie around 0.
                    *offset += Unit::firing(found).threshold - wanted - level;
                }
            }
        }
        let squares = squares(&noise, &offsets, experts);
        Self { shares, offsets, squares }
    }
}

/// Standard normal numbers, `n` for each token.
fn noise(n: usize) -> Vec<f64> {
    let token = |token| {
        let mut stream = Stream::new([SEED[0], SEED[1], n as u64, token as u64]);
        // The sum of eight uniform numbers is closer to normal than that of four.
        (0..n).map(move |_| f64::from(stream.normal() + stream.normal()) / 2f64.sqrt())
    };
    (0..TOKENS).flat_map(token).collect()
}

/// Share of tokens that choose each, and the mean score that is just enough.
fn chosen(noise: &[f64], offsets: &[f64], n_used: usize) -> (Vec<f64>, f64) {
    let (mut shares, mut level) = (vec![0.0; offsets.len()], 0.0);
    let mut order = Vec::new();
    for noise in noise.chunks_exact(offsets.len()) {
        let score = |i: usize| offsets[i] + noise[i];
        order.clear();
        order.extend((0..offsets.len()).map(score));
        let (_, last, rest) = order.select_nth_unstable_by(n_used - 1, |a, b| b.total_cmp(a));
        let (last, next) = (*last, rest.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        level += last / TOKENS as f64;
        for (i, share) in shares.iter_mut().enumerate() {
            let enough = if score(i) >= last { next } else { last };
            *share += upper_tail(enough - offsets[i]) / TOKENS as f64;
        }
    }
    (shares, level)
}

/// Mean sum of squares of the chosen experts' weights.
fn squares(noise: &[f64], offsets: &[f64], experts: &ExpertShape) -> f64 {
    let router = experts.router;
    let mut scores = Vec::new();
    let mut of_token = |noise: &[f64]| {
        scores.clear();
        scores.extend(offsets.iter().zip(noise).map(|(offset, noise)| offset + noise));
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        let weight = |score: &f64| match router.gating {
            Gating::Sigmoid => 1.0 / (1.0 + (-score).exp()),
            _ => score.exp(),
        };
        let (sum, squares) =
            scores[..router.n_used].iter().map(weight).fold((0.0, 0.0), |(s, q), w| (s + w, q + w * w));
        squares / (sum * sum)
    };
    let mean = noise.chunks_exact(offsets.len()).map(&mut of_token).sum::<f64>() / TOKENS as f64;
    mean * f64::from(router.scale).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    const DRAWN: u32 = 6000;

    /// Shares of tokens of other random numbers than those that offsets are found with.
    fn counted(choice: &Choice, n_used: usize) -> Vec<f64> {
        let n = choice.offsets.len();
        let mut counts = vec![0.0; n];
        let mut stream = Stream::new([7, 7, 7, 7]);
        for _ in 0..DRAWN {
            let scores: Vec<f32> = choice.offsets.iter().map(|offset| *offset as f32 + stream.normal()).collect();
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order[..n_used].iter().for_each(|i| counts[*i] += 1.0 / f64::from(DRAWN));
        }
        counts
    }

    #[test]
    fn experts_are_chosen_as_often_as_they_should_be() {
        for (name, exponent) in [("mixtral", 0.0), ("mixtral", 1.2), ("test-experts", 0.5), ("smallthinker-4b", 0.9)] {
            let shape = SHAPES.iter().find(|shape| shape.short == name).unwrap();
            let experts = shape.experts.unwrap();
            let choice = Choice::new(&experts, exponent);
            let sum: f64 = choice.shares.iter().sum();
            assert!((sum - experts.router.n_used as f64).abs() < 1e-6, "{name}: {sum}");
            for (share, counted) in choice.shares.iter().zip(counted(&choice, experts.router.n_used)) {
                let error = (share * (1.0 - share) / f64::from(DRAWN)).sqrt();
                assert!((share - counted).abs() < 4.0 * error + 0.04 * share, "{name}: {share} {counted}");
            }
        }
    }

    #[test]
    fn weights_of_equally_good_experts_are_alike() {
        let experts = SHAPES.iter().find_map(|shape| shape.experts.filter(|experts| experts.n == 32)).unwrap();
        let choice = Choice::new(&experts, 0.0);
        assert!((0.25..0.27).contains(&choice.squares), "{}", choice.squares);
    }
}
