//! Models of every kind that can be described compute what a naive forward pass in 64 bits does.

use crate::support::compare::same_bits;
use crate::support::kind::{HeadNorms, Kind, Order, Pairing, Routed, Yarn};
use crate::support::{Random, reference};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Batch, Entry, Executor, ExecutorParams, KvType, Mode, check_card};
use powerinfer::model::{Architecture, Model};
use powerinfer::placement::Placement;
use powerinfer::quant::GgmlType;

const N_TOKENS: usize = 24;
/// Largest difference to the reference relative to the largest logit. Measured: 2.2e-6.
const TOLERANCE: f64 = 5e-6;
/// The same with keys and values in 16 bits. Measured: 1.9e-3.
const KV_F16_TOLERANCE: f64 = 1e-2;

const YARN: Yarn = Yarn { n_ctx: 64, beta_fast: 8.0, beta_slow: 0.5, share: 1.0, log_multiplier: 0.0 };

fn kinds() -> Vec<Kind> {
    let plain = Kind::default;
    let yarn = YARN;
    let one_of_two = Routed { n_used: 1, normalised: false, early: false };
    let mut kinds = vec![
        plain(),
        Kind { name: "grouped queries", n_head_kv: 2, ..plain() },
        Kind { name: "one key head", n_head_kv: 1, ..plain() },
        Kind { name: "biases", biases: true, n_head_kv: 2, ..plain() },
        Kind { name: "tied output", tied: true, ..plain() },
        Kind { name: "frequency divisors", rope_freqs: true, ..plain() },
        Kind { name: "linear scaling", rope_factor: 4.0, rope_base: 500.0, ..plain() },
        Kind { name: "both scalings", rope_factor: 2.5, rope_freqs: true, n_head_kv: 2, ..plain() },
        Kind { name: "YaRN", yarn: Some(yarn), rope_factor: 4.0, rope_base: 500.0, ..plain() },
        Kind {
            name: "YaRN with divisors, by half, attention scaled",
            yarn: Some(Yarn { share: 0.5, log_multiplier: 0.7, ..yarn }),
            rope_factor: 3.0,
            rope_freqs: true,
            attn_factor: 1.25,
            rope: Pairing::Halves,
            ..plain()
        },
        Kind { name: "scaled rotation", attn_factor: 0.75, n_rot: 6, ..plain() },
        Kind { name: "scaled attention", attention_scale: 0.125, ..plain() },
        Kind { name: "part of a head rotated", n_rot: 6, ..plain() },
        Kind { name: "long heads", head_dim: 14, n_rot: 14, n_head_kv: 2, ..plain() },
        Kind { name: "silu", activation: "silu", ..plain() },
        Kind { name: "gelu", activation: "gelu", gated: false, ffn_biases: true, ..plain() },
        Kind { name: "gelu by erf", activation: "gelu_erf", ..plain() },
        Kind { name: "quick gelu", activation: "gelu_quick", gated: false, ..plain() },
        Kind { name: "threshold", activation: "fatrelu:0.03", ffn_biases: true, ..plain() },
        Kind { name: "threshold, ungated", activation: "fatrelu:0.04", gated: false, n_ff: vec![33, 61], ..plain() },
        Kind { name: "two masks", activation: "drelu", ..plain() },
        Kind {
            name: "two masks, biases of neurons",
            activation: "drelu",
            ffn_biases: true,
            n_ff: vec![33, 1, 61],
            ..plain()
        },
        Kind {
            name: "two masks, both groups",
            activation: "drelu",
            routed: Some(Routed { n_used: 2, ..one_of_two }),
            ..plain()
        },
        Kind { name: "two masks, one of two groups", activation: "drelu", routed: Some(one_of_two), ..plain() },
        Kind { name: "squared relu", activation: "relu2", ..plain() },
        Kind { name: "layers of many sizes", n_ff: vec![33, 1, 130, 64], ..plain() },
        Kind { name: "layer norm", layer_norm: true, ..plain() },
        Kind { name: "parallel", order: Order::Parallel, ..plain() },
        Kind { name: "parallel with two norms", order: Order::TwoNorms, layer_norm: true, ..plain() },
        Kind { name: "norms behind the blocks", order: Order::PostNorms, ..plain() },
        Kind { name: "norms on both sides", order: Order::BothNorms, layer_norm: true, ..plain() },
        Kind { name: "one mixer per layer", order: Order::OneMixer, n_ff: vec![56, 40, 56, 33, 24], ..plain() },
        Kind { name: "scaled additions", scale: 0.375, ..plain() },
        Kind { name: "scaled at both ends", embedding_scale: 3.5, logit_scale: -0.75, scale: 0.5, ..plain() },
        Kind { name: "scaled, parallel", scale: -1.25, order: Order::Parallel, ..plain() },
        Kind { name: "biases of neurons", ffn_biases: true, ..plain() },
        Kind { name: "biases of neurons, ungated", ffn_biases: true, gated: false, activation: "relu2", ..plain() },
        Kind { name: "one of two groups", routed: Some(one_of_two), ..plain() },
        Kind { name: "both groups", routed: Some(Routed { n_used: 2, ..one_of_two }), n_head_kv: 2, ..plain() },
        Kind { name: "early router", routed: Some(Routed { early: true, ..one_of_two }), ..plain() },
        Kind {
            name: "early router, normalised, biases, ungated",
            routed: Some(Routed { n_used: 2, normalised: true, early: true }),
            ffn_biases: true,
            gated: false,
            ..plain()
        },
        Kind { name: "routed, norms on both sides", routed: Some(one_of_two), order: Order::BothNorms, ..plain() },
        Kind { name: "halves", rope: Pairing::Halves, ..plain() },
        Kind { name: "halves of a part", rope: Pairing::Halves, n_rot: 6, rope_freqs: true, ..plain() },
        Kind { name: "rotation in some layers", still_every: Some(2), n_ff: vec![33, 30, 57, 24, 41], ..plain() },
        Kind { name: "temperature", temperature: Some((0.5, 5)), n_head_kv: 2, ..plain() },
        Kind { name: "no rotation", rope: Pairing::Absent, ..plain() },
        Kind { name: "norms of heads", head_norms: HeadNorms::Each, n_head_kv: 2, ..plain() },
        Kind {
            name: "norms of all heads together, halves",
            head_norms: HeadNorms::Together,
            n_head_kv: 2,
            rope: Pairing::Halves,
            order: Order::PostNorms,
            biases: true,
            ..plain()
        },
        Kind { name: "ungated", gated: false, ..plain() },
        Kind { name: "ungated squared", gated: false, activation: "relu2", n_ff: vec![70, 35], ..plain() },
    ];
    kinds.push(Kind {
        name: "as Falcon",
        layer_norm: true,
        order: Order::Parallel,
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
        kind.split(&plain, &hot_first)?;
        let mut random = Random::new(seed as u64 + 99);
        let tokens: Vec<usize> = (0..N_TOKENS).map(|_| random.below(kind.n_vocab)).collect();
        check(&Case {
            expected: reference::logits(&kind, &weights, &tokens),
            tokens: tokens.into_iter().map(|t| t as u32).collect(),
            models: [kind.load(&plain)?, kind.load(&hot_first)?],
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
                let all = model.weights.group_sizes();
                let half = all.iter().map(|n| n / 2).collect();
                same(Run { placement: Placement::new(model, half)?, ..cold(model, Mode::Exact, 2) })?;
                same(Run { placement: Placement::new(model, all)?, ..cold(model, Mode::Exact, 2) })?;
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
fn every_kind_of_model_gives_the_bits_of_single_tokens_in_batches() -> Result<()> {
    for_every_kind(|case| {
        let name = case.kind.name;
        for (i, model) in case.models.iter().enumerate() {
            let mode = [Mode::Exact, Mode::Dense][i];
            let expected = decode(model, cold(model, mode, 1), &case.tokens)?;
            for (n, n_threads) in [(2, 2), (3, 1), (8, 4)] {
                let (n_ctx, kv_type, n_ubatch, isa) = (N_TOKENS, KvType::F32, N_TOKENS, Isa::detect());
                let params = ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch, isa };
                let mut executor = Executor::new(model, Placement::all_cold(model), params)?;
                let mut got = Vec::new();
                for piece in case.tokens.chunks(n) {
                    let logits = executor.decode_several(piece)?;
                    got.extend(logits.chunks_exact(case.kind.n_vocab).map(<[f32]>::to_vec));
                }
                same_bits(&expected, &got).with_context(|| format!("{name}: {n} tokens of one sequence"))?;
                // Sequence `s` begins where the tokens have gone on by `s`, and the last but one wants no logits.
                let texts: Vec<&[u32]> = (0..n).map(|s| &case.tokens[s..][..N_TOKENS - n]).collect();
                let mut sequences = (0..n).map(|_| executor.new_sequence()).collect::<Result<Vec<_>>>()?;
                let mut together = vec![Vec::new(); n];
                let mut batch = Batch::default();
                for position in 0..N_TOKENS - n {
                    batch.clear();
                    for (sequence, text) in texts.iter().enumerate() {
                        let wants_logits = sequence + 2 != n;
                        batch.push(Entry { sequence, position, token: text[position], wants_logits });
                    }
                    let logits = executor.decode_batch(&batch, &mut sequences)?;
                    let wanting = together.iter_mut().enumerate().filter(|(sequence, _)| sequence + 2 != n);
                    wanting.zip(logits.chunks_exact(case.kind.n_vocab)).for_each(|((_, t), l)| t.push(l.to_vec()));
                }
                for (sequence, got) in together.iter().enumerate().filter(|(sequence, _)| sequence + 2 != n) {
                    let alone = decode(model, cold(model, mode, 1), texts[sequence])?;
                    same_bits(&alone, got).with_context(|| format!("{name}: sequence {sequence} of {n}"))?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn what_a_card_has_no_kernels_for_is_refused_before_it_is_asked() -> Result<()> {
    let wide =
        |kind: Kind| Kind { n_embd: 64, n_head: 2, n_head_kv: 2, head_dim: 32, n_rot: 32, n_ff: vec![96; 4], ..kind };
    let routed = Some(Routed { n_used: 1, normalised: false, early: false });
    let (plain, folder) = (Kind::default, tempfile::tempdir()?);
    for (kind, why) in [
        (plain(), None),
        (Kind { order: Order::Parallel, layer_norm: true, ..plain() }, None),
        (Kind { order: Order::OneMixer, gated: false, ..plain() }, None),
        (Kind { order: Order::TwoNorms, ..plain() }, None),
        (Kind { order: Order::PostNorms, ..plain() }, None),
        (Kind { order: Order::BothNorms, ..plain() }, None),
        (Kind { scale: 0.5, ..plain() }, None),
        (Kind { embedding_scale: 2.0, logit_scale: 3.0, ..plain() }, None),
        (Kind { temperature: Some((0.5, N_TOKENS)), ..plain() }, None),
        (Kind { temperature: Some((0.5, N_TOKENS - 1)), ..plain() }, None),
        (Kind { still_every: Some(2), ..plain() }, None),
        (Kind { head_norms: HeadNorms::Each, ..plain() }, None),
        (Kind { head_norms: HeadNorms::Together, ..plain() }, None),
        (Kind { ffn_biases: true, ..plain() }, None),
        (Kind { attn_factor: 1.5, ..plain() }, None),
        (Kind { attention_scale: 0.5, ..plain() }, None),
        (Kind { rope_factor: 4.0, yarn: Some(YARN), ..plain() }, None),
        (Kind { rope_factor: 4.0, yarn: Some(Yarn { log_multiplier: 1.0, ..YARN }), ..plain() }, None),
        (Kind { activation: "gelu", ..plain() }, None),
        (Kind { activation: "gelu_erf", ..plain() }, None),
        (Kind { activation: "gelu_quick", ..plain() }, None),
        (Kind { activation: "fatrelu:0.5", ..plain() }, None),
        (Kind { activation: "drelu", ..plain() }, None),
        (Kind { routed, ..plain() }, None),
        (Kind { routed, ffn_biases: true, ..plain() }, Some("experts with biases")),
    ] {
        let kind = wide(kind);
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, kind.file(&kind.weights(3)).bytes())?;
        let model = kind.load(&path)?;
        let (n_ctx, kv_type, n_ubatch, isa) = (N_TOKENS, KvType::F16, N_TOKENS, Isa::detect());
        let params = ExecutorParams { n_threads: 1, n_ctx, kv_type, mode: Mode::Exact, n_ubatch, isa };
        match (check_card(&model, &params), why) {
            (Ok(()), None) => {}
            (Err(error), Some(why)) => assert!(format!("{error:#}").contains(why), "{}: {error:#}", kind.name()),
            (result, why) => panic!("{result:?} instead of {why:?}"),
        }
    }
    Ok(())
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
    let changes: [Change; 28] = [
        ("activation", |k| k.activation = "silu"),
        ("threshold", |k| k.activation = "fatrelu:0.1"),
        ("mask of up", |k| k.activation = "drelu"),
        ("divisors", |k| k.rope_freqs = false),
        ("factor", |k| k.rope_factor = 1.0),
        ("YaRN", |k| k.yarn = Some(YARN)),
        ("scale of the rotation", |k| k.attn_factor = 1.25),
        ("scale of attention", |k| k.attention_scale = 0.5),
        ("base", |k| k.rope_base *= 2.0),
        ("pairing", |k| k.rope = Pairing::Halves),
        ("rotation", |k| k.rope = Pairing::Absent),
        ("biases", |k| k.biases = false),
        ("tying", |k| k.tied = true),
        ("norm", |k| k.layer_norm = true),
        ("residual", |k| k.order = Order::Parallel),
        ("second norm", |k| k.order = Order::TwoNorms),
        ("norms behind blocks", |k| k.order = Order::BothNorms),
        ("one mixer", |k| k.order = Order::OneMixer),
        ("scale", |k| k.scale = 0.5),
        ("scale of embeddings", |k| k.embedding_scale = 2.0),
        ("scale of logits", |k| k.logit_scale = 2.0),
        ("rotation in some layers", |k| k.still_every = Some(2)),
        ("temperature", |k| k.temperature = Some((0.5, 5))),
        ("norms of heads", |k| k.head_norms = HeadNorms::Each),
        ("biases of neurons", |k| k.ffn_biases = true),
        ("groups", |k| k.routed = Some(Routed { n_used: 1, normalised: false, early: false })),
        ("early router", |k| k.routed = Some(Routed { n_used: 2, normalised: true, early: true })),
        ("gate", |k| k.gated = false),
    ];
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plain.gguf");
    let kind = Kind { rope_freqs: true, rope_factor: 2.0, biases: true, n_head_kv: 2, ..Kind::default() };
    let weights = kind.weights(7);
    std::fs::write(&path, kind.file(&weights).bytes())?;
    let model = kind.load(&path)?;
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
