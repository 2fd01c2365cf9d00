//! The table of kernels: every kernel of a token is in it, with the bytes that its shape says.

use super::architectures::wide;
use super::support::ModelFile;
use super::support::kind::{Kind, Routed};
use super::support::predictors::{ROOM, network, oracle, signs, with_predictor};
use super::{emulated, gpu};
use powerinfer::gguf::Gguf;
use powerinfer::gpu::kernel_list::{Card, Cases, Measured, measure_model};
use powerinfer::gpu::meter::{Effort, Meter, Times};
use powerinfer::model::Model;
use powerinfer::progress::{Interrupted, Progress, Silent};
use powerinfer::quant::GgmlType;

fn effort() -> Effort {
    let small = Effort { bytes: 1 << 26, n_runs: 2, ..Effort::default() };
    if emulated() { Effort::least() } else { small }
}

/// 2 layers, 256 wide, 512 neurons each, all in 32 bits, a context of 64 tokens.
fn model() -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = ModelFile::sized(256, 512).written(folder.path(), "tiny.gguf");
    Model::new(Gguf::open(&path).unwrap(), None).unwrap()
}

/// What is measured of `model`; nothing without a card.
fn measured(model: &Model, types: &[GgmlType]) -> Option<Card> {
    let meter = Meter::new(&gpu()?, effort()).unwrap();
    let cases = Cases::of(model, types);
    assert!(cases.left_out.is_empty(), "{:?}", cases.left_out);
    let (card, ended) = measure_model(&meter, model, &cases, GgmlType::F16, &Silent).unwrap();
    ended.unwrap();
    Some(card)
}

/// The only row of `kernel` whose part begins so.
fn row<'a>(card: &'a Card, kernel: &str, part: &str) -> &'a Measured {
    let fits = |m: &&Measured| m.timed.kernel == kernel && m.timed.part.starts_with(part);
    let found: Vec<_> = card.kernels.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{kernel}, {part}: {:?}", card.kernels);
    found[0]
}

fn assert_believable(times: Times, what: &str) {
    assert!(times.best > 0.0 && times.best <= times.median && times.median < 100.0, "{what}: {times:?}");
}

#[test]
fn every_kernel_of_a_token_has_a_row_with_the_bytes_of_its_shape() {
    let model = model();
    let Some(card) = measured(&model, &[]) else { return };
    let config = &model.config;
    let (n_embd, n_ff, n_kv) = (config.n_embd, config.n_ff[0], config.n_kv());
    let group = &model.weights.layers[0].groups[0];
    let dtype = group.mask_matrix().dtype();
    let bytes = |n_rows: usize, n_cols: usize| (n_rows * dtype.row_bytes(n_cols).unwrap()) as u64;
    for (kernel, part, n_bytes) in [
        ("matvec", "mask: ", bytes(n_ff, n_embd)),
        ("matvec", "attention output: ", bytes(n_embd, config.n_q())),
        ("matvec", "head: ", model.weights.head().n_bytes() as u64),
        ("matvec", "qkv: ", bytes(config.n_q() + 2 * n_kv, n_embd)),
        ("gate_up", "both: ", bytes(2 * n_ff, n_embd)),
        ("up", "all: ", bytes(n_ff, n_embd)),
        ("down", "all: ", bytes(n_ff, n_embd)),
    ] {
        let row = row(&card, kernel, part);
        assert_eq!(row.timed.bytes, n_bytes, "{kernel}, {part}");
        assert!(row.planned.is_some_and(|rate| rate > 0.0), "{kernel}, {part}");
    }
    for kernel in ["up", "down"] {
        let some = row(&card, kernel, "10 %: ").timed.bytes as f64 / bytes(n_ff, n_embd) as f64;
        assert!((0.02..0.3).contains(&some), "{kernel}: {some}");
    }
    let n_past = config.n_ctx_train.min(4096) / 2;
    let attention = row(&card, "attention", &format!("{n_past} positions"));
    assert_eq!(attention.timed.bytes, (2 * 2 * n_kv * n_past) as u64);
    assert!(attention.planned.is_some());
    for kernel in [
        "begin_token",
        "rope_store",
        "norm",
        "merge_norm",
        "quantize",
        "select_act",
        "select_hot",
        "post_x",
        "take_reply",
        "finish",
    ] {
        let row = row(&card, kernel, "");
        assert!(row.timed.bytes > 0 && row.planned.is_none(), "{row:?}");
    }
    assert_eq!(card.kernels.len(), 20, "{:?}", card.kernels);
    assert_eq!(card.n_launches, effort().n_launches);
    card.kernels.iter().for_each(|m| assert_believable(m.timed.times, m.timed.kernel));
    for times in [card.launching.call, card.launching.whole, card.launching.running] {
        assert_believable(times, "a graph");
    }
    assert!(card.loading > 0.0 && card.probed.as_ref().unwrap().bus.rendezvous > 0.0);
}

#[test]
fn other_types_are_measured_in_place_of_the_models_own() {
    let model = model();
    let types = [GgmlType::Q4_0, GgmlType::F16];
    let Some(card) = measured(&model, &types) else { return };
    let of = |dtype: GgmlType, kernel: &str| {
        card.kernels.iter().filter(|m| m.timed.dtype == Some(dtype) && m.timed.kernel == kernel).count()
    };
    for dtype in types {
        assert_eq!(
            [of(dtype, "matvec"), of(dtype, "up"), of(dtype, "down"), of(dtype, "gate_up")],
            [4, 2, 2, 1],
            "{dtype}"
        );
    }
    assert_eq!(of(model.weights.head().dtype(), "matvec"), 0);
    let probed: Vec<_> = card.probed.as_ref().unwrap().gpu.bandwidth.by_type.keys().copied().collect();
    assert_eq!(probed, ["F16", "Q4_0"]);
}

#[test]
fn predictors_add_their_kernels() {
    let (_folder, model) = with_predictor(&|_, _| ROOM, signs).unwrap();
    let Some(card) = measured(&model, &[]) else { return };
    let (n_embd, n_ff) = (model.config.n_embd, model.config.n_ff[0]);
    assert_eq!(row(&card, "sign_scores", "").timed.bytes, (n_ff * n_embd / 8) as u64);
    let (_folder, model) = with_predictor(&|_, _| ROOM, network).unwrap();
    let card = measured(&model, &[]).unwrap();
    assert!(row(&card, "hidden", "").timed.bytes > 0);
    for part in ["predictor first: ", "predictor second: "] {
        assert!(row(&card, "matvec", part).planned.is_some());
    }
    let (_folder, model) = with_predictor(&|_, _| ROOM, oracle).unwrap();
    assert!(Cases::of(&model, &[]).cases.iter().any(|case| case.part == "predictor second"));
}

#[test]
fn what_has_no_kernel_is_left_out_by_name() {
    let model = model();
    let cases = Cases::of(&model, &[GgmlType::Q3_K, GgmlType::F16]);
    assert!(cases.cases.iter().all(|case| case.shape.dtype == GgmlType::F16) && !cases.cases.is_empty());
    let [(dtype, why)] = &cases.left_out[..] else { panic!("{:?}", cases.left_out) };
    assert!(*dtype == GgmlType::Q3_K && why.contains("has no kernels"), "{why}");
}

struct Cancelled;

impl Progress for Cancelled {
    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn measuring_kernels_ends_when_the_user_wants() {
    let model = model();
    let Some(device) = gpu() else { return };
    let meter = Meter::new(&device, effort()).unwrap();
    let (card, ended) = measure_model(&meter, &model, &Cases::of(&model, &[]), GgmlType::F16, &Cancelled).unwrap();
    let error = ended.unwrap_err();
    assert!(card.kernels.is_empty() && card.probed.is_none());
    assert!(error.is::<Interrupted>(), "{error:#}");
}

#[test]
fn routers_and_experts_add_their_kernels() {
    let routed = Some(Routed { n_used: 2, normalised: true, early: false });
    let (n_embd, n_ff) = (64, 96);
    let kind = Kind {
        n_embd,
        n_head: 2,
        n_head_kv: 2,
        head_dim: 32,
        n_rot: 32,
        n_ff: vec![n_ff; 2],
        routed,
        ..Kind::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("experts.gguf");
    std::fs::write(&path, kind.file(&kind.weights(3)).bytes()).unwrap();
    let model = kind.load(&path).unwrap();
    let Some(card) = measured(&model, &[]) else { return };
    let bytes = |n_rows: usize| (4 * n_rows * n_embd) as u64;
    for (kernel, part, n_bytes) in [
        ("matvec", "router: ", bytes(2)),
        ("experts", "2 experts: 4 times 96", bytes(4 * n_ff)),
        ("experts_down", "2 experts: 96+96", bytes(2 * n_ff)),
        ("route", "2 of 2", 8),
        ("post_chosen", "64 over the bus", 4 * n_embd as u64),
    ] {
        let measured = row(&card, kernel, part);
        assert_eq!(measured.timed.bytes, n_bytes, "{kernel}, {part}");
        assert_believable(measured.timed.times, kernel);
    }
    assert!(card.kernels.iter().all(|kernel| !["up", "gate_up"].contains(&kernel.timed.kernel)));
}

#[test]
fn recurrent_layers_add_their_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let model = wide("nemotron_h-biases", None, folder.path()).unwrap();
    let Some(card) = measured(&model, &[]) else { return };
    let sizes = model.config.ssm.unwrap().sizes();
    let (n_embd, n_inner) = (model.config.n_embd, sizes.n_inner());
    for (kernel, part, n_floats) in [
        ("matvec", "recurrent input: ", sizes.n_projected() * n_embd),
        ("matvec", "recurrent output: ", n_inner * n_embd),
        ("recurrent_convolve", "3 tokens", sizes.n_channels() * (3 + 2 * 2 + 2)),
        ("recurrent_scan", "480 x ", 2 * sizes.n_states()),
        ("recurrent_norm", "1 of 480", 2 * n_inner),
    ] {
        let measured = row(&card, kernel, part);
        assert_eq!(measured.timed.bytes, 4 * n_floats as u64, "{kernel}, {part}");
        assert_believable(measured.timed.times, kernel);
    }
}
