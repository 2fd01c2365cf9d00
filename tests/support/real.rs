//! The real model of the tests: models/tiny-stories-f16.gguf, and what PyTorch says of it in tests/golden.

use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Observer};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::profile::Profile;
use powerinfer::profile::collect::{CollectParams, Text, collect};
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::tokenizer::{Special, Tokenizer, read_vocab};
use powerinfer::variant::{self, Draft, Options, Recipe};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub const N_CTX: usize = 512;

/// golden.json; scripts/make_golden.py documents the fields.
#[derive(Deserialize)]
pub struct Golden {
    pub prompts: Vec<Prompt>,
    pub greedy: Greedy,
    pub loss: Loss,
}

#[derive(Deserialize)]
pub struct Prompt {
    pub text: String,
    pub tokens: Vec<u32>,
    /// Offset of the last position's logits in golden.bin.
    pub logits: usize,
}

#[derive(Deserialize)]
pub struct Greedy {
    pub prompt: String,
    pub prompt_tokens: Vec<u32>,
    pub tokens: Vec<u32>,
    pub margins: Vec<f32>,
}

#[derive(Deserialize)]
pub struct Loss {
    pub text: String,
    pub n_ctx: usize,
    pub n_tokens: usize,
    pub count: usize,
    pub perplexity: f64,
    pub sparsity_per_layer: Vec<f64>,
}

static GOLDEN: LazyLock<Golden> = LazyLock::new(|| {
    let text = std::fs::read_to_string(repository("tests/golden/golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
});
static SOURCE: LazyLock<Model> = LazyLock::new(|| open(&repository("models/tiny-stories-f16.gguf")).unwrap());
static PROFILE: LazyLock<Profile> = LazyLock::new(|| profile(&SOURCE).unwrap());

/// A path in this repository: where it was built, or where a test that was built elsewhere is run.
pub fn repository(path: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    if built.is_dir() { built.join(path) } else { path.into() }
}

pub fn golden() -> &'static Golden {
    &GOLDEN
}

/// The F16 source.
pub fn source() -> &'static Model {
    &SOURCE
}

pub fn open(path: &Path) -> Result<Model> {
    Model::new(Gguf::open(path)?, None)
}

pub fn tokenizer(model: &Model) -> Result<Tokenizer> {
    Tokenizer::new(read_vocab(&model.gguf)?)
}

/// BOS and the text's tokens.
pub fn encode(text: &str) -> Result<Vec<u32>> {
    tokenizer(source())?.encode_prompt(text, Special::AsText, true)
}

/// The first `n` tokens of the golden story.
pub fn story(n: usize) -> Result<Vec<u32>> {
    let tokens = encode(&golden().loss.text)?;
    Ok(tokens.get(..n).context("the golden text is too short")?.to_vec())
}

fn profile(model: &Model) -> Result<Profile> {
    let texts = [Text { name: "story".to_owned(), text: powerinfer::measure::STORY.to_owned() }];
    let params = CollectParams { n_threads: 2, ..CollectParams::new(N_CTX) };
    Ok(collect(model, &tokenizer(model)?, &texts, &params, &Silent)?.profile)
}

/// A variant of `model`, profiled on [`powerinfer::measure::STORY`] with the F16 source.
pub fn split(model: &Model, options: Options, path: &Path) -> Result<Model> {
    let plan = Draft::new(model, &PROFILE, options)?;
    variant::write(model, &plan, None, path, &Silent)?;
    open(path)
}

/// A variant of the F16 source in one type.
pub fn variant(dtype: GgmlType, folder: &tempfile::TempDir) -> Result<Model> {
    split(
        source(),
        Options { recipe: Some(Recipe::Uniform(dtype)), down: None },
        &folder.path().join(format!("{dtype}.gguf")),
    )
}

/// The types in which neurons can be stored.
pub fn neuron_types() -> Vec<GgmlType> {
    let names = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"];
    names.map(|name| GgmlType::from_name(name).unwrap()).to_vec()
}

/// An executor with a context of [`N_CTX`] and 32-bit keys and values.
pub fn executor(model: &Model, mode: Mode, n_threads: usize) -> Result<Executor<'_>> {
    placed(model, mode, n_threads, Placement::all_cold(model))
}

pub fn placed(model: &Model, mode: Mode, n_threads: usize, placement: Placement) -> Result<Executor<'_>> {
    Executor::new(model, placement, params(mode, n_threads))
}

/// As [`executor`], on a given instruction set.
pub fn executor_on(isa: Isa, model: &Model, mode: Mode, n_threads: usize) -> Result<Executor<'_>> {
    Executor::new(model, Placement::all_cold(model), ExecutorParams { isa, ..params(mode, n_threads) })
}

/// How [`executor`] is set up.
pub fn params(mode: Mode, n_threads: usize) -> ExecutorParams {
    ExecutorParams { n_threads, n_ctx: N_CTX, kv_type: KvType::F32, mode, n_ubatch: 64, isa: Isa::detect() }
}

/// Logits after each token, decoded one by one; the context begins anew when it is full.
pub fn decode(executor: &mut Executor, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
    executor.clear();
    let mut all = Vec::new();
    for token in tokens {
        if executor.n_past() == executor.params().n_ctx {
            executor.clear();
        }
        all.push(executor.decode(*token)?.to_vec());
    }
    Ok(all)
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

/// Logits after each token, prefilled in batches of `n_batch`; the context begins anew when it is full.
pub fn prefill(executor: &mut Executor, tokens: &[u32], n_batch: usize) -> Result<Vec<Vec<f32>>> {
    let mut all = AllLogits::default();
    for context in tokens.chunks(executor.params().n_ctx) {
        executor.clear();
        for batch in context.chunks(n_batch) {
            executor.prefill_observed(batch, &mut all)?;
        }
    }
    Ok(all.0)
}

/// Names of all golden models of tests/golden/arch.
pub fn golden_names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(repository("tests/golden/arch"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "gguf") {
            names.push(path.file_stem().context("a name")?.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
