//! Models with experts: every expert has a prefix of its own, and no division at all is faster than the bound.

use super::*;
use crate::placement::choice::{GroupChoice, LayerChoice};
use crate::placement::cost::Cost;
use std::sync::Arc;

/// Layers with a router, whose experts all differ in how often they are chosen and how often their neurons fire, and one
/// that every token has.
fn routed(n_layer: usize, n_embd: usize, n_ff: usize, n_experts: usize, seed: u64) -> Workload {
    let mut work = distinct(n_layer, n_embd, n_ff, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for layer in &mut work.layers {
        let n_used = n_experts.div_ceil(4);
        let chosen = rates::popularity(n_experts, n_used, random(&mut rng, 0.3, 1.5));
        let like = layer.groups[0].clone();
        layer.n_used = n_used;
        layer.blocks.push((Role::Router, Whole { bytes: (4 * n_embd * n_experts) as u64, dtype: GgmlType::F32 }));
        let expert = |chosen: f64| {
            let rates: Vec<f32> =
                rates::power_law(n_ff, random(&mut rng, 0.05, 0.4)).iter().map(|r| *r as f32).collect();
            let stats = NeuronStats { mass: rates.clone(), rates, open_rates: None, wanted: None, cold: None }.into();
            GroupWork { routed: true, chosen, stats, ..like.clone() }
        };
        layer.groups = chosen.into_iter().map(expert).chain([like.clone()]).collect();
    }
    work
}

#[test]
fn plans_of_experts_are_within_their_budget_and_above_their_bound_and_more_is_never_slower() {
    let (hardware, work) = (machine(), routed(4, 512, 256, 16, 1));
    for mode in [Mode::Dense, Mode::Exact, Mode::Predicted] {
        let run = run(mode);
        let planner = Planner { hardware: &hardware, work: &work, run: &run };
        let (prepared, least) = (planner.prepare(), planner.least());
        assert!(prepared.plan(Some(Bytes(least.0 - 1))).unwrap_err().to_string().contains("are too few"));
        let budgets = (0..40).map(|i| Bytes(least.0 + i * (2 << 20)));
        let plans: Vec<Plan> = budgets.map(|budget| prepared.plan(Some(budget)).unwrap()).collect();
        for plan in &plans {
            let layers: u64 = plan.layers.iter().map(|l| l.account.sum()).sum();
            assert!(plan.account().taken() <= plan.budget().unwrap() && layers <= plan.account().sum());
            assert!(plan.bound <= plan.objective && plan.gap() < 0.15, "{mode:?}: {}", plan.gap());
            assert!(planner.least_seconds(plan) <= plan.seconds());
        }
        assert!(plans.is_sorted_by(|a, b| a.objective >= b.objective), "{mode:?}");
        let (first, last) = (&plans[0], &plans[plans.len() - 1]);
        assert!(first.objective > last.objective);
        assert_eq!((last.hot_share(), last.home), (1.0, Place::Card(0)));
        assert!(last.layers.iter().all(|l| l.time.rendezvous == 0.0 && l.time.cpu == 0.0));
    }
}

/// All ways to divide one layer's groups between card and CPU, in blocks of 32 neurons.
fn divisions(layer: &LayerWork) -> Vec<LayerChoice> {
    let mut out = vec![LayerChoice { attention: true, ..LayerChoice::none(layer.groups.len()) }];
    for (at, group) in layer.groups.iter().enumerate() {
        let prefixes = (0..=group.n_ff()).step_by(32);
        let of_group: Vec<GroupChoice> =
            prefixes.map(|n_hot| GroupChoice { mask: false, predictor: false, n_hot }).collect();
        out = out
            .into_iter()
            .flat_map(|choice| {
                let with = |of: &GroupChoice| {
                    let mut choice = choice.clone();
                    choice.groups[at] = *of;
                    choice
                };
                of_group.iter().map(with).collect::<Vec<_>>()
            })
            .collect();
    }
    out.push(LayerChoice::none(layer.groups.len()));
    out
}

#[test]
fn no_division_of_experts_whatever_is_faster_than_the_bound() {
    let (hardware, run) = (machine(), run(Mode::Exact));
    for seed in 0..6 {
        let work = routed(1, 4096, 64, 4, seed);
        let planner = Planner { hardware: &hardware, work: &work, run: &run };
        let prepared = planner.prepare();
        let all: Vec<Plan> = divisions(&work.layers[0])
            .into_iter()
            .flat_map(|choice| [Place::Host, Place::Card(0)].map(|head| (choice.clone(), head)))
            .map(|(choice, head)| planner.of_choices(&[choice], head).unwrap())
            .collect();
        assert!(all.len() > 300);
        for more in [0u64, 4, 30, 60, 120] {
            let budget = Bytes(planner.least().0 + (more << 20));
            let plan = prepared.plan(Some(budget)).unwrap();
            let fits = all.iter().filter(|other| other.account().taken() <= budget);
            let best = fits.map(|other| other.objective).min().unwrap();
            assert!(plan.bound <= best, "seed {seed}, {budget}: {} instead of {best}", plan.bound);
        }
    }
}

#[test]
fn what_is_hot_is_what_is_popular_and_fires() {
    let (hardware, run) = (machine(), run(Mode::Exact));
    let mut work = routed(1, 1024, 256, 8, 3);
    let stats = Arc::clone(&work.layers[0].groups[0].stats);
    work.layers[0].groups.iter_mut().for_each(|group| group.stats = Arc::clone(&stats));
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let plan = planner.plan(Some(Bytes(planner.least().0 + (10 << 20)))).unwrap();
    let groups = &plan.layers[0].choice.groups;
    let rank = |choice: &GroupChoice| (choice.n_hot, choice.mask);
    assert!(groups[..8].is_sorted_by(|a, b| rank(a).0 >= rank(b).0), "{groups:?}");
    assert!(groups[7] == GroupChoice::default() && groups[0].is_any(), "{groups:?}");
    // Every token has the last one.
    assert!(groups[8].n_hot >= groups[0].n_hot, "{groups:?}");
}

#[test]
fn an_expert_costs_what_it_reads_times_how_often_it_is_chosen() {
    let (mut hardware, run) = (machine(), run(Mode::Dense));
    hardware.cpu.region = 0.0;
    hardware.cpu.value = 0.0;
    let work = routed(1, 512, 256, 16, 4);
    let layer = &work.layers[0];
    let on_cpu = LayerChoice::none(layer.groups.len());
    let time = Cost::new(&hardware, &work, &run).layer(0, &on_cpu, Place::Host, &mut Vec::new());
    // Four of 16 and the one that every token has, each of 256 neurons with three rows of 512 elements in two bytes.
    let expected = f64::from(5 * 256 * 3 * 512 * 2) / 70e9;
    assert!((time.cpu / expected - 1.0).abs() < 1e-6, "{} instead of {expected}", time.cpu);
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let read = planner.least_seconds(&planner.cpu_only(None)) * 70e9;
    let beside: u64 = layer.blocks.iter().map(|(_, block)| block.bytes).sum::<u64>() + work.head.bytes;
    let chosen = expected * 70e9 + beside as f64;
    assert!((read / chosen - 1.0).abs() < 1e-6, "{read} instead of {chosen}");
}

#[test]
fn whole_experts_on_the_cpu_are_no_faster_than_the_plan() {
    let (hardware, work, run) = (machine(), routed(4, 512, 256, 16, 5), run(Mode::Exact));
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let prepared = planner.prepare();
    let mut counts = Vec::new();
    for more in [8u64, 16, 24, 32, 64] {
        let budget = Bytes(planner.least().0 + (more << 20));
        let Some((n_cpu, offload)) = planner.expert_offload(Some(budget)) else { continue };
        counts.push(n_cpu);
        assert!(offload.account().taken() <= budget);
        let cold = |i: usize| offload.layers[i].choice.groups.iter().filter(|g| g.n_hot == 0).count();
        assert!((0..4).all(|i| cold(i) == if i < n_cpu { 16 } else { 0 }));
        assert!(prepared.plan(Some(budget)).unwrap().objective <= offload.objective);
    }
    assert!(counts.len() > 3 && counts.is_sorted_by(|a, b| a >= b) && counts.last() == Some(&0), "{counts:?}");
    let dense = distinct(2, 512, 256, 1);
    assert!(Planner { work: &dense, ..planner }.expert_offload(None).is_none());
}

#[test]
fn an_explanation_says_which_experts_are_cold() {
    let (hardware, work, run) = (machine(), routed(4, 512, 256, 16, 6), run(Mode::Exact));
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let prepared = planner.prepare();
    let plan = prepared.plan(Some(Bytes(planner.least().0 + (16 << 20)))).unwrap();
    let explained = Explained::new(&prepared, &plan);
    let (table, json) = (explained.table(false), explained.json());
    let cold = |layer: &serde_json::Value| layer["experts"]["wholly_cold"].as_u64().unwrap();
    let n_cold: u64 = json["layers"].as_array().unwrap().iter().map(cold).sum();
    assert!(n_cold > 0 && table.contains(&format!("{n_cold} wholly cold")), "{table}");
    for words in
        ["experts   64 in 4 layers, 4 of 16 chosen", "cold      layer ", "of it     ", "of 4 layers on the card"]
    {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(json["expert_offload_layers"].as_u64().unwrap() <= 4);
    let dense = distinct(2, 512, 256, 1);
    let planner = Planner { work: &dense, ..planner };
    let plan = planner.plan(Some(Bytes(planner.least().0 + (8 << 20)))).unwrap();
    let explained = Explained::new(&planner.prepare(), &plan);
    assert!(!explained.table(false).contains("experts") && explained.json()["layers"][0]["experts"].is_null());
}
