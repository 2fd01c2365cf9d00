//! The distributions that an independent program computes, which was compared with llama.cpp (scripts/make_sampler_golden.py).

use super::*;
use crate::gguf::Gguf;
use crate::tokenizer::{Tokenizer, read_vocab};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// The settings of a case over the defaults.
fn params(settings: &Value) -> SamplerParams {
    let mut p = SamplerParams { dry_sequence_breakers: vec![], ..SamplerParams::default() };
    for (name, value) in settings.as_object().unwrap() {
        let number = value.as_f64().unwrap_or(f64::NAN) as f32;
        match name.as_str() {
            "samplers" => p.samplers = Kind::list(value.as_str().unwrap()).unwrap(),
            "temp" => p.temp = number,
            "dynatemp_range" => p.dynatemp_range = number,
            "dynatemp_exp" => p.dynatemp_exponent = number,
            "top_k" => p.top_k = number as i32,
            "top_p" => p.top_p = number,
            "min_p" => p.min_p = number,
            "top_nsigma" => p.top_n_sigma = number,
            "typical" => p.typical_p = number,
            "xtc_probability" => p.xtc_probability = number,
            "xtc_threshold" => p.xtc_threshold = number,
            "repeat_penalty" => p.repeat_penalty = number,
            "frequency_penalty" => p.frequency_penalty = number,
            "presence_penalty" => p.presence_penalty = number,
            "repeat_last_n" => p.repeat_last_n = number as i32,
            "dry_multiplier" => p.dry_multiplier = number,
            "dry_base" => p.dry_base = number,
            "dry_allowed_length" => p.dry_allowed_length = number as i32,
            "dry_penalty_last_n" => p.dry_penalty_last_n = number as i32,
            "dry_sequence_breakers" => p.dry_sequence_breakers = serde_json::from_value(value.clone()).unwrap(),
            "mirostat" => p.mirostat = number as u8,
            "mirostat_lr" => p.mirostat_eta = number,
            "mirostat_ent" => p.mirostat_tau = number,
            "logit_bias" => {
                let biases = value.as_object().unwrap().iter();
                let bias = |v: &Value| v.as_f64().map_or(f32::NEG_INFINITY, |bias| bias as f32);
                p.logit_bias = biases.map(|(t, v)| LogitBias { token: t.parse().unwrap(), bias: bias(v) }).collect();
            }
            other => panic!("{other}"),
        }
    }
    p
}

fn compare(case: &Value, left: &Value, mut ours: Vec<(u32, f64)>) {
    let expected: Vec<(u32, f64)> = serde_json::from_value(left.clone()).unwrap();
    ours.sort_by_key(|(id, _)| *id);
    let ids = |list: &[(u32, f64)]| list.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&ours), ids(&expected), "{} {}", case["name"], case["settings"]);
    for ((id, ours), (_, expected)) in ours.iter().zip(&expected) {
        let close = (ours - expected).abs() <= 1e-5 * expected + 1e-12;
        assert!(close, "{} {}: token {id} {ours} {expected}", case["name"], case["settings"]);
    }
}

#[test]
fn distributions_are_those_of_llama_cpp() {
    let text = std::fs::read_to_string(repository("tests/golden/samplers.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text.replace("-Infinity", "null")).unwrap();
    let gguf = Gguf::open(&repository("models/tiny-stories-f16.gguf")).unwrap();
    let tokenizer = Tokenizer::new(read_vocab(&gguf).unwrap()).unwrap();
    assert!(cases.len() > 90);
    for case in &cases {
        let params = params(&case["settings"]);
        let logits: Vec<f32> = serde_json::from_value(case["logits"].clone()).unwrap();
        let mut sampler = Sampler::for_tokens(&params, &tokenizer).unwrap();
        if let Some(steps) = case["steps"].as_array() {
            for step in steps {
                compare(case, &step["left"], sampler.probabilities(&logits).unwrap());
                let drawn = step["drawn"].as_u64().unwrap() as u32;
                let at = sampler.candidates.list().iter().position(|c| c.id == drawn).unwrap();
                let total = sampler.candidates.weights().iter().sum();
                sampler.learn(at, total);
            }
            continue;
        }
        let history: Vec<u32> = serde_json::from_value(case["history"].clone()).unwrap();
        history.iter().for_each(|token| sampler.accept(*token));
        compare(case, &case["left"], sampler.probabilities(&logits).unwrap());
        // Nothing of it lasts.
        sampler.forget();
        let empty = Sampler::for_tokens(&params, &tokenizer).unwrap().probabilities(&logits).unwrap();
        assert_eq!(sampler.probabilities(&logits).unwrap(), empty, "{} {}", case["name"], case["settings"]);
    }
}
