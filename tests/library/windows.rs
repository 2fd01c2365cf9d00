//! Layers that look back on a limited number of tokens: what they keep of a sequence, and what they can forget again.

use crate::support::compare::same_bits;
use crate::support::real::repository;
use crate::support::{ModelFile, Value};
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Batch, Entry, Executor, ExecutorParams, KvType, Mode, Observer, Sequence};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;

/// All layers look back on 4 tokens; two of three on 3.
const MODELS: [&str; 2] = ["llama-window", "qwen3-window"];
const TOKENS: [u32; 24] = [3, 17, 5, 5, 0, 39, 21, 8, 13, 2, 30, 11, 7, 7, 19, 26, 1, 38, 4, 4, 33, 12, 9, 20];

fn open(name: &str) -> Result<Model> {
    Model::new(Gguf::open(&repository(&format!("tests/golden/arch/{name}.gguf")))?, None)
}

fn executor(model: &Model, n_ctx: usize, n_ubatch: usize) -> Result<Executor<'_>> {
    let (n_threads, kv_type, mode, isa) = (2, KvType::F32, Mode::Exact, Isa::detect());
    let params = ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch, isa };
    Executor::new(model, Placement::all_cold(model), params)
}

/// Logits after each of `tokens`, `n` at a time.
fn decoded(executor: &mut Executor, tokens: &[u32], n: usize) -> Result<Vec<Vec<f32>>> {
    let n_vocab = executor.model().config.n_vocab;
    let mut all = Vec::new();
    for tokens in tokens.chunks(n) {
        all.extend(executor.decode_several(tokens)?.chunks_exact(n_vocab).map(<[f32]>::to_vec));
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

#[test]
fn batches_larger_than_a_window_give_each_token_the_bits_that_it_gets_alone() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let alone = decoded(&mut executor(&model, TOKENS.len(), 1)?, &TOKENS, 1)?;
        let mut prefilled = Vec::new();
        for n_ubatch in [1, 2, 5, 64] {
            for n in [1, 3, 7, TOKENS.len()] {
                let got = decoded(&mut executor(&model, TOKENS.len(), n_ubatch)?, &TOKENS, n)?;
                same_bits(&alone, &got).with_context(|| format!("{name}, {n} at once, -ub {n_ubatch}"))?;
            }
            let mut all = AllLogits::default();
            executor(&model, TOKENS.len(), n_ubatch)?.prefill_observed(&TOKENS, &mut all)?;
            prefilled.push(all.0);
        }
        // In another order than decode, but in the same one whatever is computed at once.
        for got in &prefilled[1..] {
            same_bits(&prefilled[0], got).with_context(|| format!("{name}, a prompt"))?;
        }
        let largest = alone.iter().flatten().fold(0.0f32, |a, b| a.max(b.abs()));
        let pairs = alone.iter().flatten().zip(prefilled[0].iter().flatten());
        let apart = pairs.fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
        assert!(apart <= 1e-5 * largest, "{name}: a prompt is {apart:e} apart of {largest}");
    }
    Ok(())
}

#[test]
fn sequences_side_by_side_have_windows_of_their_own() -> Result<()> {
    let model = open("qwen3-window")?;
    let texts = [&TOKENS[..14], &TOKENS[7..21], &TOKENS[10..24]];
    let mut together = executor(&model, 14, 2)?;
    let mut sequences: Vec<Sequence> = texts.iter().map(|_| together.new_sequence()).collect::<Result<_>>()?;
    let (n_vocab, mut got) = (model.config.n_vocab, vec![Vec::new(); texts.len()]);
    // Seven tokens of each in every batch: more than a layer with a window takes in at once.
    for positions in [0..7, 7..14] {
        let mut batch = Batch::default();
        for position in positions {
            for (sequence, text) in texts.iter().enumerate() {
                batch.push(Entry { sequence, position, token: text[position], wants_logits: true });
            }
        }
        let logits = together.decode_batch(&batch, &mut sequences)?;
        for (entry, logits) in batch.entries().iter().zip(logits.chunks_exact(n_vocab)) {
            got[entry.sequence].push(logits.to_vec());
        }
    }
    for (text, got) in texts.iter().zip(&got) {
        same_bits(&decoded(&mut executor(&model, 14, 2)?, text, 1)?, got)?;
    }
    Ok(())
}

#[test]
fn a_cache_grows_with_the_context_only_where_layers_see_all_of_it() -> Result<()> {
    let bytes = |model: &Model, n_ctx: usize, n_ubatch: usize| -> Result<usize> {
        Ok(executor(model, n_ctx, n_ubatch)?.sequence().memory().n_bytes())
    };
    // Keys and values of 2 heads of floats.
    let row_of = |model: &Model| 2 * 2 * model.config.head_dim * 4;
    let model = open("llama-window")?;
    let row = row_of(&model);
    for (n_ctx, n_ubatch, n_rows) in [(3, 512, 3), (4, 1, 4), (8, 512, 8), (500, 1, 4), (500, 16, 19)] {
        assert_eq!(bytes(&model, n_ctx, n_ubatch)?, 3 * n_rows * row, "-c {n_ctx} -ub {n_ubatch}");
    }
    let model = open("qwen3-window")?;
    let row = row_of(&model);
    // Layer 2 of five has no window.
    assert_eq!(bytes(&model, 500, 2)?, (500 + 4 * 4) * row);
    Ok(())
}

#[test]
fn what_was_taken_in_last_is_forgotten_rightly_or_not_at_all() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let whole = decoded(&mut executor(&model, TOKENS.len(), 1)?, &TOKENS, 1)?;
        let window = model.config.windows.iter().flatten().copied().min().context("a window")?;
        for n_ubatch in [1, 4, 64] {
            // A layer keeps a window, and what is computed at once beside its first token.
            let n_rows = (window - 1 + n_ubatch).min(TOKENS.len());
            for n_past in [2, n_rows.min(20), 20] {
                for kept in 0..n_past {
                    let mut executor = executor(&model, TOKENS.len(), n_ubatch)?;
                    decoded(&mut executor, &TOKENS[..n_past], 3)?;
                    let possible = kept == 0 || (kept + 1).saturating_sub(window) >= n_past.saturating_sub(n_rows);
                    let done = executor.truncate(kept);
                    assert_eq!(done.is_ok(), possible, "{name}, -ub {n_ubatch}: {kept} of {n_past}");
                    if let Err(error) = done {
                        let line = error.to_string();
                        assert!(line.contains(&format!("the first {kept} must be computed again")), "{line}");
                        // Nothing is lost: it goes on, or begins anew.
                        assert_eq!(executor.n_past(), n_past);
                        same_bits(&whole[n_past..n_past + 1], &decoded(&mut executor, &TOKENS[n_past..=n_past], 1)?)?;
                        executor.clear();
                        decoded(&mut executor, &TOKENS[..kept], 2)?;
                    }
                    // What was written there before must not show, nor after a second time.
                    decoded(&mut executor, &[31], 1)?;
                    if executor.truncate(kept).is_err() {
                        continue;
                    }
                    let n = (TOKENS.len() - kept).min(6);
                    let got = decoded(&mut executor, &TOKENS[kept..kept + n], 1)?;
                    same_bits(&whole[kept..kept + n], &got)
                        .with_context(|| format!("{name}, -ub {n_ubatch}: {kept} of {n_past}"))?;
                }
            }
        }
    }
    Ok(())
}

/// One length for all layers, one for each, a period, or yes and no for each.
#[test]
fn keys_say_which_layers_have_a_window() -> Result<()> {
    const WINDOW: &str = "llama.attention.sliding_window";
    const PATTERN: &str = "llama.attention.sliding_window_pattern";
    let folder = tempfile::tempdir()?;
    let with = |keys: &[(&str, Value)]| -> Result<Model> {
        let mut file = ModelFile::opened(&repository("tests/golden/arch/llama-window.gguf"))?;
        keys.iter().for_each(|(key, value)| {
            file.set(key, value.clone());
        });
        Model::new(Gguf::open(&file.written(folder.path(), "model.gguf"))?, None)
    };
    let windows = |keys: &[(&str, Value)]| -> Result<Vec<usize>> {
        Ok(with(keys)?.config.windows.iter().map(|window| window.unwrap_or(0)).collect())
    };
    assert_eq!(windows(&[])?, [4, 4, 4]);
    assert_eq!(windows(&[(WINDOW, Value::U32(0))])?, [0, 0, 0]);
    assert_eq!(windows(&[(WINDOW, Value::u32s(&[0, 7, 9]))])?, [0, 7, 9]);
    assert_eq!(windows(&[(PATTERN, Value::U32(0))])?, [4, 4, 4]);
    assert_eq!(windows(&[(PATTERN, Value::U32(1))])?, [0, 0, 0]);
    assert_eq!(windows(&[(PATTERN, Value::U32(2))])?, [4, 0, 4]);
    assert_eq!(windows(&[(PATTERN, Value::i32s(&[0, 1, 1]))])?, [0, 4, 4]);
    assert_eq!(windows(&[(WINDOW, Value::U32(0)), (PATTERN, Value::U32(2))])?, [0, 0, 0]);
    for (key, value, wanted) in [
        (WINDOW, Value::I32(-1), "-1 is not a number of tokens"),
        (WINDOW, Value::F32(2.5), "2.5 is not a number of tokens"),
        (WINDOW, Value::F32(f32::NAN), "NaN is not a number of tokens"),
        (WINDOW, Value::Str("4".to_owned()), "is not a number"),
        (WINDOW, Value::u32s(&[4, 4]), "2 values for 3 layers"),
        (WINDOW, Value::u32s(&[]), "0 values for 3 layers"),
        (PATTERN, Value::i32s(&[1, 0, 1, 0]), "4 values for 3 layers"),
        (PATTERN, Value::I32(-2), "-2 is not a number of layers"),
    ] {
        let line = with(&[(key, value)]).err().context("not refused")?;
        let line = format!("{line:#}");
        assert!(line.contains(&format!("{key}: ")) && line.contains(wanted) && !line.contains('\n'), "{line}");
    }
    Ok(())
}
