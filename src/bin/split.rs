//! `powerinfer-split`: writes a variant of a model whose neurons lie hot first.

mod common;
mod quantize;
mod written;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Parser};
use common::hardware::hardware_to_show;
use common::models;
use common::plan::{self, PlanArgs};
use common::progress_lines::ProgressArgs;
use common::terminal::{Again, Bar, catch_ctrl_c, print_table, tell};
use common::which::Which;
use powerinfer::cpu::Isa;
use powerinfer::executor::{Executor, ExecutorParams, KvType, Mode, Worker};
use powerinfer::files::check_writable;
use powerinfer::gguf::Gguf;
use powerinfer::gpu::DeviceChoice;
use powerinfer::measure::{STORY, kl::mean_kl};
use powerinfer::model::{Activation, Model};
use powerinfer::placement::Placement;
use powerinfer::placement::hardware::Hardware;
use powerinfer::placement::plan::{Room, Run};
use powerinfer::placement::workload::Workload;
use powerinfer::predictor::{Predictors, left_out};
use powerinfer::profile::{Kinship, Profile};
use powerinfer::progress::Progress;
use powerinfer::shapes::{self, Sized};
use powerinfer::tokenizer::Special;
use powerinfer::units::Bytes;
use powerinfer::variant::{self, DownType, Draft, GpuIndex, Options, Order, Recipe};
use quantize::QuantizeArgs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use written::Written;

/// Tokens of text over which the cost of quantizing is measured.
const KL_TOKENS: usize = 256;
/// Batch that `run` has where nothing else is said: what a plan keeps room for.
const N_UBATCH: usize = 512;

const EXAMPLES: &str = "\
Examples:
  powerinfer-split -m model.gguf --profile model.profile -o model-variant.gguf
  powerinfer-split -m model-f16.gguf --profile model.profile -o model-q4.gguf --type q4_0
  powerinfer-split -m model-q4_0.gguf --profile model.profile -o model-variant.gguf --down lossless
  powerinfer-split -m model.gguf --profile model.profile --predictor model.predictor -o model-variant.gguf
  powerinfer-split -m model.powerinfer.gguf --gpu-index model.powerinfer.gguf.generated.gpuidx -o model-variant.gguf
  powerinfer-split --quantize-only model-f16.gguf model-q4_k_m.gguf q4_k_m
  powerinfer-split -m model.gguf --profile model.profile --dry-run --hardware hardware/rtx-4090-ddr5.toml --explain
  powerinfer-split --shape llama-70b:q4_0 --dry-run --hardware hardware/rtx-4090-ddr5.toml --vram-budget 20GiB
  powerinfer-split --shape mistral-7b:q4_0 --dry-run --parallel 8 --hardware hardware/rtx-3060-ddr4.toml --vram-budget 6GiB
  powerinfer-split --shape nemotron-3-nano:q4_0:0.1:0.5 --dry-run --hardware hardware/rtx-3060-ddr4.toml --vram-budget 8GiB

Only powerinfer's tools open a variant: llama.cpp cannot, because ffn_down is transposed.
With --quantize-only the model may be of any architecture, and the output is an ordinary file that llama.cpp opens.";

const MODEL: &str = "Model to split: a GGUF file, a name (powerinfer-run --list-models), or hf:OWNER/MODEL/FILE.gguf; what is not here \
     is fetched from the Hugging Face hub once";

/// Write a variant of a model: neurons in descending order of activity, ffn_down transposed, with an index.
#[derive(Parser)]
#[command(name = "powerinfer-split", version, after_help = EXAMPLES)]
#[command(group(ArgGroup::new("source").args(["model", "hf_repo", "shape", "words"]).required(true).multiple(true)))]
#[command(group(ArgGroup::new("kind").args(["recipe", "words"]).multiple(true)))]
#[command(mut_arg("model", |model| model.help(MODEL)))]
struct Args {
    #[command(flatten)]
    which: Which,
    /// Profile of this model, or of another quantization of it
    #[arg(long, value_name = "PROFILE",
        required_unless_present_any = ["quantize_only", "words", "shape", "predictor", "gpu_index", "keep_order"])]
    profile: Option<PathBuf>,
    /// In place of a profile: PowerInfer's list of the neurons for a card (MODEL.generated.gpuidx), which come first
    #[arg(long, value_name = "FILE", conflicts_with_all = ["profile", "keep_order"])]
    gpu_index: Option<PathBuf>,
    /// In place of a profile: neurons keep the order that they have
    #[arg(long, conflicts_with = "profile")]
    keep_order: bool,
    /// Predictor to pack into the variant, from powerinfer-profile --predictor; without --profile, -m is a variant already
    #[arg(long, value_name = "FILE")]
    predictor: Option<PathBuf>,
    /// Variant to write; with --quantize-only, an ordinary file
    #[arg(short, long, value_name = "OUT", required_unless_present_any = ["dry_run", "words"])]
    output: Option<PathBuf>,
    /// Convert all matrices of an F32, F16 or BF16 source: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, or a mixture of llama.cpp's
    /// (q2_k, q3_k_s, q3_k_m, q3_k_l, q4_k_s, q4_k_m, q5_k_s, q5_k_m, q6_k, iq4_nl, iq4_xs)
    #[arg(long = "type", value_name = "TYPE")]
    recipe: Option<Recipe>,
    /// Type of the transposed ffn_down of a quantized source: q8_0, same, or lossless (Q8_0 and Q4_0: keeps the
    /// source's quants and scales, for more bytes) [default: q8_0]
    #[arg(long, value_name = "TYPE")]
    down: Option<DownType>,
    /// Threads [default: all cores]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Activation function of the FFN: silu, gelu, gelu_erf, gelu_quick, relu, relu2, drelu, or fatrelu:THRESHOLD [default: what the
    /// file says]
    #[arg(long, value_name = "NAME")]
    activation: Option<Activation>,
    /// Do not measure the KL divergence that quantizing causes
    #[arg(long)]
    no_kl: bool,
    #[command(flatten)]
    plan: PlanArgs,
    #[arg(long, value_name = "NAME[-LAYERS][:TYPE[:DENSITY[:POPULARITY]]]", requires = "dry_run", help = shape_help(),
        conflicts_with_all = ["model", "hf_repo", "profile", "gpu_index", "keep_order", "recipe", "down", "predictor"])]
    shape: Option<Sized>,
    /// Mode to plan for: dense, exact, or predicted (with --predictor; without it, factors of rank n_embd / 8 are assumed)
    #[arg(long, value_name = "MODE", default_value = "exact")]
    mode: Mode,
    /// Context size in tokens to plan for
    #[arg(short, long, value_name = "N", default_value_t = 4096)]
    ctx_size: usize,
    /// Sequences to plan for, of each of which a token is computed in a pass (-np): what any of them fires is read once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    /// One JSON object instead of tables: what is written, or with --dry-run the plan
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    quantize: QuantizeArgs,
}

/// Of `--shape`.
fn shape_help() -> String {
    let known = shapes::known(|_| true);
    format!(
        "With --dry-run: plan for a model of this shape instead of a file: {known}. LAYERS changes the number of layers, TYPE is \
         that of the weights [q4_0], DENSITY the share of FFN neurons that fire [as published for sparse models], POPULARITY says \
         how unequally experts are chosen: as often as their rank to the power of minus POPULARITY [0.5]"
    )
}

fn main() -> ExitCode {
    common::main(run)
}

/// The model's file, fetched if need be.
fn model_path(args: &Args, bar: &Bar) -> Result<PathBuf> {
    args.which.path(bar)?.context("-m: the embedded model is a variant already; name another")
}

fn run(mut args: Args) -> Result<()> {
    if let Some(words) = args.quantize.words::<Args>() {
        args.which.model = vec![words.model];
        args.output = Some(words.output);
        args.recipe = Some(words.recipe);
        args.threads = words.threads;
    }
    catch_ctrl_c(Again::Waits)?;
    args.progress.apply();
    let n_threads = args.threads.unwrap_or_else(common::default_threads);
    ensure!((1..=1024).contains(&n_threads), "-t {n_threads}: 1 to 1024 threads are possible");
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build_global().context("threads cannot be started")?;
    let bar = Bar::new();
    if let Some(shape) = &args.shape {
        let mut work = Workload::of_shape(shape)?;
        assume_predictors(&args, &mut work);
        return dry_run(&args, None, work, n_threads, &bar);
    }
    if args.plan.dry_run {
        let path = &*model_path(&args, &bar)?;
        if args.quantize.quantize_only {
            return args.quantize.show(path, recipe(&args)?, args.json);
        }
        let (source, draft) = decide(&args, path, &bar)?;
        let predictors = predictors(&args, &source)?;
        let work = workload(&args, &source, &draft, predictors.as_ref());
        return dry_run(&args, Some(&source), work, n_threads, &bar);
    }
    let output = args.output.as_deref().context("-o: an output is missing")?;
    let inputs = [
        args.which.last(),
        args.profile.as_deref(),
        args.predictor.as_deref(),
        args.gpu_index.as_deref(),
        args.plan.hardware.as_deref(),
    ];
    models::keep_inputs(output, inputs.into_iter().flatten())?;
    check_writable(output)?;
    let path = &*model_path(&args, &bar)?;
    models::keep_inputs(output, [path])?;
    if args.quantize.quantize_only {
        return args.quantize.run(path, output, recipe(&args)?, args.json, &bar);
    }
    if args.profile.is_none() && args.gpu_index.is_none() && !args.keep_order {
        let source = models::open(Gguf::open(path)?, args.activation, Some(&bar))?;
        predictors(&args, &source)?;
        let predictor = packed(&args)?.context("--predictor: nothing to pack")?;
        variant::pack(&source, &predictor, output, &bar)?;
        if args.json {
            let written = Written { kind: "packed", ..Written::of(&source.gguf, output) };
            return written.print();
        }
        return tell_written(&args, output, &source).map(drop);
    }
    let (source, mut draft) = decide(&args, path, &bar)?;
    let predictors = predictors(&args, &source)?;
    if args.plan.vram.is_given() {
        let work = workload(&args, &source, &draft, predictors.as_ref());
        let (hardware, run) = setting(&args, &work, n_threads, &bar)?;
        let n_hot = plan::plan(&args.plan, &hardware, &work, &run)?.n_hot();
        draft.groups.iter_mut().zip(n_hot).for_each(|(group, n_hot)| group.n_hot = n_hot);
    }
    let predictor = packed(&args)?;
    if !args.json {
        print_table(draft.table(&source))?;
    }
    variant::write(&source, &draft, predictor.as_ref(), output, &bar)?;
    let written = tell_written(&args, output, &source)?;
    let mut kl = None;
    if let Some(written) = written
        && draft.lossy
        && !args.no_kl
    {
        kl = divergence(&source, &written, n_threads, &bar)?;
        match kl {
            Some(_) if args.json => {}
            Some((kl, n)) => {
                print_table(format_args!("KL to the source: {kl:.6} nats per token over {n} tokens of story\n"))?
            }
            None => tell!("note: the file has no tokenizer, so the cost of quantizing was not measured"),
        }
    }
    drop(bar);
    if args.json {
        let (kind, notes) = ("variant", &*draft.notes);
        return Written { kind, draft: Some(&draft), kl, notes, ..Written::of(&source.gguf, output) }.print();
    }
    Ok(())
}

/// The predictors that were given, if any, once they are known to be this model's.
fn predictors(args: &Args, source: &Model) -> Result<Option<Predictors>> {
    let Some(path) = &args.predictor else { return Ok(None) };
    let predictors = Predictors::read(path)?;
    if predictors.check(source).with_context(|| path.display().to_string())? == Kinship::Sibling {
        tell!("note: {}: was fitted to another quantization of this model", path.display());
    }
    if let Some(layers) = left_out(source) {
        tell!("note: {layers}");
    }
    Ok(Some(predictors))
}

/// The file to pack in.
fn packed(args: &Args) -> Result<Option<Gguf>> {
    args.predictor.as_deref().map(Gguf::open).transpose()
}

/// Opens what was written and says how large it is. From a device or a FIFO it cannot be read again.
fn tell_written(args: &Args, output: &Path, source: &Model) -> Result<Option<Model>> {
    if !output.is_file() {
        tell!("note: {}: is no regular file, so what was written to it is not looked at again", output.display());
        return Ok(None);
    }
    let written = Model::new(Gguf::open(output)?, args.activation)?;
    if args.json {
        return Ok(Some(written));
    }
    let (before, after) = (Bytes(source.n_bytes()), Bytes(written.n_bytes()));
    print_table(format_args!("{}: {after} of weights (source: {before})\n", output.display()))?;
    Ok(Some(written))
}

/// The source and what its variant will hold.
fn decide(args: &Args, path: &Path, bar: &Bar) -> Result<(Model, Draft)> {
    // Before anything that takes long.
    let profile = args.profile.as_deref().map(Profile::read).transpose()?;
    let listed = args.gpu_index.as_deref().map(Gguf::open).transpose()?;
    let source = models::open(Gguf::open(path)?, args.activation, Some(bar))?;
    args.which.warn(&source)?;
    let options = Options { recipe: args.recipe, down: args.down };
    let draft = match (profile, listed) {
        (Some(profile), _) => Draft::new(&source, &profile, options),
        (None, Some(list)) => Draft::ordered(&source, &Order::Listed(GpuIndex::read(&list, &source)?), options),
        (None, None) => {
            ensure!(args.keep_order, "--profile: is missing; --keep-order plans without one");
            Draft::ordered(&source, &Order::AsStored, options)
        }
    };
    let draft = draft.with_context(|| path.display().to_string())?;
    if source.has_predictor() {
        tell!(
            "note: the file's predictors are {}",
            if args.predictor.is_some() { "left out: --predictor gives others" } else { "carried over" }
        );
    }
    for note in &draft.notes {
        tell!("note: {note}");
    }
    Ok((source, draft))
}

/// What is planned for.
fn workload(args: &Args, source: &Model, draft: &Draft, predictors: Option<&Predictors>) -> Workload {
    let mut work = variant::workload(source, draft, predictors);
    if predictors.is_none() && !source.has_predictor() {
        assume_predictors(args, &mut work);
    }
    work
}

/// Where predictors are planned for and none is there.
fn assume_predictors(args: &Args, work: &mut Workload) {
    if args.mode == Mode::Predicted {
        tell!("note: no --predictor given; planning as if the predictor were factors of rank n_embd / 8");
        work.assume_predictors();
    }
}

/// The machine and the run that is planned for.
fn setting(args: &Args, work: &Workload, n_threads: usize, bar: &Bar) -> Result<(Hardware, Run)> {
    let n_ctx = args.ctx_size;
    ensure!(n_ctx > 0, "-c 0: a context needs at least one token");
    let room = Room::of_sequences(args.parallel.into());
    let run = Run { n_ctx, n_past: n_ctx, kv_type: KvType::F16, n_ubatch: N_UBATCH, mode: args.mode, room };
    let given = args.plan.hardware.as_deref();
    let hardware = hardware_to_show(given, DeviceChoice::Auto, work, &run, n_threads, Isa::detect(), bar)?;
    Ok((hardware, run))
}

/// `--dry-run`, for what is made of `source` or for a shape.
fn dry_run(args: &Args, source: Option<&Model>, work: Workload, n_threads: usize, bar: &Bar) -> Result<()> {
    let given = [&args.profile, &args.gpu_index, &args.predictor].into_iter().flatten().map(PathBuf::as_path);
    let model = source.map(|model| Path::new(model.gguf.source().name()));
    plan::check_plot(&args.plan, given.chain(model))?;
    let (hardware, run) = setting(args, &work, n_threads, bar)?;
    if let Some(model) = source {
        let (n_ctx, n_ubatch, mode) = (run.n_ctx, run.n_ubatch, run.mode);
        let params = ExecutorParams { n_threads, n_ctx, kv_type: KvType::F16, mode, n_ubatch, isa: Isa::detect() };
        plan::tell_lack(&hardware, model, &params);
    }
    plan::show(&args.plan, args.json, &hardware, &work, &run)
}

/// What `--quantize-only` converts to.
fn recipe(args: &Args) -> Result<Recipe> {
    args.recipe.context("--quantize-only needs --type")
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
    let worker = Worker::new(n_threads, params.isa)?;
    let executor = |model| Executor::with_worker(model, Placement::all_cold(model), params.clone(), &worker);
    let (mut a, mut b) = (executor(source)?, executor(variant)?);
    bar.begin("measuring KL", tokens.len() as u64);
    Ok(Some((mean_kl(&mut a, &mut b, &tokens, bar)?, tokens.len())))
}
