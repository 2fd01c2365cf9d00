//! Session files: a text behind a prompt from a file has the bits that it has behind one that was computed; and files that are
//! not what they say are refused.

use crate::support::ModelFile;
use crate::support::compare::same_bits;
use crate::support::real::repository;
use anyhow::{Context, Result};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::session::{Key, Session, Use, read};
use std::path::Path;

fn open(name: &str) -> Result<Model> {
    Model::new(Gguf::open(&repository(&format!("tests/golden/arch/{name}.gguf")))?, None)
}

fn params() -> ExecutorParams {
    let (n_threads, n_ctx, kv_type, mode, n_ubatch, isa) = (2, 128, KvType::F32, Mode::Exact, 32, Isa::detect());
    ExecutorParams { n_threads, n_ctx, kv_type, mode, n_ubatch, isa }
}

fn executor(model: &Model, params: ExecutorParams) -> Result<Executor<'_>> {
    Executor::new(model, Placement::all_cold(model), params)
}

/// `n` tokens that all golden vocabularies have.
fn text(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i + 3 * i + 7) % 31).collect()
}

/// Logits behind the tokens of a prompt that `executor` does not hold yet, and behind some further ones.
fn goes_on(executor: &mut Executor, prompt: &[u32]) -> Result<Vec<Vec<f32>>> {
    let rest = &prompt[executor.n_past()..];
    let mut all = Vec::new();
    for chunk in rest.chunks(executor.params().n_ubatch) {
        all = vec![executor.prefill(chunk)?.to_vec()];
    }
    for token in [5, 2, 11] {
        all.push(executor.decode(token)?.to_vec());
    }
    Ok(all)
}

/// Writes a session file of `prompt`.
fn write(path: &Path, executor: &mut Executor, prompt: &[u32]) -> Result<()> {
    let mut session = Session::new(path, Use::Prompt, executor)?;
    session.load(executor, Some(prompt))?;
    session.prompt(executor, prompt, &Silent)?;
    session.save(executor, prompt, &Silent)
}

#[test]
fn the_text_behind_a_prompt_from_a_file_has_the_bits_of_an_unbroken_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("session");
    for name in [
        "llama",
        "qwen3-window",
        "gemma3",
        "plm",
        "opt",
        "nemotron_h",
        "nemotron_h_moe",
        "qwen3moe",
        "gpt-oss",
        "llama-long",
    ] {
        let model = open(name)?;
        for kv_type in [KvType::F32, KvType::F16] {
            let params = ExecutorParams { kv_type, n_ctx: 100.min(model.config.n_ctx_train.max(90)), ..params() };
            if model.check_context(params.n_ctx).is_err() {
                continue;
            }
            let new = || executor(&model, params.clone());
            let prompt = text(80);
            let whole = goes_on(&mut new()?, &prompt)?;
            drop(std::fs::remove_file(&path));
            // A run that writes has the same text, too.
            let mut first = new()?;
            write(&path, &mut first, &prompt)?;
            same_bits(&whole, &goes_on(&mut first, &prompt)?).with_context(|| format!("{name}, written"))?;
            let recurs = first.sequence().memory().recurs();
            // The same prompt; one that ends otherwise; one that goes on.
            let other = [&prompt[..70], &[1, 2, 3, 4]].concat();
            let longer = [&prompt[..], &[9, 8, 7]].concat();
            for (wanted, from_file) in [(&prompt, 76), (&other, 70), (&longer, 76)] {
                let mut again = new()?;
                let held = Session::new(&path, Use::ReadOnly, &again)?.load(&mut again, Some(wanted))?;
                let least = if recurs { 64 } else { from_file };
                assert_eq!((held.len(), again.n_past()), (least, least), "{name}");
                assert_eq!(held, wanted[..least]);
                same_bits(&goes_on(&mut new()?, wanted)?, &goes_on(&mut again, wanted)?)
                    .with_context(|| name.to_owned())?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_context_of_another_length_takes_what_it_has_room_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("session");
    for name in ["llama", "llama-window", "qwen3-window"] {
        let model = open(name)?;
        drop(std::fs::remove_file(&path));
        let prompt = text(80);
        write(&path, &mut executor(&model, params())?, &prompt)?;
        for (n_ctx, n_ubatch) in [(200, 32), (128, 1), (84, 5), (128, 100)] {
            let params = ExecutorParams { n_ctx, n_ubatch, ..params() };
            let mut again = executor(&model, params.clone())?;
            let held = Session::new(&path, Use::ReadOnly, &again)?.load(&mut again, Some(&prompt))?;
            assert_eq!(held.len(), 76, "{name}, -c {n_ctx}");
            same_bits(&goes_on(&mut executor(&model, params)?, &prompt)?, &goes_on(&mut again, &prompt)?)?;
        }
        // What windows have given up for it is computed anew.
        let mut shorter = executor(&model, ExecutorParams { n_ctx: 40, ..params() })?;
        let held = Session::new(&path, Use::ReadOnly, &shorter)?.load(&mut shorter, None)?;
        let room = if name == "llama" { 40 } else { 0 };
        assert_eq!((held.len(), shorter.n_past()), (room, room), "{name}");
    }
    Ok(())
}

#[test]
fn all_of_a_text_is_kept_on_request_and_a_file_with_most_of_a_prompt_is_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("session");
    let model = open("llama")?;
    let prompt = text(60);
    let mut first = executor(&model, params())?;
    let mut session = Session::new(&path, Use::All, &first)?;
    assert!(session.load(&mut first, Some(&prompt))?.is_empty());
    assert_eq!(session.prompt(&mut first, &prompt, &Silent)?, 56);
    session.save(&mut first, &prompt, &Silent)?;
    assert!(!path.exists());
    goes_on(&mut first, &prompt)?;
    let all = [&prompt[..], &[5, 2, 11]].concat();
    session.end(&mut first, &all, &Silent)?;
    let mut again = executor(&model, params())?;
    assert_eq!(Session::new(&path, Use::Prompt, &again)?.load(&mut again, None)?, all);
    same_bits(&[first.decode(3)?.to_vec()], &[again.decode(3)?.to_vec()])?;
    // Behind most of it another question, and then another text.
    let before = std::fs::read(&path)?;
    write(&path, &mut executor(&model, params())?, &[&prompt[..50], &[1; 14]].concat())?;
    assert!(before == std::fs::read(&path)?);
    write(&path, &mut executor(&model, params())?, &[&prompt[..20], &[1; 44]].concat())?;
    assert!(before != std::fs::read(&path)?);
    // What a shift has moved is not what its tokens give.
    first.shift(10, 20)?;
    let mut session = Session::new(&path, Use::All, &first)?;
    session.end(&mut first, &all, &Silent)?;
    assert_eq!(Session::new(&path, Use::Prompt, &again)?.load(&mut again, None)?, &all[..10]);
    Ok(())
}

#[test]
fn a_file_of_another_model_or_set_up_says_which() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("session");
    let model = open("llama")?;
    write(&path, &mut executor(&model, params())?, &text(20))?;
    let refused = |model: &Model, params: ExecutorParams, wanted: &[&str]| -> Result<()> {
        let mut executor = executor(model, params)?;
        let error = Session::new(&path, Use::Prompt, &executor)?.load(&mut executor, Some(&text(20)));
        let line = format!("{:#}", error.err().context("it was read")?);
        assert!(wanted.iter().all(|part| line.contains(part)) && !line.contains('\n'), "{line}");
        assert!(line.starts_with(&path.display().to_string()), "{line}");
        assert_eq!(executor.n_past(), 0);
        Ok(())
    };
    refused(&open("qwen2")?, params(), &["another model"])?;
    refused(&model, ExecutorParams { kv_type: KvType::F16, ..params() }, &["--cache-type f32, not f16"])?;
    if Isa::detect() != Isa::Plain {
        refused(&model, ExecutorParams { isa: Isa::Plain, ..params() }, &["--isa ", ", not plain"])?;
    }
    let relu = Gguf::open(&repository("tests/golden/arch/llama.gguf"))?;
    refused(&Model::new(relu, Some(powerinfer::model::Activation::Relu))?, params(), &["--activation "])?;
    // Another value in a tensor that fingerprints do not look at, and another base of the rotation.
    let mut file = ModelFile::opened(&repository("tests/golden/arch/llama.gguf"))?;
    file.tensor("blk.0.attn_v.weight").bytes[0] ^= 1;
    let changed = file.written(folder.path(), "changed.gguf");
    refused(&Model::new(Gguf::open(&changed)?, None)?, params(), &["another file of this model"])?;
    // Dense and exact give the same bits.
    let mut dense = executor(&model, ExecutorParams { mode: Mode::Dense, n_threads: 1, ..params() })?;
    assert_eq!(Session::new(&path, Use::ReadOnly, &dense)?.load(&mut dense, Some(&text(20)))?.len(), 16);
    Ok(())
}

#[test]
fn what_is_cut_short_or_changed_anywhere_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("session");
    for name in ["llama-window", "nemotron_h"] {
        let model = open(name)?;
        drop(std::fs::remove_file(&path));
        write(&path, &mut executor(&model, params())?, &text(40))?;
        let bytes = std::fs::read(&path)?;
        let mut executor = executor(&model, params())?;
        let key = Key::of(&executor)?;
        let mut given = |bytes: &[u8]| {
            let got = read(bytes, bytes.len() as u64, &key, &mut executor, <[u32]>::len);
            (got, executor.n_past())
        };
        assert!(given(&bytes).0.is_ok());
        let step = bytes.len() / 300;
        for at in (0..400).chain((400..bytes.len()).step_by(step)).chain(bytes.len() - 40..bytes.len()) {
            let (got, n_past) = given(&bytes[..at]);
            let line = format!("{:#}", got.unwrap_err());
            assert!(
                n_past == 0
                    && ["cut short", "no session file", "tokens in", "checksum"].iter().any(|w| line.contains(w)),
                "{line}"
            );
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let (got, n_past) = given(&changed);
            let line = format!("{:#}", got.err().with_context(|| format!("byte {at}"))?);
            assert!(n_past == 0 && !line.contains('\n') && line.contains("file"), "{line}");
        }
        let (got, n_past) = given(&[&bytes[..], &[0; 5]].concat());
        assert!(got.is_err() && n_past == 0);
    }
    Ok(())
}
