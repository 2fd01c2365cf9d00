//! Plans for several sequences at once.

use super::super::budget::tokens_per_pass;
use super::*;

/// Plan for `n` sequences, of a model of which a part fits on the card.
fn planned(hardware: &Hardware, work: &Workload, n: usize, budget: u64) -> Plan {
    let (work, run) = (work.at_once(n), Run { room: Room::of_sequences(n), ..run(Mode::Exact) });
    Planner { hardware, work: &work, run: &run }.plan(Some(Bytes(budget))).unwrap()
}

/// One layer after the other with all of attention on the card, and a share of the neurons.
fn model() -> Workload {
    distinct(6, 2048, 8192, 9)
}

#[test]
fn one_sequence_is_planned_as_before() {
    let (hardware, work) = (machine(), model());
    assert_eq!(work.at_once(1), work);
    let arithmetic = Hardware { cpu: slow_arithmetic(&hardware, 1.0), ..hardware.clone() };
    for budget in [100 << 20, 200 << 20, 400 << 20] {
        let plain = plan(&hardware, &work, Mode::Exact, budget).unwrap();
        // Arithmetic of one token is in what was measured of reading.
        for hardware in [&hardware, &arithmetic] {
            let plan = planned(hardware, &work, 1, budget);
            assert_eq!((&plan.layers, plan.head, plan.home), (&plain.layers, plain.head, plain.home));
            assert_eq!((plan.objective, plan.bound, plan.account()), (plain.objective, plain.bound, plain.account()));
        }
    }
}

fn slow_arithmetic(hardware: &Hardware, share: f64) -> Cpu {
    let mut cpu = hardware.cpu.clone();
    cpu.bandwidth.other.several = share * cpu.bandwidth.other.stream;
    cpu
}

#[test]
fn a_pass_reads_what_any_token_wants_once() {
    let work = model();
    let (four, eight) = (work.at_once(4), work.at_once(8));
    let sum = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
    for ((one, four), eight) in work.groups().zip(four.groups()).zip(eight.groups()) {
        let [alone, of_four, of_eight] = [one, four, eight].map(|g| sum(&g.stats.rates));
        assert!(alone < of_four && of_four < of_eight && of_eight < 8.0 * alone, "{alone} {of_four} {of_eight}");
        assert!(eight.stats.rates.is_sorted_by(|a, b| a >= b) && eight.stats.rates.iter().all(|r| *r <= 1.0));
        let wanted = sum(eight.stats.wanted.as_ref().unwrap());
        assert!((wanted / alone - 8.0).abs() < 1e-4, "{wanted} of 8 times {alone}");
    }
    // Experts: one that half of the tokens choose is computed in nearly every pass of eight.
    let mut routed = work.clone();
    routed.layers.iter_mut().flat_map(|l| &mut l.groups).for_each(|g| (g.routed, g.chosen) = (true, 0.5));
    for (group, plain) in routed.at_once(8).groups().zip(work.groups()) {
        assert!((group.chosen - (1.0 - 0.5f64.powi(8))).abs() < 1e-12);
        let union = |p: f64| 1.0 - (1.0 - p).powi(8);
        let (hottest, wanted) = (f64::from(plain.stats.rates[0]), union(f64::from(plain.stats.rates[0]) / 2.0));
        let found = group.chosen * f64::from(group.stats.rates[0]);
        assert!((found - wanted).abs() < 1e-6, "{found} instead of {wanted} of {hottest}");
    }
}

#[test]
fn several_sequences_are_faster_together_and_arithmetic_bounds_it() {
    let (hardware, work) = (machine(), model());
    let budget = 300 << 20;
    let speeds: Vec<f64> =
        [1, 2, 4, 8].iter().map(|n| planned(&hardware, &work, *n, budget).tokens_per_second()).collect();
    assert!(speeds.windows(2).all(|pair| pair[0] < pair[1]) && speeds[3] < 8.0 * speeds[0], "{speeds:?}");
    // With arithmetic hardly faster than reading, the processor gains nothing from several tokens at once.
    let slow = Hardware { cpu: slow_arithmetic(&hardware, 1.0), device: None, ..hardware.clone() };
    let fast = Hardware { device: None, ..hardware };
    let alone = |hardware: &Hardware, n: usize| {
        let (work, run) = (work.at_once(n), Run { room: Room::of_sequences(n), ..run(Mode::Exact) });
        Planner { hardware, work: &work, run: &run }.cpu_only(None).tokens_per_second()
    };
    assert_eq!(alone(&slow, 1), alone(&fast, 1));
    assert!(alone(&slow, 8) < 1.6 * alone(&slow, 1), "{} {}", alone(&slow, 8), alone(&slow, 1));
    assert!(alone(&fast, 8) > 2.0 * alone(&fast, 1), "{} {}", alone(&fast, 8), alone(&fast, 1));
}

/// Contexts are short here, so that room for keys and values decides nothing.
#[test]
fn eight_sequences_are_placed_otherwise_than_one() {
    let (mut hardware, work) = (machine(), model());
    hardware.cpu = slow_arithmetic(&hardware, 3.0);
    let at_once = work.at_once(8);
    let runs = [1, 8].map(|n| Run { n_ctx: 32, n_past: 32, room: Room::of_sequences(n), ..run(Mode::Exact) });
    let planners =
        [(&work, &runs[0]), (&at_once, &runs[1])].map(|(work, run)| Planner { hardware: &hardware, work, run });
    let [one, eight] = planners.map(|planner| planner.plan(Some(Bytes(300 << 20))).unwrap());
    assert_ne!(one.n_hot(), eight.n_hot());
    // The plan for one costs eight more than theirs does.
    let [_, planner] = planners;
    let choices: Vec<_> = one.layers.iter().map(|layer| layer.choice.clone()).collect();
    let forced = planner.of_choices(&choices, one.head).unwrap();
    assert!(forced.objective > eight.objective, "{} {}", forced.objective, eight.objective);
}

#[test]
fn what_is_in_common_and_where_arithmetic_takes_over_is_told() {
    let mut hardware = machine();
    hardware.cpu = slow_arithmetic(&hardware, 3.0);
    let (work, run) = (model().at_once(8), Run { room: Room::of_sequences(8), ..run(Mode::Exact) });
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let plan = planner.plan(Some(Bytes(300 << 20))).unwrap();
    let explained = Explained::new(&planner.prepare(), &plan);
    let (table, json) = (explained.table(false), explained.json());
    assert!(
        table.contains("8 sequences") && table.contains("is arithmetic: reading takes longer up to 3.0"),
        "{table}"
    );
    assert!(table.contains("ms per pass"), "{table}");
    assert_eq!((json["n_parallel"].as_u64(), json["at_once"]["arithmetic_limits_from"].as_f64()), (Some(8), Some(3.0)));
    let of = |key: &str| json["at_once"][key].as_f64().unwrap();
    assert!(of("density") < of("union") && of("union") < 8.0 * of("density"));
}

#[test]
fn a_pass_has_as_many_tokens_as_are_computed_at_once_where_there_is_a_card() {
    let (hardware, work) = (machine(), model());
    let mut routed = work.clone();
    routed.layers.iter_mut().for_each(|layer| layer.n_used = 1);
    let run = |n: usize, mode: Mode| Run { room: Room::of_sequences(n), ..run(mode) };
    let per_pass = |work: &Workload, run: Run| tokens_per_pass(hardware.device.is_some(), work, &run);
    assert_eq!([1, 4, 8, 16].map(|n| per_pass(&work, run(n, Mode::Exact))), [1, 4, 8, 8]);
    assert_eq!((per_pass(&routed, run(8, Mode::Exact)), per_pass(&work, run(8, Mode::Predicted))), (1, 1));
    assert_eq!(per_pass(&work, Run { n_ubatch: 4, ..run(8, Mode::Exact) }), 4);
    assert_eq!(tokens_per_pass(false, &routed, &run(16, Mode::Exact)), 16);
}
