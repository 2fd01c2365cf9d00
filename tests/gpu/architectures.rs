//! Architectures on a card: which it computes, or what it lacks; and that what it computes is what the CPU does.
//!
//! The golden models of tests/golden/arch are too narrow for kernels, so their tensors are made anew, eight times as wide.
//! `EMULATED_MODELS="qwen3moe llama-exp"` limits them to those whose names begin so.

use super::gpu;
use super::support::kind::split;
use super::support::real::{decode, golden_names, repository};
use super::support::{ModelFile, Random, Tensor, Value};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Worker, check_card};
use powerinfer::gguf::Gguf;
use powerinfer::gpu::Device;
use powerinfer::model::arch::KNOWN;
use powerinfer::model::{Activation, Model, NeuronGroup};
use powerinfer::placement::Placement;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{GroupChoice, LayerChoice, Place, Planner};
use powerinfer::placement::workload::Workload;
use powerinfer::quant::GgmlType;
use std::path::Path;

/// How much wider everything is than in the golden models: rows are multiples of 32 then, and heads of 16.
const WIDER: usize = 8;
/// Keys of widths, without the name of the architecture.
const WIDTHS: [&str; 10] = [
    "embedding_length",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "feed_forward_length",
    "ssm.state_size",
    "ssm.time_step_rank",
    "attention.key_length",
    "attention.value_length",
    "attention.kv_lora_rank",
    "rope.dimension_count",
];
/// Elements of what experts of another width read in golden models, and in their place: whole blocks when they are wider.
const LATENT: [usize; 2] = [9, 12];
/// Tensors whose rows are tokens or positions.
const TALL: [&str; 4] = ["token_embd.weight", "output.weight", "output.bias", "position_embd.weight"];
const N_TOKENS: usize = 5;
/// Of the largest logit: sums run in another order in 32 bits. Measured: 1.0e-6.
const TOLERANCE: f32 = 1e-5;
/// The same where a prompt's activations are rounded to 11 bits. Measured: 1.8e-3.
const PREFILL_TOLERANCE: f32 = 1e-2;

/// What the card lacks of a golden model, with its own activation: part of the line that says so.
const LACKING: &[(&str, &str)] = &[
    ("gemma2", "a soft cap of attention"),
    ("gemma2-base", "a soft cap of attention"),
    ("gpt-oss", "activation swiglu_oai"),
    ("gpt-oss-mxfp4", "activation swiglu_oai"),
    ("plm", "keys and values from a narrow vector"),
    ("plm-yarn", "keys and values from a narrow vector"),
    ("stablelm-heads", "norms of queries and keys with weights for each head"),
];

fn scaled(value: &Value, by: usize) -> Value {
    match value {
        Value::U32(n) => Value::U32(n * by as u32),
        Value::Array(kind, n, bytes) => {
            let wider = |b: &[u8]| (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) * by as u32).to_le_bytes();
            Value::Array(*kind, *n, bytes.chunks_exact(4).flat_map(wider).collect())
        }
        _ => panic!("a width that is no number of 32 bits"),
    }
}

/// Sizes of recurrent layers, by their keys; all 0 where there are none.
#[derive(Clone, Copy)]
struct Ssm {
    n_inner: usize,
    n_state: usize,
    n_heads: usize,
    n_groups: usize,
}

impl Ssm {
    fn of(file: &ModelFile) -> Self {
        let key = |name: &str| match file.keys.iter().find(|(key, _)| key.ends_with(&format!(".ssm.{name}"))) {
            Some((_, Value::U32(n))) => *n as usize,
            _ => 0,
        };
        let [n_inner, n_state, n_heads, n_groups] =
            ["inner_size", "state_size", "time_step_rank", "group_count"].map(key);
        Self { n_inner, n_state, n_heads, n_groups }
    }

    /// Dimensions of a recurrent layer's tensor that are not so many times as large as others.
    fn dims(&self, name: &str, dims: &[usize]) -> Option<Vec<usize>> {
        let n_channels = self.n_inner + 2 * self.n_groups * self.n_state;
        match name.split_once(".ssm_")?.1 {
            "in.weight" => Some(vec![WIDER * dims[0], self.n_inner + n_channels + self.n_heads]),
            "conv1d.weight" => Some(vec![dims[0], n_channels]),
            "conv1d.bias" => Some(vec![n_channels]),
            "norm.weight" => Some(vec![self.n_inner / self.n_groups, dims[1]]),
            "out.weight" => Some(vec![self.n_inner, WIDER * dims[1]]),
            "a" | "d" => Some(vec![1, self.n_heads]),
            _ => None,
        }
    }
}

/// The tensor made anew: its values as its name lets one expect.
fn wider(tensor: &Tensor, ssm: Ssm, random: &mut Random) -> Tensor {
    let name = &tensor.name;
    // Norms with weights for each head have a row for each.
    let of_heads = name.ends_with("_norm.weight") && tensor.dims.len() == 2;
    // Experts are as many.
    let of_experts =
        name.contains("_exps.") || ["ffn_gate_inp.", "exp_probs_b", "attn_sinks"].iter().any(|of| name.contains(of));
    let tall = TALL.contains(&name.as_str()) || of_heads || of_experts;
    let kept = |i: usize| tall && i + 1 == tensor.dims.len();
    let wider = |(i, n): (usize, &usize)| if kept(i) { *n } else { n * WIDER };
    let dims = ssm.dims(name, &tensor.dims);
    let dims: Vec<usize> = dims.unwrap_or_else(|| tensor.dims.iter().enumerate().map(wider).collect());
    let (mean, spread) = match () {
        () if name.starts_with("rope_f") => (1.8, 1.2),
        () if name.ends_with(".bias") => (0.0, 0.8),
        // States decay.
        () if name.ends_with("ssm_a") => (-1.3, 1.2),
        () if name.contains("norm") => (1.0, 0.5),
        () if name.starts_with("token_embd") => (0.0, 1.7),
        () => (0.0, 2.5 / (dims[0] as f32).sqrt()),
    };
    let values = (0..dims.iter().product()).map(|_| mean + spread * random.value());
    let bytes = values.flat_map(f32::to_le_bytes).collect();
    Tensor { name: name.clone(), dtype: GgmlType::F32, dims, bytes }
}

/// The golden model of that name, wide enough for a card, as a file and split.
pub fn wide(name: &str, activation: Option<Activation>, folder: &Path) -> Result<Model> {
    widened(golden(name)?, activation, folder)
}

pub fn golden(name: &str) -> Result<ModelFile> {
    ModelFile::opened(&repository(&format!("tests/golden/arch/{name}.gguf")))
}

/// A golden model, wide enough for a card, as a file and split.
pub fn widened(mut file: ModelFile, activation: Option<Activation>, folder: &Path) -> Result<Model> {
    // Without a vocabulary, which says nothing of what is computed: `no_vocab` is nothing to split.
    file.remove("tokenizer.");
    for (key, value) in &mut file.keys {
        match key.split_once('.') {
            Some((_, "moe_latent_size")) => *value = scaled(&Value::U32(LATENT[1] as u32), WIDER),
            Some((_, rest)) if WIDTHS.contains(&rest) => *value = scaled(value, WIDER),
            // As each group of heads is normalised by itself, all of them are wider still.
            Some((_, "ssm.inner_size")) => *value = scaled(value, 4 * WIDER),
            _ => {}
        }
    }
    if file.tensors.iter().any(|tensor| tensor.name.contains("latent")) {
        let dims = file.tensors.iter_mut().flat_map(|tensor| &mut tensor.dims);
        dims.filter(|n| **n == LATENT[0]).for_each(|n| *n = LATENT[1]);
    }
    let (mut random, ssm) = (Random::new(17), Ssm::of(&file));
    file.tensors = file.tensors.iter().map(|tensor| wider(tensor, ssm, &mut random)).collect();
    let plain = Model::new(Gguf::open(&file.written(folder, "plain.gguf"))?, activation)?;
    let path = folder.join("variant.gguf");
    split(&plain, &path)?;
    Model::new(Gguf::open(&path)?, activation)
}

fn params(mode: Mode) -> ExecutorParams {
    ExecutorParams { n_threads: 2, n_ctx: 16, kv_type: KvType::F32, mode, n_ubatch: 4, isa: Isa::detect() }
}

/// Logits after each token, after a prompt of all of them, and after one more.
fn logits(executor: &mut Executor, tokens: &[u32]) -> Result<[Vec<f32>; 2]> {
    let decoded = decode(executor, tokens)?.concat();
    executor.clear();
    let mut prefilled = executor.prefill(tokens)?.to_vec();
    prefilled.extend_from_slice(executor.decode(tokens[0])?);
    Ok([decoded, prefilled])
}

/// Shares of neurons that fired, and of those whose row of `up` was read.
fn shares(executor: &Executor) -> [f64; 2] {
    [executor.stats().density(), executor.stats().opened()].map(Option::unwrap_or_default)
}

type Computed = ([Vec<f32>; 2], [f64; 2]);

fn on_card(model: &Model, device: &Device, mode: Mode, choices: &[LayerChoice]) -> Result<Computed> {
    let params = params(mode);
    let run = params.run(params.n_ctx);
    // With a slow processor, so that the card computes all of a prompt.
    let hardware = include_str!("../../hardware/rtx-4090-ddr5.toml").replace("_gb_s = 76.2", "_gb_s = 0.001");
    let hardware = Hardware::parse(&hardware)?;
    let work = Workload::of(model);
    let planner = Planner { hardware: &hardware, work: &work, run: &run };
    let plan = planner.of_choices(choices, Place::Card(0))?;
    let worker = Worker::new(params.n_threads, params.isa)?;
    let mut executor = Executor::on_card(model, device, plan, params, &worker)?;
    assert!(executor.card().is_some(), "the card has nothing to do");
    let logits = logits(&mut executor, &tokens(model))?;
    Ok((logits, shares(&executor)))
}

fn tokens(model: &Model) -> Vec<u32> {
    (0..N_TOKENS).map(|i| ((7 * i + 3) % model.config.n_vocab) as u32).collect()
}

/// Largest difference, of the largest value.
fn apart(expected: &[f32], got: &[f32]) -> f32 {
    assert_eq!(expected.len(), got.len());
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let pairs = expected.iter().zip(got);
    pairs.map(|(a, b)| if b.is_nan() { f32::INFINITY } else { (a - b).abs() }).fold(0.0, f32::max) / largest
}

#[test]
fn every_architecture_runs_on_a_card_or_what_it_lacks_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let names = golden_names()?;
    for arch in KNOWN {
        assert!(names.iter().any(|name| name == arch.name()), "{}: no golden model", arch.name());
    }
    for name in names {
        let model = wide(&name, None, folder.path()).with_context(|| name.clone())?;
        let line = check_card(&model, &params(Mode::Exact)).err().map(|e| format!("{e:#}"));
        println!("{name}: {}", line.as_deref().unwrap_or("yes"));
        let expected = LACKING.iter().find(|(of, _)| *of == name).map(|(_, line)| *line);
        match (&line, expected) {
            (None, None) => {}
            (Some(line), Some(expected)) if line.contains(expected) => {}
            _ => panic!("{name}: {line:?} instead of {expected:?}"),
        }
    }
    Ok(())
}

#[test]
fn every_architecture_gives_on_a_card_what_it_gives_on_the_cpu() -> Result<()> {
    let Some(device) = gpu() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let wanted = std::env::var("EMULATED_MODELS").ok();
    for name in golden_names()? {
        if wanted.as_ref().is_some_and(|wanted| !wanted.split_whitespace().any(|word| name.starts_with(word))) {
            continue;
        }
        let own = wide(&name, None, folder.path())?;
        // ReLU instead of SiLU, so that there is something to skip.
        let activation = (own.config.activation.activation == Activation::Silu).then_some(Activation::Relu);
        drop(own);
        let model = wide(&name, activation, folder.path())?;
        if let Err(lacking) = check_card(&model, &params(Mode::Exact)) {
            println!("{name}: {lacking:#}");
            continue;
        }
        // Other forms of an architecture differ in what is computed, not in how.
        let against_dense = KNOWN.iter().any(|arch| arch.name() == name);
        compare(&name, &model, &device, [TOLERANCE, PREFILL_TOLERANCE], against_dense)?;
    }
    Ok(())
}

/// Holds what card and CPU compute together, in two ways to divide the model, against the CPU alone, and exact mode against
/// dense.
pub fn compare(name: &str, model: &Model, device: &Device, tolerance: [f32; 2], against_dense: bool) -> Result<()> {
    // Whether attention is on the card, whether the whole mask, and how many quarters of the neurons: where a router
    // chooses, of each group as many more as its number says.
    let choice = |(i, (attention, mask, quarters)): (usize, (bool, bool, usize))| {
        let layer = &model.weights.layers[i];
        let routed = layer.router.is_some() && (attention || quarters > 0);
        let group = |(g, group): (usize, &NeuronGroup)| {
            let quarters = if routed { (quarters + g) % 5 } else { quarters };
            GroupChoice { mask, predictor: false, n_hot: group.n_ff() * quarters / 4 }
        };
        let groups = layer.groups.iter().enumerate().map(group).collect();
        LayerChoice { card: 0, attention: attention || routed, groups }
    };
    let choices = |of: &[(bool, bool, usize)]| {
        of.iter().copied().cycle().take(model.config.n_layer).enumerate().map(choice).collect::<Vec<_>>()
    };
    let nothing = (false, false, 0);
    let mixed = [(true, false, 4), (false, false, 1), nothing, (true, true, 0), (true, false, 0), (true, false, 2)];
    let ways = [("half", choices(&[(true, true, 2)])), ("mixed", choices(&mixed))];
    let mut alone = Executor::new(model, Placement::all_cold(model), params(Mode::Exact))?;
    let expected = logits(&mut alone, &tokens(model))?;
    let fire = shares(&alone);
    for (way, choices) in ways {
        let (exact, counted) = on_card(model, device, Mode::Exact, &choices)?;
        let [decoded, prefilled] = [0, 1].map(|i| apart(&expected[i], &exact[i]));
        println!("{name}, {way}: decode {decoded:e}, prompt {prefilled:e}");
        assert!(decoded <= tolerance[0], "{name}, {way}: {decoded:e}");
        assert!(prefilled <= tolerance[1], "{name}, {way}, a prompt: {prefilled:e}");
        // One close to its threshold may do as it likes.
        let alike = fire.iter().zip(counted).all(|(a, b)| (a - b).abs() <= 1e-3);
        assert!(alike, "{name}, {way}: {counted:?} of the neurons fire and are read, on the CPU {fire:?}");
        if way != "mixed" || !against_dense {
            continue;
        }
        let (dense, _) = on_card(model, device, Mode::Dense, &choices)?;
        let same = exact.concat().iter().zip(dense.concat()).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{name}, {way}: exact is not dense");
    }
    Ok(())
}
