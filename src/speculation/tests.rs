//! What drafts cost and bring, where passes take as long as a test says.

use super::*;

/// Tokens in no order.
fn text(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 8).collect()
}

/// Time per token of a text with such drafts, where a pass of `n` tokens takes `time(n)`, and single tokens take 1.
fn time_per_token(text: &[u32], drafter: Box<dyn Drafter>, time: impl Fn(usize) -> f64) -> f64 {
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
        let seconds = time(n + 1);
        total += seconds;
        (0..n_taken).for_each(|i| speculation.push(text[at + i]));
        at += n_taken;
        // What it took to guess here says nothing of what is simulated.
        speculation.drafting = Duration::ZERO;
        speculation.learn(Duration::from_secs_f64(seconds * 1e-3), n_taken, true);
    }
    total / (text.len() - 1) as f64
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
            let drafter = Box::new(Scripted::new(text.clone(), share, 5));
            let (got, wanted) = (time_per_token(&text, drafter, time), least(share, time));
            // Where it gains too little nothing is drafted.
            assert!(got <= 1.10 * wanted && got >= 0.92 * wanted, "{further}, {share}: {got:.3} and {wanted:.3}");
        }
    }
}

#[test]
fn drafts_that_never_come_true_cost_next_to_nothing() {
    let text = text(2000);
    for further in [0.1, 1.0] {
        let time = |n: usize| 1.0 + further * (n - 1) as f64;
        for expected in [0.5, 1.0] {
            // Expects to be right, and knows another text.
            let wrong = text.iter().map(|token| token ^ 2).collect();
            let got = time_per_token(&text[..400], Box::new(Scripted::new(wrong, expected, 5)), time);
            assert!(got <= 1.03, "{further}, {expected}: {got:.4}");
        }
        assert_eq!(time_per_token(&text, Box::<Lookup>::default(), time), 1.0);
    }
}

#[test]
fn where_several_tokens_take_as_long_as_one_after_the_other_it_is_left_at_a_few_trials() {
    let text = text(3000);
    for share in [0.5, 1.0] {
        let drafter = Box::new(Scripted::new(text.clone(), share, 5));
        let got = time_per_token(&text, drafter, |n| 1.2 * n as f64 - 0.2);
        assert!(got <= 1.02, "{share}: {got:.4}");
    }
}

#[test]
fn a_text_that_repeats_itself_is_looked_up() {
    let text: Vec<u32> = text(300).repeat(10);
    let got = time_per_token(&text, Box::<Lookup>::default(), |n| 1.0 + 0.2 * (n - 1) as f64);
    assert!(got < 0.4, "{got:.3}");
}

#[test]
fn a_text_that_stops_repeating_itself_is_left_alone_again() {
    let mut text: Vec<u32> = text(100).repeat(10);
    text.extend(self::text(2000).iter().map(|token| token ^ 1));
    let time = |n: usize| 1.0 + 0.2 * (n - 1) as f64;
    let got = time_per_token(&text, Box::<Lookup>::default(), time);
    let wanted = (100.0 + 900.0 * 0.3 + 2000.0) / 3000.0;
    assert!(got < wanted * 1.05, "{got:.3} and {wanted:.3}");
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
