//! What drafts cost and bring, where passes take as long as a test says.

use super::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Tokens in no order.
fn text(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 8).collect()
}

/// A machine on which a pass of `n` tokens takes `time(n)` as it is on average, where single tokens take 1.
struct Machine<T> {
    time: T,
    /// Seconds of a single token.
    single: f64,
    /// Whether its speed jumps by 1.45 every 0.1 s, no two passes take the same time, and some are disturbed.
    is_noisy: bool,
    clock: f64,
    rng: ChaCha8Rng,
    /// The widest pass, before which there was none as wide.
    widest: usize,
}

impl<T: Fn(usize) -> f64> Machine<T> {
    fn quiet(time: T) -> Self {
        Self { time, single: 1e-3, is_noisy: false, clock: 0.0, rng: ChaCha8Rng::seed_from_u64(3), widest: 1 }
    }

    fn noisy(time: T, single: f64, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { single, is_noisy: true, rng, ..Self::quiet(time) }
    }

    /// What a pass of `n` tokens costs, and the seconds that it seems to.
    fn pass(&mut self, n: usize) -> (f64, f64) {
        let mut cost = (self.time)(n);
        if !self.is_noisy {
            return (cost, cost * self.single);
        }
        // A pass that is wider than any before takes memory.
        if n > self.widest {
            self.widest = n;
            cost += 0.8;
        }
        let mut any = || f64::from(self.rng.next_u32()) / 2f64.powi(32);
        let slow = if (self.clock / 0.1) as u64 % 2 == 1 { 1.45 } else { 1.0 };
        let disturbed = if any() < 0.01 { 1.0 + 2.0 * any() } else { 1.0 };
        let seconds = cost * self.single * slow * disturbed * (0.95 + 0.1 * any());
        self.clock += seconds;
        (cost, seconds)
    }
}

/// Time per token of a text with such drafts on such a machine, but for noise.
fn time_per_token<T: Fn(usize) -> f64>(text: &[u32], drafter: Box<dyn Drafter>, machine: &mut Machine<T>) -> f64 {
    let mut speculation = Speculation::new(Lengths::default(), vec![drafter]);
    speculation.set_text(&text[..1]);
    let (mut at, mut total) = (1, 0.0);
    while at < text.len() {
        speculation.push(text[at]);
        at += 1;
        speculation.plan(text.len() - at).unwrap();
        let n = speculation.draft.len();
        let n_taken =
            speculation.draft.iter().zip(&text[at..]).take_while(|(guess, token)| guess.token == **token).count();
        let (cost, seconds) = machine.pass(n + 1);
        total += cost;
        (0..n_taken).for_each(|i| speculation.push(text[at + i]));
        at += n_taken;
        // What it took to guess here says nothing of what is simulated.
        speculation.drafting = Duration::ZERO;
        speculation.learn(Duration::from_secs_f64(seconds), n_taken, true);
    }
    total / (text.len() - 1) as f64
}

/// Seconds of single tokens of small and large models.
const SINGLES: [f64; 3] = [2e-4, 5e-3, 6e-2];

/// Texts of so many tokens, with single tokens of so many seconds, and so many noises.
fn cases(lengths: &[usize], n_noises: u64) -> impl Iterator<Item = (usize, f64, u64)> {
    let with_times = lengths.iter().flat_map(|n| SINGLES.map(|single| (*n, single)));
    with_times.flat_map(move |(n, single)| (1..=n_noises).map(move |seed| (n, single, seed)))
}

/// The least time per token of drafts of one length that come true with probability `share`.
fn least(share: f64, time: impl Fn(usize) -> f64) -> f64 {
    let tokens = |n: usize| (0..=n as i32).map(|i| share.powi(i)).sum::<f64>();
    (0..=LONGEST_DRAFT).map(|n| time(n + 1) / tokens(n)).fold(f64::INFINITY, f64::min)
}

#[test]
fn drafts_bring_what_the_formula_says() {
    let text = text(6000);
    for further in [0.05, 0.2, 0.5] {
        let time = |n: usize| 1.0 + further * (n - 1) as f64;
        for share in [0.3, 0.5, 0.7, 0.9] {
            let wanted = least(share, time);
            let measured = |mut machine: Machine<_>, seed: u64| {
                let drafter = Scripted::new(text.clone(), share, seed);
                time_per_token(&text, Box::new(drafter), &mut machine) / wanted
            };
            // Where it gains too little nothing is drafted.
            let got = measured(Machine::quiet(time), 5);
            assert!((0.92..=1.05).contains(&got), "{further}, {share}: {got:.3}");
            for single in SINGLES {
                for seed in 1..3 {
                    let got = measured(Machine::noisy(time, single, seed), 5);
                    assert!((0.92..=1.10).contains(&got), "{further}, {share}, {single}, noise {seed}: {got:.3}");
                }
                let got: Vec<f64> = (1..6).map(|seed| measured(Machine::noisy(time, single, seed), 5 + seed)).collect();
                let (mean, most) = (got.iter().sum::<f64>() / 5.0, got.iter().copied().fold(0.0, f64::max));
                let agrees = (0.92..=1.10).contains(&mean) && most <= 1.25;
                assert!(agrees, "{further}, {share}, {single}: {mean:.3} on average, {got:.3?}");
            }
        }
    }
}

#[test]
fn drafts_that_never_come_true_cost_next_to_nothing_in_short_texts_too() {
    let text = text(2000);
    // Expects to be right, and knows another text.
    let wrong: Vec<u32> = text.iter().map(|token| token ^ 2).collect();
    for further in [0.1, 0.3, 1.2] {
        let time = |n: usize| 1.0 + further * (n - 1) as f64;
        for (n, single, seed) in cases(&[32, 128, 400, 2000], 10) {
            let drafter = Box::new(Scripted::new(wrong.clone(), 1.0, 5));
            let got = time_per_token(&text[..n], drafter, &mut Machine::noisy(time, single, seed));
            let most = if n < 128 { 1.0 + 2.1 / n as f64 } else { 1.025 };
            assert!(got <= most, "{further}, {n} tokens of {single} s, noise {seed}: {got:.4}");
        }
        assert_eq!(time_per_token(&text, Box::<Lookup>::default(), &mut Machine::quiet(time)), 1.0);
    }
}

#[test]
fn where_several_tokens_take_as_long_as_one_after_the_other_it_is_left_at_a_few_trials() {
    let text = text(3000);
    for share in [0.5, 0.9, 1.0] {
        for (n, single, seed) in cases(&[128, 3000], 20) {
            let drafter = Box::new(Scripted::new(text.clone(), share, 4 + seed));
            let mut machine = Machine::noisy(|n| 1.1 * n as f64 - 0.1, single, seed);
            let got = time_per_token(&text[..n], drafter, &mut machine);
            assert!(got <= 1.03, "{share}, {n} tokens of {single} s, noise {seed}: {got:.4}");
        }
    }
}

#[test]
fn what_has_become_cheaper_is_found_out() {
    let text = text(6000);
    for (_, single, seed) in cases(&[6000], 5) {
        // The first third of the time several tokens take as long as one after the other.
        let passed = std::cell::Cell::new(0.0);
        let time = |n: usize| {
            let further = if passed.get() < 2000.0 { 1.1 } else { 0.2 };
            let cost = 1.0 + further * (n - 1) as f64;
            passed.set(passed.get() + cost);
            cost
        };
        let drafter = Box::new(Scripted::new(text.clone(), 0.9, 4 + seed));
        let got = time_per_token(&text, drafter, &mut Machine::noisy(time, single, seed));
        let wanted = (2000.0 + 4000.0 * least(0.9, |n| 1.0 + 0.2 * (n - 1) as f64)) / 6000.0;
        assert!(got <= 1.45 * wanted, "{single}, noise {seed}: {got:.3} and {wanted:.3}");
    }
}

/// A drafter whose guesses cost something.
struct Costly(Scripted);

impl Drafter for Costly {
    fn name(&self) -> &'static str {
        "costly"
    }

    fn guess(&mut self, text: &[u32], draft: &[u32]) -> Result<Option<Guess>> {
        self.0.guess(text, draft)
    }

    fn rewind(&mut self, n: usize) {
        self.0.rewind(n);
    }

    fn is_free(&self) -> bool {
        false
    }

    fn expected(&self, class: usize) -> f64 {
        self.0.expected(class)
    }
}

#[test]
fn a_costly_drafter_that_was_wrong_for_long_is_asked_again() {
    let text = text(6000);
    let known: Vec<u32> = text.iter().enumerate().map(|(i, token)| if i < 1000 { token ^ 2 } else { *token }).collect();
    let time = |n: usize| 1.0 + 0.2 * (n - 1) as f64;
    let wanted = (1000.0 + 5000.0 * least(0.9, time)) / 6000.0;
    // What it takes to guess is measured in earnest, and must not count beside a single token.
    for seed in 1..11 {
        let drafter = Box::new(Costly(Scripted::new(known.clone(), 0.9, 4 + seed)));
        let got = time_per_token(&text, drafter, &mut Machine::noisy(time, 0.5, seed));
        assert!(got <= 1.75 * wanted, "noise {seed}: {got:.3} and {wanted:.3}");
    }
}

#[test]
fn a_text_that_repeats_itself_is_looked_up() {
    let text: Vec<u32> = text(300).repeat(10);
    for single in SINGLES {
        let mut machine = Machine::noisy(|n| 1.0 + 0.2 * (n - 1) as f64, single, 1);
        let got = time_per_token(&text, Box::<Lookup>::default(), &mut machine);
        assert!(got < 0.4, "{single}: {got:.3}");
    }
}

#[test]
fn a_text_that_stops_repeating_itself_is_left_alone_again() {
    let mut text: Vec<u32> = text(100).repeat(10);
    text.extend(self::text(2000).iter().map(|token| token ^ 1));
    let wanted = (100.0 + 900.0 * 0.3 + 2000.0) / 3000.0;
    for single in SINGLES {
        let mut machine = Machine::noisy(|n| 1.0 + 0.2 * (n - 1) as f64, single, 1);
        let got = time_per_token(&text, Box::<Lookup>::default(), &mut machine);
        assert!(got < wanted * 1.05, "{single}: {got:.3} and {wanted:.3}");
    }
}

#[test]
fn a_machine_that_was_disturbed_for_a_moment_is_not_judged_by_that() {
    // Single tokens take three times as long, just before a draft: two at once seem to cost no more than one.
    let mut pace = pace::Pace::new(4);
    (0..40).for_each(|_| pace.record(1, 0.010));
    (0..4).for_each(|_| pace.record(2, 0.021));
    (0..3).for_each(|_| pace.record(1, 0.030));
    assert!(!pace.is_steady());
    (0..3).for_each(|_| pace.record(2, 0.021));
    (0..3).for_each(|_| pace.record(1, 0.010));
    let multiple = pace.seconds(2) / pace.seconds(1);
    assert!((1.45..2.3).contains(&multiple), "{multiple:.2}");
}

#[test]
fn a_least_length_is_drafted_whatever_it_costs() {
    let text = text(50);
    let drafter = Box::new(Scripted::new(text.clone(), 1.0, 5));
    let mut speculation = Speculation::new(Lengths { most: 6, least: 2 }, vec![drafter]);
    speculation.set_text(&text[..10]);
    speculation.plan(100).unwrap();
    assert_eq!(speculation.draft.len(), 6);
    speculation.plan(1).unwrap();
    assert!(speculation.draft.is_empty());
}

#[test]
fn lengths_that_make_no_sense_are_refused() {
    let check = |most, least, n_ctx| Lengths { most, least }.check(n_ctx).map_err(|error| error.to_string());
    assert!(check(16, 0, 8).is_ok() && check(0, 0, 8).is_ok() && check(64, 64, 4096).is_ok());
    for ((most, least, n_ctx), wanted) in [
        ((16, 17, 4096), "--draft-min 17 is more than --draft-max 16"),
        ((65, 0, 4096), "at most 64"),
        ((32, 0, 32), "does not fit into the context of 32"),
        ((16, 1, 16), "does not fit"),
    ] {
        let error = check(most, least, n_ctx).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn what_is_counted_is_what_was_done() {
    let text = text(8);
    let drafter = Box::new(Scripted::new(text.clone(), 1.0, 5));
    let mut speculation = Speculation::new(Lengths { most: 2, least: 1 }, vec![drafter]);
    assert_eq!(speculation.counts().tokens_per_pass(), 1.0);
    speculation.set_text(&text[..2]);
    speculation.plan(9).unwrap();
    speculation.push(text[2]);
    speculation.learn(Duration::from_millis(3), 1, true);
    let counts = speculation.counts();
    assert_eq!(counts.sources, [("scripted", Drafted { n_drafted: 2, n_taken: 1 })]);
    assert_eq!((counts.n_passes, counts.n_tokens, counts.tokens_per_pass()), (1, 2, 2.0));
}
