//! Groups of neurons that a router chooses, on a card: some of each is hot, and one request per layer has the CPU compute the
//! rest of those that are chosen.

use super::gpu;
use super::support::convert;
use super::support::kind::{Kind, Routed};
use super::support::real::decode;
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Worker};
use powerinfer::gguf::TensorInfo;
use powerinfer::gpu::Device;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{GroupChoice, LayerChoice, Place, Planner};
use powerinfer::placement::workload::Workload;
use powerinfer::quant::GgmlType;

const N_FF: usize = 96;
const TOKENS: [u32; 6] = [5, 17, 3, 44, 9, 21];
/// Of the largest logit: sums run in another order in 32 bits.
const TOLERANCE: f32 = 2e-5;
/// The same where a prompt's activations are rounded to 11 bits.
const PREFILL_TOLERANCE: f32 = 1e-2;
/// Both, where weights and activations are quantized.
const QUANTIZED: [f32; 2] = [5e-3, 0.3];

/// Machines whose processor is so much slower, or as fast, that a prompt's groups are all computed on the card, or those of which
/// it has a third.
const SLOW_CPU: [(&str, &str); 1] = [("\nstream_gb_s = 76.2", "\nstream_gb_s = 0.001")];
const EVEN: [(&str, &str); 3] = [
    ("\nstream_gb_s = 76.2", "\nstream_gb_s = 36.8"),
    ("kernel_us = 2.0", "kernel_us = 0.0"),
    ("rendezvous_us = 8.0", "rendezvous_us = 0.0"),
];

fn params(mode: Mode) -> ExecutorParams {
    ExecutorParams { n_threads: 2, n_ctx: 16, kv_type: KvType::F32, mode, n_ubatch: 8, isa: Isa::detect() }
}

/// Logits of each token alone and of a prompt's last one, and the shares of neurons that fire and that are read.
struct Computed {
    decoded: Vec<f32>,
    prefilled: Vec<f32>,
    shares: [Option<f64>; 2],
    /// By group, the share of tokens for which it is computed.
    chosen: Vec<Option<f64>>,
}

fn compute(executor: &mut Executor, n_groups: usize) -> Result<Computed> {
    let decoded = decode(executor, &TOKENS)?.concat();
    let shares = [executor.stats().density(), executor.stats().opened()];
    let chosen = (0..n_groups).map(|group| executor.stats().share_computed(group)).collect();
    executor.clear();
    Ok(Computed { decoded, prefilled: executor.prefill(&TOKENS)?.to_vec(), shares, chosen })
}

fn on_card(
    model: &Model,
    device: &Device,
    mode: Mode,
    choices: &[LayerChoice],
    machine: &[(&str, &str)],
) -> Result<Computed> {
    let params = params(mode);
    let (run, work) = (params.run(params.n_ctx), Workload::of(model));
    let mut hardware = include_str!("../../hardware/rtx-4090-ddr5.toml").to_owned();
    for (from, to) in machine {
        assert!(hardware.contains(from), "{from}");
        hardware = hardware.replace(from, to);
    }
    let hardware = Hardware::parse(&hardware)?;
    let plan = Planner { hardware: &hardware, work: &work, run: &run }.of_choices(choices, Place::Card(0))?;
    let worker = Worker::new(params.n_threads, params.isa)?;
    let mut executor = Executor::on_card(model, device, plan, params, &worker)?;
    compute(&mut executor, model.weights.group_sizes().len())
}

/// Largest difference, of the largest value.
fn apart(expected: &[f32], got: &[f32]) -> f32 {
    assert_eq!(expected.len(), got.len());
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let pairs = expected.iter().zip(got);
    pairs.map(|(a, b)| if b.is_nan() { f32::INFINITY } else { (a - b).abs() }).fold(0.0, f32::max) / largest
}

/// Hot neurons of the groups of each layer, by way to divide them.
fn ways(n_layer: usize) -> [(&'static str, Vec<[usize; 2]>); 3] {
    let mixed = [[0, 33], [N_FF, 7], [0, 0], [N_FF, N_FF]];
    [
        ("half", vec![[N_FF / 2; 2]; n_layer]),
        ("all", vec![[N_FF; 2]; n_layer]),
        ("mixed", mixed.into_iter().cycle().take(n_layer).collect()),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn check(model: &Model, device: &Device, what: &str, [decode, prefill]: [f32; 2]) -> Result<()> {
    let mut alone = Executor::new(model, Placement::all_cold(model), params(Mode::Exact))?;
    let expected = compute(&mut alone, model.weights.group_sizes().len())?;
    for (way, n_hot) in ways(model.config.n_layer) {
        let group = |n_hot| GroupChoice { mask: false, predictor: false, n_hot };
        let choice = |n_hot: &[usize; 2]| LayerChoice { card: 0, attention: true, groups: n_hot.map(group).to_vec() };
        let choices: Vec<_> = n_hot.iter().map(choice).collect();
        let what = format!("{what}, {way}");
        let exact = on_card(model, device, Mode::Exact, &choices, &SLOW_CPU).with_context(|| what.clone())?;
        let dense = on_card(model, device, Mode::Dense, &choices, &EVEN)?;
        let decoded = apart(&expected.decoded, &exact.decoded);
        let prompts = [&exact, &dense].map(|computed| apart(&expected.prefilled, &computed.prefilled));
        println!("{what}: decode {decoded:e}, prompt {prompts:?}");
        assert!(decoded <= decode && prompts.iter().all(|apart| *apart <= prefill), "{what}");
        // What the card computes of a prompt is rounded to 11 bits there.
        let alike = bits(&exact.prefilled) == bits(&dense.prefilled);
        assert_eq!(alike, way != "mixed", "{what}: where a prompt's groups are computed");
        assert_eq!(bits(&exact.decoded), bits(&dense.decoded), "{what}: exact is not dense");
        assert_eq!(exact.chosen, expected.chosen, "{what}: the share of tokens that chose a group");
        for (card, cpu) in exact.shares.iter().zip(&expected.shares) {
            let apart = card.unwrap_or_default() - cpu.unwrap_or_default();
            assert!(apart.abs() <= 2e-3, "{what}: {:?} of the neurons, on the CPU {:?}", exact.shares, expected.shares);
        }
    }
    Ok(())
}

#[test]
fn experts_on_a_card_give_what_they_give_on_the_cpu() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let wide = || Kind {
        n_vocab: 64,
        n_embd: 64,
        n_ff: vec![N_FF; 4],
        n_head: 2,
        n_head_kv: 2,
        head_dim: 32,
        n_rot: 32,
        ..Kind::default()
    };
    let one = Routed { n_used: 1, normalised: false, early: false };
    let both = Routed { n_used: 2, normalised: true, early: true };
    for (name, dtype, kind) in [
        ("one", GgmlType::F32, Kind { routed: Some(one), ..wide() }),
        ("both, early", GgmlType::F32, Kind { routed: Some(both), ..wide() }),
        ("both, early, Q8_0", GgmlType::Q8_0, Kind { routed: Some(both), ..wide() }),
        ("both, ungated", GgmlType::F32, Kind { routed: Some(both), gated: false, activation: "relu2", ..wide() }),
        ("one, two masks", GgmlType::F16, Kind { routed: Some(one), activation: "drelu", ..wide() }),
    ] {
        let [plain, sorted, typed] = ["plain", "sorted", "typed"].map(|n| folder.path().join(format!("{n}.gguf")));
        std::fs::write(&plain, kind.file(&kind.weights(3)).bytes())?;
        kind.split(&plain, &sorted)?;
        let typed_of = |t: &TensorInfo| {
            let matrix = t.dims.len() > 1 && t.name.ends_with(".weight");
            if matrix { dtype } else { t.dtype }
        };
        convert::write(&kind.load(&sorted)?, typed_of, &typed)?;
        // Quantized activations may be the next ones where sums are rounded in another way, and those of a prompt have 8 bits on
        // the CPU, 11 on the card.
        let tolerance = if dtype == GgmlType::Q8_0 { QUANTIZED } else { [TOLERANCE, PREFILL_TOLERANCE] };
        check(&kind.load(&typed)?, &device, name, tolerance)?;
    }
    Ok(())
}

#[test]
fn experts_without_their_router_are_refused() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let routed = Some(Routed { n_used: 1, normalised: false, early: false });
    let kind = Kind {
        n_embd: 64,
        n_head: 2,
        n_head_kv: 2,
        head_dim: 32,
        n_rot: 32,
        n_ff: vec![N_FF; 2],
        routed,
        ..Kind::default()
    };
    let [plain, sorted] = ["plain", "sorted"].map(|n| folder.path().join(format!("{n}.gguf")));
    std::fs::write(&plain, kind.file(&kind.weights(3)).bytes())?;
    kind.split(&plain, &sorted)?;
    let model = kind.load(&sorted)?;
    let hot = GroupChoice { mask: false, predictor: false, n_hot: 32 };
    let choices = vec![LayerChoice { card: 0, attention: false, groups: vec![hot; 2] }; 2];
    let error = on_card(&model, &device, Mode::Exact, &choices, &[]).err().context("it computes")?;
    assert!(format!("{error:#}").contains("whose router is not there"), "{error:#}");
    Ok(())
}
