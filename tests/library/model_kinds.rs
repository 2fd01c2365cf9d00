//! Models of every kind that can be described compute what a naive forward pass in 64 bits does.

use crate::support::compare::same_bits;
use crate::support::kind::{Kind, Pairing, Tensors};
use crate::support::{Random, reference};
use anyhow::Result;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::{Model, NormKind, Residual, RopeKind};
use powerinfer::placement::Placement;
use powerinfer::profile::{Fingerprint, LayerCounts, Profile, ProfiledText};
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{self, Options, Plan};
use std::path::Path;

const N_TOKENS: usize = 24;
/// Largest difference to the reference relative to the largest logit. Measured: 2.2e-6.
const TOLERANCE: f64 = 5e-6;
/// The same with keys and values in 16 bits. Measured: 1.9e-3.
const KV_F16_TOLERANCE: f64 = 1e-2;

fn kinds() -> Vec<Kind> {
    let plain = Kind::default;
    let mut kinds = vec![
        plain(),
        Kind { name: "grouped queries", n_head_kv: 2, ..plain() },
        Kind { name: "one key head", n_head_kv: 1, ..plain() },
        Kind { name: "biases", biases: true, n_head_kv: 2, ..plain() },
        Kind { name: "tied output", tied: true, ..plain() },
        Kind { name: "frequency divisors", rope_freqs: true, ..plain() },
        Kind { name: "linear scaling", rope_factor: 4.0, rope_base: 500.0, ..plain() },
        Kind { name: "both scalings", rope_factor: 2.5, rope_freqs: true, n_head_kv: 2, ..plain() },
        Kind { name: "part of a head rotated", n_rot: 6, ..plain() },
        Kind { name: "long heads", head_dim: 14, n_rot: 14, n_head_kv: 2, ..plain() },
        Kind { name: "silu", activation: "silu", ..plain() },
        Kind { name: "squared relu", activation: "relu2", ..plain() },
        Kind { name: "layers of many sizes", n_ff: vec![33, 1, 130, 64], ..plain() },
        Kind { name: "layer norm", layer_norm: true, ..plain() },
        Kind { name: "parallel", parallel: true, ..plain() },
        Kind { name: "halves", rope: Pairing::Halves, ..plain() },
        Kind { name: "halves of a part", rope: Pairing::Halves, n_rot: 6, rope_freqs: true, ..plain() },
        Kind { name: "no rotation", rope: Pairing::Absent, ..plain() },
        Kind { name: "ungated", gated: false, ..plain() },
        Kind { name: "ungated squared", gated: false, activation: "relu2", n_ff: vec![70, 35], ..plain() },
    ];
    kinds.push(Kind {
        name: "as Falcon",
        layer_norm: true,
        parallel: true,
        rope: Pairing::Halves,
        gated: false,
        n_head_kv: 1,
        tied: true,
        ..plain()
    });
    let in_type = |dtype| move |kind: Kind| Kind { dtype, ..kind };
    let narrow: Vec<_> =
        [GgmlType::F16, GgmlType::BF16].into_iter().flat_map(|t| kinds.clone().into_iter().map(in_type(t))).collect();
    kinds.extend(narrow);
    kinds
}

/// Loads a `llama` file and turns it into `kind`, of which no architecture that has files may be known yet.
fn load(kind: &Kind, weights: &Tensors, path: &Path) -> Result<Model> {
    let mut model = Model::new(Gguf::open(path)?, None)?;
    let bias = |name: String| kind.layer_norm.then(|| weights[&format!("extra.{name}.bias")].values.clone());
    model.config.norm = if kind.layer_norm { NormKind::Layer } else { NormKind::Rms };
    model.config.residual = if kind.parallel { Residual::Parallel } else { Residual::Serial };
    model.config.rope.kind = match kind.rope {
        Pairing::Interleaved => RopeKind::Interleaved,
        Pairing::Halves => RopeKind::Halves,
        Pairing::Absent => RopeKind::None,
    };
    model.config.gated = kind.gated;
    model.weights.output_norm.bias = bias("output_norm".to_owned());
    for (i, layer) in model.weights.layers.iter_mut().enumerate() {
        layer.attn_norm.bias = bias(format!("{i}.attn_norm"));
        if let Some(norm) = &mut layer.ffn_norm {
            norm.bias = bias(format!("{i}.ffn_norm"));
        }
        if kind.parallel {
            layer.ffn_norm = None;
        }
        if !kind.gated {
            layer.ffn[0].ffn_gate = None;
        }
    }
    Ok(model)
}

/// A variant by a made-up profile.
fn split(plain: &Path, to: &Path) -> Result<()> {
    let model = Model::new(Gguf::open(plain)?, None)?;
    let mut random = Random::new(5);
    let layers = model.config.n_ff.iter().map(|n| LayerCounts {
        fired: (0..*n).map(|_| random.below(100) as u64).collect(),
        mass: (0..*n).map(|_| random.below(1000) as u64).collect(),
    });
    let profile = Profile {
        fingerprint: Fingerprint::of(&model)?,
        arch: "llama".to_owned(),
        name: model.config.name.clone(),
        activation: model.config.activation.activation.to_string(),
        layers: layers.collect(),
        texts: vec![ProfiledText { sha256: [0; 32], n_tokens: 100, n_ctx: 64 }],
        reuse: None,
        fired_sets: None,
    };
    variant::write(&model, &Plan::new(&model, &profile, Options::default())?, None, to, &Silent)
}

struct Run {
    mode: Mode,
    n_threads: usize,
    kv_type: KvType,
    placement: Placement,
}

fn decode(model: &Model, run: Run, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
    let params = ExecutorParams {
        n_threads: run.n_threads,
        n_ctx: N_TOKENS,
        kv_type: run.kv_type,
        mode: run.mode,
        n_ubatch: 5,
        isa: Isa::detect(),
    };
    let mut executor = Executor::new(model, run.placement, params)?;
    tokens.iter().map(|t| Ok(executor.decode(*t)?.to_vec())).collect()
}

fn relative_difference(expected: &[Vec<f64>], got: &[Vec<f32>]) -> f64 {
    let largest = expected.iter().flatten().fold(0.0f64, |a, b| a.max(b.abs()));
    let differences = expected.iter().flatten().zip(got.iter().flatten()).map(|(a, b)| (a - f64::from(*b)).abs());
    let worst = differences.fold(0.0f64, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    worst / largest
}

/// What the naive pass says of a kind, and its model: as a plain file and as a variant.
struct Case {
    kind: Kind,
    tokens: Vec<u32>,
    expected: Vec<Vec<f64>>,
    models: [Model; 2],
}

fn for_every_kind(mut check: impl FnMut(&Case) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (seed, kind) in kinds().into_iter().enumerate() {
        let weights = kind.weights(seed as u64 + 1);
        let (plain, hot_first) = (folder.path().join("plain.gguf"), folder.path().join("variant.gguf"));
        std::fs::write(&plain, kind.file(&weights).bytes())?;
        split(&plain, &hot_first)?;
        let mut random = Random::new(seed as u64 + 99);
        let tokens: Vec<usize> = (0..N_TOKENS).map(|_| random.below(kind.n_vocab)).collect();
        check(&Case {
            expected: reference::logits(&kind, &weights, &tokens),
            tokens: tokens.into_iter().map(|t| t as u32).collect(),
            models: [load(&kind, &weights, &plain)?, load(&kind, &weights, &hot_first)?],
            kind,
        })?;
        std::fs::remove_file(plain)?;
    }
    Ok(())
}

fn cold(model: &Model, mode: Mode, n_threads: usize) -> Run {
    Run { mode, n_threads, kv_type: KvType::F32, placement: Placement::all_cold(model) }
}

#[test]
fn every_kind_of_model_agrees_with_the_naive_pass() -> Result<()> {
    let mut worst = 0f64;
    for_every_kind(|case| {
        for (model, file) in case.models.iter().zip(["plain", "variant"]) {
            let got = decode(model, cold(model, Mode::Dense, 1), &case.tokens)?;
            let difference = relative_difference(&case.expected, &got);
            let (name, dtype) = (case.kind.name, case.kind.dtype);
            assert!(difference <= TOLERANCE, "{name}, {dtype}, {file}: {difference:e}");
            worst = worst.max(difference);
        }
        Ok(())
    })?;
    println!("differs by at most {worst:e} of the largest logit");
    Ok(())
}

#[test]
fn every_kind_of_model_gives_the_same_bits_in_every_mode_batch_and_number_of_threads() -> Result<()> {
    for_every_kind(|case| {
        for model in &case.models {
            let dense = decode(model, cold(model, Mode::Dense, 1), &case.tokens)?;
            let same = |run: Run| same_bits(&dense, &decode(model, run, &case.tokens)?);
            same(cold(model, Mode::Exact, 1))?;
            same(cold(model, Mode::Dense, 3))?;
            same(cold(model, Mode::Exact, 3))?;
            if model.is_variant() {
                let half = case.kind.n_ff.iter().map(|n| n / 2).collect();
                same(Run { placement: Placement::new(model, half)?, ..cold(model, Mode::Exact, 2) })?;
                same(Run { placement: Placement::new(model, case.kind.n_ff.clone())?, ..cold(model, Mode::Exact, 2) })?;
                same(Run { placement: Placement::planned(model)?, ..cold(model, Mode::Dense, 1) })?;
            }
            let prefill = |mode, n_threads, n_ubatch| -> Result<Vec<f32>> {
                let (n_ctx, kv_type, isa) = (N_TOKENS, KvType::F32, Isa::detect());
                let params = ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch, isa };
                let mut executor = Executor::new(model, Placement::all_cold(model), params)?;
                Ok(executor.prefill(&case.tokens)?.to_vec())
            };
            // Products of many tokens are summed in another order than those of one.
            let at_once = prefill(Mode::Dense, 1, N_TOKENS)?;
            let last = [dense[N_TOKENS - 1].iter().map(|v| f64::from(*v)).collect()];
            let difference = relative_difference(&last, std::slice::from_ref(&at_once));
            assert!(difference <= TOLERANCE, "{}: {difference:e}", case.kind.name);
            for (mode, n_threads, n_ubatch) in [(Mode::Exact, 2, 5), (Mode::Exact, 1, 1), (Mode::Dense, 3, 2)] {
                same_bits(std::slice::from_ref(&at_once), &[prefill(mode, n_threads, n_ubatch)?])?;
            }
        }
        Ok(())
    })
}

#[test]
fn keys_and_values_in_16_bits_cost_little_and_something() -> Result<()> {
    let mut worst = 0f64;
    for_every_kind(|case| {
        let model = &case.models[0];
        let run = Run { kv_type: KvType::F16, ..cold(model, Mode::Dense, 1) };
        let difference = relative_difference(&case.expected, &decode(model, run, &case.tokens)?);
        assert!(difference <= KV_F16_TOLERANCE, "{}, {}: {difference:e}", case.kind.name, case.kind.dtype);
        assert!(difference > TOLERANCE, "{}: nothing was rounded", case.kind.name);
        worst = worst.max(difference);
        Ok(())
    })?;
    println!("differs by at most {worst:e} of the largest logit");
    Ok(())
}

/// The check must see each property: a reference that lacks it has to disagree.
#[test]
fn a_reference_of_another_kind_disagrees() -> Result<()> {
    type Change = (&'static str, fn(&mut Kind));
    let changes: [Change; 11] = [
        ("activation", |k| k.activation = "silu"),
        ("divisors", |k| k.rope_freqs = false),
        ("factor", |k| k.rope_factor = 1.0),
        ("base", |k| k.rope_base *= 2.0),
        ("pairing", |k| k.rope = Pairing::Halves),
        ("rotation", |k| k.rope = Pairing::Absent),
        ("biases", |k| k.biases = false),
        ("tying", |k| k.tied = true),
        ("norm", |k| k.layer_norm = true),
        ("residual", |k| k.parallel = true),
        ("gate", |k| k.gated = false),
    ];
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plain.gguf");
    let kind = Kind { rope_freqs: true, rope_factor: 2.0, biases: true, n_head_kv: 2, ..Kind::default() };
    let weights = kind.weights(7);
    std::fs::write(&path, kind.file(&weights).bytes())?;
    let model = load(&kind, &weights, &path)?;
    let tokens: Vec<usize> = (0..N_TOKENS).collect();
    let ids: Vec<u32> = tokens.iter().map(|t| *t as u32).collect();
    let got = decode(&model, cold(&model, Mode::Dense, 1), &ids)?;
    assert!(relative_difference(&reference::logits(&kind, &weights, &tokens), &got) <= TOLERANCE);
    for (name, change) in changes {
        let mut other = kind.clone();
        change(&mut other);
        let difference = relative_difference(&reference::logits(&other, &weights, &tokens), &got);
        assert!(difference > 100.0 * TOLERANCE, "{name} makes no difference: {difference:e}");
    }
    Ok(())
}
