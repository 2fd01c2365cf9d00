//! Speculation: whatever is guessed, tokens, logits, counts and memory are those of a run without.

use crate::architecture_forms::path;
use crate::support::compare::same_bits;
use crate::support::predictors::{network, with_predictor};
use crate::support::real::{repository, story};
use anyhow::{Context, Result, ensure};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::gguf::Gguf;
use powerinfer::model::Model;
use powerinfer::placement::Placement;
use powerinfer::sampler::{Sampler, SamplerParams};
use powerinfer::speculation::{Drafter, Lengths, Lookup, ModelDrafter, Scripted, Speculation, Target};

/// Dense, with windows, with experts, with states, with learned positions, with a narrow vector for keys.
const MODELS: [&str; 8] =
    ["llama", "llama-window", "qwen3-window", "gpt-oss", "granitemoe", "nemotron_h", "nemotron_h_moe-latent", "plm"];
const PROMPT: [u32; 6] = [3, 17, 5, 5, 0, 39];
const N_TOKENS: usize = 40;
const DRAFTS: Lengths = Lengths { most: 3, least: 1 };

fn open(name: &str) -> Result<Model> {
    Model::new(Gguf::open(&path(name))?, None)
}

fn params(n_ctx: usize, mode: Mode) -> ExecutorParams {
    let (kv_type, isa) = (KvType::F32, Isa::detect());
    ExecutorParams { n_threads: 2, n_ctx, kv_type, mode, n_ubatch: 4, isa }
}

fn executor<'m>(model: &'m Model, params: &ExecutorParams) -> Result<Executor<'m>> {
    Executor::new(model, Placement::all_cold(model), params.clone())
}

/// What can be seen of a run.
#[derive(Default, PartialEq)]
struct Seen {
    text: Vec<u32>,
    logits: Vec<Vec<f32>>,
    n_past: Vec<usize>,
    counts: Vec<Option<f64>>,
    memory: Vec<u8>,
}

impl Seen {
    fn agrees(&self, other: &Self) -> Result<()> {
        ensure!(self.text == other.text, "{:?} and {:?}", self.text, other.text);
        same_bits(&self.logits, &other.logits)?;
        ensure!(self.n_past == other.n_past && self.counts == other.counts, "{:?}, {:?}", self.counts, other.counts);
        ensure!(self.memory == other.memory, "the memory differs");
        Ok(())
    }
}

/// Draws tokens behind `prompt`, with a context shift where there is no more room.
fn run(
    model: &Model,
    params: &ExecutorParams,
    prompt: &[u32],
    speculation: Option<&mut Speculation>,
    temp: f32,
) -> Result<Seen> {
    let mut executor = executor(model, params)?;
    executor.set_audit(3);
    let mut sampler = Sampler::new(SamplerParams { temp, seed: 7, repeat_penalty: 1.1, ..SamplerParams::default() })?;
    let n_tokens = model.config.n_tokens;
    let mut logits = executor.prefill(prompt)?[..n_tokens].to_vec();
    let mut seen = Seen { text: prompt.to_vec(), ..Seen::default() };
    let mut target = Target::new(&mut executor, speculation);
    target.read(prompt);
    for i in 0..N_TOKENS {
        let token = sampler.sample(&logits)?;
        sampler.accept(token);
        seen.text.push(token);
        if target.n_past() == params.n_ctx {
            target.executor()?.shift(2, params.n_ctx / 2)?;
        }
        logits = target.decode(token, N_TOKENS - i)?[..n_tokens].to_vec();
        seen.logits.push(logits.clone());
        seen.n_past.push(target.n_past());
    }
    target.settle()?;
    let stats = executor.stats();
    seen.counts = vec![
        Some(stats.n_tokens() as f64),
        stats.density(),
        stats.masked(),
        stats.opened(),
        stats.bytes_per_token(model),
        stats.recall().map(|recall| recall.found_mass),
    ];
    if executor.n_dropped() == 0 {
        let n = executor.n_past();
        executor.write_memory(n, &mut |bytes| {
            seen.memory.extend_from_slice(bytes);
            Ok(())
        })?;
    }
    Ok(seen)
}

/// Every kind of draft against none, at these temperatures; how many drafted tokens stayed.
fn agree(model: &Model, params: &ExecutorParams, prompt: &[u32], temps: &[f32]) -> Result<usize> {
    let mut n_taken = 0;
    for temp in temps.iter().copied() {
        let plain = run(model, params, prompt, None, temp)?;
        let scripted = |share| Box::new(Scripted::new(plain.text.clone(), share, 3));
        let own = executor(model, params)?;
        let drafters: [(&str, Box<dyn Drafter>); 4] = [
            ("always right", scripted(1.0)),
            ("right in part", scripted(0.6)),
            ("lookup", Box::<Lookup>::default()),
            ("model", Box::new(ModelDrafter::new(own, "model", model.config.n_tokens, 0.0))),
        ];
        for (name, drafter) in drafters {
            let mut speculation = Speculation::new(DRAFTS, vec![drafter]);
            let seen = run(model, params, prompt, Some(&mut speculation), temp)?;
            plain.agrees(&seen).with_context(|| format!("{name}, --temp {temp}"))?;
            let drafted = speculation.counts().drafted();
            let all = name != "lookup";
            ensure!(!all || drafted.n_drafted > 10, "{name}: {drafted:?}");
            ensure!(name != "always right" || drafted.n_drafted == drafted.n_taken, "{drafted:?}");
            ensure!(name != "right in part" || drafted.n_drafted > drafted.n_taken, "{drafted:?}");
            n_taken += drafted.n_taken;
        }
    }
    Ok(n_taken)
}

#[test]
fn nothing_but_the_speed_changes_in_models_of_all_kinds() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let n_taken = agree(&model, &params(64, Mode::Exact), &PROMPT, &[0.0, 1.0]).with_context(|| name.to_owned())?;
        assert!(n_taken > 60, "{name}: {n_taken}");
    }
    Ok(())
}

#[test]
fn nothing_changes_with_drafts_of_up_to_15_tokens_in_models_of_all_kinds() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        for (n_threads, isa) in (1..=3).zip(Isa::ALL.into_iter().filter(|isa| isa.is_available()).cycle()) {
            let params = ExecutorParams { n_ubatch: 16, n_threads, isa, ..params(64, Mode::Exact) };
            let plain = run(&model, &params, &PROMPT, None, 1.0)?;
            for (most, share) in [(15, 1.0), (15, 0.9), (9, 0.9), (6, 0.8)] {
                let drafter = Box::new(Scripted::new(plain.text.clone(), share, 3));
                let mut speculation = Speculation::new(Lengths { most, least: 1 }, vec![drafter]);
                let seen = run(&model, &params, &PROMPT, Some(&mut speculation), 1.0)?;
                plain.agrees(&seen).with_context(|| format!("{name}, drafts of {most}, -t {n_threads}, {isa}"))?;
                let counts = speculation.counts();
                ensure!(share < 1.0 || counts.tokens_per_pass() > 10.0, "{name}: {counts:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_changes_where_the_context_is_shifted() -> Result<()> {
    for name in ["llama", "gpt-oss", "plm"] {
        agree(&open(name)?, &params(20, Mode::Exact), &PROMPT, &[0.0, 1.0]).with_context(|| name.to_owned())?;
    }
    Ok(())
}

#[test]
fn nothing_changes_in_other_modes() -> Result<()> {
    let (_folder, model) = with_predictor(&|_, _| -4.0, network)?;
    let prompt = story(12)?;
    for (mode, temp) in [(Mode::Predicted, 1.0), (Mode::Dense, 0.0)] {
        agree(&model, &params(64, mode), &prompt, &[temp]).with_context(|| mode.name())?;
    }
    Ok(())
}

#[test]
fn a_text_of_a_trained_model_is_guessed_by_itself_in_another_mode() -> Result<()> {
    let (_folder, model) = with_predictor(&|_, _| -1.0, network)?;
    let prompt = story(12)?;
    let exact = params(96, Mode::Exact);
    let plain = run(&model, &exact, &prompt, None, 0.0)?;
    let own = executor(&model, &params(96, Mode::Predicted))?;
    let drafter = Box::new(ModelDrafter::new(own, "predicted", model.config.n_tokens, 0.0));
    let mut speculation = Speculation::new(DRAFTS, vec![drafter]);
    plain.agrees(&run(&model, &exact, &prompt, Some(&mut speculation), 0.0)?)?;
    let drafted = speculation.counts().drafted();
    assert!(drafted.n_drafted > 20, "{drafted:?}");
    Ok(())
}

#[test]
fn drafts_of_a_model_go_on_where_the_text_is_longer_than_its_context() -> Result<()> {
    let model = Model::new(Gguf::open(&repository("models/tiny-stories-q8_0-variant.gguf"))?, None)?;
    let prompt = story(20)?;
    let large = params(96, Mode::Exact);
    let plain = run(&model, &large, &prompt, None, 0.0)?;
    let own = executor(&model, &params(16, Mode::Exact))?;
    let drafter = Box::new(ModelDrafter::new(own, "model", model.config.n_tokens, 0.0));
    let mut speculation = Speculation::new(DRAFTS, vec![drafter]);
    plain.agrees(&run(&model, &large, &prompt, Some(&mut speculation), 0.0)?)?;
    let drafted = speculation.counts().drafted();
    assert!(drafted.n_drafted > 30 && drafted.n_taken > 5, "{drafted:?}");
    Ok(())
}

#[test]
fn tokens_that_are_taken_back_have_never_been_there() -> Result<()> {
    for name in MODELS {
        let model = open(name)?;
        let all = params(64, Mode::Exact);
        let mut executor = executor(&model, &all)?;
        let mut plain = self::executor(&model, &all)?;
        for executor in [&mut executor, &mut plain] {
            executor.prefill(&PROMPT)?;
            executor.decode_several(&[7, 8, 9])?;
        }
        executor.decode_tentatively(&[1, 2, 30])?;
        assert_eq!(executor.n_past(), PROMPT.len() + 6);
        executor.settle(0)?;
        assert_eq!((executor.n_past(), executor.stats().n_tokens()), (PROMPT.len() + 3, 3), "{name}");
        let error = executor.decode_tentatively(&[1; 5]).unwrap_err().to_string();
        assert!(error.contains("-ub 4"), "{error}");
        assert!(executor.decode_tentatively(&[1, 4_000_000]).is_err());
        // What was not settled stays.
        executor.decode_tentatively(&[11, 12])?;
        executor.decode_tentatively(&[13])?;
        executor.settle(usize::MAX)?;
        let of = |executor: &mut Executor| -> Result<Vec<f32>> { Ok(executor.decode(14)?.to_vec()) };
        let got = of(&mut executor)?;
        plain.decode_several(&[11, 12, 13])?;
        same_bits(&[of(&mut plain)?], &[got]).with_context(|| name.to_owned())?;
    }
    Ok(())
}
