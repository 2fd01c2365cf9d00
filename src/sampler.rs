//! Draws the next token from the logits.
//!
//! The chain and its order are llama.cpp's: repeat penalty, top-k, top-p, min-p, temperature, draw.
//! Top-p and min-p therefore see the probabilities before the temperature is applied.

use anyhow::{Result, bail, ensure};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::cmp::Ordering;
use std::collections::VecDeque;

/// What the sampling flags of the command line set; the defaults are llama.cpp's.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerParams {
    /// Divides the logits; 0 takes the most likely token instead of drawing.
    pub temp: f32,
    /// Keeps this many of the most likely tokens; 0 or less keeps all.
    pub top_k: i32,
    /// Keeps the fewest most likely tokens whose probabilities reach this sum, at least one; 1 keeps all.
    pub top_p: f32,
    /// Keeps the tokens at least this probable relative to the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Weakens tokens seen recently: positive logits are divided by it, others multiplied; 1 is off.
    pub repeat_penalty: f32,
    /// How many of the last tokens the repeat penalty looks at; 0 is off, -1 looks at all.
    pub repeat_last_n: i32,
    /// The same seed, parameters and logits give the same tokens on every platform.
    pub seed: u64,
}

impl Default for SamplerParams {
    fn default() -> Self {
        Self { temp: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.0, repeat_last_n: 64, seed: 0 }
    }
}

impl SamplerParams {
    /// Rejects what has no meaning, in one line that names the flag.
    pub fn validate(&self) -> Result<()> {
        let Self { temp, top_p, min_p, repeat_penalty, repeat_last_n, .. } = *self;
        ensure!(temp.is_finite() && temp >= 0.0, "--temp {temp}: must be 0 (greedy) or a positive number");
        ensure!((0.0..=1.0).contains(&top_p), "--top-p {top_p}: must be between 0 and 1");
        ensure!((0.0..=1.0).contains(&min_p), "--min-p {min_p}: must be between 0 and 1");
        ensure!(
            repeat_penalty.is_finite() && repeat_penalty > 0.0,
            "--repeat-penalty {repeat_penalty}: must be a positive number (1 is off)"
        );
        ensure!(
            repeat_last_n >= -1,
            "--repeat-last-n {repeat_last_n}: must be -1 (all tokens), 0 (off) or a number of tokens"
        );
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
}

/// One conversation's sampling state: the tokens seen so far and the random stream.
#[derive(Debug)]
pub struct Sampler {
    params: SamplerParams,
    rng: ChaCha8Rng,
    recent: VecDeque<u32>,
    candidates: Vec<Candidate>,
    /// Unnormalised probability of each candidate; scratch of top-p and of the draw.
    weights: Vec<f64>,
}

impl Sampler {
    /// Fails as [`SamplerParams::validate`] does.
    pub fn new(params: SamplerParams) -> Result<Self> {
        params.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(params.seed);
        Ok(Self { params, rng, recent: VecDeque::new(), candidates: Vec::new(), weights: Vec::new() })
    }

    /// Tells the repeat penalty about a token, be it of the prompt or a sampled one.
    pub fn accept(&mut self, token: u32) {
        if self.params.repeat_penalty == 1.0 || self.params.repeat_last_n == 0 {
            return;
        }
        if usize::try_from(self.params.repeat_last_n).is_ok_and(|n| self.recent.len() >= n) {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    /// Takes back all that [`Sampler::accept`] was told.
    pub fn forget(&mut self) {
        self.recent.clear();
    }

    /// Chooses a token for `logits` (`[n_vocab]`, indexed by token id) without accepting it.
    ///
    /// Once its buffers have grown to the vocabulary, a call allocates nothing.
    /// Fails when a logit is NaN or +inf, or when none is above -inf.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.load_candidates(logits)?;
        self.penalize_repeats(logits);
        self.candidates.retain(|c| c.logit > f32::NEG_INFINITY);
        let Some(best) = self.candidates.iter().copied().min_by(by_falling_logit) else {
            bail!("no token can be sampled: all {} logits are -inf", logits.len());
        };
        if self.params.temp <= 0.0 {
            return Ok(best.id);
        }
        self.keep_top_k();
        self.keep_top_p(best.logit);
        self.keep_min_p(best.logit);
        Ok(self.draw(best))
    }

    fn load_candidates(&mut self, logits: &[f32]) -> Result<()> {
        let bad = logits.iter().filter(|l| l.is_nan() || **l == f32::INFINITY).count();
        ensure!(bad == 0, "no token can be sampled: {bad} of {} logits are NaN or +inf", logits.len());
        self.candidates.clear();
        self.candidates.extend((0u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit }));
        Ok(())
    }

    /// Expects the candidates in order of their ids.
    /// Starts from `logits`, so that a token seen twice is penalized once.
    fn penalize_repeats(&mut self, logits: &[f32]) {
        let penalty = self.params.repeat_penalty;
        for &token in &self.recent {
            let token = token as usize;
            let (Some(candidate), Some(&logit)) = (self.candidates.get_mut(token), logits.get(token)) else {
                continue;
            };
            let weakened = if logit > 0.0 { logit / penalty } else { logit * penalty };
            // A penalty below 1 strengthens and may overflow.
            candidate.logit = weakened.min(f32::MAX);
        }
    }

    /// Leaves the candidates sorted, except where neither top-k nor top-p asks for it.
    fn keep_top_k(&mut self) {
        let k = usize::try_from(self.params.top_k).unwrap_or(0);
        if (1..self.candidates.len()).contains(&k) {
            self.candidates.select_nth_unstable_by(k - 1, by_falling_logit);
            self.candidates.truncate(k);
        }
        if k > 0 || self.params.top_p < 1.0 {
            self.candidates.sort_unstable_by(by_falling_logit);
        }
    }

    fn keep_top_p(&mut self, max_logit: f32) {
        if self.params.top_p >= 1.0 {
            return;
        }
        self.weigh(max_logit, 1.0);
        let wanted = f64::from(self.params.top_p) * self.weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let reached = self.weights.iter().position(|w| {
            sum += w;
            sum >= wanted
        });
        if let Some(last) = reached {
            self.candidates.truncate(last + 1);
        }
    }

    fn keep_min_p(&mut self, max_logit: f32) {
        let min_p = f64::from(self.params.min_p);
        if min_p > 0.0 {
            self.candidates.retain(|c| relative_probability(c.logit, max_logit, 1.0) >= min_p);
        }
    }

    fn draw(&mut self, best: Candidate) -> u32 {
        self.weigh(best.logit, self.params.temp);
        let total: f64 = self.weights.iter().sum();
        let target = uniform(&mut self.rng) * total;
        let mut sum = 0.0;
        let hit = self.weights.iter().position(|w| {
            sum += w;
            sum > target
        });
        // Both sums run in the same order, so `sum` ends at `total`, which is above `target`.
        hit.and_then(|i| self.candidates.get(i)).map_or(best.id, |c| c.id)
    }

    fn weigh(&mut self, max_logit: f32, temp: f32) {
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|c| relative_probability(c.logit, max_logit, temp)));
    }
}

/// The more likely candidate first, the lower id first on ties.
fn by_falling_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Probability relative to a token with logit `max_logit`.
fn relative_probability(logit: f32, max_logit: f32, temp: f32) -> f64 {
    exp_of_nonpositive((f64::from(logit) - f64::from(max_logit)) / f64::from(temp))
}

/// Uniform in 0..1, from the upper 53 bits of one draw.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    const STEPS: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;
    (rng.next_u64() >> (u64::BITS - f64::MANTISSA_DIGITS)) as f64 / STEPS
}

/// e^x for x <= 0, within a few units in the last place; 0 where the result would be subnormal.
///
/// `f64::exp` comes from the platform's libm and may differ in its last bit; this uses only operations that
/// IEEE 754 fixes, so that a seed means the same tokens everywhere.
fn exp_of_nonpositive(x: f64) -> f64 {
    // ln 2 in two parts (fdlibm's e_exp.c): `k * LN_2_HIGH` is exact.
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const TAYLOR_DEGREE: i32 = 13;
    if x < -708.0 {
        return 0.0;
    }
    let k = (x * std::f64::consts::LOG2_E).round();
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let mantissa = (1..=TAYLOR_DEGREE).rev().fold(1.0, |tail, n| 1.0 + tail * r / f64::from(n));
    let power_of_two = f64::from_bits(((k as i64 + 1023) as u64) << 52);
    mantissa * power_of_two
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off() -> SamplerParams {
        SamplerParams { temp: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerParams::default() }
    }

    fn sampler(params: SamplerParams) -> Sampler {
        Sampler::new(params).unwrap()
    }

    /// Logits whose softmax is `probabilities`.
    fn logits_of(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    fn survivors(params: SamplerParams, logits: &[f32]) -> Vec<u32> {
        let mut sampler = sampler(params);
        let mut seen: Vec<u32> = (0..4000).map(|_| sampler.sample(logits).unwrap()).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    fn random_logits(rng: &mut ChaCha8Rng, n_vocab: usize) -> Vec<f32> {
        (0..n_vocab).map(|_| (uniform(rng) * 16.0 - 8.0) as f32).collect()
    }

    /// The chain as one would write it on a blackboard: a probability per token, `None` once filtered out.
    fn naive_sample(p: &SamplerParams, history: &[u32], logits: &[f32], u: f64) -> u32 {
        let mut logits: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
        let window = if p.repeat_last_n < 0 { history.len() } else { p.repeat_last_n as usize };
        let recent: std::collections::BTreeSet<u32> = history.iter().rev().take(window).copied().collect();
        for id in recent {
            let l = logits[id as usize] as f32;
            logits[id as usize] = f64::from(if l > 0.0 { l / p.repeat_penalty } else { l * p.repeat_penalty });
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if p.temp == 0.0 {
            return order[0] as u32;
        }
        let top = logits[order[0]];
        if p.top_k > 0 {
            order.truncate(p.top_k as usize);
        }
        if p.top_p < 1.0 {
            let total: f64 = order.iter().map(|&i| logits[i].exp()).sum();
            let mut kept = 0;
            let mut sum = 0.0;
            while kept == 0 || (kept < order.len() && sum < f64::from(p.top_p)) {
                sum += logits[order[kept]].exp() / total;
                kept += 1;
            }
            order.truncate(kept);
        }
        order.retain(|&i| logits[i].exp() >= f64::from(p.min_p) * top.exp());
        if p.top_k <= 0 && p.top_p >= 1.0 {
            order.sort_unstable();
        }
        let weight = |i: usize| ((logits[i] - top) / f64::from(p.temp)).exp();
        let target = u * order.iter().map(|&i| weight(i)).sum::<f64>();
        let mut sum = 0.0;
        for &i in &order {
            sum += weight(i);
            if sum > target {
                return i as u32;
            }
        }
        order[order.len() - 1] as u32
    }

    #[test]
    fn agrees_with_the_naive_chain_on_random_logits() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for case in 0..400u64 {
            let pick = |rng: &mut ChaCha8Rng, of: &[f32]| of[rng.next_u32() as usize % of.len()];
            let params = SamplerParams {
                temp: pick(&mut rng, &[0.0, 0.3, 0.8, 1.0, 2.5]),
                top_k: pick(&mut rng, &[0.0, 1.0, 5.0, 40.0, 1000.0]) as i32,
                top_p: pick(&mut rng, &[0.0, 0.5, 0.95, 1.0]),
                min_p: pick(&mut rng, &[0.0, 0.05, 0.3]),
                repeat_penalty: pick(&mut rng, &[0.7, 1.0, 1.3]),
                repeat_last_n: pick(&mut rng, &[-1.0, 0.0, 3.0, 64.0]) as i32,
                seed: case,
            };
            let n_vocab = 1 + rng.next_u32() as usize % 300;
            let mut sampler = sampler(params.clone());
            let mut same_stream = ChaCha8Rng::seed_from_u64(case);
            let mut history = vec![];
            for step in 0..10 {
                let logits = random_logits(&mut rng, n_vocab);
                let u = if params.temp > 0.0 { uniform(&mut same_stream) } else { 0.0 };
                let expected = naive_sample(&params, &history, &logits, u);
                assert_eq!(sampler.sample(&logits).unwrap(), expected, "case {case}, step {step}: {params:?}");
                sampler.accept(expected);
                history.push(expected);
            }
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let probabilities = [0.5f32, 0.25, 0.15, 0.07, 0.03];
        let mut sampler = sampler(SamplerParams { seed: 1, ..off() });
        let n = 50_000;
        let mut counts = [0u32; 5];
        for _ in 0..n {
            counts[sampler.sample(&logits_of(&probabilities)).unwrap() as usize] += 1;
        }
        let chi_square: f64 = counts
            .iter()
            .zip(probabilities)
            .map(|(&count, p)| {
                let expected = f64::from(p) * f64::from(n);
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum();
        // 4 degrees of freedom: a fair sampler exceeds 18.5 once in a thousand seeds.
        assert!(chi_square < 18.5, "{chi_square}: {counts:?}");
    }

    #[test]
    fn temperature_sharpens_after_the_filters() {
        // At 0.5 the odds are squared: 0.8 to 0.2 becomes 16 to 1.
        let mut sampler = sampler(SamplerParams { temp: 0.5, ..off() });
        let n = 17_000;
        let second = (0..n).filter(|_| sampler.sample(&logits_of(&[0.8, 0.2])).unwrap() == 1).count();
        assert!((850..1150).contains(&second), "{second}");
        // Were it applied before min-p, a temperature of 100 would lift both tokens over the bar.
        assert_eq!(survivors(SamplerParams { temp: 100.0, min_p: 0.5, ..off() }, &logits_of(&[0.8, 0.2])), [0]);
    }

    #[test]
    fn top_k_keeps_the_k_most_likely_and_the_lower_id_on_ties() {
        let logits = [1.0, 3.0, 2.0, 2.0, 2.0];
        assert_eq!(survivors(SamplerParams { top_k: 1, ..off() }, &logits), [1]);
        assert_eq!(survivors(SamplerParams { top_k: 3, ..off() }, &logits), [1, 2, 3]);
        assert_eq!(survivors(SamplerParams { top_k: 0, ..off() }, &logits), [0, 1, 2, 3, 4]);
        assert_eq!(survivors(SamplerParams { top_k: -1, ..off() }, &logits), [0, 1, 2, 3, 4]);
        assert_eq!(survivors(SamplerParams { top_k: 1000, ..off() }, &logits), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn top_p_keeps_the_token_that_reaches_the_sum() {
        let logits = logits_of(&[0.1, 0.4, 0.2, 0.3]);
        assert_eq!(survivors(SamplerParams { top_p: 0.39, ..off() }, &logits), [1]);
        assert_eq!(survivors(SamplerParams { top_p: 0.41, ..off() }, &logits), [1, 3]);
        assert_eq!(survivors(SamplerParams { top_p: 0.75, ..off() }, &logits), [1, 2, 3]);
        assert_eq!(survivors(SamplerParams { top_p: 1.0, ..off() }, &logits), [0, 1, 2, 3]);
    }

    #[test]
    fn top_p_counts_what_top_k_left() {
        // Of 0.4 and 0.3 the first holds 57 %.
        let logits = logits_of(&[0.1, 0.4, 0.2, 0.3]);
        assert_eq!(survivors(SamplerParams { top_k: 2, top_p: 0.5, ..off() }, &logits), [1]);
        assert_eq!(survivors(SamplerParams { top_k: 2, top_p: 0.6, ..off() }, &logits), [1, 3]);
    }

    #[test]
    fn top_p_zero_keeps_one_token() {
        assert_eq!(survivors(SamplerParams { top_p: 0.0, ..off() }, &[0.0, 0.5, 0.5]), [1]);
    }

    #[test]
    fn min_p_is_relative_to_the_most_likely() {
        let logits = logits_of(&[0.6, 0.29, 0.08, 0.03]);
        assert_eq!(survivors(SamplerParams { min_p: 0.1, ..off() }, &logits), [0, 1, 2]);
        assert_eq!(survivors(SamplerParams { min_p: 0.2, ..off() }, &logits), [0, 1]);
        assert_eq!(survivors(SamplerParams { min_p: 1.0, ..off() }, &[2.0, 2.0, 1.0]), [0, 1]);
    }

    fn greedy(repeat_penalty: f32, repeat_last_n: i32) -> Sampler {
        sampler(SamplerParams { temp: 0.0, repeat_penalty, repeat_last_n, ..off() })
    }

    #[test]
    fn greedy_takes_the_lowest_id_on_ties() {
        assert_eq!(greedy(1.0, 64).sample(&[1.0, 5.0, 5.0]).unwrap(), 1);
        assert_eq!(greedy(1.0, 64).sample(&[0.0, -0.0]).unwrap(), 0);
        assert_eq!(greedy(1.0, 64).sample(&[-0.0, 0.0]).unwrap(), 0);
    }

    #[test]
    fn repeat_penalty_divides_positive_and_multiplies_other_logits() {
        let mut s = greedy(2.0, 64);
        s.accept(0);
        assert_eq!(s.sample(&[3.0, 1.6]).unwrap(), 1, "3.0 / 2 < 1.6");
        assert_eq!(s.sample(&[3.0, 1.4]).unwrap(), 0, "3.0 / 2 > 1.4");
        assert_eq!(s.sample(&[-1.0, -2.1]).unwrap(), 0, "-1.0 * 2 > -2.1");
        assert_eq!(s.sample(&[-1.0, -1.9]).unwrap(), 1, "-1.0 * 2 < -1.9");
    }

    #[test]
    fn repeat_penalty_counts_a_token_once() {
        let mut s = greedy(2.0, 64);
        s.accept(0);
        s.accept(0);
        assert_eq!(s.sample(&[3.0, 1.4]).unwrap(), 0);
    }

    #[test]
    fn repeat_penalty_forgets_tokens_outside_its_window() {
        let logits = [3.0, 2.0, 1.9];
        for (last_n, expected) in [(0, 0), (1, 0), (2, 2), (-1, 2)] {
            let mut s = greedy(2.0, last_n);
            s.accept(0);
            s.accept(1);
            assert_eq!(s.sample(&logits).unwrap(), expected, "--repeat-last-n {last_n}");
        }
    }

    #[test]
    fn tokens_outside_the_vocabulary_are_not_penalized() {
        let mut s = greedy(2.0, -1);
        s.accept(u32::MAX);
        assert_eq!(s.sample(&[3.0, 2.0]).unwrap(), 0);
    }

    #[test]
    fn a_seed_means_these_tokens() {
        let logits: Vec<f32> = (0..100u16).map(|i| f32::from(i * 37 % 100) / 25.0).collect();
        let mut s = sampler(SamplerParams { seed: 42, ..SamplerParams::default() });
        let tokens: Vec<u32> = (0..8).map(|_| s.sample(&logits).unwrap()).collect();
        assert_eq!(tokens, [59, 64, 43, 5, 62, 81, 62, 21]);
    }

    #[test]
    fn nan_is_an_error_that_counts() {
        for temp in [0.0, 0.8] {
            let mut s = sampler(SamplerParams { temp, ..off() });
            let error = s.sample(&[f32::NAN, 1.0, f32::NAN]).unwrap_err().to_string();
            assert_eq!(error, "no token can be sampled: 2 of 3 logits are NaN or +inf");
            assert!(s.sample(&[f32::INFINITY, 0.0]).is_err());
        }
    }

    #[test]
    fn no_token_left_is_an_error() {
        let mut s = sampler(off());
        let error = s.sample(&[f32::NEG_INFINITY; 3]).unwrap_err().to_string();
        assert_eq!(error, "no token can be sampled: all 3 logits are -inf");
        assert!(s.sample(&[]).is_err());
    }

    #[test]
    fn a_token_at_minus_infinity_is_never_drawn() {
        assert_eq!(survivors(off(), &[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, 0.0]), [1, 3]);
    }

    #[test]
    fn extreme_logits_and_temperatures_stay_in_range() {
        for temp in [f32::MIN_POSITIVE, 1.0, f32::MAX] {
            let mut s = sampler(SamplerParams { temp, repeat_penalty: 1e-30, ..off() });
            s.accept(0);
            for logits in [[f32::MAX, f32::MIN], [f32::MIN, f32::MIN], [1e-45, -1e-45]] {
                assert!(s.sample(&logits).unwrap() < 2);
            }
        }
    }

    #[test]
    fn a_vocabulary_of_one_has_one_answer() {
        assert_eq!(survivors(SamplerParams::default(), &[-3.0]), [0]);
    }

    #[test]
    fn buffers_stop_growing_after_the_first_tokens() {
        let mut s = sampler(SamplerParams { repeat_penalty: 1.1, ..SamplerParams::default() });
        let logits = random_logits(&mut ChaCha8Rng::seed_from_u64(3), 1000);
        let mut capacities = vec![];
        for i in 0..300 {
            let token = s.sample(&logits).unwrap();
            s.accept(token);
            if i >= 100 {
                capacities.push((s.recent.capacity(), s.candidates.capacity(), s.weights.capacity()));
            }
        }
        capacities.dedup();
        assert_eq!(capacities.len(), 1, "{capacities:?}");
    }

    #[test]
    fn exp_agrees_with_libm() {
        for i in 0..70_800 {
            let x = -f64::from(i) / 100.0;
            let (ours, libm) = (exp_of_nonpositive(x), x.exp());
            assert!((ours - libm).abs() <= 4.0 * f64::EPSILON * libm, "{x}: {ours} {libm}");
        }
        assert_eq!(exp_of_nonpositive(0.0), 1.0);
        assert_eq!(exp_of_nonpositive(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn errors_name_the_flag() {
        let p = SamplerParams::default;
        let cases = [
            (SamplerParams { temp: -0.1, ..p() }, "--temp -0.1: must be 0 (greedy) or a positive number"),
            (SamplerParams { temp: f32::NAN, ..p() }, "--temp NaN: must be 0 (greedy) or a positive number"),
            (SamplerParams { top_p: 1.1, ..p() }, "--top-p 1.1: must be between 0 and 1"),
            (SamplerParams { min_p: f32::NAN, ..p() }, "--min-p NaN: must be between 0 and 1"),
            (SamplerParams { repeat_penalty: 0.0, ..p() }, "--repeat-penalty 0: must be a positive number (1 is off)"),
            (
                SamplerParams { repeat_last_n: -2, ..p() },
                "--repeat-last-n -2: must be -1 (all tokens), 0 (off) or a number of tokens",
            ),
        ];
        for (params, message) in cases {
            assert_eq!(Sampler::new(params).unwrap_err().to_string(), message);
        }
        p().validate().unwrap();
    }
}
