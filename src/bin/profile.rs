//! `powerinfer-profile`: finds which FFN neurons fire on a calibration text.

mod common;
mod page;
mod predictor;
mod thresholds;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::models;
use common::picture;
use common::progress_lines::ProgressArgs;
use common::terminal::{Again, Bar, catch_ctrl_c, print_json, print_table, tell};
use common::which::Which;
use powerinfer::cpu::Isa;
use powerinfer::executor::Worker;
use powerinfer::files::{MOST_TEXT, check_writable, free_space};
use powerinfer::measure::doubt;
use powerinfer::model::{Activation, Model};
use powerinfer::printable::printable;
use powerinfer::profile::checkpoint::Checkpoint;
use powerinfer::profile::collect::{CollectParams, Collected, CorpusPart, Profiling, Text};
use powerinfer::profile::samples::Samples;
use powerinfer::profile::{Profile, compare, corpus, experts, json, plot, report, together};
use powerinfer::progress::{Interrupted, Silent};
use powerinfer::tokenizer::Special;
use powerinfer::units::Bytes;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  powerinfer-profile -m model.gguf -f corpus.txt -o model.profile
  powerinfer-profile -m model.gguf -f corpus/ -o model.profile --tokens 100000 --plot profile.png
  powerinfer-profile -m silu.gguf -f corpus/ -o silu.profile --threshold-search --kl-budget 0.05
  powerinfer-profile -hf owner/model-GGUF:F16 -f corpus.txt -o model.profile
  powerinfer-profile -m model.gguf -f corpus/ -o part3.profile --shard 3/8
  powerinfer-profile --merge part*.profile -o model.profile
  powerinfer-profile --show model.profile --plot model.svg
  powerinfer-profile --show model.profile --report model.html --plan-model model.gguf
  powerinfer-profile --compare stories.profile code.profile --plot differences.svg
  powerinfer-profile -m model.gguf --predictor lowrank --samples-from model.profile -o model.predictor

The profile does not depend on the number of threads, nor on interruptions: the same model and text give the same bytes.
An interrupted run resumes from OUT.part when the same command is run again.";

/// Run a model densely over text and count which FFN neurons fire.
#[derive(Parser)]
#[command(name = "powerinfer-profile", version, after_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    which: Which,
    /// Calibration texts, UTF-8; a folder stands for all files in it, - for standard input
    #[arg(short, long, value_name = "TEXT", num_args = 1.., required_unless_present_any = ["random_tokens", "merge", "show", "compare", "samples_from"])]
    file: Vec<PathBuf>,
    /// Profile this many random tokens instead of texts, for a model without a tokenizer
    #[arg(long, value_name = "N", conflicts_with_all = ["file", "tokens", "parse_special"])]
    random_tokens: Option<u64>,
    /// Profile to write; with --predictor, the file of predictors
    #[arg(short, long, value_name = "PROFILE", required_unless_present_any = ["show", "compare"])]
    output: Option<PathBuf>,
    /// Tokens per window [default: the model's training context, at most 512]
    #[arg(short, long, value_name = "N")]
    ctx_size: Option<usize>,
    /// Profile at most this many tokens, shared evenly between the texts
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Profile only the I-th of N parts of the windows (1/8 to 8/8); --merge combines the parts
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: CorpusPart,
    /// Keep the FFN inputs of this many tokens, for fitting predictors
    #[arg(long, value_name = "N", default_value_t = 0)]
    samples: u64,
    /// Memory and disk space that samples may take
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    samples_cap: Bytes,
    /// Seed for choosing which tokens are sampled, and for --random-tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads [default: all cores]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Activation function of the FFN: silu, gelu, gelu_erf, gelu_quick, relu, relu2, drelu, or fatrelu:THRESHOLD [default: what the
    /// file says]
    #[arg(long, value_name = "NAME")]
    activation: Option<Activation>,
    /// Parse special tokens written in the texts (such as <|endoftext|>) instead of reading them as plain text
    #[arg(long)]
    parse_special: bool,
    /// Write a checkpoint at most this often; 0: after every window
    #[arg(long, value_name = "N", default_value_t = 30.0, hide = true)]
    checkpoint_seconds: f64,
    /// Add up profiles of the same model instead of making one
    #[arg(long, value_name = "PROFILE", num_args = 1.., conflicts_with_all = MAKING, conflicts_with_all = ["show", "compare"])]
    merge: Vec<PathBuf>,
    /// Print a summary of a profile instead of making one
    #[arg(long, value_name = "PROFILE", conflicts_with_all = MAKING, conflicts_with = "compare")]
    show: Option<PathBuf>,
    /// Print how two profiles of one model differ
    #[arg(long, value_names = ["A", "B"], num_args = 2, conflicts_with_all = MAKING, conflicts_with = "output")]
    compare: Vec<PathBuf>,
    /// With --show: one JSON object instead of tables
    #[arg(long, requires = "show", conflicts_with = "compare")]
    json: bool,
    /// Draw heat maps, cumulative curves and densities by layer, and where a router chooses experts how often each is chosen; with
    /// --compare, how the two differ. FILE ends in .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    predictor: predictor::PredictorArgs,
    #[command(flatten)]
    thresholds: thresholds::ThresholdArgs,
    #[command(flatten)]
    page: page::PageArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// Arguments that say how to make a profile.
const MAKING: [&str; 16] = [
    "model",
    "hf_repo",
    "offline",
    "models",
    "file",
    "random_tokens",
    "ctx_size",
    "tokens",
    "shard",
    "samples",
    "samples_cap",
    "seed",
    "threads",
    "activation",
    "parse_special",
    "threshold_search",
];

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: Args) -> Result<()> {
    catch_ctrl_c(Again::Waits)?;
    args.progress.apply();
    if let [a, b] = &*args.compare {
        picture::check(args.plot.as_deref(), [&**a, &**b])?;
        let (first, second) = (Profile::read(a)?, Profile::read(b)?);
        let shown = || b.display().to_string();
        let table = compare::table(&first, &second).with_context(shown)?;
        if let Some(path) = &args.plot {
            picture::write(path, &plot::compared(&first, &second).with_context(shown)?)?;
        }
        return print_table(format_args!("A = {}, B = {}\n{table}", a.display(), b.display()));
    }
    let (output, plot) = (args.output.as_deref(), args.plot.as_deref());
    models::keep_apart([("-o", output), ("--plot", plot), ("--report", args.page.path())])?;
    for output in args.output.iter().chain(&args.plot) {
        let inputs = args.which.model.iter().chain(&args.file).chain(&args.merge).chain(&args.show);
        let inputs = inputs.chain(args.predictor.inputs());
        models::keep_inputs(output, inputs.map(PathBuf::as_path))?;
        check_writable(output)?;
    }
    let given = args.which.model.iter().chain(&args.file).chain(&args.merge).chain(&args.show);
    args.page.check(given.chain(&args.output).chain(&args.plot).map(PathBuf::as_path))?;
    args.thresholds.check()?;
    let model = if args.show.is_none() && args.merge.is_empty() { args.which.path(&Bar::new())? } else { None };
    for output in args.output.iter().chain(&args.plot) {
        models::keep_inputs(output, model.as_deref())?;
    }
    if let Some(wanted) = args.predictor.wanted() {
        let output = args.output.as_deref().context("-o: is missing")?;
        return predictor::fit(&args, model.as_deref(), &wanted, output);
    }
    // Of a folder of texts none is written over, which is found out when they are listed.
    if args.file.is_empty() {
        picture::check(args.plot.as_deref(), [])?;
    }
    let mut pace = None;
    let (profile, samples) = match (&args.show, &args.output) {
        // What is shown may be written again; its samples then go along.
        (Some(path), output) => {
            (Profile::read(path)?, output.as_ref().map_or(Ok(None), |_| Samples::read_if_any(path))?)
        }
        (None, _) if !args.merge.is_empty() => merge(&args.merge)?,
        (None, Some(output)) => {
            let (profile, samples, said) = make(&args, model.as_deref(), output)?;
            pace = Some(said);
            (profile, samples)
        }
        (None, None) => anyhow::bail!("-o: is missing"),
    };
    if let Some(path) = &args.output {
        profile.write_with(path, samples.as_ref(), &Bar::new())?;
        if args.show.is_none() && args.merge.is_empty() {
            // What the checkpoint said is in the profile now.
            let _ = std::fs::remove_file(part(path));
        }
    }
    if let Some(pace) = pace {
        tell!("{pace}");
    }
    if let Some(path) = &args.plot {
        picture::write(path, &plot::picture(&profile, None)?)?;
    }
    let made_of = (args.show.is_none() && args.merge.is_empty()).then_some(model.as_deref());
    args.page.write(&profile, made_of, args.threads.unwrap_or_else(common::default_threads))?;
    let (texts, n_tokens) = (profile.texts_in_words(), profile.n_tokens());
    let (name, activation, table) = (&profile.name, &profile.activation, report::table(&profile));
    if args.json {
        return print_json(json(&profile));
    }
    let more =
        if args.show.is_some() { report::cold_table(&profile) + &together::table(&profile) } else { String::new() };
    let more = more + &experts::table(&profile);
    print_table(format_args!(
        "{}: {n_tokens} tokens of {texts}, activation {activation}\n{table}{more}",
        printable(name)
    ))
}

fn merge(paths: &[PathBuf]) -> Result<(Profile, Option<Samples>)> {
    let (first, rest) = paths.split_first().context("--merge: nothing to merge")?;
    let (mut total, mut samples) = (Profile::read(first)?, Samples::read_if_any(first)?);
    for path in rest {
        let shown = || path.display().to_string();
        total.merge(&Profile::read(path)?).with_context(shown)?;
        match (&mut samples, Samples::read_if_any(path)?) {
            (Some(ours), Some(theirs)) => ours.merge(&theirs).with_context(shown)?,
            (ours @ None, theirs) => *ours = theirs,
            (Some(_), None) => {}
        }
    }
    Ok((total, samples))
}

/// Where a job that makes `output` writes down what is done.
fn part(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// With how long it took, in words.
fn make(args: &Args, model: Option<&Path>, output: &Path) -> Result<(Profile, Option<Samples>, String)> {
    let bar = Bar::new();
    let part = part(output);
    let outputs = [output, &part].into_iter().chain(args.plot.as_deref()).chain(args.page.report.as_deref());
    let texts = texts(args, &outputs.collect::<Vec<_>>(), &bar)?;
    picture::check(args.plot.as_deref(), [])?;
    let gguf = models::open_file(model)?;
    let model = models::open(gguf, args.activation, Some(&bar))?;
    args.which.warn(&model)?;
    let params = params(args, &model)?;
    let n_threads = params.n_threads;
    check_room(output, &model, params.n_samples)?;
    let mut job = match args.random_tokens {
        Some(n) => Profiling::over_random_tokens(&model, n, params)?,
        None => {
            let has_tokenizer = model.gguf.metadata().has("tokenizer.ggml.model");
            let name = model.gguf.source().name();
            ensure!(has_tokenizer, "{name}: has no tokenizer; give --random-tokens N instead of -f");
            let tokenizer = models::tokenizer(&model.gguf)?;
            Profiling::over_texts(&model, &tokenizer, &texts, params, &bar)?
        }
    };
    args.thresholds.check_windows(windows_of(&job, args).len())?;
    drop(texts);
    // A device or a pipe has no place beside it.
    let lasting = std::fs::metadata(output).map_or(true, |m| m.is_file());
    if lasting && let Some((done, all)) = job.resume(&part)? {
        tell!("{}: resuming after {done} of {all} windows", part.display());
    }
    let every = Duration::try_from_secs_f64(args.checkpoint_seconds).context("--checkpoint-seconds")?;
    let windows = windows_of(&job, args);
    let (n_left, begun) = (job.n_left(), Instant::now());
    let result = job.run(lasting.then(|| Checkpoint::new(&part, every)), &bar);
    drop(bar);
    if result.as_ref().is_err_and(|e| e.is::<Interrupted>()) && part.exists() {
        tell!("note: progress is saved in {}; run the same command again to resume", part.display());
    }
    let Collected { mut profile, samples } = result?;
    let seconds = begun.elapsed().as_secs_f64();
    let speed = n_left as f64 / seconds.max(f64::MIN_POSITIVE);
    let pace = format!("profile {seconds:>8.3} s  {n_left:>5} tokens  {speed:>8.2} tokens/s");
    let worker = Worker::new(n_threads, Isa::detect())?;
    if let Some(opening) = windows.first()
        && let Some(doubt) = doubt::of_text(&model, opening, &worker, &Silent)?
    {
        tell!("warning: {}: {doubt}", model.gguf.source().name());
    }
    if args.thresholds.threshold_search {
        let (found, told) = args.thresholds.search(&model, &windows, &worker, &Bar::new())?;
        profile.thresholds = Some(found.thresholds);
        print_table(told)?;
    }
    Ok((profile, samples, pace))
}

/// The first windows of text.
fn windows_of(job: &Profiling, args: &Args) -> Vec<Vec<u32>> {
    // Random tokens are no text that a model could know.
    let n = if args.random_tokens.is_some() { 0 } else { thresholds::MOST_WINDOWS };
    job.windows().take(n).map(<[u32]>::to_vec).collect()
}

fn texts(args: &Args, but: &[&Path], bar: &Bar) -> Result<Vec<Text>> {
    if args.random_tokens.is_some() {
        return Ok(Vec::new());
    }
    let files = corpus::files(&args.file, but)?;
    let read = |path: &Path| Ok(Text { name: models::text_name(path), text: models::read_text(path, MOST_TEXT, bar)? });
    let (texts, empty) = corpus::read_all(&files, read)?;
    if let Some((first, others)) = empty.split_first() {
        let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        tell!("note: {first}{more}: left out, since there is no text in it");
    }
    Ok(texts)
}

fn params(args: &Args, model: &Model) -> Result<CollectParams> {
    let n_ctx_train = model.config.n_ctx_train;
    let n_ctx = args.ctx_size.unwrap_or(n_ctx_train.min(512));
    // With learned positions that is an error.
    if n_ctx > n_ctx_train && model.config.positions.is_none() {
        tell!("warning: -c {n_ctx} is more than the {n_ctx_train} tokens that the model was trained on");
    }
    let n_threads = args.threads.unwrap_or_else(common::default_threads);
    ensure!((1..=1024).contains(&n_threads), "-t {n_threads}: 1 to 1024 threads are possible");
    ensure!(args.tokens != Some(0), "--tokens 0: nothing to profile");
    ensure!(args.random_tokens != Some(0), "--random-tokens 0: nothing to profile");
    // More would not fit in memory as windows.
    let most = 1 << 32;
    ensure!(args.random_tokens.is_none_or(|n| n <= most), "--random-tokens: at most {most} are possible");
    Ok(CollectParams {
        n_ctx,
        max_tokens: args.tokens,
        n_threads,
        special: if args.parse_special { Special::Parse } else { Special::AsText },
        part: args.shard,
        seed: args.seed,
        n_samples: n_samples(args, model)?,
    })
}

/// As many as were asked for, or as fit under the cap. That depends on the model and the arguments only, or parts made
/// on several machines would not fit together.
fn n_samples(args: &Args, model: &Model) -> Result<usize> {
    let each = Samples::token_bytes(model.config.n_layer, model.config.n_embd);
    let (cap, asked) = (args.samples_cap, args.samples);
    let fit = cap.0 / each;
    ensure!(asked == 0 || fit > 0, "--samples-cap {cap}: a single token takes {}", Bytes(each));
    if asked > fit {
        let all = Bytes(asked.saturating_mul(each));
        tell!("note: --samples {asked} would take {all}; {fit} fit in --samples-cap {cap}");
    }
    Ok(usize::try_from(asked.min(fit))?)
}

/// A checkpoint and the one that replaces it, or the profile, are on the disk at the same time.
fn check_room(output: &Path, model: &Model, n_samples: usize) -> Result<()> {
    let each = Samples::token_bytes(model.config.n_layer, model.config.n_embd);
    let needed = Bytes(2 * each * n_samples as u64);
    let folder = output.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Some(free) = free_space(folder).map(Bytes) {
        let shown = output.display();
        ensure!(
            free >= needed,
            "{shown}: --samples {n_samples} needs {needed} on this disk, which has {free}; lower it"
        );
    }
    Ok(())
}
