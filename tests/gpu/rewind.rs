//! Models whose layers recur, in sequences that go back: states on the card go where the sequence does.

use super::architectures::wide;
use super::support::compare::{max_difference, same_bits};
use super::support::real::decode;
use super::{alone, emulated, gpu, text};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Worker};
use powerinfer::gpu::{Device, waiting};
use powerinfer::model::Model;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{GroupChoice, LayerChoice, Place, Planner};
use powerinfer::placement::workload::Workload;
use powerinfer::progress::Interrupted;
use std::sync::atomic::{AtomicBool, Ordering};

const TOKENS: [u32; 7] = [3, 17, 5, 5, 0, 22, 8];

/// Half of the neurons on the card, and the mixers of `on_card` layers from the first on.
fn executor<'m>(model: &'m Model, device: &Device, on_card: usize) -> Result<Executor<'m>> {
    let (kv_type, isa) = (KvType::F32, Isa::detect());
    let params = ExecutorParams { n_threads: 2, n_ctx: 16, kv_type, mode: Mode::Exact, n_ubatch: 4, isa };
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
    let accounted = plan.account().taken();
    let executor = Executor::on_card(model, device, plan, params, &Worker::new(2, isa)?)?;
    assert_eq!(executor.card().map(|card| card.allocated), Some(accounted));
    Ok(executor)
}

#[test]
fn states_on_a_card_go_back_to_what_was_remembered_and_nowhere_else() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let model = wide("nemotron_h-biases", None, folder.path())?;
    // Of two layers that recur both, or one where the other is the processor's.
    for on_card in [model.config.n_layer, 2] {
        let mut executor = executor(&model, &device, on_card)?;
        let whole = decode(&mut executor, &TOKENS)?;
        executor.clear();
        for (i, token) in TOKENS[..6].iter().enumerate() {
            if [2, 4].contains(&i) {
                executor.remember();
            }
            executor.decode(*token)?;
        }
        let line = executor.truncate(3).unwrap_err().to_string();
        assert!(line.contains("cannot go back to the first 3"), "{line}");
        for kept in [4, 2] {
            executor.truncate(kept)?;
            // What was behind it must not show.
            executor.decode(11)?;
            assert_eq!(executor.keep(kept), kept);
            let again = TOKENS[kept..5].iter().map(|token| Ok(executor.decode(*token)?.to_vec()));
            same_bits(&whole[kept..5], &again.collect::<Result<Vec<_>>>()?).with_context(|| format!("{kept}"))?;
        }
        // A place on the way of a prompt, which is computed in batches.
        executor.clear();
        executor.remember_at(4);
        executor.prefill(&TOKENS)?;
        assert_eq!(executor.keep(6), 4);
        let logits = executor.prefill(&TOKENS[4..])?;
        let largest = whole[6].iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let apart = max_difference(&whole[6], logits);
        assert!(apart <= 1e-2 * largest, "{apart} apart of {largest}");
    }
    Ok(())
}

static STOP: AtomicBool = AtomicBool::new(false);

#[test]
#[ignore = "run by the test below, where a token comes late"]
fn the_user_stops_a_late_token() -> Result<()> {
    waiting::heed(|| STOP.load(Ordering::SeqCst));
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let model = wide("nemotron_h-biases", None, folder.path())?;
    let mut executor = executor(&model, &device, model.config.n_layer)?;
    let whole = decode(&mut executor, &TOKENS)?;
    for remembered in [3, 0] {
        executor.clear();
        for (i, token) in TOKENS[..5].iter().enumerate() {
            if i > 0 && i == remembered {
                executor.remember();
            }
            executor.decode(*token)?;
        }
        STOP.store(true, Ordering::SeqCst);
        let stopped = executor.decode(TOKENS[5]).err().context("it was not stopped")?;
        STOP.store(false, Ordering::SeqCst);
        assert!(stopped.is::<Interrupted>(), "{stopped:#}");
        // States have taken the token up, so that they are no longer those of five tokens.
        assert_eq!(executor.n_past(), remembered);
        let again = TOKENS[remembered..].iter().map(|token| Ok(executor.decode(*token)?.to_vec()));
        same_bits(&whole[remembered..], &again.collect::<Result<Vec<_>>>()?)?;
    }
    Ok(())
}

#[test]
fn a_token_that_is_stopped_in_its_middle_leaves_nothing_in_states() {
    if emulated() {
        return;
    }
    // Seven tokens, five, the stopped one, four, five, and the other stopped one.
    let late = "kernel:finish@13=stall:2300,kernel:finish@23=stall:2300";
    let Some(output) = alone("rewind::the_user_stops_a_late_token", ("EMU_FAIL", late)) else { return };
    assert!(output.status.success(), "{}", text(&output));
}
