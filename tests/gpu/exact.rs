//! Exact mode loses nothing on a card either: what is not 0, added up, is all of it, bit for bit.

use super::gpu;
use super::support::convert;
use super::support::kind::Kind;
use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Worker};
use powerinfer::gguf::TensorInfo;
use powerinfer::gpu::Device;
use powerinfer::model::Model;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{GroupChoice, LayerChoice, Place, Planner, Room, Run};
use powerinfer::placement::workload::Workload;
use powerinfer::quant::GgmlType;

/// All types that the card has kernels for and that can be written.
const TYPES: [GgmlType; 10] = [
    GgmlType::F32,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q8_0,
    GgmlType::Q4_0,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
];
const N_FF: usize = 160;
/// As a prompt, in batches; the rest one by one.
const PROMPT: [u32; 11] = [5, 17, 3, 44, 9, 60, 21, 8, 33, 12, 2];
const DECODED: [u32; 3] = [11, 38, 4];

fn params(mode: Mode) -> ExecutorParams {
    ExecutorParams { n_threads: 2, n_ctx: 32, kv_type: KvType::F16, mode, n_ubatch: 6, isa: Isa::detect() }
}

/// Logits after a prompt and after each token behind it, as bits.
fn logits(model: &Model, device: &Device, mode: Mode, choice: &LayerChoice) -> Result<Vec<u32>> {
    let params = params(mode);
    let run = Run {
        n_ctx: params.n_ctx,
        n_past: params.n_ctx,
        kv_type: params.kv_type,
        n_ubatch: params.n_ubatch,
        mode,
        room: Room::default(),
    };
    let hardware = Hardware::parse(include_str!("../../hardware/rtx-4090-ddr5.toml"))?;
    let work = Workload::of(model);
    let choices = vec![choice.clone(); model.config.n_layer];
    let plan = Planner { hardware: &hardware, work: &work, run: &run }.of_choices(&choices, Place::Card(0))?;
    let worker = Worker::new(params.n_threads, params.isa)?;
    let mut executor = Executor::on_card(model, device, plan, params, &worker)?;
    assert!(executor.card().is_some(), "the card has nothing to do");
    let mut bits: Vec<u32> = executor.prefill(&PROMPT)?.iter().map(|v| v.to_bits()).collect();
    for token in DECODED {
        bits.extend(executor.decode(token)?.iter().map(|v| v.to_bits()));
    }
    if mode == Mode::Exact {
        let density = executor.stats().density().unwrap_or_default();
        assert!((0.05..0.95).contains(&density), "{density} of the neurons fired");
    }
    Ok(bits)
}

#[test]
fn exact_is_dense_bit_for_bit_with_any_share_of_neurons_on_the_card() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let [plain, sorted, typed] = ["plain", "sorted", "typed"].map(|n| folder.path().join(format!("{n}.gguf")));
    for (gated, activation, types) in [(true, "relu", &TYPES[..]), (false, "relu2", &[GgmlType::F16, GgmlType::Q4_K])] {
        let kind = Kind {
            n_vocab: 64,
            n_embd: 256,
            n_ff: vec![N_FF, N_FF],
            n_head: 4,
            n_head_kv: 2,
            head_dim: 64,
            n_rot: 64,
            gated,
            activation,
            ..Kind::default()
        };
        std::fs::write(&plain, kind.file(&kind.weights(3)).bytes())?;
        kind.split(&plain, &sorted)?;
        for dtype in types.iter().copied() {
            let typed_of = |t: &TensorInfo| if t.dims.len() > 1 { dtype } else { t.dtype };
            convert::write(&kind.load(&sorted)?, typed_of, &typed)?;
            let model = kind.load(&typed)?;
            // Whether attention is on the card, whether the whole mask is, and hot neurons.
            for (attention, mask, n_hot) in [
                (true, true, 0),
                (true, false, 1),
                (true, true, N_FF / 4),
                (false, true, N_FF / 2 + 3),
                (true, false, N_FF / 2 + 3),
                (true, true, N_FF - 1),
                (true, false, N_FF),
            ] {
                let group = GroupChoice { mask, predictor: false, n_hot };
                let choice = LayerChoice { card: 0, attention, groups: vec![group] };
                let what = format!("{dtype}, {activation}, {n_hot} hot, attention {attention}, mask {mask}");
                let exact = logits(&model, &device, Mode::Exact, &choice)?;
                let dense = logits(&model, &device, Mode::Dense, &choice)?;
                assert!(exact == dense, "{what}: exact is not dense");
            }
            drop(model);
            std::fs::remove_file(&typed)?;
        }
        std::fs::remove_file(&plain)?;
        std::fs::remove_file(&sorted)?;
    }
    Ok(())
}
