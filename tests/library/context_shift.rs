//! Context shifts: what is dropped leaves no trace, and what stays is as if it had been computed where it is now.

use crate::support::ModelFile;
use crate::support::Value;
use crate::support::compare::max_difference;
use crate::support::real::{repository, source, story};
use anyhow::{Context, Result};
use powerinfer::context::{Shift, fit};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;

/// Of the largest logit: keys are rotated twice in 32 bits. Measured: 1.4e-6.
const TOLERANCE: f32 = 1e-5;
const TOKENS: [u32; 16] = [3, 17, 5, 5, 0, 39, 21, 8, 13, 2, 30, 11, 7, 19, 26, 1];

fn open(name: &str) -> Result<Model> {
    Model::new(Gguf::open(&repository(&format!("tests/golden/arch/{name}.gguf")))?, None)
}

/// The first layer of a golden model: there keys and values depend on their token and its position only.
fn first_layer(name: &str) -> Result<Model> {
    let mut file = ModelFile::opened(&repository(&format!("tests/golden/arch/{name}.gguf")))?;
    let key = file.keys.iter().map(|(key, _)| key.clone()).find(|key| key.ends_with(".block_count"));
    file.set(&key.context("a number of layers")?, Value::U32(1));
    file.tensors.retain(|tensor| !tensor.name.starts_with("blk.") || tensor.name.starts_with("blk.0."));
    let folder = tempfile::tempdir()?;
    let path = file.written(folder.path(), "first.gguf");
    Model::new(Gguf::open(&path)?, None)
}

fn executor(model: &Model, n_ctx: usize) -> Result<Executor<'_>> {
    let (n_threads, kv_type, mode, n_ubatch, isa) = (2, KvType::F32, Mode::Exact, 4, Isa::detect());
    let params = ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch, isa };
    Executor::new(model, Placement::all_cold(model), params)
}

fn decoded(executor: &mut Executor, tokens: &[u32]) -> Result<Vec<f32>> {
    let mut last = Vec::new();
    for token in tokens {
        last = executor.decode(*token)?.to_vec();
    }
    Ok(last)
}

fn agree(name: &str, wanted: &[f32], got: &[f32]) {
    let largest = wanted.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let apart = max_difference(wanted, got);
    assert!(apart <= TOLERANCE * largest, "{name}: {:e} of the largest", apart / largest);
}

#[test]
fn one_layer_goes_on_as_if_what_was_dropped_had_never_been_there() -> Result<()> {
    // Pairs side by side and in halves, of a part of each head, scaled, divided, with norms before, of narrow vectors.
    for name in [
        "llama",
        "qwen2",
        "qwen3",
        "stablelm",
        "nemotron",
        "llama-yarn",
        "qwen3-yarn",
        "llama-long",
        "phi3",
        "plm",
        "plm-yarn",
    ] {
        let model = first_layer(name).with_context(|| name.to_owned())?;
        let mut shifted = executor(&model, TOKENS.len())?;
        let mut left = TOKENS.to_vec();
        decoded(&mut shifted, &TOKENS)?;
        for (n_keep, n_drop, next) in [(2, 7, 38), (0, 3, 4), (3, 2, 12)] {
            assert_eq!(shifted.shift(n_keep, n_drop)?, n_drop);
            left.drain(n_keep..n_keep + n_drop);
            assert_eq!(shifted.n_past(), left.len());
            left.push(next);
            let got = decoded(&mut shifted, &[next])?;
            agree(name, &decoded(&mut executor(&model, TOKENS.len())?, &left)?, &got);
        }
        // Nor do tokens behind the end come back.
        shifted.truncate(3)?;
        left.truncate(3);
        left.extend([9, 20]);
        agree(name, &decoded(&mut executor(&model, TOKENS.len())?, &left)?, &decoded(&mut shifted, &[9, 20])?);
    }
    Ok(())
}

#[test]
fn what_a_window_hides_anyway_makes_no_difference() -> Result<()> {
    // All layers look back on 4 tokens.
    let model = open("llama-window")?;
    let (mut shifted, mut whole) = (executor(&model, 64)?, executor(&model, 64)?);
    for round in 0..3 {
        decoded(&mut shifted, &TOKENS)?;
        decoded(&mut whole, &TOKENS)?;
        let n = shifted.n_past() / 2;
        assert_eq!(shifted.shift(0, n)?, n);
        for next in [9, 20, 33] {
            agree(&format!("round {round}"), &decoded(&mut whole, &[next])?, &decoded(&mut shifted, &[next])?);
        }
    }
    // One cannot go back behind what is left of a window, but for the beginning.
    assert!(shifted.truncate(1).is_err());
    shifted.truncate(0)?;
    whole.clear();
    agree("from the beginning", &decoded(&mut whole, &TOKENS)?, &decoded(&mut shifted, &TOKENS)?);
    Ok(())
}

#[test]
fn what_stays_in_front_stays_in_sight_of_a_window() -> Result<()> {
    // 4 tokens are looked back on, and 7 kept: as many are dropped as leave the window behind the 2 that stay.
    let model = open("llama-window")?;
    let mut executor = executor(&model, 12)?;
    decoded(&mut executor, &TOKENS[..12])?;
    assert_eq!(executor.shift(2, 9)?, 7);
    assert!(decoded(&mut executor, &[9])?.iter().all(|logit| logit.is_finite()));
    Ok(())
}

#[test]
fn what_cannot_be_dropped_is_said_and_nothing_is_lost() -> Result<()> {
    for (name, why) in [
        ("opt", "learned embeddings of positions"),
        ("nemotron_h", "recurrent layers"),
        ("nemotron_h_moe", "recurrent layers"),
    ] {
        let model = open(name)?;
        let mut executor = executor(&model, 16)?;
        decoded(&mut executor, &TOKENS[..8])?;
        let line = executor.shift(0, 4).unwrap_err().to_string();
        assert!(line.contains(why) && !line.contains('\n'), "{line}");
        assert!(Shift { n_keep: 0 }.make_room(&mut executor).is_err());
        let got = decoded(&mut executor, &TOKENS[8..])?;
        agree(name, &decoded(&mut self::executor(&model, 16)?, &TOKENS)?, &got);
    }
    let model = open("llama")?;
    let mut executor = executor(&model, 16)?;
    decoded(&mut executor, &TOKENS[..8])?;
    for (n_keep, n_drop) in [(8, 4), (9, 1), (usize::MAX, 1), (0, 0)] {
        let line = executor.shift(n_keep, n_drop).unwrap_err().to_string();
        assert!(line.contains("are to stay"), "{line}");
    }
    assert_eq!(executor.shift(6, 5)?, 2);
    assert_eq!((executor.n_past(), executor.n_dropped()), (6, 2));
    Ok(())
}

#[test]
fn a_longer_text_fits_by_what_is_dropped_and_not_by_what_is_new() -> Result<()> {
    let model = open("llama")?;
    let mut executor = executor(&model, 12)?;
    decoded(&mut executor, &TOKENS[..10])?;
    let shift = Shift { n_keep: 2 };
    let (mut held, mut wanted) = (TOKENS[..10].to_vec(), TOKENS[..14].to_vec());
    // Half of the eight between the two that stay and the last four.
    assert_eq!(fit(&mut executor, shift, &mut held, &mut wanted, || 4), 4);
    assert_eq!((held.len(), wanted.len(), executor.n_past()), (6, 10, 6));
    assert_eq!((&held[..2], &held[2..]), (&TOKENS[..2], &TOKENS[6..10]));
    assert!(wanted.starts_with(&held) && wanted.ends_with(&TOKENS[10..14]));
    // What fits is left alone; so is what could only fit without some of the last ones.
    assert_eq!(fit(&mut executor, shift, &mut held, &mut wanted, || 4), 0);
    let mut longer = [&held[..], &[1; 20]].concat();
    assert_eq!(fit(&mut executor, shift, &mut held, &mut longer, || 20), 0);
    assert_eq!((held.len(), longer.len(), executor.n_past()), (6, 26, 6));
    // Where more has to go than is held there is nothing to move.
    assert_eq!(fit(&mut executor, shift, &mut held, &mut longer, || 3), 14);
    assert_eq!((&held[..], &longer[..2], longer.len(), executor.n_past()), (&TOKENS[..2], &TOKENS[..2], 12, 2));
    Ok(())
}

#[test]
fn a_story_over_several_shifts_is_read_as_well_as_one_in_a_long_context() -> Result<()> {
    let tokens = story(100)?;
    let loss = |n_ctx: usize| -> Result<(f64, usize)> {
        let mut executor = executor(source(), n_ctx)?;
        let mut sum = 0.0;
        for pair in tokens.windows(2) {
            if executor.n_past() == n_ctx {
                Shift { n_keep: 1 }.make_room(&mut executor)?;
            }
            let logits = executor.decode(pair[0])?;
            let most = logits.iter().fold(f32::NEG_INFINITY, |most, v| most.max(*v));
            let total: f64 = logits.iter().map(|v| f64::from(v - most).exp()).sum();
            sum += total.ln() - f64::from(logits[pair[1] as usize] - most);
        }
        Ok((sum / (tokens.len() - 1) as f64, executor.n_dropped()))
    };
    let ((whole, none), (shifted, dropped)) = (loss(128)?, loss(32)?);
    assert!(none == 0 && dropped > 60, "{dropped} dropped");
    assert!(shifted < whole + 0.2, "{shifted} nats per token, where all of the text in sight gives {whole}");
    Ok(())
}
