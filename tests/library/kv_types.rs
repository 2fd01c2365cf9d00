//! Keys and values of two types: each is rounded as its own type does, and files know both.

use crate::support::real;
use anyhow::{Context, Result};
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, check_card};
use powerinfer::placement::Placement;
use powerinfer::progress::Silent;
use powerinfer::session::{Session, Use};

const TYPES: [&str; 3] = ["f32", "f16", "q8_0"];

fn executor(kv_type: KvType) -> Result<Executor<'static>> {
    let model = real::source();
    Executor::new(model, Placement::all_cold(model), params(kv_type))
}

fn params(kv_type: KvType) -> ExecutorParams {
    ExecutorParams { kv_type, ..real::params(Mode::Exact, 1) }
}

fn of(k: &str, v: &str) -> Result<KvType> {
    format!("{k}/{v}").parse()
}

/// How far apart the logits are at most that two types give.
fn apart(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn what_keys_and_values_lose_follows_from_their_own_types() -> Result<()> {
    let text = real::story(24)?;
    let logits = |k: &str, v: &str| real::decode(&mut executor(of(k, v)?)?, &text);
    let exact = logits("f32", "f32")?;
    let lost = |k: &str, v: &str| anyhow::Ok(apart(&logits(k, v)?, &exact));
    // Halves lose little, bytes more, on either side; together no less than a part of either.
    let [halves_k, bytes_k] = [lost("f16", "f32")?, lost("q8_0", "f32")?];
    let [halves_v, bytes_v] = [lost("f32", "f16")?, lost("f32", "q8_0")?];
    for (halves, bytes) in [(halves_k, bytes_k), (halves_v, bytes_v)] {
        assert!(halves > 0.0 && halves < 0.02 && bytes > 3.0 * halves && bytes < 0.5, "{halves}, {bytes}");
    }
    for (mixed, of_bytes) in [(lost("q8_0", "f16")?, bytes_k), (lost("f16", "q8_0")?, bytes_v)] {
        assert!(mixed > 0.5 * of_bytes && mixed < 2.0 * of_bytes, "{mixed}, {of_bytes}");
    }
    Ok(())
}

#[test]
fn a_cache_takes_the_bytes_of_both_types() -> Result<()> {
    let config = &real::source().config;
    for k in TYPES {
        for v in TYPES {
            let kind = of(k, v)?;
            let row = kind.k.row_bytes(config.head_dim).context("blocks")?
                + kind.v.row_bytes(config.value_dim).context("blocks")?;
            let wanted = config.n_layer * config.n_head_kv * real::params(Mode::Exact, 1).n_ctx * row;
            assert_eq!(executor(kind)?.sequence().memory().n_bytes(), wanted, "{kind}");
        }
    }
    Ok(())
}

#[test]
fn a_session_of_other_types_is_refused_by_name_and_one_of_the_same_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("session");
    let text = real::story(20)?;
    let mixed = of("q8_0", "f16")?;
    let mut first = executor(mixed)?;
    let mut session = Session::new(&path, Use::Prompt, &first)?;
    session.load(&mut first, Some(&text))?;
    session.prompt(&mut first, &text, &Silent)?;
    session.save(&mut first, &text, &Silent)?;
    let mut again = executor(mixed)?;
    let n = Session::new(&path, Use::ReadOnly, &again)?.load(&mut again, Some(&text))?.len();
    assert!(n > 10 && again.n_past() == n, "{n}");
    let mut unbroken = executor(mixed)?;
    unbroken.prefill(&text[..n])?;
    for token in &text[n..] {
        assert_eq!(again.decode(*token)?, unbroken.decode(*token)?);
    }
    for (k, v) in [("f16", "q8_0"), ("q8_0", "q8_0"), ("f16", "f16")] {
        let mut other = executor(of(k, v)?)?;
        let error =
            Session::new(&path, Use::ReadOnly, &other)?.load(&mut other, Some(&text)).err().context("it was read")?;
        let line = format!("{error:#}");
        let own = if k == v { k.to_owned() } else { format!("{k}/{v}") };
        assert!(line.contains(&format!("--cache-type q8_0/f16, not {own}")), "{line}");
    }
    Ok(())
}

#[test]
fn a_card_says_that_it_computes_no_two_types() -> Result<()> {
    let model = real::source();
    for kv_type in [KvType::F16, KvType::Q8_0, KvType::F32] {
        check_card(model, &params(kv_type))?;
    }
    let error = check_card(model, &params(of("q8_0", "f16")?)).err().context("it was accepted")?;
    assert!(format!("{error:#}").contains("keys and values of two types (q8_0/f16)"), "{error:#}");
    Ok(())
}
