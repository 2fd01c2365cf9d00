//! The sampler against the chain as one would write it on a blackboard, and what each flag does to a few logits.

use super::number::uniform;
use super::*;
use rand_chacha::rand_core::RngCore;

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
        let (l, penalty) = (logits[id as usize], f64::from(p.repeat_penalty));
        logits[id as usize] = if l > 0.0 { l / penalty } else { l * penalty };
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
            ..SamplerParams::default()
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
    let params = SamplerParams { repeat_penalty: 1.1, dry_multiplier: 0.1, ..SamplerParams::default() };
    let mut s = sampler(SamplerParams { dry_penalty_last_n: 64, typical_p: 0.9, xtc_probability: 0.5, ..params });
    let logits = random_logits(&mut ChaCha8Rng::seed_from_u64(3), 1000);
    let mut capacities = vec![];
    for i in 0..300 {
        let token = s.sample(&logits).unwrap();
        s.accept(token);
        if i >= 100 {
            let steps: Vec<usize> = s.chain.iter().map(|step| step.capacity()).collect();
            capacities.push((s.candidates.capacities(), steps));
        }
    }
    capacities.dedup();
    assert_eq!(capacities.len(), 1, "{capacities:?}");
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
