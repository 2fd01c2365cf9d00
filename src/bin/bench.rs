//! `powerinfer-bench`: speed with llama-bench's conventions, perplexity and KL divergence with llama.cpp's protocol.

mod ablation;
mod benchmark;
mod common;
mod kernels;
mod kl;
mod synthetic;

use ablation::Ablation;
use anyhow::{Result, ensure};
use benchmark::against;
use benchmark::batched::BatchedArgs;
use benchmark::compare::{self, CompareArgs};
use benchmark::drafts::DraftArgs;
use benchmark::output::{Output, OutputArgs, Rows};
use benchmark::speed_args::SpeedArgs;
use benchmark::work::{Case, What, Work, cases};
use clap::Parser;
use common::args::Compute;
use common::models;
use common::plan::Vram;
use common::progress_lines::{ProgressArgs, Span};
use common::self_test::choose;
use common::terminal::{Again, Bar, catch_ctrl_c, print, tell};
use common::which::Which;
use kernels::KernelsArgs;
use kl::KlArgs;
use powerinfer::executor::{KvType, Mode};
use powerinfer::files::{check_new, check_writable};
use powerinfer::gpu::Chosen;
use powerinfer::measure::columns::{BATCH, CACHE, KL, PARALLEL, PREDICTED, UBATCH, USUAL_BATCH, USUAL_UBATCH};
use powerinfer::measure::export::render;
use powerinfer::measure::machine::measure;
use powerinfer::model::Model;
use powerinfer::placement::hardware::Hardware;
use powerinfer::quant::GgmlType;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use synthetic::Synthetic;

const EXAMPLES: &str = "\
Examples:
  powerinfer-bench                                       pp512 and tg128 of the embedded model
  powerinfer-bench -m model.gguf -p 512 -n 128 --mode dense,exact -o json
  powerinfer-bench -hf owner/model-GGUF:Q4_K_M           a model of the Hugging Face hub
  powerinfer-bench -m model.gguf -p 0 -n 64,256 -t 1-8*2 --text random
  powerinfer-bench -m a.gguf -m b.gguf -pg 512,128 -d 0-8192+4096 -o jsonl    at three depths
  powerinfer-bench --compare before.json --fail-below 0.95    slower: exit code 3
  powerinfer-bench --against ../before/powerinfer-bench    another build and this one in turns
  powerinfer-bench -m model.gguf --perplexity wiki.test.raw -c 512 --mode dense
  powerinfer-bench -m q4_0.gguf --kl wiki.test.raw --chunks 20 --mode dense --kl-base f16.gguf
  powerinfer-bench --synthetic 7b -p 0 --mode dense,exact    random weights, 10 % of neurons fire
  powerinfer-bench --synthetic 70b-40:q4_0:0.05 -p 0 -n 16   half the layers of a 70B, 5 % fire
  powerinfer-bench --synthetic nemotron-3-nano-9:q4_k -p 64  nine layers with Mamba-2, attention and experts
  powerinfer-bench -m model.gguf -p 0 -np 1,2,4,8 --mode dense,exact    several sequences at once
  powerinfer-bench -m model.gguf --batched -npp 128 -ntg 64 -npl 1,2,4,8 -pps    one prompt of them all, then 64 tokens each
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
    #[command(flatten)]
    speed: SpeedArgs,
    /// Tokens to feed: real (a built-in story), random, or a text file (-: standard input) [default: real, or random with --synthetic]
    #[arg(long, value_name = "real|random|FILE")]
    text: Option<String>,
    #[command(flatten)]
    out: OutputArgs,
    #[command(flatten)]
    compare: CompareArgs,
    /// Perplexity of a text (-: standard input): windows of -c tokens, the second half of each scored
    #[arg(short = 'f', long, alias = "file", value_name = "FILE", help_heading = "Perplexity and KL divergence")]
    perplexity: Option<PathBuf>,
    #[command(flatten)]
    kl: KlArgs,
    /// Tokens per window of --perplexity and --kl
    #[arg(short, long, value_name = "N", default_value_t = 512, help_heading = "Perplexity and KL divergence")]
    ctx_size: usize,
    /// Score at most this many windows
    #[arg(long, value_name = "N", help_heading = "Perplexity and KL divergence")]
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
    drafts: DraftArgs,
    #[command(flatten)]
    batched: BatchedArgs,
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
    #[command(flatten)]
    progress: ProgressArgs,
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
    args.progress.apply();
    if let Some(path) = &args.measure_hardware {
        return write_hardware(&args, path);
    }
    if args.kernels.kernels {
        return write_kernels(&args);
    }
    if !args.drafts.draft.is_empty() {
        return write_drafts(&args);
    }
    if args.batched.are_asked_for() {
        return write_batched(&args);
    }
    // Where the CPU computes alone it is not needed; a wrong one is not passed over.
    args.hardware.as_deref().map(Hardware::read).transpose()?;
    let files = args.compare.files(&Bar::new())?;
    if let Some((old, Some(new))) = &files {
        return compare::compare(&args.compare, &args.out, old, new);
    }
    if let Some(binary) = &args.compare.against {
        cases(&args)?;
        return against::against(&args, binary);
    }
    let chosen = args.compute.choose_device()?;
    let Some((old, _)) = files else {
        let cases = cases(&args)?;
        let mut rows = Rows::new(&args.out, args.out.output, &expected(&cases));
        return measure_all(&args, &chosen, cases, &mut rows);
    };
    let same = !args.speed.names_tests() && !args.scores();
    let cases = if same { compare::same_tests(&old)? } else { cases(&args)? };
    let mut rows = Rows::new(&args.out, Output(None), &expected(&cases));
    measure_all(&args, &chosen, cases, &mut rows)?;
    compare::compare(&args.compare, &args.out, &old, &compare::measured(&rows.measured)?)
}

/// Measures `cases` of all models.
fn measure_all(args: &Args, chosen: &Chosen, cases: Vec<Case>, rows: &mut Rows) -> Result<()> {
    let bar = Bar::new();
    let models = open(args, &bar)?;
    let work = Work::new(args, &models, cases, &bar)?;
    let measured = work.measure(args, chosen, &bar, rows);
    drop(bar);
    // What was measured before something went wrong is not lost.
    rows.end()?;
    rows.what_does_not_pay().iter().for_each(|line| tell!("note: {line}"));
    measured
}

/// The columns that rows of `cases` will need.
fn expected(cases: &[Case]) -> Vec<&'static str> {
    let any = |name, is: &dyn Fn(&Case) -> bool| cases.iter().any(is).then_some(name);
    let wanted = [
        any(BATCH, &|(setting, _)| setting.n_batch != USUAL_BATCH),
        any(UBATCH, &|(setting, _)| setting.n_ubatch != USUAL_UBATCH),
        any(CACHE, &|(setting, _)| setting.kv_type != KvType::F16),
        any(PREDICTED, &|(setting, _)| setting.mode == Mode::Predicted),
        any(PARALLEL, &|(_, what)| matches!(what, What::Speed(test) if test.n_parallel > 1)),
        any(KL, &|(_, what)| *what == What::Kl),
    ];
    wanted.into_iter().flatten().collect()
}

/// The models to measure.
fn open(args: &Args, bar: &Bar) -> Result<Vec<Model>> {
    let open = |path: Option<&Path>| -> Result<Model> {
        let check = args.compute.check_tensors.then_some(bar as _);
        let loading = Span::new("loading");
        let model = models::open(args.compute.memory.open(path, bar)?, args.compute.activation, check)?;
        args.compute.memory.lock(&model);
        loading.end();
        Ok(model)
    };
    if let Some(path) = args.synthetic.file(bar)? {
        return Ok(vec![open(Some(&path))?]);
    }
    let named = args.which.all(bar)?;
    let opened = named.iter().map(|(name, path)| {
        let model = open(path.as_deref())?;
        args.which.warn_of(name.as_deref(), &model)?;
        Ok(model)
    });
    opened.collect()
}

/// `--batched`.
fn write_batched(args: &Args) -> Result<()> {
    let chosen = args.compute.choose_device()?;
    let bar = Bar::new();
    let models = open(args, &bar)?;
    args.batched.write(args, &chosen, &models, &bar)
}

/// `--draft`.
fn write_drafts(args: &Args) -> Result<()> {
    let bar = Bar::new();
    let models = open(args, &bar)?;
    let rows: Vec<Vec<_>> = models.iter().map(|model| args.drafts.measure(args, model, &bar)).collect::<Result<_>>()?;
    drop(bar);
    match args.out.output.0 {
        Some(format) => print(render(&rows.concat(), format)?),
        None => Ok(()),
    }
}

/// `--kernels`.
fn write_kernels(args: &Args) -> Result<()> {
    let device = kernels::card(args.compute.device_choice()?)?;
    let bar = Bar::new();
    let models = open(args, &bar)?;
    ensure!(models.len() == 1, "--kernels measures one model; {} are named", models.len());
    let (_, kv_type) = args.speed.first();
    ensure!(kv_type.is_one(), "--kernels: keys and values of two types are not computed on a card yet");
    let measured = args.kernels.measure(&device, &models[0], kv_type.k, &bar);
    drop(bar);
    let (rows, ended) = measured?;
    // What was measured before something went wrong is not lost.
    if let Some(format) = args.out.output.0 {
        print(render(&rows, format)?)?;
    }
    ended
}

/// `--measure-hardware`.
fn write_hardware(args: &Args, path: &Path) -> Result<()> {
    check_new(path)?;
    check_writable(path)?;
    let (threads, _) = args.speed.first();
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
