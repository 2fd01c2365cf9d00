//! Which groups of neurons a router chooses, against the processor's choice.

use super::operands::Bench;
use powerinfer::gpu::Ptr;
use powerinfer::gpu::ops::route::{Counted, MAX_GROUPS, Routes, Scored, route};
use powerinfer::model::{Gating, Router};

const NOTHING: Counted = Counted { index: Ptr::NULL, counts: Ptr::NULL };
const GATINGS: [Gating; 3] = [Gating::Softmax, Gating::Sigmoid, Gating::SoftmaxOfChosen];

/// What `router` chooses on the card, and what each counts.
fn chosen(bench: &mut Bench, router: &Router, scores: &[f32], bias: Option<&[f32]>) -> (Vec<u32>, Vec<f32>) {
    let n = router.n_used;
    let bias = bias.map_or(Ptr::NULL, |bias| bench.floats(bias));
    let scored = Scored { scores: bench.floats(scores), bias, n_groups: scores.len() };
    let routes = Routes { chosen: bench.room_for(n), weights: bench.room_for(n), n_used: n };
    route(&bench.kernels, &bench.stream, router, &scored, &NOTHING, &routes).unwrap();
    (bench.stream.read_vec(routes.chosen, n).unwrap(), bench.read(routes.weights, n))
}

/// Fails unless the card chooses what the processor does, and weighs it alike.
fn check(bench: &mut Bench, router: &Router, scores: &[f32], bias: Option<&[f32]>) {
    let mut expected = scores.to_vec();
    router.choose(&mut expected, bias, &mut Vec::new());
    let (rows, weights) = chosen(bench, router, scores, bias);
    assert!(rows.is_sorted_by(|a, b| a < b), "{rows:?}");
    let mut got = vec![0.0; scores.len()];
    rows.iter().zip(&weights).for_each(|(row, weight)| got[*row as usize] = *weight);
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let close = (got - expected).abs() <= 2e-6 * expected.abs() || got.is_nan() && expected.is_nan();
        assert!(close, "{router:?}: group {i} counts {got} instead of {expected}");
    }
}

#[test]
fn the_card_chooses_what_the_processor_does() {
    let Some(mut bench) = Bench::new() else { return };
    for (n_groups, n_used) in [(1, 1), (2, 2), (8, 2), (33, 4), (128, 8), (512, 22), (MAX_GROUPS, 5)] {
        bench.clear();
        for gating in GATINGS {
            for normalised in [false, true] {
                let router = Router { gating, n_used, normalised, scale: 1.5 };
                let scores: Vec<f32> = bench.random.values(n_groups).iter().map(|s| 8.0 * s).collect();
                let bias = bench.random.values(n_groups);
                check(&mut bench, &router, &scores, None);
                check(&mut bench, &router, &scores, Some(&bias));
            }
        }
    }
}

#[test]
fn of_equals_the_first_are_chosen() {
    let Some(mut bench) = Bench::new() else { return };
    for gating in GATINGS {
        let router = Router { gating, n_used: 3, normalised: true, scale: 1.0 };
        let rows = |bench: &mut Bench, scores: &[f32], bias| chosen(bench, &router, scores, bias).0;
        let mut scores = vec![0.25; 40];
        assert_eq!(rows(&mut bench, &scores, None), [0, 1, 2], "{gating:?}");
        (scores[7], scores[39]) = (2.0, 2.0);
        assert_eq!(rows(&mut bench, &scores, None), [0, 7, 39], "{gating:?}");
        // A bias chooses, and does not count.
        let bias: Vec<f32> = (0..40).map(|i| if i == 20 { 9.0 } else { 0.0 }).collect();
        check(&mut bench, &router, &scores, Some(&bias));
        assert_eq!(rows(&mut bench, &scores, Some(&bias)), [7, 20, 39], "{gating:?}");
        // What has the same logistic function in 32 bits, or none, is still chosen by its score.
        let router = Router { gating: Gating::Sigmoid, n_used: 2, normalised: true, scale: 1.0 };
        check(&mut bench, &router, &[-200.0, 30.0, 90.0, 60.0], None);
        assert_eq!(chosen(&mut bench, &router, &[-200.0, 30.0, 90.0, 60.0], None).0, [2, 3]);
        check(&mut bench, &router, &[-200.0, -190.0, -150.0], None);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let Some(mut bench) = Bench::new() else { return };
    let router = Router { gating: Gating::Softmax, n_used: 2, normalised: true, scale: 1.0 };
    let scores = bench.room_for(2 * MAX_GROUPS);
    let routes = Routes { chosen: bench.room_for(8), weights: bench.room_for(8), n_used: 2 };
    let refused = |n_groups, n_used| {
        let scored = Scored { scores, bias: Ptr::NULL, n_groups };
        let routes = Routes { n_used, ..routes };
        route(&bench.kernels, &bench.stream, &router, &scored, &NOTHING, &routes).is_err()
    };
    assert!(refused(MAX_GROUPS + 1, 2) && refused(1, 2) && refused(8, 0));
}
