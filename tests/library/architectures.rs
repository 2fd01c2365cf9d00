//! Every architecture computes what an independent reference in 64 bits does: golden logits of tiny random models.
//!
//! tests/golden/arch has files by scripts/make_arch_gguf.py and logits by scripts/reference.py; llama.cpp agrees with them
//! (scripts/compare_logits.py); so does transformers with OPT, which llama.cpp does not know (scripts/make_opt_golden.py).

use crate::support::real::repository;
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Observer};
use powerinfer::gguf::Gguf;
use powerinfer::model::{Activation, Model};
use powerinfer::placement::Placement;
use serde::Deserialize;

/// Largest difference relative to the largest logit of the file. Measured: 1.1e-6.
const TOLERANCE: f64 = 5e-6;

#[derive(Deserialize)]
pub struct Golden {
    model: String,
    pub tokens: Vec<u32>,
    /// As `--activation`; the architecture's own where there is none.
    activation: Option<String>,
    /// After each token.
    pub logits: Vec<Vec<f64>>,
}

pub fn golden(name: &str) -> Result<Golden> {
    let path = repository(&format!("tests/golden/arch/{name}.json"));
    Ok(serde_json::from_str(&std::fs::read_to_string(&path).with_context(|| path.display().to_string())?)?)
}

pub fn open(golden: &Golden) -> Result<Model> {
    let activation = golden.activation.as_ref().map(|name| name.parse::<Activation>()).transpose()?;
    Model::new(Gguf::open(&repository(&format!("tests/golden/arch/{}", golden.model)))?, activation)
}

#[derive(Default)]
struct AllLogits(Vec<Vec<f32>>);

impl Observer for AllLogits {
    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, _position: usize, logits: &[f32]) {
        self.0.push(logits.to_vec());
    }
}

pub fn difference(expected: &[Vec<f64>], got: &[Vec<f32>]) -> f64 {
    assert_eq!((expected.len(), expected[0].len()), (got.len(), got[0].len()));
    let largest = expected.iter().flatten().fold(0.0f64, |a, b| a.max(b.abs()));
    let pairs = expected.iter().flatten().zip(got.iter().flatten());
    pairs.fold(0.0f64, |worst, (a, b)| worst.max((a - f64::from(*b)).abs())) / largest
}

#[test]
fn tiny_models_of_every_architecture_give_the_golden_logits() -> Result<()> {
    for name in [
        "llama",
        "llama-biases",
        "llama-yarn",
        "llama-window",
        "llama-fatrelu",
        "llama-gelu-erf",
        "llama-drelu",
        "bamboo",
        "bamboo-fatrelu",
        "arcee",
        "arcee-biases",
        "arcee-yarn",
        "arcee-quick",
        "qwen2",
        "qwen2-tied",
        "qwen2-fused",
        "qwen3",
        "qwen3-yarn",
        "qwen3-window",
        "granite",
        "granite-still",
        "minicpm",
        "minicpm-old",
        "smollm3",
        "smollm3-yarn",
        "nemotron",
        "nemotron-biases",
        "nemotron_h",
        "nemotron_h-biases",
        "nemotron_h_moe",
        "nemotron_h_moe-latent",
        "nemotron_h_moe-old",
        "nemotron_h_moe-ahead",
        "nemotron_h_moe-ollama",
        "jais2",
        "jais2-own",
        "opt",
        "opt-offset",
        "opt-transformers",
        "falcon",
        "falcon-two",
        "falcon-relu",
        "olmo2",
        "olmo2-yarn",
        "olmo2-window",
        "mistral3",
        "mistral3-tied",
        "stablelm",
        "stablelm-parallel",
        "stablelm-heads",
        "starcoder2",
        "starcoder2-own",
        "exaone",
        "gemma2",
        "gemma2-base",
        "gemma3",
        "gemma3-wide",
        "phi3",
        "phi3-short",
        "llama-long",
        "plm",
        "plm-yarn",
        "llama-experts",
        "llama-experts-old",
        "llama-experts-drelu",
        "smallthinker",
        "smallthinker-window",
        "smallthinker-pattern",
        "qwen3moe",
        "qwen3moe-fused",
        "granitemoe",
        "granitemoe-shared",
        "gpt-oss",
    ] {
        let golden = golden(name)?;
        let model = open(&golden)?;
        for (mode, n_threads) in [(Mode::Dense, 1), (Mode::Exact, 2)] {
            let (n_ctx, kv_type, isa) = (golden.tokens.len(), KvType::F32, Isa::detect());
            let params = ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch: 4, isa };
            let mut executor = Executor::new(&model, Placement::all_cold(&model), params)?;
            let mut decoded = Vec::new();
            for token in &golden.tokens {
                decoded.push(executor.decode(*token)?.to_vec());
            }
            executor.clear();
            let mut prefilled = AllLogits::default();
            executor.prefill_observed(&golden.tokens, &mut prefilled)?;
            for (way, logits) in [("decode", decoded), ("prefill", prefilled.0)] {
                let difference = difference(&golden.logits, &logits);
                println!("{name}, {}, {way}: {difference:e}", mode.name());
                assert!(difference <= TOLERANCE, "{name}, {}, {way}: {difference:e}", mode.name());
            }
        }
    }
    Ok(())
}
