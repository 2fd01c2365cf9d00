//! `powerinfer-bench`: speed with llama-bench's conventions, perplexity and KL divergence with llama.cpp's protocol.

mod common;
mod kernels;
mod kl;
mod ablation;
mod synthetic;

use ablation::Ablation;
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use common::args::Compute;
use common::card::{Placed, Where};
use common::models;
use common::plan::Vram;
use common::self_test::choose;
use common::terminal::{Again, Bar, catch_ctrl_c, print, tell};
use common::which::Which;
use kernels::KernelsArgs;
use kl::{Comparison, KlArgs};
use powerinfer::cpu::Pool;
use powerinfer::executor::{ExecutorParams, FfnStats, Mode, Worker};
use powerinfer::files::{MOST_TEXT, check_new, check_writable};
use powerinfer::gpu::Chosen;
use powerinfer::measure::STORY;
use powerinfer::measure::columns::{KL, PREDICTED, USUAL_BATCH};
use powerinfer::measure::export::{Format, Stream, render};
use powerinfer::measure::machine::{measure, types_of};
use powerinfer::measure::perplexity::{check_windows, perplexity};
use powerinfer::measure::roofline::{Limit, limit};
use powerinfer::measure::row::{Predicted, Row, Setting};
use powerinfer::measure::speed::{Repeated, Test, bytes_per_token, speed};
use powerinfer::measure::timing::Timing;
use powerinfer::model::Model;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::Planner;
use powerinfer::placement::workload::Workload;
use powerinfer::progress::Progress;
use powerinfer::quant::GgmlType;
use powerinfer::tokenizer::{Special, Tokenizer};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use synthetic::Synthetic;

const EXAMPLES: &str = "\
Examples:
  powerinfer-bench                                       pp512 and tg128 of the embedded model
  powerinfer-bench -m model.gguf -p 512 -n 128 --mode dense,exact -o json
  powerinfer-bench -hf owner/model-GGUF:Q4_K_M             a model of the Hugging Face hub, fetched once
  powerinfer-bench -m model.gguf -p 0 -n 64,256 -t 1,2,4 --text random
  powerinfer-bench -m model.gguf --perplexity wiki.test.raw -c 512 --mode dense
  powerinfer-bench -m q4_0.gguf --kl wiki.test.raw --chunks 20 --mode dense --kl-base f16.gguf    what quantizing costs
  powerinfer-bench --synthetic 7b -p 0 --mode dense,exact    the shape of a 7B, random weights, 10 % of neurons fire
  powerinfer-bench --synthetic 70b-40:q4_0:0.05 -p 0 -n 16   half the layers of a 70B, 5 % fire
  powerinfer-bench --synthetic nemotron-3-nano-9:q4_k -p 64  nine layers with Mamba-2, attention and experts
  powerinfer-bench --measure-hardware this-machine.toml      measure this machine for the planner
  powerinfer-bench --synthetic 7b-2 --kernels                each kernel of a token on the card: microseconds and GB/s
  powerinfer-bench --synthetic 1b-8 -p 0 -n 32 --predict     the planner's prediction next to the measurement
  powerinfer-bench --synthetic 1b:f16 --synthetic-plain      the same weights as a plain file, for llama.cpp too

Speed tests feed fixed tokens, as llama-bench does. Random tokens say nothing about hot and cold neurons, so real
text is the default; every row says which was used. A synthetic model has no use for real text, so its default is random.";

/// Types that `--measure-hardware` measures: those that models come in.
const MEASURED: [GgmlType; 5] = [GgmlType::F16, GgmlType::Q8_0, GgmlType::Q4_0, GgmlType::Q4_K, GgmlType::Q6_K];

/// Measure tokens per second, FFN density and bytes per token, or perplexity, or KL divergence from dense.
#[derive(Parser)]
#[command(name = "powerinfer-bench", version, after_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    which: Which,
    /// Prompt lengths of pp tests; 0 for none [default: 512, or 0 with --perplexity or --kl]
    #[arg(short = 'p', long, value_name = "N,N", value_delimiter = ',')]
    n_prompt: Option<Vec<usize>>,
    /// Lengths of tg tests; 0 for none [default: 128, or 0 with --perplexity or --kl]
    #[arg(short = 'n', long, value_name = "N,N", value_delimiter = ',')]
    n_gen: Option<Vec<usize>>,
    /// Repetitions of each speed test
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Threads [default: all cores]
    #[arg(short, long, value_name = "N,N", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Which neurons of the FFN to compute: dense, exact, predicted, thresholded
    #[arg(long, value_name = "MODE,MODE", value_delimiter = ',', default_value = "exact")]
    mode: Vec<Mode>,
    /// Tokens to feed: real (a built-in story), random, or a text file (-: standard input) [default: real, or random with --synthetic]
    #[arg(long, value_name = "real|random|FILE")]
    text: Option<String>,
    /// Output format: md, csv, json, jsonl or sql
    #[arg(short, long, value_name = "FORMAT", default_value = "md")]
    output: Format,
    /// Perplexity of a text (-: standard input): windows of -c tokens, the second half of each scored
    #[arg(long, value_name = "FILE")]
    perplexity: Option<PathBuf>,
    #[command(flatten)]
    kl: KlArgs,
    /// Tokens per window of --perplexity and --kl
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    ctx_size: usize,
    /// Score at most this many windows
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Parse special tokens written in the text (</s> and the like) instead of reading them as plain text
    #[arg(long)]
    parse_special: bool,
    /// Description of the machine to plan with (TOML; see the folder `hardware`) [default: this machine, measured once]
    #[arg(long, value_name = "FILE")]
    hardware: Option<PathBuf>,
    /// Measure this machine for the planner, write the description to a new file (TOML) and exit
    #[arg(long, value_name = "OUT", conflicts_with = "hardware")]
    measure_hardware: Option<PathBuf>,
    #[command(flatten)]
    kernels: KernelsArgs,
    #[command(flatten)]
    vram: Vram,
    /// After each tg test, say on stderr what the planner predicted from a measurement made just before
    #[arg(long)]
    predict: bool,
    #[command(flatten)]
    synthetic: Synthetic,
    #[command(flatten)]
    ablation: Ablation,
    #[command(flatten)]
    compute: Compute,
}

impl Args {
    fn text(&self) -> &str {
        let default = if self.synthetic.asked() { "random" } else { "real" };
        self.text.as_deref().unwrap_or(default)
    }

    /// Whether a text is to be scored, so that speed is measured only if asked for.
    fn scores(&self) -> bool {
        self.perplexity.is_some() || self.kl.kl.is_some()
    }
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: Args) -> Result<()> {
    catch_ctrl_c(Again::Exits)?;
    if let Some(path) = &args.measure_hardware {
        return write_hardware(&args, path);
    }
    if args.kernels.kernels {
        return write_kernels(&args);
    }
    // Where the CPU computes alone it is not needed; a wrong one is not passed over.
    args.hardware.as_deref().map(Hardware::read).transpose()?;
    let chosen = args.compute.choose_device()?;
    tests(&args)?;
    let bar = Bar::new();
    let model = open(&args, &bar)?;
    let work = Work::new(&args, &model, &bar)?;
    let mut rows = Rows::new(&args);
    let measured = work.measure(&args, &chosen, &model, &bar, &mut rows);
    drop(bar);
    // What was measured before something went wrong is not lost.
    print(rows.stream.end())?;
    what_does_not_pay(&rows.measured).iter().for_each(|line| tell!("note: {line}"));
    measured
}

/// What was measured, written as it comes.
struct Rows {
    measured: Vec<Row>,
    stream: Stream<Row>,
}

impl Rows {
    fn new(args: &Args) -> Self {
        let kl = args.kl.kl.as_ref().map(|_| KL);
        let predicted = args.mode.contains(&Mode::Predicted).then_some(PREDICTED);
        Self { measured: Vec::new(), stream: Stream::new(args.output, kl.into_iter().chain(predicted).collect()) }
    }

    fn push(&mut self, row: Row) -> Result<()> {
        print(self.stream.row(&row)?)?;
        self.measured.push(row);
        Ok(())
    }
}

/// The model to measure.
fn open(args: &Args, bar: &Bar) -> Result<Model> {
    let synthetic = args.synthetic.file(bar)?;
    let path = synthetic.map_or_else(|| args.which.path(bar), |path| Ok(Some(path)))?;
    let check = args.compute.check_tensors.then_some(bar as _);
    let model = models::open(models::open_file(path.as_deref())?, args.compute.activation, check)?;
    args.compute.lock(&model);
    args.which.warn(&model)?;
    Ok(model)
}

/// `--kernels`.
fn write_kernels(args: &Args) -> Result<()> {
    let device = kernels::card(args.compute.device_choice()?)?;
    let bar = Bar::new();
    let model = open(args, &bar)?;
    let measured = args.kernels.measure(&device, &model, args.compute.cache_type.dtype(), &bar);
    drop(bar);
    let (rows, ended) = measured?;
    // What was measured before something went wrong is not lost.
    print(render(&rows, args.output)?)?;
    ended
}

/// `--measure-hardware`.
fn write_hardware(args: &Args, path: &Path) -> Result<()> {
    check_new(path)?;
    check_writable(path)?;
    let threads = args.threads.first().copied().unwrap_or_else(common::default_threads);
    common::warn_of_threads(threads);
    let device = match choose(args.compute.device_choice()?)? {
        Chosen::Cuda(device) => Some(device),
        Chosen::Cpu { why } => {
            why.iter().for_each(|why| tell!("note: measuring only the CPU: {why}"));
            None
        }
    };
    let bar = Bar::new();
    let hardware = measure(threads, args.compute.isa(), &MEASURED, device.as_ref(), &bar)?;
    check_new(path)?;
    hardware.write(path, &bar)?;
    drop(bar);
    print(hardware.to_toml())
}

/// What is to be measured, checked before the first measurement.
struct Work {
    threads: Vec<usize>,
    tests: Vec<Test>,
    /// Fed by speed tests.
    tokens: Vec<u32>,
    perplexity: Option<Scored>,
    kl: Option<Comparison>,
}

/// A text to be scored in windows.
struct Scored {
    name: String,
    tokens: Vec<u32>,
    /// What begins each window.
    bos: Option<u32>,
}

impl Scored {
    fn new(args: &Args, model: &Model, path: &Path, progress: &dyn Progress) -> Result<Self> {
        let name = models::text_name(path);
        let tokenizer = models::tokenizer(&model.gguf)?;
        let tokens = tokenizer.encode_prompt(&models::read_text(path, MOST_TEXT, progress)?, special(args), true)?;
        check_windows(tokens.len(), args.ctx_size).with_context(|| name.clone())?;
        Ok(Self { name, tokens, bos: bos(&tokenizer) })
    }
}

impl Work {
    fn new(args: &Args, model: &Model, bar: &Bar) -> Result<Self> {
        let tests = tests(args)?;
        let threads = match args.threads.as_slice() {
            [] => vec![common::default_threads()],
            given => given.to_vec(),
        };
        threads.iter().for_each(|n| common::warn_of_threads(*n));
        let tokens = if tests.is_empty() { Vec::new() } else { feed(args, model, bar)? };
        let perplexity = args.perplexity.as_deref().map(|path| Scored::new(args, model, path, bar)).transpose()?;
        Ok(Self { threads, tests, tokens, perplexity, kl: Comparison::new(args, model, bar)? })
    }

    fn measure(&self, args: &Args, chosen: &Chosen, model: &Model, bar: &Bar, rows: &mut Rows) -> Result<()> {
        // Before hours of the first one.
        args.mode.iter().try_for_each(|mode| model.check_mode(args.ablation.mode(*mode)))?;
        for &n_threads in &self.threads {
            let decodes = self.tests.iter().any(|t| t.n_prompt == 0);
            let measured = || -> Result<Limit> { Ok(limit(model, args.compute.isa(), &Pool::new(n_threads)?)) };
            let limit = decodes.then(measured).transpose()?;
            let kv_type = args.compute.cache_type.dtype();
            let types = types_of(&Workload::of(model), kv_type);
            let hardware = || measure(n_threads, args.compute.isa(), &types, None, bar);
            let hardware = (args.predict && decodes).then(hardware).transpose()?;
            let worker = Worker::new(n_threads, args.compute.isa())?;
            for mode in args.mode.iter().map(|mode| args.ablation.mode(*mode)) {
                let bench = Bench { args, chosen, model, n_threads, worker: &worker, mode, limit };
                for &test in &self.tests {
                    rows.push(bench.speed(test, &self.tokens, bar)?)?;
                    if let (Some(hardware), 0, true) = (&hardware, test.n_prompt, mode != Mode::Thresholded) {
                        bench.predict(test, hardware, &rows.measured)?;
                    }
                }
                if let Some(text) = &self.perplexity {
                    rows.push(bench.perplexity(text, bar)?)?;
                }
                if let Some(kl) = &self.kl {
                    rows.push(kl.row(&bench, bar)?)?;
                }
            }
        }
        Ok(())
    }
}

fn tests(args: &Args) -> Result<Vec<Test>> {
    let default = |n: usize| if args.scores() { vec![0] } else { vec![n] };
    let prompts = args.n_prompt.clone().unwrap_or_else(|| default(512));
    let gens = args.n_gen.clone().unwrap_or_else(|| default(128));
    let prompts = prompts.into_iter().map(|n_prompt| Test { n_prompt, n_gen: 0, n_depth: 0 });
    let gens = gens.into_iter().map(|n_gen| Test { n_prompt: 0, n_gen, n_depth: 0 });
    let tests: Vec<_> = prompts.chain(gens).filter(|t| t.n_prompt + t.n_gen > 0).collect();
    ensure!(!tests.is_empty() || args.scores(), "-p 0 -n 0: nothing to measure");
    ensure!(args.repetitions > 0, "-r 0: nothing to measure");
    Ok(tests)
}

fn special(args: &Args) -> Special {
    if args.parse_special { Special::Parse } else { Special::AsText }
}

fn bos(tokenizer: &Tokenizer) -> Option<u32> {
    tokenizer.bos().filter(|_| tokenizer.adds_bos())
}

/// The tokens that speed tests feed.
fn feed(args: &Args, model: &Model, progress: &dyn Progress) -> Result<Vec<u32>> {
    let text = args.text();
    if text == "random" {
        let n_vocab = model.config.n_vocab as u64;
        // A linear congruential generator (Knuth's MMIX) is random enough to be nobody's text.
        let next =
            |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        return Ok(std::iter::successors(Some(1), next)
            .skip(1)
            .take(8192)
            .map(|s| ((s >> 33) % n_vocab) as u32)
            .collect());
    }
    let text = if text == "real" { STORY.to_owned() } else { models::read_text(text.as_ref(), MOST_TEXT, progress)? };
    ensure!(!text.trim().is_empty(), "{}: the text is empty", args.text());
    if !model.gguf.metadata().has("tokenizer.ggml.model") {
        bail!("{}: has no tokenizer; give --text random", model.gguf.source().name());
    }
    let tokens = models::tokenizer(&model.gguf)?.encode_prompt(&text, special(args), true)?;
    Ok(tokens)
}

/// Where skipping by thresholds was no faster than computing everything, and both were measured.
fn what_does_not_pay(rows: &[Row]) -> Vec<String> {
    let speeds = |mode: Mode| rows.iter().filter(move |row| row.mode == mode.name() && row.perplexity.is_none());
    let lines = speeds(Mode::Thresholded).filter_map(|row| {
        let same = |dense: &&Row| (&dense.test, dense.n_threads) == (&row.test, row.n_threads);
        let dense = speeds(Mode::Dense).find(same).filter(|dense| dense.timing.avg_ts >= row.timing.avg_ts)?;
        let (test, less, more) = (&row.test, row.timing.avg_ts, dense.timing.avg_ts);
        Some(format!("{test}: mode thresholded does not pay: {less:.2} tokens/s, dense {more:.2}"))
    });
    lines.collect()
}

struct Bench<'a> {
    args: &'a Args,
    chosen: &'a Chosen,
    model: &'a Model,
    n_threads: usize,
    worker: &'a Worker,
    mode: Mode,
    limit: Option<Limit>,
}

impl Bench<'_> {
    fn executor(&self, n_ctx: usize) -> Result<Placed<'_>> {
        let args = self.args;
        let hardware = args.hardware.as_deref();
        let place = Where { compute: &args.compute, chosen: self.chosen, vram: &args.vram, hardware };
        let placement = args.ablation.placement(self.mode, self.model)?;
        place.executor(self.model, placement, self.params(n_ctx), self.worker)
    }

    fn params(&self, n_ctx: usize) -> ExecutorParams {
        ExecutorParams {
            n_threads: self.n_threads,
            n_ctx,
            kv_type: self.args.compute.cache_type,
            mode: self.mode,
            n_ubatch: self.args.compute.n_ubatch(),
            isa: self.args.compute.isa(),
        }
    }

    /// Mean bytes of the FFN that a token touched, in modes that skip some.
    fn ffn_bytes(&self, stats: &FfnStats) -> Option<f64> {
        stats.ffn_bytes_per_token(self.model).filter(|_| self.mode != Mode::Dense)
    }

    /// What the predictors did, while decoding so many tokens per second.
    fn predicted(&self, stats: &FfnStats, speed: f64) -> Option<Predicted> {
        (self.mode == Mode::Predicted).then(|| Predicted::of(stats, speed))
    }

    /// `--predict`: compares the last row with the time model.
    fn predict(&self, test: Test, hardware: &Hardware, rows: &[Row]) -> Result<()> {
        let Some(row) = rows.last() else { return Ok(()) };
        let predicted = match &row.card {
            Some(card) => card.planned_ts,
            None => {
                let work = &Workload::of(self.model);
                let run = &self.params(test.n_gen).run(test.n_gen / 2);
                Planner { hardware, work, run }.cpu_only(None).tokens_per_second()
            }
        };
        let (mode, threads, off) = (self.mode.name(), self.n_threads, 100.0 * (predicted / row.timing.avg_ts - 1.0));
        tell!(
            "predicted {mode} -t {threads} {}: {predicted:.2} t/s, measured {:.2}: {off:+.1} %",
            row.test,
            row.timing.avg_ts
        );
        Ok(())
    }

    /// A row of a test that begins now.
    fn row(&self, test: String, text: &str) -> Row {
        let (params, hot) = (&self.params(0), self.args.ablation.hot(self.mode));
        let n_ubatch = self.args.compute.ubatch_size;
        let n_batch = self.args.compute.batch_size.unwrap_or(USUAL_BATCH.max(n_ubatch));
        Row::new(Setting { model: self.model, params, n_batch, n_ubatch, hot, text }, test)
    }

    fn speed(&self, test: Test, tokens: &[u32], bar: &Bar) -> Result<Row> {
        let row = self.row(test.name(), self.args.text());
        let mut placed = self.executor(test.n_ctx())?;
        let what = Repeated { test, tokens, repetitions: self.args.repetitions, warmup: true };
        let speed = placed.measure(|executor| speed(self.model, executor, what, bar))?;
        let executor = &placed.executor;
        self.args.synthetic.tell_density(executor.stats(), self.model);
        let card = placed.used_card();
        // The limit is that of the CPU's memory.
        let limit = self.limit.filter(|_| test.n_prompt == 0 && card.is_none());
        let avg_ts = speed.timing.avg_ts;
        let row = Row {
            n_prompt: test.n_prompt,
            n_gen: test.n_gen,
            n_depth: test.n_depth,
            bytes_per_token: Some(speed.bytes_per_token),
            gb_per_s: limit.map(|_| speed.bytes_per_token * avg_ts / 1e9),
            limit_gb_per_s: limit.map(|limit| limit.best() / 1e9),
            ffn_bytes_per_token: self.ffn_bytes(executor.stats()),
            ffn_density: speed.ffn_density,
            ffn_up_density: speed.ffn_opened.filter(|_| self.model.has_two_masks()),
            predicted: self.predicted(executor.stats(), avg_ts),
            timing: speed.timing,
            ..row
        };
        Ok(row.on(card))
    }

    fn perplexity(&self, Scored { name, tokens, bos }: &Scored, bar: &Bar) -> Result<Row> {
        let row = self.row("ppl".to_owned(), name);
        let n_ctx = self.args.ctx_size;
        let mut placed = self.executor(n_ctx)?;
        let scored = placed.measure(|executor| {
            let start = Instant::now();
            let result = perplexity(executor, tokens, n_ctx, *bos, self.mode.into(), self.args.chunks, bar)?;
            Ok((result, start.elapsed().as_nanos() as u64))
        });
        let (result, time) = scored.with_context(|| name.clone())?;
        let (executor, card) = (&placed.executor, placed.used_card());
        let n_tokens = result.n_windows * n_ctx;
        let timing = Timing::of(n_tokens, vec![time]);
        let n_ubatch = self.args.compute.n_ubatch();
        let computed = match self.mode {
            Mode::Dense => Test { n_prompt: n_ctx, n_gen: 0, n_depth: 0 },
            Mode::Exact | Mode::Predicted | Mode::Thresholded => Test { n_prompt: 0, n_gen: n_ctx, n_depth: 0 },
        };
        let row = Row {
            n_prompt: n_tokens,
            n_ctx: Some(n_ctx),
            bytes_per_token: Some(bytes_per_token(self.model, executor.stats(), computed, self.mode, n_ubatch)),
            ffn_bytes_per_token: self.ffn_bytes(executor.stats()),
            ffn_density: result.ffn_density,
            ffn_up_density: result.ffn_opened.filter(|_| self.model.has_two_masks()),
            predicted: self.predicted(executor.stats(), timing.avg_ts),
            perplexity: Some(result.value),
            stderr: Some(result.stderr),
            timing,
            ..row
        };
        Ok(row.on(card))
    }
}
