//! `powerinfer-split`: writes a variant of a model whose neurons lie hot first.

mod common;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use common::models;
use common::terminal::{Again, Bar, catch_ctrl_c, print, tell};
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode};
use powerinfer::files::check_writable;
use powerinfer::gguf::Gguf;
use powerinfer::measure::{STORY, kl::mean_kl};
use powerinfer::model::{Activation, Model};
use powerinfer::placement::Placement;
use powerinfer::profile::Profile;
use powerinfer::progress::Progress;
use powerinfer::tokenizer::Special;
use powerinfer::units::Bytes;
use powerinfer::variant::{self, DownType, Options, Plan, Recipe};
use std::path::PathBuf;
use std::process::ExitCode;

/// Tokens of text over which the cost of quantizing is measured.
const KL_TOKENS: usize = 256;

const EXAMPLES: &str = "\
Examples:
  powerinfer-split -m model.gguf --profile model.profile -o model-variant.gguf
  powerinfer-split -m model-f16.gguf --profile model.profile -o model-q4.gguf --type q4_0
  powerinfer-split -m model-q4_0.gguf --profile model.profile -o model-variant.gguf --down lossless
  powerinfer-split -m model.gguf --profile model.profile --predictor model.predictor -o model-variant.gguf
  powerinfer-split -m model-f16.gguf -o model-q4_k_m.gguf --type q4_k_m --quantize-only

A variant is for powerinfer's tools: llama.cpp does not open it, because ffn_down is transposed.
With --quantize-only the file is an ordinary one of any architecture, which llama.cpp opens.";

/// Write a variant of a model: neurons in falling order of activation, ffn_down transposed, with an index.
#[derive(Parser)]
#[command(name = "powerinfer-split", version, after_help = EXAMPLES)]
struct Args {
    /// Model to split (GGUF)
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,
    /// Profile of this model, or of another quantization of it
    #[arg(long, value_name = "PROFILE", required_unless_present_any = ["quantize_only", "predictor"])]
    profile: Option<PathBuf>,
    /// Predictor to pack in, from powerinfer-profile --predictor; without --profile, into a variant that there is
    #[arg(long, value_name = "FILE")]
    predictor: Option<PathBuf>,
    /// Variant to write, or ordinary file with --quantize-only
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Convert all matrices of an F32, F16 or BF16 source: f16, bf16, q8_0, q4_0 or q4_k_m (Q4_K, with Q6_K where it
    /// matters most)
    #[arg(long = "type", value_name = "TYPE")]
    recipe: Option<Recipe>,
    /// Only convert the matrices to --type: an ordinary file, neurons and tensors as they were
    #[arg(long, requires = "recipe", conflicts_with_all = ["profile", "predictor", "down", "activation", "no_kl"])]
    quantize_only: bool,
    /// Type of the transposed ffn_down of a quantized source: q8_0, same, or lossless (Q8_0 and Q4_0: the source's
    /// quants and scales, for more bytes) [default: q8_0]
    #[arg(long, value_name = "TYPE")]
    down: Option<DownType>,
    /// Threads [default: all cores]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Activation function of the FFN: silu, relu or relu2 [default: what the file says]
    #[arg(long, value_name = "NAME")]
    activation: Option<Activation>,
    /// Do not measure what quantizing costs
    #[arg(long)]
    no_kl: bool,
}

fn main() -> ExitCode {
    common::main(run)
}

fn run(args: Args) -> Result<()> {
    catch_ctrl_c(Again::Waits)?;
    let n_threads = args.threads.unwrap_or_else(common::default_threads);
    ensure!((1..=1024).contains(&n_threads), "-t {n_threads}: 1 to 1024 threads are possible");
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build_global().context("threads cannot be started")?;
    models::keep_inputs(
        &args.output,
        [Some(&*args.model), args.profile.as_deref(), args.predictor.as_deref()].into_iter().flatten(),
    )?;
    check_writable(&args.output)?;
    let bar = Bar::new();
    if args.quantize_only {
        return quantize(&args, &bar);
    }
    let profile = args.profile.as_deref().map(Profile::read).transpose()?;
    let source = models::open(Gguf::open(&args.model)?, args.activation, Some(&bar))?;
    let predictor = args.predictor.as_deref().map(Gguf::open).transpose()?;
    let Some(profile) = profile else {
        let predictor = predictor.context("--predictor: nothing to pack in")?;
        variant::pack(&source, &predictor, &args.output, &bar)?;
        return tell_written(&args, &source).map(drop);
    };
    let options = Options { recipe: args.recipe, down: args.down };
    let plan = Plan::new(&source, &profile, options).with_context(|| args.model.display().to_string())?;
    for note in &plan.notes {
        tell!("note: {note}");
    }
    print(plan.table(&source))?;
    variant::write(&source, &plan, predictor.as_ref(), &args.output, &bar)?;
    let written = tell_written(&args, &source)?;
    if plan.lossy && !args.no_kl {
        match divergence(&source, &written, n_threads, &bar)? {
            Some((kl, n)) => {
                print(format_args!("KL to the source: {kl:.6} nats per token over {n} tokens of story\n"))?
            }
            None => tell!("note: the file has no tokenizer, so the cost of quantizing was not measured"),
        }
    }
    Ok(())
}

/// Opens what was written and says how large it is.
fn tell_written(args: &Args, source: &Model) -> Result<Model> {
    let written = Model::new(Gguf::open(&args.output)?, args.activation)?;
    let (before, after) = (Bytes(source.n_bytes()), Bytes(written.n_bytes()));
    print(format_args!("{}: {after} of weights (source: {before})\n", args.output.display()))?;
    Ok(written)
}

/// `--quantize-only`.
fn quantize(args: &Args, bar: &Bar) -> Result<()> {
    let recipe = args.recipe.context("--quantize-only needs --type")?;
    let source = Gguf::open(&args.model)?;
    let conversion = variant::quantize(&source, recipe, &args.output, bar)?;
    for note in &conversion.notes {
        tell!("note: {note}");
    }
    let before = Bytes(source.tensors().iter().map(|t| t.data.len() as u64).sum());
    let types: Vec<_> = conversion.types.iter().map(|(dtype, n)| format!("{n} {dtype}")).collect();
    let (after, types) = (Bytes(conversion.n_bytes), types.join(", "));
    print(format_args!("{}: {after} of weights (source: {before}); matrices: {types}\n", args.output.display()))
}

/// Mean KL of the variant to its source, and the tokens it was measured over.
fn divergence(source: &Model, variant: &Model, n_threads: usize, bar: &Bar) -> Result<Option<(f64, usize)>> {
    if !source.gguf.metadata().has("tokenizer.ggml.model") {
        return Ok(None);
    }
    let tokenizer = models::tokenizer(&source.gguf)?;
    let mut tokens = tokenizer.encode_prompt(STORY, Special::AsText, true)?;
    tokens.truncate(KL_TOKENS.min(source.config.n_ctx_train));
    let params = ExecutorParams {
        n_threads,
        n_ctx: tokens.len(),
        kv_type: KvType::F32,
        mode: Mode::Dense,
        n_ubatch: 64,
        isa: Isa::detect(),
    };
    let mut a = Executor::new(source, Placement::all_cold(source), params.clone())?;
    let mut b = Executor::new(variant, Placement::all_cold(variant), params)?;
    bar.begin("measuring KL", tokens.len() as u64);
    Ok(Some((mean_kl(&mut a, &mut b, &tokens, bar)?, tokens.len())))
}
