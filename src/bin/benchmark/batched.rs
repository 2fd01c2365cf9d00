//! `--batched`: several sequences at once in the manner of llama-batched-bench.

use super::meter::Bench;
use super::output::{Output, Told};
use super::speed_args::MOST_PARALLEL;
use super::texts::Texts;
use crate::Args;
use crate::common::terminal::{Bar, print, print_error};
use anyhow::{Result, bail, ensure};
use powerinfer::executor::Worker;
use powerinfer::files::free_memory;
use powerinfer::gpu::Chosen;
use powerinfer::measure::batched::{Batched, BatchedRow, MODELS};
use powerinfer::measure::export::Stream;
use powerinfer::measure::lists::Numbers;
use powerinfer::model::Model;
use powerinfer::placement::plan::Room;
use powerinfer::several::lacking;
use powerinfer::units::Bytes;

/// What is measured where nothing is said.
const LENGTHS: (usize, usize) = (128, 128);
const PARALLEL: [usize; 4] = [1, 2, 4, 8];

/// What else could be measured.
const OTHERS: [&str; 13] = [
    "measure_hardware",
    "kernels",
    "perplexity",
    "kl",
    "predict",
    "compare",
    "against",
    "draft",
    "n_prompt",
    "n_gen",
    "pg",
    "n_depth",
    "parallel",
];

/// Lengths and numbers of sequences.
#[derive(clap::Args)]
#[command(next_help_heading = "Several sequences")]
pub struct BatchedArgs {
    /// Measure several sequences at once as llama-batched-bench does, and exit: all prompts, then one token of each sequence in
    /// every pass, timed apart, once for each combination of the lists of -npp, -ntg and -npl, each of which asks for it, too
    #[arg(long, conflicts_with_all = OTHERS)]
    batched: bool,
    /// Tokens of each prompt (-npp) [default: 128]
    #[arg(long, value_name = "N,N", conflicts_with_all = OTHERS)]
    npp: Vec<Numbers>,
    /// Tokens that are decoded of each sequence (-ntg) [default: 128]
    #[arg(long, value_name = "N,N", conflicts_with_all = OTHERS)]
    ntg: Vec<Numbers>,
    /// Sequences at once (-npl) [default: 1,2,4,8]
    #[arg(long, value_name = "N,N", conflicts_with_all = OTHERS)]
    npl: Vec<Numbers>,
    /// All sequences have one prompt (-pps), which is computed once, and whose keys and values they share
    #[arg(long, conflicts_with_all = OTHERS)]
    pps: bool,
}

impl BatchedArgs {
    /// Whether any of them is given.
    pub fn are_asked_for(&self) -> bool {
        let lists = [&self.npp, &self.ntg, &self.npl];
        self.batched || self.pps || lists.iter().any(|list| !list.is_empty())
    }

    /// What to measure, in the order of llama-batched-bench.
    fn all(&self) -> Result<Vec<Batched>> {
        let list = |given: &[Numbers], usual: &[usize]| -> Vec<usize> {
            if given.is_empty() { usual.to_vec() } else { given.iter().flat_map(|numbers| numbers.0.clone()).collect() }
        };
        let mut all = Vec::new();
        for n_prompt in list(&self.npp, &[LENGTHS.0]) {
            for n_gen in list(&self.ntg, &[LENGTHS.1]) {
                for n_parallel in list(&self.npl, &PARALLEL) {
                    let most = MOST_PARALLEL;
                    let is_there = (1..=most).contains(&n_parallel);
                    ensure!(is_there, "-npl {n_parallel}: 1 to {most} sequences can be measured");
                    let what = Batched { n_prompt, n_gen, n_parallel, is_shared: self.pps };
                    let n_kv = what.n_ctx().and(what.n_kv());
                    ensure!(n_kv.is_some(), "-npp {n_prompt} -ntg {n_gen}: more tokens than any context has");
                    ensure!(n_kv != Some(0), "-npp 0 -ntg 0: nothing to measure");
                    all.push(what);
                }
            }
        }
        Ok(all)
    }

    /// Measures all of it with `models`, and writes rows as they come.
    ///
    /// # Errors
    /// When the memory does not hold what is asked for, which is known before the first measurement; when a card is asked for by
    /// name; when the user stops it.
    pub fn write(&self, args: &Args, chosen: &Chosen, models: &[Model], bar: &Bar) -> Result<()> {
        let (all, settings) = (self.all()?, args.speed.settings());
        let texts = Texts::read(args, true, bar)?;
        let tokens: Vec<_> = models.iter().map(|model| texts.tokens(args, model)).collect::<Result<_>>()?;
        let expected = if models.len() > 1 { vec![MODELS] } else { Vec::new() };
        let stream = |output: Output| output.0.map(|format| Stream::<BatchedRow>::new(format, expected.clone()));
        let (mut out, mut error) = (stream(args.out.output), stream(args.out.output_err));
        let told = Told::new(bar, &args.out);
        let workers = settings.iter().map(|setting| Worker::new(setting.n_threads, args.compute.isa()));
        let workers: Vec<Worker> = workers.collect::<Result<_>>()?;
        let mut benches = Vec::new();
        for (model, tokens) in models.iter().zip(&tokens) {
            for (setting, worker) in settings.iter().zip(&workers) {
                model.check_mode(setting.mode)?;
                let bench = Bench { args, chosen, model, setting: *setting, worker, limit: None };
                all.iter().try_for_each(|what| check_memory(&bench, *what))?;
                benches.push((bench, tokens));
            }
        }
        let (mut n, of) = (0, benches.len() * all.len());
        let measured = benches.iter().try_for_each(|(bench, tokens)| {
            all.iter().try_for_each(|what| {
                n += 1;
                told.test(n, of, &format!("{} sequences", what.n_parallel));
                let mut row = bench.batched(*what, tokens, &told)?;
                row.is_one_of_several = models.len() > 1;
                args.text().clone_into(&mut row.text);
                if let Some(stream) = &mut out {
                    print(stream.row(&row)?)?;
                }
                if let Some(stream) = &mut error {
                    print_error(stream.row(&row)?)?;
                }
                Ok(())
            })
        });
        // What was measured before something went wrong is not lost.
        out.iter().try_for_each(|stream| print(stream.end()))?;
        error.iter().try_for_each(|stream| print_error(stream.end()))?;
        measured
    }
}

/// Whether the memory holds so many sequences.
fn check_memory(bench: &Bench, what: Batched) -> Result<()> {
    let (Some(n_ctx), Batched { n_prompt, n_gen, n_parallel, is_shared }) = (what.n_ctx(), what) else { return Ok(()) };
    let executor = bench.executor_for(n_ctx, Room::of_sequences(n_parallel))?.executor;
    let (each, shared) = (executor.sequence_bytes(n_ctx), executor.shared_bytes(if is_shared { n_prompt } else { 0 }));
    let free = free_memory().map(Bytes);
    if let (Some(needed), Some(free)) = (lacking(n_parallel, each, shared, free), free) {
        bail!(
            "-npl {n_parallel} -npp {n_prompt} -ntg {n_gen} needs {needed} for keys and values, {free} available; lower one of them"
        );
    }
    Ok(())
}
