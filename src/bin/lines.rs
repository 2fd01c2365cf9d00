//! `powerinfer-run --lines`: the lines of a file as prompts, several at once.

use crate::common::models::text_name;
use crate::common::terminal::{Bar, print, print_generated, print_json, tell};
use crate::report;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use powerinfer::executor::{Executor, KvPages, Sequence};
use powerinfer::files::free_memory;
use powerinfer::generate::{Limits, Stop, check_room};
use powerinfer::grammar::{Grammar, Rules};
use powerinfer::placement::plan::Room;
use powerinfer::progress::{Interrupted, Progress};
use powerinfer::sampler::{Sampler, SamplerParams};
use powerinfer::several::{
    self, Format, InOrder, LinePrompt, Outcome, SHARED_STEP, Task, Totals, generate_several, lacking,
};
use powerinfer::tokenizer::{Special, Tokenizer};
use powerinfer::units::Bytes;
use std::path::Path;

/// Flags of it.
#[derive(Args)]
#[command(next_help_heading = "Several texts")]
pub struct LineArgs {
    /// Each line of -f is a prompt of its own; results are printed in the order of the lines. In a file that ends in .jsonl, or
    /// with --lines=jsonl, each is an object: {"prompt": ..., "n_predict": ..., "seed": ..., "stop": [...], "temperature": ...}
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "auto", requires = "file",
          conflicts_with_all = ["conversation", "interactive", "single_turn", "system_prompt", "system_prompt_file", "tokenize",
                                "verbose_prompt", "prompt_cache", "context_shift"])]
    lines: Option<Lines>,
    /// Texts of --lines that are computed at once (-np). Each is what it is alone; together they take less time, and each needs
    /// memory for a context
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
}

/// What lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lines {
    /// As the name of the file ends.
    Auto,
    /// Prompts.
    Text,
    /// JSON objects.
    Jsonl,
}

impl LineArgs {
    /// What a card is to have room for where as many texts are computed at once as there may be; `None` for one text.
    pub fn room(&self) -> Option<Room> {
        (self.lines.is_some() || self.parallel > 1).then(|| Room::of_sequences(self.parallel.into()))
    }

    /// The prompts of the file, whose contents are `text`; `None` where it is one prompt.
    ///
    /// # Errors
    /// When a line cannot be read, and when several texts are asked for that nobody gives.
    pub fn prompts(&self, text: Option<&str>, file: Option<&Path>) -> Result<Option<Prompts>> {
        let Some(lines) = self.lines else {
            ensure!(
                self.parallel == 1,
                "--parallel {}: several texts are the lines of a file; add --lines and -f FILE",
                self.parallel
            );
            return Ok(None);
        };
        let file = file.context("--lines needs -f FILE")?;
        let by_name = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
        let format = match lines {
            Lines::Jsonl => Format::Jsonl,
            Lines::Auto if by_name => Format::Jsonl,
            Lines::Auto | Lines::Text => Format::Text,
        };
        let name = text_name(file);
        let prompts = several::read(text.unwrap_or_default(), format, &name)?;
        let n_parallel = usize::from(self.parallel).min(prompts.len());
        Ok(Some(Prompts { name, prompts, n_parallel }))
    }
}

/// What a file of prompts has.
pub struct Prompts {
    name: String,
    prompts: Vec<LinePrompt>,
    n_parallel: usize,
}

impl Prompts {
    /// What a card is to have room for.
    pub fn room(&self) -> Room {
        Room::of_sequences(self.n_parallel)
    }
}

/// What is the same for all texts.
pub struct Setup<'a> {
    /// Of the model.
    pub tokenizer: &'a Tokenizer,
    /// Of texts that do not say otherwise.
    pub limits: Limits<'a>,
    /// The same of their samplers; the seed is that of the first.
    pub sampler: &'a SamplerParams,
    /// The grammar that they follow.
    pub rules: Option<&'a Rules>,
    /// How special tokens in prompts count.
    pub special: Special,
    /// Whether the prompt is printed before its text.
    pub display_prompt: bool,
    /// Whether each result is a JSON object.
    pub json: bool,
    /// Whether times are told.
    pub times: bool,
}

impl Setup<'_> {
    /// The seed of a prompt.
    fn seed(&self, index: usize, prompt: &LinePrompt) -> u64 {
        prompt.seed.unwrap_or_else(|| self.sampler.seed.wrapping_add(index as u64))
    }

    fn limits<'p>(&'p self, prompt: &'p LinePrompt) -> Limits<'p> {
        let n_predict = prompt.n_predict.map_or(self.limits.n_predict, |n| usize::try_from(n).ok());
        let stop_strings = prompt.stop.as_deref().unwrap_or(self.limits.stop_strings);
        Limits { n_predict, stop_strings, shift: None, ..self.limits }
    }

    fn sampler(&self, index: usize, prompt: &LinePrompt) -> Result<Sampler> {
        let temp = prompt.temperature.unwrap_or(self.sampler.temp);
        let params = SamplerParams { seed: self.seed(index, prompt), temp, ..self.sampler.clone() };
        let mut sampler = Sampler::for_tokens(&params, self.tokenizer)?;
        sampler.set_grammar(self.rules.map(|rules| Grammar::new(rules, self.tokenizer)).transpose()?);
        Ok(sampler)
    }
}

/// Continues all prompts and prints what becomes of them, each as soon as those before it are there.
pub fn run(setup: &Setup, executor: &mut Executor, prompts: &Prompts) -> Result<()> {
    let Prompts { name, prompts, n_parallel } = prompts;
    let named = |prompt: &LinePrompt| format!("{name}: line {}", prompt.line);
    let mut tokens = Vec::with_capacity(prompts.len());
    let mut longest = 0;
    for (index, prompt) in prompts.iter().enumerate() {
        let of_prompt = setup.tokenizer.encode_opening(&prompt.prompt, setup.special, true);
        let of_prompt = of_prompt.with_context(|| named(prompt))?;
        check_room(executor, of_prompt.len()).with_context(|| named(prompt))?;
        if prompt.temperature.is_some() {
            setup.sampler(index, prompt).with_context(|| named(prompt))?;
        }
        let room = executor.params().n_ctx - of_prompt.len();
        longest = longest.max(of_prompt.len() + setup.limits(prompt).n_predict.map_or(room, |n| n.min(room)));
        tokens.push(of_prompt);
    }
    let n_common = common_to_all(&tokens) / SHARED_STEP * SHARED_STEP;
    let (each, shared) = (executor.sequence_bytes(longest), executor.shared_bytes(n_common));
    check_memory(*n_parallel, longest, (each, shared), free_memory().map(Bytes))?;
    let sequences: Result<Vec<Sequence>> = (0..*n_parallel).map(|_| executor.new_sequence()).collect();
    let mut sequences = sequences.with_context(|| format!("-np {n_parallel}; lower it or -c"))?;

    let bar = Bar::new();
    let (mut order, mut failed, mut unfinished) = (InOrder::default(), 0, 0);
    let mut show = |outcome: Outcome| {
        let prompt = &prompts[outcome.index];
        if let Some(error) = &outcome.error {
            failed += 1;
            tell!("{}: {error:#}", named(prompt));
        } else if outcome.generated.stop == Stop::Interrupted {
            unfinished += 1;
            tell!("{}: unfinished, after {} tokens", named(prompt), outcome.generated.tokens.len());
        }
        setup.print(prompt, &outcome)
    };
    let common = |(a, b): (&Vec<u32>, &Vec<u32>)| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let n_common: Vec<usize> = tokens.iter().zip(&tokens[1..]).map(common).chain([0]).collect();
    let mut tasks = prompts.iter().zip(tokens).enumerate().map(|(index, (prompt, tokens))| {
        let sampler = setup.sampler(index, prompt).with_context(|| named(prompt))?;
        Ok(Task { tokens, sampler, limits: setup.limits(prompt), n_common: n_common[index] })
    });
    let n = prompts.len();
    bar.begin("texts", n as u64);
    let totals = generate_several(executor, setup.tokenizer, &mut sequences, &mut tasks, &bar, &mut |outcome| {
        bar.advance(1);
        order.push(outcome.index, outcome);
        std::iter::from_fn(|| order.next_ready()).try_for_each(&mut show)
    });
    bar.end();
    // Where it ended early, those that no longer wait for others.
    order.rest().try_for_each(&mut show)?;
    let totals = totals?;
    sequences.iter().for_each(|sequence| executor.add_stats(sequence));
    if setup.times {
        tell_times(executor, &totals, n, setup.sampler.seed);
    }
    if bar.cancelled() {
        if unfinished > 0 {
            tell!("{unfinished} texts are unfinished");
        }
        return Err(Interrupted.into());
    }
    ensure!(failed == 0, "{name}: {failed} of {n} texts could not be finished");
    Ok(())
}

/// Tokens that all prompts begin with, but for the last one of each, which is computed in any case.
fn common_to_all(prompts: &[Vec<u32>]) -> usize {
    let of_first = |prompt: &Vec<u32>| {
        let most = prompt.len().saturating_sub(1);
        prompts[0].iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count()
    };
    prompts.iter().map(of_first).min().unwrap_or(0)
}

/// Whether so many sequences of `longest` tokens fit, of which all but the first have what is `shared` from another one.
fn check_memory(n: usize, longest: usize, (each, shared): (Bytes, Bytes), free: Option<Bytes>) -> Result<()> {
    let (Some(needed), Some(free)) = (lacking(n, each, shared, free), free) else { return Ok(()) };
    bail!(
        "-np {n} needs {needed} for the contexts of {n} texts of up to {longest} tokens, {free} available; lower -np, -n or -c"
    )
}

fn tell_times(executor: &Executor, totals: &Totals, n: usize, seed: u64) {
    let Totals { n_prompt, n_shared, prefill, n_decoded, n_passes, decode, pages } = *totals;
    let (prefill, decode) = (prefill.as_secs_f64(), decode.as_secs_f64());
    tell!("prefill {prefill:>8.3} s  {n_prompt:>5} tokens  {:>8.2} tokens/s", report::per_second(n_prompt, prefill));
    if n_shared > 0 {
        tell!("{n_shared} further tokens of prompts are the beginning of another text, which was computed once");
    }
    tell!(
        "decode  {decode:>8.3} s  {n_decoded:>5} tokens  {:>8.2} tokens/s, {:.1} at once",
        report::per_second(n_decoded, decode),
        n_decoded as f64 / n_passes.max(1) as f64
    );
    let KvPages { taken, shared, held } = pages;
    let without = if shared.0 == 0 { String::new() } else { format!(", {shared} of it shared: {held} otherwise") };
    tell!("KV pages took {taken} at the most{without}");
    let density = executor.stats().density();
    let sparsity = density.map_or_else(String::new, |d| format!("FFN sparsity {:.2} %, ", 100.0 * (1.0 - d)));
    let params = executor.params();
    let (mode, n_threads) = (params.mode.name(), params.n_threads);
    tell!("{sparsity}mode {mode}, {n_threads} threads, {n} texts, seeds from {seed} on");
}

impl Setup<'_> {
    fn print(&self, prompt: &LinePrompt, outcome: &Outcome) -> Result<()> {
        let Outcome { index, shown, generated, n_shared, pages, error } = outcome;
        if !self.json {
            if self.display_prompt {
                print_generated(&prompt.prompt)?;
            }
            print_generated(shown)?;
            return print("\n");
        }
        let stop_string = match generated.stop {
            Stop::StopString(i) => self.limits(prompt).stop_strings.get(i).cloned(),
            _ => None,
        };
        let (prefill, decode) = (generated.prefill.as_secs_f64(), generated.decode.as_secs_f64());
        print_json(serde_json::json!({
            "index": index,
            "line": prompt.line,
            "prompt": prompt.prompt,
            "text": shown,
            "tokens": generated.tokens,
            "n_prompt": generated.n_prompt,
            "n_shared": n_shared,
            "n_gen": generated.tokens.len(),
            "kv_bytes": pages.taken.0,
            "kv_shared_bytes": pages.shared.0,
            "prefill_s": prefill,
            "decode_s": decode,
            "decode_ts": report::per_second(generated.n_decoded, decode),
            "seed": self.seed(*index, prompt),
            "stop": if error.is_some() { "error" } else { generated.stop.name() },
            "stop_string": stop_string,
            "error": error.as_ref().map(|error| format!("{error:#}")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sequences_than_the_memory_holds_are_refused_by_name() {
        let mib = |n: u64| Bytes(n << 20);
        let check = |n, free: Option<u64>| check_memory(n, 100, (mib(1), mib(0)), free.map(mib));
        assert!(check(4, Some(4)).is_ok() && check(1 << 20, None).is_ok());
        let error = check(64, Some(5)).unwrap_err().to_string();
        assert!(
            error.starts_with("-np 64 needs 64.00 MiB") && error.contains("5.00 MiB available; lower -np"),
            "{error}"
        );
    }
}
