//! What is recorded of tokens that card and CPU compute together: the CPU's parts by layer, and its waiting for the card.

use super::gpu;
use super::hybrid::{CARD, divided, params, plan};
use super::support::real;
use anyhow::Result;
use powerinfer::executor::{Executor, Worker};
use powerinfer::gguf::Gguf;
use powerinfer::model::{Mode, Model};
use powerinfer::placement::plan::GroupChoice;
use powerinfer::trace::Recorder;
use serde_json::Value;

#[test]
fn recorded_are_the_parts_of_the_cpu_and_its_waiting_for_the_card() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let model = Model::new(Gguf::from_source(powerinfer::embedded::source())?, None)?;
    let (params, half) = (params(Mode::Exact), model.config.n_ff[0] / 2);
    let worker = Worker::new(params.n_threads, params.isa)?;
    let recorder = Recorder::new(params.n_threads, 2);
    worker.set_trace(&recorder);
    let group = GroupChoice { mask: false, predictor: false, n_hot: half };
    let plan = plan(&model, Mode::Exact, CARD, |_| divided(true, group))?;
    let mut both = Executor::on_card(&model, &device, plan, params, &worker)?;
    assert!(both.card().is_some(), "the card has nothing to do");
    real::decode(&mut both, &real::story(3)?)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("trace.json");
    recorder.write(&path, &powerinfer::progress::Silent)?;
    let trace: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let spans: Vec<&Value> = trace["traceEvents"].as_array().into_iter().flatten().filter(|e| e["ph"] == "X").collect();
    let named = |name: &str| spans.iter().filter(|span| span["name"] == name && span["tid"] == 0).collect::<Vec<_>>();
    assert_eq!(named("token").len(), 2);
    let n_layer = model.config.n_layer;
    for layer in 0..n_layer {
        let of_layer = |name: &str| named(name).iter().filter(|span| span["args"]["layer"] == layer).count();
        assert_eq!(of_layer("cold"), 2, "layer {layer}");
        assert!(of_layer("waiting for the card") >= 2 && of_layer("mask") >= 2, "layer {layer}");
    }
    Ok(())
}
