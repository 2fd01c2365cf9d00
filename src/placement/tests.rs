//! Plans of whole models: within the budget, proved, monotone, and each layer by its own statistics.

mod at_once;
mod experts;
mod limit;
mod shapes;
mod window;

use super::explain::Explained;
use super::hardware::{Bandwidth, Bandwidths, Bus, Cpu, Device, Gpu, Hardware};
use super::plan::{Place, Plan, Planner, Room, Run};
use super::workload::{GroupWork, LayerWork, NeuronRows, NeuronStats, Whole, Workload};
use super::{budget, rates};
use crate::model::{KvType, Mode, Role};
use crate::quant::GgmlType;
use crate::units::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;

fn machine() -> Hardware {
    let same = |gb: f64| Bandwidths {
        other: Bandwidth {
            stream: gb * 1e9,
            gather: gb * 7e8,
            add_stream: gb * 1e9,
            add_gather: gb * 7e8,
            several: f64::INFINITY,
        },
        by_type: BTreeMap::new(),
    };
    let (vram, context, data_sheet) = (Bytes(24 << 30), Bytes(400 << 20), Some(1000e9));
    let gpu = Gpu { vram, context, bandwidth: same(850.0), kernel: 2e-6, data_sheet };
    Hardware {
        name: "test".to_owned(),
        cpu: Cpu { threads: 8, bandwidth: same(70.0), region: 3e-6, value: 4e-10 },
        device: Some(Device { gpu, bus: Bus { bandwidth: 25e9, rendezvous: 8e-6 } }),
    }
}

fn run(mode: Mode) -> Run {
    Run { n_ctx: 512, n_past: 512, kv_type: KvType::F16, n_ubatch: 64, mode, room: Room::default() }
}

fn random(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * (rng.next_u32() as f64 / f64::from(u32::MAX))
}

/// A model whose layers all differ, in density and in how hot the hottest are.
fn distinct(n_layer: usize, n_embd: usize, n_ff: usize, seed: u64) -> Workload {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let block = |n_rows: usize| Whole { bytes: (2 * n_embd * n_rows) as u64, dtype: GgmlType::F16 };
    let rows = NeuronRows { row_bytes: 2 * n_embd as u64, dtype: GgmlType::F16 };
    let layers = (0..n_layer).map(|_| {
        let density = random(&mut rng, 0.02, 0.4);
        let rates: Vec<f32> = rates::power_law(n_ff, density).iter().map(|r| *r as f32).collect();
        let group = GroupWork {
            mask: rows,
            up: Some(rows),
            down: rows,
            down_by_columns: false,
            divisible: true,
            routed: false,
            chosen: 1.0,
            stats: NeuronStats { mass: rates.clone(), rates, open_rates: None, wanted: None, cold: None }.into(),
            predictor: None,
        };
        let attention = [Role::AttnQ, Role::AttnK, Role::AttnV, Role::AttnOutput];
        LayerWork {
            blocks: attention.map(|role| (role, block(n_embd))).to_vec(),
            small_bytes: 8 * n_embd as u64,
            n_q: n_embd,
            n_kv: n_embd,
            head_dim: 64,
            window: None,
            recurrence: None,
            n_used: 0,
            n_latent: 0,
            groups: vec![group],
        }
    });
    let layers = layers.collect();
    Workload {
        name: "test".to_owned(),
        n_embd,
        n_vocab: 1000,
        head: block(1000),
        n_head_bias: 0,
        layers,
        hits: Vec::new(),
    }
}

fn plan(hardware: &Hardware, work: &Workload, method: Mode, budget: u64) -> anyhow::Result<Plan> {
    Planner { hardware, work, run: &run(method) }.plan(Some(Bytes(budget)))
}

#[test]
fn what_is_accounted_is_within_the_budget_whatever_it_is() {
    let (hardware, mut rng) = (machine(), ChaCha8Rng::seed_from_u64(7));
    let mut work = distinct(3, 512, 512, 1);
    work.assume_predictors();
    let methods = [Mode::Dense, Mode::Exact, Mode::Predicted];
    let mut planned = 0;
    for i in 0..1000 {
        let budget = Bytes(random(&mut rng, 1.0, (work.n_bytes() + (16 << 20)) as f64) as u64);
        let method = methods[i % 3];
        let planner = Planner { hardware: &hardware, work: &work, run: &run(method) };
        match planner.plan(Some(budget)) {
            Ok(plan) => {
                planned += 1;
                let sum: u64 = plan.layers.iter().map(|l| l.account.sum()).sum();
                let head = if plan.head.is_card() { budget::of_head(&work).sum() } else { 0 };
                let scratch = if plan.is_cpu_only() { 0 } else { budget::scratch(&work, &run(method)).sum() };
                assert_eq!(plan.account().sum(), sum + head + scratch);
                assert!(plan.account().taken() <= budget, "{:?} of {budget:?}", plan.account());
                assert_eq!(plan.objective, plan.bound, "{budget}");
            }
            Err(error) => {
                let (least, text) = (planner.least(), error.to_string());
                assert!(budget < least, "{text}");
                assert!(text.contains(&Bytes(least.0 - budget.0).to_string()), "{text}");
            }
        }
    }
    assert!((300..1000).contains(&planned), "{planned}");
}

#[test]
fn more_budget_never_takes_more_time() {
    let hardware = machine();
    let mut work = distinct(12, 512, 1024, 2);
    work.assume_predictors();
    for method in [Mode::Dense, Mode::Exact, Mode::Predicted] {
        let budgets = (0..60).map(|i| (8 << 20) + i * (2 << 20));
        let times: Vec<u64> = budgets.filter_map(|b| Some(plan(&hardware, &work, method, b).ok()?.objective)).collect();
        assert!(times.len() > 40 && times.is_sorted_by(|a, b| a >= b), "{times:?}");
        assert!(times[0] > *times.last().unwrap());
    }
}

#[test]
fn permuted_layers_have_permuted_plans() {
    let hardware = machine();
    let work = distinct(14, 1024, 16_384, 3);
    let order = [0, 10, 11, 12, 13, 1, 2, 3, 9, 8, 7, 6, 5, 4];
    let permuted = Workload { layers: order.iter().map(|i| work.layers[*i].clone()).collect(), ..work.clone() };
    for budget in [300u64 << 20, 600 << 20, 900 << 20] {
        let a = plan(&hardware, &work, Mode::Exact, budget).unwrap();
        let b = plan(&hardware, &permuted, Mode::Exact, budget).unwrap();
        assert_eq!(a.objective, b.objective);
        for (to, from) in order.iter().enumerate() {
            assert_eq!(b.layers[to], a.layers[*from], "layer {from} at place {to}");
        }
        let mut sizes = a.n_hot();
        sizes.sort_unstable();
        sizes.dedup();
        assert!(sizes.len() > 2, "the layers are not told apart: {sizes:?}");
    }
}

#[test]
fn a_budget_that_is_too_small_names_what_is_missing() {
    let (hardware, work) = (machine(), distinct(2, 512, 512, 4));
    let error = plan(&hardware, &work, Mode::Exact, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("1.00 MiB are too few") && error.contains("more"), "{error}");
    let error = plan(&hardware, &work, Mode::Exact, 25 << 30).unwrap_err().to_string();
    assert!(error.contains("more than the 24.00 GiB"), "{error}");
    let none = Hardware { device: None, ..hardware };
    let error = plan(&none, &work, Mode::Exact, 1 << 30).unwrap_err().to_string();
    assert!(error.contains("no graphics card"), "{error}");
}

#[test]
fn nothing_is_handed_over_where_one_side_is_empty() {
    let (hardware, work) = (machine(), distinct(4, 512, 1024, 5));
    let all = plan(&hardware, &work, Mode::Exact, 1 << 30).unwrap();
    assert_eq!((all.home, all.head, all.hot_share()), (Place::Card(0), Place::Card(0), 1.0));
    assert!(all.layers.iter().all(|l| l.time.rendezvous == 0.0 && l.time.cpu == 0.0));
    let planner = Planner { hardware: &hardware, work: &work, run: &run(Mode::Exact) };
    let none = planner.cpu_only(None);
    assert!(none.is_cpu_only() && none.layers.iter().all(|l| l.time.rendezvous == 0.0 && l.time.gpu == 0.0));
}

#[test]
fn a_slow_bus_leaves_everything_to_the_cpu_and_says_so() {
    let (mut hardware, work) = (machine(), distinct(4, 512, 1024, 5));
    hardware.device.as_mut().unwrap().bus.rendezvous = 1.0;
    let run = run(Mode::Exact);
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let plan = planner.plan(Some(Bytes(20 << 20))).unwrap();
    assert!(plan.is_cpu_only());
    assert!(Explained::new(&planner.prepare(), &plan).table(false).contains("nothing is on the card"));
}

#[test]
fn eighty_layers_of_28672_neurons_are_planned_and_proved_at_once() {
    let (hardware, mut work) = (machine(), distinct(80, 8192, 28_672, 6));
    work.assume_predictors();
    // Layers that are all alike are no easier.
    let alike = Workload { layers: vec![work.layers[0].clone(); 80], ..work.clone() };
    for (work, method) in
        [(&work, Mode::Exact), (&work, Mode::Predicted), (&alike, Mode::Exact), (&alike, Mode::Predicted)]
    {
        let start = std::time::Instant::now();
        let plan = plan(&hardware, work, method, 20 << 30).unwrap();
        let seconds = start.elapsed().as_secs_f64();

        assert_eq!(plan.gap(), 0.0);
        // Less than a second for the slowest of them on one core; tests run beside each other, unoptimised ones too.
        assert!(seconds < 8.0, "{seconds} s");
    }
}

#[test]
fn an_explanation_has_a_line_for_every_layer_and_parses() {
    let (hardware, work) = (machine(), distinct(12, 512, 1024, 8));
    let run = run(Mode::Exact);
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let plan = planner.plan(Some(Bytes(40 << 20))).unwrap();
    let explained = Explained::new(&planner.prepare(), &plan);
    let table = explained.table(true);
    assert_eq!(
        table.lines().filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit())).count(),
        12,
        "{table}"
    );
    assert!(table.contains("one more GiB buys +") && table.contains("optimal"), "{table}");
    let json = explained.json();
    assert_eq!(json["layers"].as_array().unwrap().len(), 12);
    assert!(json["accounted_bytes"].as_u64() <= json["budget_bytes"].as_u64());
}
