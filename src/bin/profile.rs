//! `powerinfer-profile`: finds which FFN neurons fire on a calibration text.

mod common;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::models;
use common::terminal::{Again, Bar, catch_ctrl_c, print, tell};
use powerinfer::files::{check_writable, write_whole};
use powerinfer::model::Activation;
use powerinfer::profile::collect::{CollectParams, Text, collect};
use powerinfer::profile::plot::{PlotInput, draw};
use powerinfer::profile::{Profile, report};
use powerinfer::tokenizer::Special;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  powerinfer-profile -m model.gguf -f corpus.txt -o model.profile
  powerinfer-profile -m model.gguf -f a.txt b.txt -o model.profile --tokens 100000 --plot profile.png
  powerinfer-profile --merge day1.profile day2.profile -o both.profile
  powerinfer-profile --show both.profile --plot both.png

The profile does not depend on the number of threads: the same model and text give the same bytes.";

/// Run a model densely over text and count which FFN neurons fire.
#[derive(Parser)]
#[command(name = "powerinfer-profile", version, after_help = EXAMPLES)]
struct Args {
    /// Model to profile (GGUF, plain or variant) [default: the embedded model]
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Calibration texts, UTF-8
    #[arg(short, long, value_name = "TEXT", num_args = 1.., required_unless_present_any = ["merge", "show"])]
    file: Vec<PathBuf>,
    /// Profile to write
    #[arg(short, long, value_name = "PROFILE", required_unless_present = "show")]
    output: Option<PathBuf>,
    /// Tokens per window [default: the model's training context, at most 512]
    #[arg(short, long, value_name = "N")]
    ctx_size: Option<usize>,
    /// Profile at most this many tokens, shared evenly between the texts
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Threads [default: all cores]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Activation function of the FFN: silu, relu or relu2 [default: what the file says]
    #[arg(long, value_name = "NAME")]
    activation: Option<Activation>,
    /// Read special tokens that are written in the texts (such as <|endoftext|>) as such
    #[arg(long)]
    parse_special: bool,
    /// Add up profiles of the same model instead of making one
    #[arg(long, value_name = "PROFILE", num_args = 1.., conflicts_with_all = ["model", "file", "show", "ctx_size", "tokens", "threads", "activation", "parse_special"])]
    merge: Vec<PathBuf>,
    /// Print what a profile says instead of making one
    #[arg(long, value_name = "PROFILE", conflicts_with_all = ["model", "file", "ctx_size", "tokens", "threads", "activation", "parse_special"])]
    show: Option<PathBuf>,
    /// Draw a heat map and the cumulative curve
    #[arg(long, value_name = "PNG")]
    plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: Args) -> Result<()> {
    catch_ctrl_c(Again::Waits)?;
    ensure!(args.output.is_none() || args.output != args.plot, "-o and --plot: name the same file");
    for output in args.output.iter().chain(&args.plot) {
        let inputs = args.model.iter().chain(&args.file).chain(&args.merge).chain(&args.show);
        models::keep_inputs(output, inputs.map(PathBuf::as_path))?;
        check_writable(output)?;
    }
    let profile = if let Some(path) = &args.show {
        Profile::read(path)?
    } else if args.merge.is_empty() {
        make(&args)?
    } else {
        merge(&args.merge)?
    };
    if let Some(path) = &args.output {
        profile.write(path)?;
    }
    if let Some(path) = &args.plot {
        let rates: Vec<_> = (0..profile.layers.len()).map(|i| profile.rates(i)).collect();
        let title = format!("{}, {} tokens", profile.name, profile.n_tokens());
        write_whole(path, &draw(&PlotInput { title: &title, rates: &rates })?)?;
    }
    let (texts, n_tokens) = (profile.texts.len(), profile.n_tokens());
    let (name, activation, table) = (&profile.name, &profile.activation, report::table(&profile));
    print(format_args!("{name}: {n_tokens} tokens of {texts} text(s), activation {activation}\n{table}"))
}

fn merge(paths: &[PathBuf]) -> Result<Profile> {
    let (first, rest) = paths.split_first().context("--merge: nothing to merge")?;
    let mut total = Profile::read(first)?;
    for path in rest {
        total.merge(&Profile::read(path)?).with_context(|| path.display().to_string())?;
    }
    Ok(total)
}

fn make(args: &Args) -> Result<Profile> {
    let bar = Bar::new();
    let texts =
        args.file.iter().map(|path| Ok(Text { name: path.display().to_string(), text: models::read_text(path)? }));
    let texts = texts.collect::<Result<Vec<_>>>()?;
    let gguf = models::open_file(args.model.as_deref())?;
    let model = models::open(gguf, args.activation, Some(&bar))?;
    let tokenizer = models::tokenizer(&model.gguf)?;
    let n_ctx_train = model.config.n_ctx_train;
    let n_ctx = args.ctx_size.unwrap_or(n_ctx_train.min(512));
    if n_ctx > n_ctx_train {
        tell!("warning: -c {n_ctx} is beyond the {n_ctx_train} tokens that the model was trained for");
    }
    let n_threads = args.threads.unwrap_or_else(common::default_threads);
    ensure!((1..=1024).contains(&n_threads), "-t {n_threads}: 1 to 1024 threads are possible");
    ensure!(args.tokens != Some(0), "--tokens 0: nothing to profile");
    let params = CollectParams {
        n_ctx,
        max_tokens: args.tokens,
        n_threads,
        special: if args.parse_special { Special::Parse } else { Special::AsText },
    };
    let collected = collect(&model, &tokenizer, &texts, &params, &bar)?;
    drop(bar);
    if let Some(warning) = collected.warning {
        tell!("warning: {warning}");
    }
    Ok(collected.profile)
}
