//! What fires for any of several tokens: a variant made from one text predicts it for another, as it is measured there.

use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::measure::STORY;
use powerinfer::measure::speed::parallel::{decode, feed, prefill, sequences};
use powerinfer::model::{CONSECUTIVE_SIZES, Model};
use powerinfer::placement::Placement;
use powerinfer::placement::union::{Tokens, of_model};
use powerinfer::profile::Profile;
use powerinfer::profile::collect::{CollectParams, Text, collect};
use powerinfer::profile::together::Together;
use powerinfer::progress::Silent;
use powerinfer::tokenizer::{Special, Tokenizer, read_vocab};
use powerinfer::variant::{Draft, Options, write};
use std::path::PathBuf;

/// What `models/tiny-stories-q8_0-variant.gguf` wrote at temperature 0.9. The model was trained on other texts, and [`STORY`] is
/// neither of them.
const CALIBRATION: &str = include_str!("../golden/stories.txt");
/// How far a prediction may be off.
const MOST_OFF: f64 = 0.1;
/// Tokens that are decoded in all.
const N_DECODED: usize = 192;
/// Tokens before those of each text.
const N_BEFORE: usize = 16;

fn open(form: &str) -> Result<(Model, Tokenizer)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("models/tiny-stories{form}-f16.gguf"));
    let model = Model::new(Gguf::open(&path)?, None)?;
    let tokenizer = Tokenizer::new(read_vocab(&model.gguf)?)?;
    Ok((model, tokenizer))
}

fn profile(model: &Model, tokenizer: &Tokenizer, text: &str) -> Result<Profile> {
    let texts = [Text { name: "text".to_owned(), text: text.to_owned() }];
    let params = CollectParams { n_threads: 2, ..CollectParams::new(256) };
    Ok(collect(model, tokenizer, &texts, &params, &Silent)?.profile)
}

/// Share of the neurons that fire for any of `n` texts that are decoded at once.
fn measured(model: &Model, tokens: &[u32], n: usize) -> Result<f64> {
    let (mode, kv_type) = (Mode::Exact, KvType::F32);
    let params = ExecutorParams { n_threads: 2, n_ctx: 128, kv_type, mode, n_ubatch: 16, isa: Isa::detect() };
    let mut executor = Executor::new(model, Placement::all_cold(model), params)?;
    let feeds: Vec<_> = (0..n).map(|i| feed(tokens, i, n, N_BEFORE + N_DECODED / n)).collect();
    let mut sequences = sequences(&executor, n)?;
    for (sequence, feed) in sequences.iter_mut().zip(&feeds) {
        prefill(&mut executor, sequence, &feed[..N_BEFORE], &Silent)?;
    }
    let decoded: Vec<_> = feeds.iter().map(|feed| &feed[N_BEFORE..]).collect();
    decode(&mut executor, &mut sequences, &decoded, &Silent)?;
    sequences.iter().for_each(|sequence| executor.add_stats(sequence));
    executor.stats().union_density().context("nothing was decoded")
}

#[track_caller]
fn near(what: &str, n: usize, predicted: Option<f64>, measured: Option<f64>) {
    let (predicted, measured) = predicted.zip(measured).unwrap_or_else(|| panic!("{what}, {n}: nothing known"));
    let off = predicted / measured - 1.0;
    println!("{what}, {n}: predicted {predicted:.4}, measured {measured:.4}: {:+.1} %", 100.0 * off);
    assert!(off.abs() < MOST_OFF, "{what}, {n}: predicted {predicted}, measured {measured}");
}

/// By the profile of one text, for `of_several` texts at once and for consecutive tokens of another.
fn held_out(form: &str, of_several: &[usize]) -> Result<()> {
    let (model, tokenizer) = open(form)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("variant.gguf");
    let calibrated = profile(&model, &tokenizer, CALIBRATION)?;
    write(&model, &Draft::new(&model, &calibrated, Options::default())?, None, &path, &Silent)?;
    let variant = Model::new(Gguf::open(&path)?, None)?;
    assert_eq!(of_model(&model, Tokens::Unrelated(2)), None, "a plain file knows nothing");

    let tokens = tokenizer.encode(STORY, Special::AsText)?;
    for n in of_several {
        near("texts at once", *n, of_model(&variant, Tokens::Unrelated(*n)), Some(measured(&variant, &tokens, *n)?));
    }
    let of_story = Together::of_all(&profile(&model, &tokenizer, STORY)?);
    for (size, n) in CONSECUTIVE_SIZES.into_iter().enumerate() {
        near("consecutive", n, of_model(&variant, Tokens::Consecutive(n)), of_story.consecutive[size]);
    }
    // Where the two kinds were counted, consecutive tokens have more in common.
    let both = [Tokens::Consecutive(16), Tokens::Unrelated(16)].map(|tokens| of_model(&variant, tokens));
    assert!(both[0] < both[1], "{both:?}");
    Ok(())
}

#[test]
fn a_profile_of_one_text_predicts_unions_in_another() -> Result<()> {
    held_out("", &[2, 4, 8, 16])
}

#[test]
fn so_does_one_of_a_model_with_experts() -> Result<()> {
    held_out("-experts", &[2, 8])
}

/// The mean over all choices of tokens, which follows from counts, is what sampled tokens have.
#[test]
fn unrelated_tokens_are_as_tokens_that_were_sampled() -> Result<()> {
    let (model, tokenizer) = open("")?;
    let profile = profile(&model, &tokenizer, CALIBRATION)?;
    let sets = profile.fired_sets.as_ref().context("no fired sets")?;
    let of = Together::of_all(&profile);
    let bytes = sets.bits.len() / sets.keys.len();
    let n_ff: usize = profile.n_ff().iter().sum();
    assert_eq!(bytes * 8, n_ff, "sets have bits that are no neuron's");
    for (size, n) in CONSECUTIVE_SIZES.into_iter().enumerate() {
        // Keys are sorted by a hash, so neighbours have nothing to do with each other.
        let unions = sets.bits.chunks_exact(n * bytes).map(|tokens| {
            let fired = |byte: usize| tokens.iter().skip(byte).step_by(bytes).fold(0, |all, bits| all | bits);
            (0..bytes).map(|byte| fired(byte).count_ones()).sum::<u32>()
        });
        let unions: Vec<u32> = unions.collect();
        let mean = f64::from(unions.iter().sum::<u32>()) / (unions.len() * n_ff) as f64;
        let exact = of.unrelated[size].context("too few tokens")?;
        assert!((mean / exact - 1.0).abs() < 0.04, "{n}: {mean} of samples, {exact} of all");
    }
    Ok(())
}
