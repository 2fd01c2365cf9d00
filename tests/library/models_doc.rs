//! docs/models.md says of the golden models what is measured here. scripts/models_doc.py writes it from the same figures:
//! POWERINFER_FACTS names the file that they go to.

use crate::support::compare::same_bits;
use crate::support::real::{golden_names, repository};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Observer};
use powerinfer::gguf::Gguf;
use powerinfer::model::{Activation, Model};
use powerinfer::placement::Placement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Errors depend on the processor, whose instructions sum in another order.
const OTHER_PROCESSOR: f64 = 4.0;

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    activation: Option<String>,
    logits: Vec<Vec<f64>>,
}

/// What is measured of a golden model.
#[derive(Serialize)]
struct Facts {
    architecture: String,
    activation: String,
    gated: bool,
    /// Of all logits, dense and exact, token by token and as a prompt, relative to the largest.
    error: f64,
    /// Exact and dense, token by token, with ReLU where its own activation has no zeros.
    same_bits: bool,
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

fn golden_file(name: &str, ending: &str) -> PathBuf {
    repository("tests/golden/arch").join(format!("{name}.{ending}"))
}

fn open(name: &str, activation: Option<Activation>) -> Result<Model> {
    Model::new(Gguf::open(&golden_file(name, "gguf"))?, activation)
}

fn params(mode: Mode, n_ctx: usize) -> ExecutorParams {
    ExecutorParams { n_threads: 1, n_ctx, kv_type: KvType::F32, mode, n_ubatch: 4, isa: Isa::detect() }
}

/// Logits after each token: one after the other, or as a prompt.
fn logits(model: &Model, mode: Mode, tokens: &[u32], as_prompt: bool) -> Result<Vec<Vec<f32>>> {
    let mut executor = Executor::new(model, Placement::all_cold(model), params(mode, tokens.len()))?;
    if as_prompt {
        let mut all = AllLogits::default();
        executor.prefill_observed(tokens, &mut all)?;
        return Ok(all.0);
    }
    tokens.iter().map(|token| Ok(executor.decode(*token)?.to_vec())).collect()
}

fn facts(name: &str) -> Result<Facts> {
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(golden_file(name, "json"))?)?;
    let model = open(name, golden.activation.as_ref().map(|name| name.parse()).transpose()?)?;
    let largest = golden.logits.iter().flatten().fold(0.0f64, |a, b| a.max(b.abs()));
    let mut error = 0.0f64;
    for mode in [Mode::Dense, Mode::Exact] {
        for as_prompt in [false, true] {
            let got = logits(&model, mode, &golden.tokens, as_prompt)?;
            let pairs = golden.logits.iter().flatten().zip(got.iter().flatten());
            error = pairs.fold(error, |worst, (a, b)| worst.max((a - f64::from(*b)).abs() / largest));
        }
    }
    let own = open(name, None)?;
    let sparse = if own.config.activation.activation.is_sparse() { own } else { open(name, Some(Activation::Relu))? };
    let [dense, exact] = [Mode::Dense, Mode::Exact].map(|mode| logits(&sparse, mode, &golden.tokens, false));
    Ok(Facts {
        architecture: model.config.arch.clone(),
        activation: model.config.activation.activation.to_string(),
        gated: model.weights.layers.iter().all(|layer| layer.groups.iter().all(|group| group.gate.is_some())),
        error,
        same_bits: same_bits(&dense?, &exact?).is_ok(),
    })
}

/// Rows of a table of Markdown whose first cell is in quotation marks of code: cells by that name.
fn rows(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        rows.entry(cells[0].trim_matches('`')).or_insert(cells);
    }
    rows
}

/// What holds cards against the processor, with all golden models.
const CARDS: &str = "tests/gpu/architectures.rs";

/// What a card lacks of golden models, as the list in the tests of cards has it.
fn lacking(text: &str) -> BTreeMap<&str, &str> {
    let list = text.split_once("const LACKING").and_then(|(_, rest)| rest.split_once("];"));
    let entries = list.map_or("", |(list, _)| list).split("(\"").skip(1);
    entries.filter_map(|entry| Some((entry.split_once('"')?.0, entry.split('"').nth(2)?))).collect()
}

#[test]
fn what_docs_models_says_is_measured_and_complete() -> Result<()> {
    let facts: BTreeMap<String, Facts> = golden_names()?
        .into_iter()
        .map(|name| Ok((name.clone(), facts(&name).context(name)?)))
        .collect::<Result<_>>()?;
    if let Some(path) = std::env::var_os("POWERINFER_FACTS") {
        std::fs::write(path, serde_json::to_string_pretty(&facts)?)?;
        return Ok(());
    }
    let text = std::fs::read_to_string(repository("docs/models.md"))?;
    let section = text.split_once("## Measured").context("the section on what is measured")?.1;
    let rows = rows(section);
    let cards = std::fs::read_to_string(repository(CARDS)).unwrap_or_default();
    let lacking = lacking(&cards);
    const HELP: &str = "run scripts/models_doc.py";
    for (name, facts) in &facts {
        let row = rows.get(name.as_str()).with_context(|| format!("docs/models.md lacks {name}; {HELP}"))?;
        let [_, activation, error, _, same, card] = row[..] else { anyhow::bail!("{name}: {row:?}") };
        let stated: f64 = error.parse().with_context(|| format!("{name}: {error}"))?;
        assert!(facts.error <= stated * OTHER_PROCESSOR, "{name}: an error of {:e}, not {error}; {HELP}", facts.error);
        let wanted = (facts.activation.as_str(), if facts.same_bits { "yes" } else { "no" });
        assert_eq!((activation, same), wanted, "{name}; {HELP}");
        let lacks = lacking.get(name.as_str()).copied();
        let right = card == lacks.unwrap_or("yes") || card == "not tested";
        assert!(right, "{name}: {card}, not {lacks:?}; {HELP}");
    }
    let gone: Vec<_> = rows.keys().filter(|name| !facts.contains_key(**name)).collect();
    assert!(gone.is_empty(), "docs/models.md has {gone:?}; {HELP}");
    Ok(())
}
