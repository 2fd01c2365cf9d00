//! Exact mode loses nothing: on one file its logits are those of dense mode bit for bit, however it is run.

#[path = "support/compare.rs"]
#[allow(dead_code, reason = "shared with other tests, which use other parts")]
mod compare;
#[path = "support/convert.rs"]
mod convert;
#[path = "support/real.rs"]
#[allow(dead_code, reason = "shared with other tests, which use other parts")]
mod real;

use anyhow::{Result, ensure};
use compare::{best, max_difference, same_bits};
use powerinfer::executor::ffn::Fired;
use powerinfer::executor::{MaskSource, Mode};
use powerinfer::measure::kl::mean_kl;
use powerinfer::measure::perplexity::perplexity;
use powerinfer::model::{Model, Slot};
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::quant::GgmlType;
use powerinfer::variant::{DownType, Options};
use real::{decode, executor, golden, placed, prefill, source, split, story};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Two contexts of real text.
const N_TOKENS: usize = 1024;
/// For products of many settings.
const N_FEW: usize = 64;
/// Logits of the F16 variant and its F16 source: the same weights, added in another order. Measured: 7.7e-6.
const VARIANT_TOLERANCE: f32 = 3e-5;
/// Mean divergence of a variant from its source in nats: of the Q8_0 variant from the F16 source (measured: 3.6e-4),
/// of the Q4_0 variant from it (measured: 0.043), and of variants with another `ffn_down` from quantized sources
/// (measured: 2.7e-4 for `q8_0`, 3.4e-3 for `same` where that is Q4_0).
const MAX_KL_Q8_0: f64 = 0.0015;
const MAX_KL_Q4_0: f64 = 0.15;
const MAX_KL_DOWN_Q8_0: f64 = 0.001;
const MAX_KL_DOWN_Q4_0: f64 = 0.015;

#[test]
fn exact_is_dense_bit_for_bit_on_the_plain_file() -> Result<()> {
    let dense = decode(&mut executor(source(), Mode::Dense, 2)?, &story(N_TOKENS)?)?;
    exact_equals(source(), &dense, &story(N_TOKENS)?, &[2])?;
    exact_equals(source(), &dense[..N_FEW], &story(N_FEW)?, &[1, 5])
}

#[test]
fn exact_is_dense_bit_for_bit_on_the_f16_variant() -> Result<()> {
    exact_is_dense_on_the_variant(GgmlType::F16)
}

#[test]
fn exact_is_dense_bit_for_bit_on_the_q8_0_variant() -> Result<()> {
    exact_is_dense_on_the_variant(GgmlType::Q8_0)
}

#[test]
fn exact_is_dense_bit_for_bit_on_the_q4_0_variant() -> Result<()> {
    exact_is_dense_on_the_variant(GgmlType::Q4_0)
}

fn exact_is_dense_on_the_variant(dtype: GgmlType) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let variant = variant(dtype, &folder)?;
    let tokens = story(N_TOKENS)?;
    let dense = decode(&mut executor(&variant, Mode::Dense, 2)?, &tokens)?;
    exact_equals(&variant, &dense, &tokens, &[1, 2, 5])
}

fn exact_equals(model: &Model, dense: &[Vec<f32>], tokens: &[u32], n_threads: &[usize]) -> Result<()> {
    for n in n_threads {
        let mut executor = executor(model, Mode::Exact, *n)?;
        same_bits(dense, &decode(&mut executor, tokens)?)?;
        let density = executor.stats().density().unwrap();
        assert!((0.01..0.5).contains(&density), "{density} of the neurons fired: nothing was skipped");
    }
    Ok(())
}

fn variant(dtype: GgmlType, folder: &tempfile::TempDir) -> Result<Model> {
    split(source(), Options { dtype: Some(dtype), down: None }, &folder.path().join(format!("{dtype}.gguf")))
}

#[test]
fn the_size_of_the_hot_prefix_changes_no_bit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tokens = story(N_FEW)?;
    for dtype in [GgmlType::F16, GgmlType::Q8_0, GgmlType::Q4_0] {
        let variant = variant(dtype, &folder)?;
        let dense = decode(&mut executor(&variant, Mode::Dense, 1)?, &tokens)?;
        let n_ff = &variant.config.n_ff;
        let mixed = n_ff.iter().enumerate().map(|(layer, n)| n * layer / n_ff.len());
        let prefixes: [Vec<usize>; 5] = [
            vec![0; n_ff.len()],
            vec![1; n_ff.len()],
            n_ff.iter().map(|n| n / 2).collect(),
            n_ff.clone(),
            mixed.collect(),
        ];
        for (prefix, n_threads) in prefixes.iter().flat_map(|p| [1, 2, 5].map(|t| (p, t))) {
            let modes: &[Mode] = if n_threads == 2 { &[Mode::Exact, Mode::Dense] } else { &[Mode::Exact] };
            for mode in modes {
                let placement = Placement::new(&variant, prefix.clone())?;
                let got = decode(&mut placed(&variant, *mode, n_threads, placement)?, &tokens)?;
                same_bits(&dense, &got)?;
            }
        }
    }
    Ok(())
}

#[test]
fn prefill_is_decode_bit_for_bit_whatever_the_batch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tokens = story(2 * N_FEW)?;
    let variants = [GgmlType::F16, GgmlType::Q8_0, GgmlType::Q4_0].map(|t| variant(t, &folder));
    let variants = variants.into_iter().collect::<Result<Vec<_>>>()?;
    for model in variants.iter().chain([source()]) {
        let decoded = decode(&mut executor(model, Mode::Exact, 2)?, &tokens)?;
        for (mode, n_threads, n_batch) in
            [(Mode::Dense, 2, 64), (Mode::Dense, 1, 7), (Mode::Exact, 2, 7), (Mode::Exact, 5, 1), (Mode::Exact, 1, 64)]
        {
            same_bits(&decoded, &prefill(&mut executor(model, mode, n_threads)?, &tokens, n_batch)?)?;
        }
    }
    Ok(())
}

#[test]
fn quantized_sources_are_split_and_stay_exact() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let tokens = story(2 * N_FEW)?;
    for dtype in [GgmlType::Q8_0, GgmlType::Q4_0] {
        let plain = convert::plain(source(), dtype, &path(&format!("{dtype}.gguf")))?;
        let dense = decode(&mut executor(&plain, Mode::Dense, 2)?, &tokens)?;
        exact_equals(&plain, &dense, &tokens, &[1, 5])?;
        for down in [DownType::Q8_0, DownType::Same] {
            let options = Options { dtype: None, down: Some(down) };
            let variant = split(&plain, options, &path(&format!("{dtype}-{down:?}.gguf")))?;
            let stored = variant.weights.layers[0].ffn[0].ffn_down.matrix().dtype();
            assert_eq!(stored, if down == DownType::Same { dtype } else { GgmlType::Q8_0 });
            let dense = decode(&mut executor(&variant, Mode::Dense, 2)?, &tokens)?;
            exact_equals(&variant, &dense, &tokens, &[1, 5])?;
            let (mut a, mut b) = (executor(&plain, Mode::Dense, 2)?, executor(&variant, Mode::Dense, 2)?);
            let kl = mean_kl(&mut a, &mut b, &tokens, &Silent)?;
            println!("{dtype} source, --down {down:?}: KL {kl:e}");
            let bound = if stored == GgmlType::Q4_0 { MAX_KL_DOWN_Q4_0 } else { MAX_KL_DOWN_Q8_0 };
            assert!(kl > 0.0 && kl < bound, "{dtype}, --down {down:?}: {kl}");
        }
    }
    Ok(())
}

#[test]
fn the_f16_variant_gives_the_logits_of_its_source_up_to_rounding() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let variant = variant(GgmlType::F16, &folder)?;
    let tokens = story(N_TOKENS)?;
    let expected = prefill(&mut executor(source(), Mode::Dense, 2)?, &tokens, 64)?;
    let got = decode(&mut executor(&variant, Mode::Exact, 2)?, &tokens)?;
    let mut worst = 0f32;
    for (position, (expected, got)) in expected.iter().zip(&got).enumerate() {
        worst = worst.max(max_difference(expected, got));
        let ((a, margin), (b, _)) = (best(expected), best(got));
        assert!(a == b || margin <= 2.0 * VARIANT_TOLERANCE, "position {position}: {b} instead of {a}");
    }
    println!("logits differ by at most {worst:e}");
    assert!(worst <= VARIANT_TOLERANCE, "{worst}");
    Ok(())
}

#[test]
fn quantizing_costs_little_and_more_at_four_bits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tokens = story(real::N_CTX)?;
    let mut found = Vec::new();
    for (dtype, bound) in [(GgmlType::Q8_0, MAX_KL_Q8_0), (GgmlType::Q4_0, MAX_KL_Q4_0)] {
        let variant = variant(dtype, &folder)?;
        let (mut a, mut b) = (executor(source(), Mode::Dense, 2)?, executor(&variant, Mode::Exact, 2)?);
        let kl = mean_kl(&mut a, &mut b, &tokens, &Silent)?;
        println!("{dtype}: KL {kl:e}");
        assert!(kl > 0.0 && kl < bound, "{dtype}: {kl}");
        found.push(kl);
    }
    assert!(found[0] < found[1], "{found:?}");
    Ok(())
}

/// Forgets one in a hundred of the neurons that fired.
#[derive(Default)]
struct Forgetful {
    n_fired: AtomicUsize,
}

impl MaskSource for Forgetful {
    fn select(&self, layer: usize, slots: Range<usize>, act: &[f32], active: &mut Vec<Slot>) {
        Fired.select(layer, slots, act, active);
        active.retain(|_| !self.n_fired.fetch_add(1, Ordering::Relaxed).is_multiple_of(100));
    }
}

/// The check that exact decode under a mask loses nothing, by its logits.
fn logits_agree(model: &Model, mask: Box<dyn MaskSource>) -> Result<()> {
    let tokens = story(N_FEW)?;
    let dense = decode(&mut executor(model, Mode::Dense, 2)?, &tokens)?;
    let mut exact = executor(model, Mode::Exact, 2)?;
    exact.set_mask(mask);
    same_bits(&dense, &decode(&mut exact, &tokens)?)
}

/// The same by perplexity: dense prefills, exact decodes, and nothing may be lost in between.
fn perplexities_agree(model: &Model, mask: Box<dyn MaskSource>) -> Result<()> {
    let n_ctx = golden().loss.n_ctx;
    let tokens = story(n_ctx)?;
    let mut exact = executor(model, Mode::Exact, 2)?;
    exact.set_mask(mask);
    let [dense, exact] = [executor(model, Mode::Dense, 2)?, exact]
        .map(|mut e| perplexity(&mut e, &tokens, n_ctx, Some(tokens[0]), None, &Silent).map(|p| p.value));
    let (dense, exact) = (dense?, exact?);
    ensure!(dense == exact, "perplexity {exact} instead of {dense}");
    Ok(())
}

#[test]
fn a_mask_that_forgets_one_fired_neuron_in_a_hundred_is_caught() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let variant = variant(GgmlType::Q8_0, &folder)?;
    for model in [source(), &variant] {
        for check in [logits_agree, perplexities_agree] {
            check(model, Box::new(Fired))?;
            let error = check(model, Box::<Forgetful>::default()).expect_err("the sabotage went unnoticed");
            println!("caught: {error}");
        }
    }
    Ok(())
}
