//! What a card remembers of a sequence, on its way to the processor and back: where a context is shifted it moves there as it
//! does on the processor, and out of a session it is what it was.

use super::architectures::wide;
use super::gpu;
use super::support::compare::max_difference;
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Worker};
use powerinfer::gpu::Device;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{GroupChoice, LayerChoice, Place, Planner};
use powerinfer::placement::workload::Workload;
use std::io::Read;

const TOKENS: [u32; 12] = [3, 17, 5, 5, 0, 22, 8, 13, 2, 30, 11, 7];

fn params(kv_type: KvType) -> ExecutorParams {
    ExecutorParams { n_threads: 2, n_ctx: 16, kv_type, mode: Mode::Exact, n_ubatch: 4, isa: Isa::detect() }
}

/// Half of the neurons on the card, and attention of `on_card` layers.
fn divided<'m>(model: &'m Model, device: &Device, params: ExecutorParams, on_card: usize) -> Result<Executor<'m>> {
    let run = params.run(params.n_ctx);
    let hardware = Hardware::parse(include_str!("../../hardware/rtx-4090-ddr5.toml"))?;
    let work = Workload::of(model);
    let choice = |(i, layer): (usize, &powerinfer::model::Layer)| {
        let half = |n_ff: usize| GroupChoice { mask: true, predictor: false, n_hot: n_ff / 2 };
        let groups = layer.groups.iter().map(|group| half(group.n_ff())).collect();
        LayerChoice { card: 0, attention: i < on_card, groups }
    };
    let choices: Vec<_> = model.weights.layers.iter().enumerate().map(choice).collect();
    let plan = Planner { hardware: &hardware, work: &work, run: &run }.of_choices(&choices, Place::Card(0))?;
    let worker = Worker::new(params.n_threads, params.isa)?;
    Executor::on_card(model, device, plan, params, &worker)
}

/// Logits after further tokens behind two shifts, and how many tokens these have dropped.
fn shifted(executor: &mut Executor) -> Result<(Vec<f32>, Vec<usize>)> {
    let (mut all, mut dropped) = (Vec::new(), Vec::new());
    for token in TOKENS {
        executor.decode(token)?;
    }
    for n_keep in [2, 0] {
        dropped.push(executor.shift(n_keep, 5)?);
        for token in [9, 20, 4] {
            all.extend_from_slice(executor.decode(token)?);
        }
    }
    Ok((all, dropped))
}

#[test]
fn a_context_shift_on_a_card_is_one_on_the_processor() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    // Pairs side by side with all layers on the card, and layers with a window, of which one is there.
    for (name, kv_type, on_card, tolerance) in
        [("llama-yarn", KvType::Q8_0, 5, 1e-2), ("qwen3-window", KvType::F32, 1, 1e-5)]
    {
        let model = wide(name, None, folder.path())?;
        let (wanted, n_dropped) = shifted(&mut Executor::new(&model, Placement::all_cold(&model), params(kv_type))?)?;
        // Of 32-bit numbers only the order of sums differs; of others some round to their neighbour.
        let (got, dropped) = shifted(&mut divided(&model, &device, params(kv_type), on_card)?)?;
        let largest = wanted.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let apart = max_difference(&wanted, &got) / largest;
        assert!(apart <= tolerance && dropped == n_dropped, "{name}, {kv_type:?}: {apart:e}, {dropped:?}");
    }
    Ok(())
}

#[test]
fn a_session_goes_on_on_another_card_where_it_was_on_the_first() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    for (name, kv_type) in [("llama-yarn", KvType::F16), ("nemotron_h-biases", KvType::F32)] {
        let model = wide(name, None, folder.path())?;
        let new = || divided(&model, &device, params(kv_type), model.config.n_layer);
        let mut first = new().with_context(|| name.to_owned())?;
        TOKENS.iter().try_for_each(|token| first.decode(*token).map(drop))?;
        let mut stored = Vec::new();
        first.write_memory(TOKENS.len(), &mut |bytes| {
            stored.extend_from_slice(bytes);
            Ok(())
        })?;
        let (mut again, mut from) = (new()?, &stored[..]);
        let n = again.read_memory(&TOKENS, TOKENS.len(), &mut |bytes| Ok(from.read_exact(bytes)?))?;
        assert!(n == TOKENS.len() && from.is_empty(), "{name}: {n}");
        for token in [9, 20] {
            let (wanted, got) = (first.decode(token)?.to_vec(), again.decode(token)?);
            assert!(wanted.iter().zip(got).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
        }
    }
    Ok(())
}
