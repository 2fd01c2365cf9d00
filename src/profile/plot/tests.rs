//! What is drawn, and what cannot be.

use super::super::{Fingerprint, GroupCounts, ProfiledText, RouterCounts};
use super::*;
use crate::plot::Format;

const N_TOKENS: u64 = 1000;

/// A profile of layers whose neurons fire this often.
fn profile(fired: &[Vec<u64>]) -> Profile {
    let counts = |fired: &Vec<u64>| GroupCounts { fired: fired.clone().into(), ..GroupCounts::new(fired.len(), false) };
    Profile {
        fingerprint: Fingerprint { family: [7; 32], samples: vec![1.0] },
        arch: "llama".to_owned(),
        name: "test".to_owned(),
        activation: "relu".to_owned(),
        texts: vec![ProfiledText { sha256: [1; 32], n_tokens: N_TOKENS, n_ctx: 64 }],
        groups: fired.iter().map(counts).collect(),
        layer_of: (0..fired.len() as u32).collect(),
        reuse: None,
        routers: vec![],
        fired_sets: None,
        unions: None,
        thresholds: None,
    }
}

/// Counts falling by a power of the rank, the steeper the deeper the layer.
fn power_law(n_layer: usize, n_ff: usize) -> Vec<Vec<u64>> {
    let of = |layer: usize, i: usize| {
        let rank = (i * 7919) % n_ff;
        let exponent = 0.6 + 0.9 * layer as f64 / n_layer as f64;
        (N_TOKENS as f64 * (1.0 + rank as f64 / n_ff as f64 * 60.0).powf(-exponent)) as u64
    };
    (0..n_layer).map(|layer| (0..n_ff).map(|i| of(layer, i)).collect()).collect()
}

fn svg(profile: &Profile) -> String {
    picture(profile, None).unwrap().svg().unwrap()
}

#[test]
fn the_same_profile_gives_the_same_bytes_in_both_formats() {
    let profile = profile(&power_law(3, 100));
    let draw = |format| picture(&profile, None).unwrap().draw(format).unwrap();
    for format in [Format::Svg, Format::Png] {
        assert!(draw(format) == draw(format), "{format:?}");
    }
    assert!(draw(Format::Png).starts_with(b"\x89PNG") && draw(Format::Svg).starts_with(b"<svg "));
}

#[test]
fn unusual_profiles_are_drawn() {
    let long = "long title ".repeat(50);
    for fired in [
        vec![vec![0; 8]],
        vec![vec![N_TOKENS; 8], vec![0; 8]],
        vec![vec![500]],
        vec![vec![100; 5], vec![900; 3000], vec![1]],
        power_law(80, 128),
        power_law(2, 4096),
        vec![vec![300; 2]; 200],
    ] {
        let drawn = svg(&profile(&fired));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{}", fired.len());
    }
    assert!(svg(&Profile { name: long, ..profile(&[vec![1]]) }).contains("..."));
}

#[test]
fn panels_say_what_they_show() {
    let drawn = svg(&profile(&power_law(4, 64)));
    for words in [
        "How often neurons fire",
        "share of neurons",
        "share of activations",
        "share that fires",
        "left of it: 80 %",
        "layers 0 to 3",
        "whole model",
    ] {
        assert!(drawn.contains(words), "{words}");
    }
    assert!(!drawn.contains("experts"));
}

#[test]
fn a_plan_moves_the_cut() {
    let profile = profile(&power_law(2, 64));
    let planned = picture(&profile, Some(&[64, 16])).unwrap();
    let Panel::Heat(heat) = &planned.panels[0] else { panic!("no heat map") };
    assert_eq!(heat.cut.as_ref().unwrap().0, [1.0, 0.25]);
    assert!(picture(&profile, Some(&[64])).unwrap_err().to_string().contains("other groups"));
}

#[test]
fn what_cannot_be_drawn_is_an_error_with_its_place() {
    let error = |fired: &[Vec<u64>]| picture(&profile(fired), None).unwrap_err().to_string();
    assert_eq!(error(&[]), "nothing to draw: the profile has no layers");
    assert_eq!(error(&[vec![5], vec![]]), "layer 1 of the profile has no neurons");
    assert_eq!(error(&[vec![N_TOKENS + 500]]), "layer 0, neuron 0: firing rate 1.5 is not between 0 and 1");
    assert_eq!(
        check(&[vec![0.5, f32::NAN]]).unwrap_err().to_string(),
        "layer 0, neuron 1: firing rate NaN is not between 0 and 1"
    );
}

#[test]
fn the_cumulative_curve_starts_with_the_hottest_neuron() {
    let curve = cumulative(&falling(vec![0.125, 0.0, 0.5, 0.375]));
    assert_eq!(curve, [0.0, 0.5, 0.875, 1.0, 1.0]);
    assert_eq!((cumulative(&[0.0, 0.0]), cumulative(&[])), (vec![], vec![]));
    for (share, expected) in [(0.0, 0.0), (0.1, 0.25), (0.5, 0.25), (0.51, 0.5), (0.875, 0.5), (1.0, 0.75)] {
        assert_eq!(share_covering(&curve, share), expected, "{share}");
    }
    assert_eq!(points(&curve)[1], (0.25, 0.5));
    assert_eq!(points(&vec![0.0; 100_000]).len(), POINTS + 1);
}

#[test]
fn experts_are_drawn_below_also_where_nothing_was_chosen() {
    let router = |layer: u32, n: u64| RouterCounts {
        layer,
        groups: (0..n as u32).collect(),
        chosen: [(0..n).collect(), (0..n).map(|i| i * i % 7).collect()],
        again: (0..n).rev().collect(),
        first: 3,
    };
    let nothing = RouterCounts::new(2, vec![0, 1]);
    for routers in [vec![router(0, 8), router(1, 100), nothing.clone()], vec![nothing]] {
        let with = Profile { routers, layer_of: vec![9; 3], ..profile(&power_law(3, 64)) };
        assert_eq!(picture(&with, None).unwrap().panels.len(), 5);
        let drawn = svg(&with);
        assert!(drawn.contains("LRU cache") && drawn.contains("met in the other") && !drawn.contains("NaN"));
    }
}

#[test]
fn two_profiles_of_one_model_are_compared_and_others_refused() {
    let (a, b) = (profile(&power_law(3, 64)), profile(&vec![vec![10; 64]; 3]));
    let drawn = compared(&a, &b).unwrap().svg().unwrap();
    for words in ["hot set", "divergence, nats", ">\nA\n<", ">\nB\n<"] {
        assert!(drawn.contains(words), "{words}");
    }
    assert!(compared(&a, &profile(&power_law(2, 64))).is_err());
}
