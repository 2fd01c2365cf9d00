//! Mirostat: the surprise of the text is held near a target, by feedback. Source: arXiv 2007.14966.

use super::candidates::Candidates;
use super::number::{ln, power};
use std::f64::consts::LN_2;

/// Which of the paper's algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Estimates how fast probabilities fall off, and from that how many tokens to keep.
    One,
    /// Drops the tokens that are too surprising.
    Two,
}

/// Takes the place of all samplers between temperature and draw.
#[derive(Debug)]
pub struct Mirostat {
    version: Version,
    /// Surprise aimed at, in bits.
    tau: f64,
    /// How fast it learns.
    eta: f64,
    /// Surprise allowed at present, in bits.
    mu: f64,
}

/// Tokens that version 1 estimates from.
const M: usize = 100;

impl Mirostat {
    /// Aims at a surprise of `tau` bits per token and corrects by `eta` per bit.
    pub fn new(version: Version, tau: f32, eta: f32) -> Self {
        let [tau, eta] = [tau, eta].map(f64::from);
        Self { version, tau, eta, mu: 2.0 * tau }
    }

    /// Keeps what may be drawn. `n_vocab` is the number of logits.
    pub fn apply(&mut self, candidates: &mut Candidates, n_vocab: usize) {
        candidates.sort();
        match self.version {
            Version::One => candidates.keep_best(self.rank(candidates, n_vocab)),
            Version::Two => {
                let total = candidates.weigh();
                let n = candidates.weights().iter().take_while(|w| bits(**w, total) <= self.mu).count();
                candidates.keep_first(n);
            }
        }
    }

    /// How many tokens to keep, at least 1.
    fn rank(&self, candidates: &Candidates, n_vocab: usize) -> usize {
        let pairs = candidates.list().windows(2).take(M - 1).zip(1u32..);
        let (mut products, mut squares) = (0.0, 0.0);
        for (pair, rank) in pairs {
            let rank = f64::from(rank);
            let (t, b) = (ln((rank + 1.0) / rank), pair[0].logit - pair[1].logit);
            products += t * b;
            squares += t * t;
        }
        let s = products / squares;
        let epsilon = s - 1.0;
        let mass = epsilon * power(2.0, self.mu) / (1.0 - power(n_vocab as f64, -epsilon));
        // One token, or s of just 1, make it no number.
        let k = power(mass, 1.0 / s);
        if k.is_nan() { 1 } else { (k as usize).max(1) }
    }

    /// Learns from what was drawn: a candidate of `weight` out of `total`.
    pub fn learn(&mut self, weight: f64, total: f64) {
        self.mu -= self.eta * (bits(weight, total) - self.tau);
    }
}

/// Surprise, in bits.
fn bits(weight: f64, total: f64) -> f64 {
    -ln(weight / total) / LN_2
}
