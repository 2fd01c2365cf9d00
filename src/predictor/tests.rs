//! Predictors of whole models.

use super::*;
use crate::cpu::Isa;
use crate::executor::{Executor, ExecutorParams, KvType, Mode, Observer};
use crate::gguf::Gguf;
use crate::model::Model;
use crate::placement::Placement;
use crate::profile::samples::{SampleKey, Samples};
use crate::progress::Silent;
use crate::tokenizer::{Special, Tokenizer, read_vocab};
use half::f16;

struct Taker {
    x: Vec<Vec<f16>>,
}

impl Observer for Taker {
    fn ffn_input(&mut self, layer: usize, x: &[f32]) {
        self.x[layer].extend(x.iter().map(|v| f16::from_f32(*v)));
    }
}

/// FFN inputs of all layers over `tokens`, in windows of `n_ctx`.
fn sampled(model: &Model, tokens: &[u32], n_ctx: usize) -> Samples {
    let setup = ExecutorParams {
        n_threads: 2,
        n_ctx,
        kv_type: KvType::F32,
        mode: Mode::Dense,
        n_ubatch: 64,
        isa: Isa::detect(),
    };
    let mut executor = Executor::new(model, Placement::all_cold(model), setup).unwrap();
    let mut taker = Taker { x: vec![Vec::new(); model.config.n_layer] };
    for window in tokens.chunks(n_ctx) {
        executor.clear();
        executor.prefill_observed(window, &mut taker).unwrap();
    }
    let keys = (0..tokens.len() as u64).map(|position| SampleKey { hash: position, text: [7; 32], position }).collect();
    Samples { seed: 0, capacity: tokens.len(), keys, x: taker.x }
}

fn embedded() -> Model {
    Model::new(Gguf::from_source(crate::embedded::source()).unwrap(), None).unwrap()
}

fn params(choice: PredictorChoice) -> FitParams {
    FitParams { choice, target: Some(0.99), seed: 1, hidden: None, costs: Costs::default() }
}

/// Samples of the embedded model over a text like those it was trained on.
fn embedded_samples(model: &Model, n: usize) -> Samples {
    let tokenizer = Tokenizer::new(read_vocab(&model.gguf).unwrap()).unwrap();
    let story = "Once upon a time, there was a little girl named Lily. She liked to play in the park with her red ball. \
        One day, a big dog came and took the ball. Lily was sad, but her mom said: \"Do not cry. We can ask the dog.\" ";
    let words: Vec<&str> = story.split_whitespace().collect();
    // Sentences with words swapped around: nobody would read them, but none is like another.
    let mut state = 1u64;
    let mut text = String::new();
    for i in 0..n {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = if i % 5 == 0 { (state >> 33) as usize } else { i };
        text.push_str(words[at % words.len()]);
        text.push(' ');
    }
    let ids = tokenizer.encode(&text, Special::AsText).unwrap();
    sampled(model, &ids[..n], 128)
}

fn fitted(model: &Model, samples: &Samples, choice: PredictorChoice) -> Predictors {
    fit(model, samples, &FitParams { hidden: Some(32), ..params(choice) }, &Silent).unwrap()
}

#[test]
fn every_kind_meets_its_target_on_text_that_it_has_not_seen() {
    let model = embedded();
    let samples = embedded_samples(&model, 3000);
    for kind in [Kind::Sign, Kind::Lowrank] {
        let fitted = fitted(&model, &samples, PredictorChoice::Only(kind));
        for layer in &fitted.layers {
            let m = layer.measured;
            assert_eq!(layer.weights.kind(), kind);
            assert!(m.recall > 0.98 && m.recall <= 1.0, "{kind}: {m:?}");
            assert!(m.precision > m.fired && m.active >= m.fired * m.recall_count * 0.999, "{kind}: {m:?}");
        }
        assert_eq!(table(&model, &fitted).unwrap().lines().count(), model.config.n_layer + 2);
    }
}

#[test]
fn fitting_gives_the_same_for_any_number_of_threads() {
    let model = embedded();
    let samples = embedded_samples(&model, 600);
    let with = |n: usize, kind| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| fitted(&model, &samples, PredictorChoice::Only(kind)))
    };
    for kind in [Kind::Sign, Kind::Lowrank] {
        assert!(with(1, kind) == with(4, kind), "{kind}");
    }
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let model = embedded();
    let samples = embedded_samples(&model, 300);
    let error =
        |samples: &Samples, params: &FitParams| format!("{:#}", fit(&model, samples, params, &Silent).unwrap_err());
    let good = params(PredictorChoice::Only(Kind::Sign));
    for target in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(error(&samples, &FitParams { target: Some(target), ..good.clone() }).contains("target"));
    }
    assert!(error(&samples, &FitParams { hidden: Some(33), ..good.clone() }).contains("multiple of 32"));
    let mut few = samples.clone();
    few.keys.truncate(10);
    few.x.iter_mut().for_each(|x| x.truncate(10 * model.config.n_embd));
    assert!(error(&few, &good).contains("too few"));
    few.x[1].pop();
    assert!(error(&few, &good).contains("layer 1"));
    few.x.pop();
    assert!(error(&few, &good).contains("layers"));
    let mut nan = samples.clone();
    nan.x[2][7] = f16::NAN;
    assert!(error(&nan, &good).contains("no finite number"));
}

#[test]
fn predictors_survive_the_file_and_no_damage_does_harm() {
    let model = embedded();
    let samples = embedded_samples(&model, 300);
    let mut all = fitted(&model, &samples, PredictorChoice::Only(Kind::Lowrank));
    all.layers[1] = fitted(&model, &samples, PredictorChoice::Only(Kind::Sign)).layers[1].clone();
    if let Weights::Factors { inner_bias, .. } = &mut all.layers[2].weights {
        *inner_bias = Some(vec![0.5; 32]);
    }
    all.layers[3].weights = Weights::None;
    all.layers[3].bias.clear();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.predictor");
    all.write(&path, &Silent).unwrap();
    assert!(Predictors::read(&path).unwrap() == all);
    assert_eq!(all.check(&model).unwrap(), crate::profile::Kinship::Same);
    let bytes = std::fs::read(&path).unwrap();
    let damaged = dir.path().join("b.predictor");
    let head = 40_000.min(bytes.len());
    for at in (0..head).step_by(97).chain((head..bytes.len()).step_by(9973)) {
        std::fs::write(&damaged, &bytes[..at.max(1)]).unwrap();
        assert!(Predictors::read(&damaged).is_err(), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x41;
        std::fs::write(&damaged, &flipped).unwrap();
        // Whatever is read is whole.
        if let Ok(read) = Predictors::read(&damaged) {
            let shapes = |p: &Predictors| p.layers.iter().map(|l| (l.bias.len(), l.n_bytes())).collect::<Vec<_>>();
            assert_eq!(shapes(&read), shapes(&all), "flipped at {at}");
        }
    }
    let mut other = all.clone();
    other.fingerprint.family[0] ^= 1;
    assert!(other.check(&model).unwrap_err().to_string().contains("another model"));
    other = all.clone();
    other.layers.pop();
    assert!(other.check(&model).is_err());
}
