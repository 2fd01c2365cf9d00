//! Whole tokens: what card and CPU compute together is what the CPU computes alone, however the model is divided.

use super::support::groups::in_two;
use super::support::kind::{HeadNorms, Kind, Order, Pairing, Yarn};
use super::support::predictors::{ROOM, network, oracle, signs, with_predictor};
use super::support::real;
use super::{alone, emulated, gpu, text};
use anyhow::Result;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Worker};
use powerinfer::gpu::{Device, Kernels};
use powerinfer::model::{ALWAYS, Model};
use powerinfer::placement::Placement;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{GroupChoice, LayerChoice, Place, Plan, PlannedLayer, Planner, Room, Run};
use powerinfer::placement::workload::Workload;
use powerinfer::quant::GgmlType;
use powerinfer::variant::Options;

/// How far logits may be apart: sums run in another order in 32 bits, over six layers, and logits are about 10.
const F16_TOLERANCE: f32 = 2e-3;
/// With weights of 8 bits so is rounding of activations to bytes: a sum that differs in its last bit may round an
/// activation to the next of 127 steps. (Prefill and decode on the CPU differ by as much.)
const Q8_TOLERANCE: f32 = 0.2;
/// Prefill on the card rounds activations to 11 bits.
const PREFILL_TOLERANCE: f32 = 2e-2;
const N_TOKENS: usize = 4;
pub(super) const CARD: Place = Place::Card(0);

/// A layer with one group of neurons.
pub(super) fn divided(attention: bool, group: GroupChoice) -> LayerChoice {
    LayerChoice { card: 0, attention, groups: vec![group] }
}

fn hardware() -> Hardware {
    Hardware::parse(include_str!("../../hardware/rtx-4090-ddr5.toml")).expect("it is part of the repository")
}

pub(super) fn params(mode: Mode) -> ExecutorParams {
    ExecutorParams { kv_type: KvType::F16, ..real::params(mode, 2) }
}

/// A plan with the same choice for all layers but those that `other` names.
pub(super) fn plan(model: &Model, mode: Mode, head: Place, choice: impl Fn(usize) -> LayerChoice) -> Result<Plan> {
    let p = params(mode);
    let run =
        Run { n_ctx: p.n_ctx, n_past: p.n_ctx, kv_type: p.kv_type, n_ubatch: p.n_ubatch, mode, room: Room::default() };
    let work = Workload::of(model);
    let choices: Vec<_> = (0..model.config.n_layer).map(choice).collect();
    Planner { hardware: &hardware(), work: &work, run: &run }.of_choices(&choices, head)
}

fn on_card<'m>(model: &'m Model, device: &Device, plan: Plan, mode: Mode) -> Result<Executor<'m>> {
    let params = params(mode);
    let worker = Worker::new(params.n_threads, params.isa)?;
    Executor::on_card(model, device, plan, params, &worker)
}

/// Largest difference between logits of the CPU alone and of both.
fn difference(model: &Model, mode: Mode, plan: Plan) -> Result<f32> {
    let Some(device) = gpu() else { return Ok(0.0) };
    let tokens = real::story(N_TOKENS)?;
    // Hot neurons are computed by their true mask: that makes a difference in mode predicted.
    let sizes = model.weights.group_sizes();
    let choices = plan.layers.iter().flat_map(|l: &PlannedLayer| &l.choice.groups);
    let whole = choices.zip(&sizes).map(|(g, n_ff)| if g.mask { *n_ff } else { g.n_hot }).collect();
    let placement = match mode {
        Mode::Predicted => Placement::new(model, whole)?,
        Mode::Dense | Mode::Exact | Mode::Thresholded => Placement::all_cold(model),
    };
    let alone = real::decode(&mut Executor::new(model, placement, params(mode))?, &tokens)?;
    let mut both = on_card(model, &device, plan, mode)?;
    assert!(both.card().is_some(), "the card has nothing to do");
    let together = real::decode(&mut both, &tokens)?;
    let again = real::decode(&mut both, &tokens)?;
    assert_eq!(together, again, "the same tokens give the same bits");
    Ok(alone.iter().zip(&together).map(|(a, b)| apart(a, b)).fold(0.0, f32::max))
}

/// Ways to divide a layer of `n_ff` neurons, with names.
fn ways(n_ff: usize) -> Vec<(&'static str, LayerChoice)> {
    let half = n_ff / 2;
    let choice = |attention, mask, n_hot| divided(attention, GroupChoice { mask, predictor: false, n_hot });
    vec![
        ("all on the card", choice(true, false, n_ff)),
        ("half hot, mask on the card", choice(true, true, half)),
        ("nothing hot, mask on the card", choice(true, true, 0)),
        ("half hot", choice(true, false, half)),
        ("only attention", choice(true, false, 0)),
        ("attention on the CPU, half hot", choice(false, false, half)),
        ("attention on the CPU, mask on the card", choice(false, true, 32)),
    ]
}

fn every_way(model: &Model, tolerance: f32) -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    for (name, choice) in ways(model.config.n_ff[0]) {
        for mode in [Mode::Exact, Mode::Dense] {
            let apart = difference(model, mode, plan(model, mode, CARD, |_| choice.clone())?)?;
            assert!(apart < tolerance, "{name}, {}: {apart}", mode.name());
        }
    }
    Ok(())
}

#[test]
fn hybrid_in_every_division_of_a_layer_f16() -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let model = real::split(real::source(), Options::default(), &dir.path().join("f16.gguf"))?;
    every_way(&model, F16_TOLERANCE)
}

#[test]
fn hybrid_in_every_division_of_a_layer_q8() -> Result<()> {
    let gguf = powerinfer::gguf::Gguf::from_source(powerinfer::embedded::source())?;
    every_way(&Model::new(gguf, None)?, Q8_TOLERANCE)
}

/// Largest difference between logits after prefills of the CPU alone and of both, in batches of several sizes, and of a
/// token that is decoded behind them.
fn prefill_difference(model: &Model, plan: Plan) -> Result<f32> {
    let Some(device) = gpu() else { return Ok(0.0) };
    let tokens = real::story(24)?;
    let mut alone = Executor::new(model, Placement::all_cold(model), params(Mode::Exact))?;
    let mut both = on_card(model, &device, plan, Mode::Exact)?;
    let mut most = 0.0f32;
    for piece in [&tokens[..17], &tokens[17..19], &tokens[19..23]] {
        let logits = both.prefill(piece)?.to_vec();
        most = most.max(apart(alone.prefill(piece)?, &logits));
    }
    assert_eq!(both.n_past(), 23);
    let logits = both.decode(tokens[23])?.to_vec();
    Ok(most.max(apart(alone.decode(tokens[23])?, &logits)))
}

/// What layers may be made of. Sizes are such that kernels take them.
#[test]
fn hybrid_of_other_kinds_of_layers() -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    let usual = Kind {
        dtype: GgmlType::F16,
        n_vocab: 2048,
        n_embd: 64,
        n_ff: vec![96; 4],
        n_head: 2,
        n_head_kv: 1,
        head_dim: 32,
        n_rot: 32,
        ..Kind::default()
    };
    let folder = tempfile::tempdir()?;
    for kind in [
        Kind { name: "parallel", order: Order::Parallel, layer_norm: true, ..usual.clone() },
        Kind { name: "one mixer per layer", order: Order::OneMixer, ..usual.clone() },
        Kind {
            name: "ungated",
            gated: false,
            activation: "relu2",
            biases: true,
            rope: Pairing::Halves,
            ..usual.clone()
        },
        Kind { name: "two norms", order: Order::TwoNorms, layer_norm: true, scale: 0.5, ..usual.clone() },
        Kind { name: "norms behind", order: Order::PostNorms, head_norms: HeadNorms::Together, ..usual.clone() },
        Kind { name: "norms around", order: Order::BothNorms, scale: 0.75, ffn_biases: true, ..usual.clone() },
        Kind {
            name: "biases of neurons, scales, norms of heads",
            ffn_biases: true,
            biases: true,
            scale: 0.25,
            attention_scale: 0.3,
            head_norms: HeadNorms::Each,
            ..usual.clone()
        },
        Kind {
            name: "rotation in parts, sharper and sharper",
            n_rot: 16,
            still_every: Some(2),
            temperature: Some((0.3, 4)),
            rope_factor: 4.0,
            yarn: Some(Yarn { n_ctx: 16, beta_fast: 8.0, beta_slow: 1.0, share: 1.0, log_multiplier: 0.0 }),
            ..usual.clone()
        },
        Kind { name: "biases, ungated", gated: false, ffn_biases: true, order: Order::Parallel, ..usual.clone() },
    ] {
        let (plain, hot_first) = (folder.path().join("plain.gguf"), folder.path().join("variant.gguf"));
        std::fs::write(&plain, kind.file(&kind.weights(11)).bytes())?;
        kind.split(&plain, &hot_first)?;
        let model = kind.load(&hot_first)?;
        for (name, choice) in ways(96) {
            let of_layer = |i: usize| {
                let groups = vec![choice.groups[0]; model.weights.layers[i].groups.len()];
                LayerChoice { groups, ..choice.clone() }
            };
            for mode in [Mode::Exact, Mode::Dense] {
                let apart = difference(&model, mode, plan(&model, mode, CARD, of_layer)?)?;
                assert!(apart < F16_TOLERANCE, "{}, {name}, {}: {apart}", kind.name, mode.name());
            }
            let apart = prefill_difference(&model, plan(&model, Mode::Exact, CARD, of_layer)?)?;
            // Sharper attention and norms behind blocks make more of what was rounded.
            assert!(apart < 2.0 * PREFILL_TOLERANCE, "{}, {name}, prefill: {apart}", kind.name);
        }
        std::fs::remove_file(&plain)?;
        std::fs::remove_file(&hot_first)?;
    }
    Ok(())
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| if a.is_nan() || b.is_nan() { f32::INFINITY } else { (a - b).abs() }).fold(0.0, f32::max)
}

#[test]
fn hybrid_prefill_in_every_division_of_a_layer() -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let model = real::split(real::source(), Options::default(), &dir.path().join("f16.gguf"))?;
    for (name, choice) in ways(model.config.n_ff[0]) {
        for head in [CARD, Place::Host] {
            let choice = |i| if head == Place::Host && i != 2 { LayerChoice::none(1) } else { choice.clone() };
            let apart = prefill_difference(&model, plan(&model, Mode::Exact, head, choice)?)?;
            assert!(apart < PREFILL_TOLERANCE, "{name}, head {head:?}: {apart}");
        }
    }
    // A plain file: its neurons cannot be divided.
    let plain = real::source();
    let attention = LayerChoice { attention: true, ..LayerChoice::none(1) };
    let apart = prefill_difference(plain, plan(plain, Mode::Exact, CARD, |_| attention.clone())?)?;
    assert!(apart < PREFILL_TOLERANCE, "plain: {apart}");
    Ok(())
}

/// A plan with two groups in each layer, the first of them divided as `first` says and the other as `second`.
fn plan_of_two(model: &Model, mode: Mode, attention: bool, first: GroupChoice, second: GroupChoice) -> Result<Plan> {
    plan(model, mode, CARD, |_| LayerChoice { card: 0, attention, groups: vec![first, second] })
}

#[test]
fn hybrid_with_two_groups_per_layer() -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let one = real::split(real::source(), Options::default(), &dir.path().join("f16.gguf"))?;
    let (_folder, with_predictor) = with_predictor(&|_, _| ROOM, oracle)?;
    for (model, modes) in [(&one, &[Mode::Exact, Mode::Dense][..]), (&with_predictor, &[Mode::Predicted])] {
        let two = in_two(model, real::open)?;
        let [a, b] = two.weights.group_sizes()[..2] else { panic!("two groups") };
        let (half, quarter) = (a / 2 / 32 * 32, b / 4 / 32 * 32);
        let choice = |mask, predictor, n_hot| GroupChoice { mask, predictor, n_hot };
        let predicted = modes[0] == Mode::Predicted;
        for (name, attention, first, second) in [
            ("both divided", true, choice(!predicted, predicted, half), choice(!predicted, predicted, quarter)),
            ("the first hot, the second cold", true, choice(false, false, a), choice(!predicted, predicted, 0)),
            ("the first cold", false, choice(!predicted, predicted, 0), choice(false, false, b)),
            ("nothing of the second", true, choice(false, false, half), choice(false, false, 0)),
        ] {
            for mode in modes {
                let plan = plan_of_two(&two, *mode, attention, first, second)?;
                let apart = difference(&two, *mode, plan)?;
                assert!(apart < F16_TOLERANCE, "{name}, {}: {apart}", mode.name());
            }
        }
        let plan = plan_of_two(&two, Mode::Exact, true, choice(true, false, half), choice(false, false, quarter))?;
        let apart = prefill_difference(&two, plan)?;
        assert!(apart < PREFILL_TOLERANCE, "prefill: {apart}");
    }
    Ok(())
}

#[test]
fn hybrid_with_layers_on_the_cpu() -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let model = real::split(real::source(), Options::default(), &dir.path().join("f16.gguf"))?;
    let n_ff = model.config.n_ff[0];
    let card = divided(true, GroupChoice { mask: true, predictor: false, n_hot: n_ff / 4 });
    let last = model.config.n_layer - 1;
    /// Whether a layer is on the CPU, by its number and that of the last one.
    type OnCpu = fn(usize, usize) -> bool;
    let routes: [(&str, OnCpu); 5] = [
        ("the first", |i, _| i < 2),
        ("the last", |i, last| i == last),
        ("in the middle", |i, _| i == 2 || i == 3),
        ("every second", |i, _| i % 2 == 0),
        ("none", |_, _| false),
    ];
    for (name, on_cpu) in routes {
        for head in [CARD, Place::Host] {
            let choice = |i| if on_cpu(i, last) { LayerChoice::none(1) } else { card.clone() };
            let apart = difference(&model, Mode::Exact, plan(&model, Mode::Exact, head, choice)?)?;
            assert!(apart < F16_TOLERANCE, "{name}, head {head:?}: {apart}");
        }
    }
    Ok(())
}

#[test]
fn hybrid_with_predictors_on_either_side() -> Result<()> {
    if gpu().is_none() {
        return Ok(());
    }
    // Agreement of signs is a number of elements, so the same neurons are named, to the last one.
    const AGREE: f32 = -8.0;
    for (name, bias, parts) in [
        ("factors", ROOM, oracle as fn(&_) -> _),
        ("a network", ROOM, network),
        ("signs", AGREE, signs),
        ("everybody", ALWAYS, signs),
    ] {
        let (_folder, model) = with_predictor(&|_, _| bias, parts)?;
        let n_ff = model.config.n_ff[0];
        for (on_card, mask, n_hot) in
            [(true, false, n_ff / 2), (true, false, 0), (false, false, n_ff / 2), (false, true, 0)]
        {
            let choice = divided(true, GroupChoice { mask, predictor: on_card, n_hot });
            let apart = difference(&model, Mode::Predicted, plan(&model, Mode::Predicted, CARD, |_| choice.clone())?)?;
            assert!(apart < F16_TOLERANCE, "{name}, {choice:?}: {apart}");
        }
    }
    Ok(())
}

#[test]
fn hybrid_takes_what_is_accounted() {
    if emulated() {
        return;
    }
    // Alone, for what other tests take would count, too.
    if let Some(output) = alone("hybrid::memory_is_what_is_accounted", ("EMU_SEED", "7")) {
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
#[ignore = "run by the test above, alone"]
fn memory_is_what_is_accounted() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let gguf = powerinfer::gguf::Gguf::from_source(powerinfer::embedded::source())?;
    let model = Model::new(gguf, None)?;
    for (name, choice) in ways(model.config.n_ff[0]) {
        let plan = plan(&model, Mode::Exact, CARD, |_| choice.clone())?;
        let accounted = plan.account().sum();
        let before = device.memory()?.0.0;
        // Kernels are the driver's own, and not counted.
        let kernels = Kernels::load(&device)?;
        let of_kernels = before - device.memory()?.0.0;
        drop(kernels);
        let executor = on_card(&model, &device, plan, Mode::Exact)?;
        let gone = before - device.memory()?.0.0;
        assert_eq!(executor.card().map_or(0, |card| card.allocated.0), accounted, "{name}");
        assert_eq!(gone, accounted + of_kernels, "{name}: {accounted} for us, {of_kernels} for kernels");
    }
    Ok(())
}

fn embedded() -> Result<Model> {
    Model::new(powerinfer::gguf::Gguf::from_source(powerinfer::embedded::source())?, None)
}

#[test]
#[ignore = "run by the tests below, with errors injected"]
fn a_card_fails() -> Result<()> {
    let device = gpu().expect("under the emulator");
    let model = embedded()?;
    let (_, choice) = ways(model.config.n_ff[0]).swap_remove(1);
    let plan = plan(&model, Mode::Exact, CARD, |_| choice.clone())?;
    let mut executor = match on_card(&model, &device, plan, Mode::Exact) {
        Ok(executor) => executor,
        Err(error) => {
            println!("at load: {error:#}");
            return Ok(());
        }
    };
    for token in real::story(8)? {
        if let Err(error) = executor.decode(token) {
            println!("in a token: {error:#}");
            println!("then: {:#}", executor.decode(token).unwrap_err());
            println!("and: {:#}", executor.prefill(&[token; 8]).unwrap_err());
            return Ok(());
        }
    }
    panic!("nothing failed");
}

#[test]
fn hybrid_errors_are_one_line() {
    if emulated() {
        return;
    }
    for (setting, says) in [
        (("EMU_VRAM", "104M"), vec!["at load: ", "out of device memory", "--vram-budget"]),
        (
            ("EMU_FAIL", "kernel:down_q8_0@9=700"),
            vec!["in a token: ", "then: the card has failed before", "and: the card has failed"],
        ),
        (("EMU_FAIL", "cuGraphLaunch@3=999"), vec!["in a token: ", "then: the card has failed before"]),
        (("EMU_FAIL", "cuModuleLoadDataEx@2=218"), vec!["at load: ", "compiling PTX"]),
    ] {
        let Some(output) = alone("hybrid::a_card_fails", setting) else { return };
        let said = text(&output);
        assert!(output.status.success(), "{setting:?}: {said}");
        assert!(says.iter().all(|s| said.contains(s)), "{setting:?}: {said}");
    }
}
