//! `powerinfer-run`: generates text, once or in a conversation.

mod chat;
mod common;
mod recording;
mod grammar_cost;
mod lines;
mod repl;
mod report;
mod room;
mod speculate;
mod stored;
mod template;

use anyhow::{Context, Result, bail, ensure};
use chat::{ChatArgs, Form};
use clap::Parser;
use common::args::Compute;
use common::batches::Batches;
use common::card::Where;
use common::escapes::Escapes;
use common::hardware::hardware_to_show;
use common::models;
use common::names;
use common::plan::{self, PlanArgs};
use common::progress_lines::{ProgressArgs, Span};
use common::sampling::Sampling;
use common::terminal::{Again, Bar, be_quiet, catch_ctrl_c, print, print_generated, print_json, tell};
use common::which::Which;
use lines::LineArgs;
use powerinfer::chat::contained;
use powerinfer::conversation::Prompt;
use powerinfer::executor::{ExecutorParams, Mode, Worker};
use powerinfer::files::MOST_PROMPT;
use powerinfer::generate::{Limits, Stop, check_room, generate};
use powerinfer::grammar::Grammar;
use powerinfer::model::{Down, Model, NeuronGroup};
use powerinfer::placement::Placement;
use powerinfer::placement::plan::{Planner, Run};
use powerinfer::placement::workload::Workload;
use powerinfer::progress::{Interrupted, Silent};
use powerinfer::sampler::Sampler;
use powerinfer::speculation::Target;
use powerinfer::tokenizer::{Special, Tokenizer};
use room::ContextArgs;
use speculate::SpeculationArgs;
use std::ffi::OsString;
use std::io::{IsTerminal, stdin};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use stored::SessionArgs;

/// With --stats, one in so many tokens is looked at for what the predictors missed.
const AUDITED: u64 = 16;

const EXAMPLES: &str = "\
Examples:
  powerinfer-run -p \"Once upon a time\"                  a story by the embedded model
  powerinfer-run -m model.gguf -p \"Hello\" -n 64 --temp 0
  powerinfer-run -hf owner/model-GGUF:Q4_K_M -p \"Hello\"  a model of the Hugging Face hub
  echo \"Hello\" | powerinfer-run -m model.gguf
  powerinfer-run -m chat.gguf                           chat, where the file has a chat template
  powerinfer-run -m chat.gguf -st -sys \"Be brief.\" -p \"Hello\"  one answer, for scripts
  powerinfer-run -m model.gguf --tokenize -p \"Hello\"    print token ids and exit

Generated text goes to stdout as it arrives, everything else to stderr. On a terminal its control characters are left out,
except for line breaks and tabs; into a pipe or a file it goes as it is.";

/// Generate text, computing only the neurons that fire.
#[derive(Parser)]
#[command(name = "powerinfer-run", version, after_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    which: Which,
    /// Print the models that have names, with what is known of them, and exit
    #[arg(long)]
    list_models: bool,
    /// Prompt, gone on with as plain text unless -cnv or -st asks for a chat [default: standard input if it is piped, otherwise a
    /// conversation]
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    prompt: Option<OsString>,
    /// Read the prompt from a file; -: standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    escapes: Escapes,
    /// Number of tokens to generate; -1: until the text ends or the context is full
    #[arg(short = 'n', long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    n_predict: i64,
    /// Context size in tokens; 0: the model's training context [default: the training context, at most 4096]
    #[arg(short, long, value_name = "N")]
    ctx_size: Option<usize>,
    /// Threads [default: all cores]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    sampling: Sampling,
    /// Keep generating where the model would end its text
    #[arg(long)]
    ignore_eos: bool,
    /// Which neurons of the FFN to compute: dense (all), exact (only those that fire; the same result) or predicted (only
    /// those that a predictor expects to fire; faster, with a slightly different result); thresholded (only those whose
    /// activation is above what powerinfer-profile --threshold-search has found; for models that never rest)
    #[arg(long, value_name = "MODE", default_value = "exact")]
    mode: Mode,
    /// Do not print the prompt before the generated text
    #[arg(long)]
    no_display_prompt: bool,
    /// Print the prompt and each of its tokens on stderr; with -cnv, what the chat template makes of each turn
    #[arg(long, conflicts_with = "tokenize")]
    verbose_prompt: bool,
    /// Parse special tokens written in the prompt (</s> and the like) instead of reading them as plain text
    #[arg(long)]
    parse_special: bool,
    /// Print generated special tokens as text, including the one that ends the text
    #[arg(long)]
    special: bool,
    /// Print FFN sparsity per layer; in a conversation, also timings after each answer
    #[arg(long)]
    stats: bool,
    /// Print one JSON object instead of text; in a conversation, one for each turn
    #[arg(long)]
    json: bool,
    /// Print the token ids of the prompt and exit; a file with only a vocabulary is enough. With -cnv, the ids of what the
    /// chat template makes of a first message
    #[arg(long)]
    tokenize: bool,
    /// With --tokenize: leave out the token that begins a text
    #[arg(long, requires = "tokenize")]
    no_bos: bool,
    /// Say nothing but warnings and errors beside the text: no notes, no timings
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    chat: ChatArgs,
    /// Measure what the grammar costs per token, with random tokens; a file with only a vocabulary is enough
    #[arg(long, hide = true)]
    grammar_cost: bool,
    #[command(flatten)]
    lines: LineArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    speculation: SpeculationArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    batches: Batches,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    trace: recording::TraceArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

fn main() -> ExitCode {
    // A child that renders a chat template (see `contained`).
    if std::env::args_os().nth(1).is_some_and(|argument| argument == contained::ARGUMENT) {
        return contained::serve();
    }
    common::main(run)
}

fn run(args: Args) -> Result<()> {
    if args.quiet {
        be_quiet();
    }
    args.progress.apply();
    if args.list_models {
        return names::list(args.which.models.as_deref());
    }
    if args.tokenize {
        return tokenize(&args);
    }
    if args.grammar_cost {
        return grammar_cost::run(&args.sampling, &args.which);
    }
    if args.plan.dry_run {
        return dry_run(&args);
    }
    let params = args.sampling.params();
    params.validate()?;
    let seed = params.seed;
    let rules = args.sampling.rules()?;
    let chosen = args.compute.choose_device()?;
    let prompt = if args.chat.reads_lines() { given_prompt(&args)? } else { prompt(&args)? };
    let lines = args.lines.prompts(prompt.as_deref(), args.file.as_deref())?;
    let talk = args.chat.reads_lines() || prompt.is_none();
    // At a terminal Ctrl-C never ends a conversation; Ctrl-D does.
    catch_ctrl_c(if talk && stdin().is_terminal() { Again::Waits } else { Again::Exits })?;

    let start = Instant::now();
    let bar = Bar::new();
    let check = args.compute.check_tensors.then_some(&bar as _);
    let path = args.which.path(&bar)?;
    let inputs = [&path, &args.file, &args.plan.hardware].into_iter().flatten().map(PathBuf::as_path);
    args.trace.check(inputs, args.session.path())?;
    let loading = Span::new("loading");
    let gguf = args.compute.memory.open(path.as_deref(), &bar)?;
    let model = models::open(gguf, args.compute.activation, check)?;
    args.compute.memory.lock(&model);
    args.which.warn(&model)?;
    let tokenizer = models::tokenizer(&model.gguf)?;
    drop(bar);
    let (vram, hardware) = (&args.plan.vram, args.plan.hardware.as_deref());
    let room = lines.as_ref().map_or_else(|| args.speculation.room(), lines::Prompts::room);
    let place = Where { compute: &args.compute, chosen: &chosen, vram, hardware, room };
    let setup = executor_params(&args, &model)?;
    args.speculation.check(&model, &setup)?;
    let draft_model = args.speculation.model(&args.which, &tokenizer)?;
    let worker = Worker::new(setup.n_threads, setup.isa)?;
    let trace = args.trace.begin(&worker);
    let placed = place.executor(&model, Placement::all_cold(&model), setup, &worker)?;
    let mut executor = placed.executor;
    if args.stats {
        executor.set_audit(AUDITED);
    }
    // Random weights fit no function; and what a session file has is not computed.
    if !model.is_synthetic() && !args.session.is_named() {
        executor.watch_gates();
    }
    let mut speculation = args.speculation.open(&executor, draft_model.as_ref(), &worker, lines.is_some())?;
    let mut sampler = Sampler::for_tokens(&params, &tokenizer)?;
    sampler.set_grammar(rules.as_ref().map(|rules| Grammar::new(rules, &tokenizer)).transpose()?);
    loading.end();
    let load = start.elapsed().as_secs_f64();
    let by_columns = |group: &NeuronGroup| matches!(group.ffn_down(), Down::Columns(_));
    let plain = model.weights.groups().any(|(_, group)| by_columns(group));
    if args.mode != Mode::Dense && model.config.activation.activation.is_sparse() && plain {
        let skipped = match model.weights.groups().any(|(_, group)| group.gate.is_some()) {
            true => "skips only rows of ffn_up; powerinfer-split makes a variant that also skips ffn_down",
            false => "skips nothing; powerinfer-split makes a variant, of which it skips ffn_down",
        };
        tell!("note: this is a plain file, of which exact mode {skipped}");
    }
    let limits = Limits {
        n_predict: usize::try_from(args.n_predict).ok(),
        ignore_eos: args.ignore_eos,
        show_special: args.special,
        stop_strings: &args.chat.reverse_prompt,
        shift: None,
    };
    if let Some(lines) = lines {
        let setup = lines::Setup {
            tokenizer: &tokenizer,
            limits,
            sampler: &params,
            rules: rules.as_ref(),
            special: special(&args),
            display_prompt: !args.no_display_prompt,
            json: args.json,
            times: !args.quiet,
        };
        let result = lines::run(&setup, &mut executor, &lines);
        args.trace.end(trace.as_deref())?;
        if args.stats {
            report::layers(&model, &executor);
        }
        return result;
    }
    let (form, chat) = args.chat.open(&model.gguf, &tokenizer, prompt.is_some())?;
    if form != Form::Once {
        let setup = repl::Setup {
            model: &model,
            worker: &worker,
            tokenizer: &tokenizer,
            limits,
            kept: args.context.kept(true)?,
            goes_on: args.session.goes_on(),
            special: special(&args),
            verbose: args.verbose_prompt,
            around: args.chat.around(),
            single: args.chat.is_single(),
            json: args.json,
            history: args.chat.keeps_history(),
            stats: args.stats,
        };
        let stored = args.session.open(&mut executor, None)?;
        let sampling = (&mut sampler, repl::Settings::new::<Args>(seed));
        let decoder = (&mut executor, speculation);
        let result = repl::run(&setup, decoder, sampling, chat, prompt, stored);
        args.trace.end(trace.as_deref())?;
        return result;
    }
    let text = prompt.context("no prompt")?;
    let tokens = tokenizer.encode_opening(&text, special(&args), true)?;
    let prompt = Prompt { text, tokens };
    if args.verbose_prompt {
        template::show(&prompt, &tokenizer);
    }
    let Prompt { text, tokens } = prompt;
    check_room(&executor, tokens.len())?;
    let kept = args.context.kept(false)?;
    let limits = Limits { shift: room::shift(kept, &executor, &tokens, &tokenizer), ..limits };
    let (mut session, stored) = args.session.open(&mut executor, Some(&tokens))?.unzip();
    if !args.json && !args.no_display_prompt {
        print_generated(&text)?;
    }
    let start = Instant::now();
    let n_held = stored::prompt(&mut session, &mut executor, &tokens)?;
    tokens[..n_held].iter().for_each(|token| sampler.accept(*token));
    let n_computed = n_held - stored.map_or(0, |stored| stored.len());
    let ahead = start.elapsed();
    let mut shown = String::new();
    let mut show = |piece: &str| {
        if args.json {
            shown += piece;
            return Ok(());
        }
        print_generated(piece)
    };
    let rest = &tokens[n_held..];
    speculation.iter_mut().for_each(|speculation| speculation.set_text(&tokens[..n_held]));
    let target = Target::new(&mut executor, speculation.as_mut());
    let result = generate(target, &tokenizer, &mut sampler, rest, limits, &Bar::new(), &mut show);
    args.trace.end(trace.as_deref())?;
    let mut result = result?;
    result.n_prompt += n_computed;
    result.prefill += ahead;
    if args.json {
        let mut object = report::json(&model, &executor, (&text, &shown), &result, limits.stop_strings, seed);
        object["speculation"] = speculate::json(speculation.as_ref());
        print_json(object)?;
    } else {
        print("\n")?;
    }
    stored::end(session, &mut executor, &[&tokens[..], &result.tokens].concat())?;
    report::doubt(&mut executor, &tokens, &worker);
    if !args.quiet {
        tell!("load    {load:>8.3} s");
        report::timings(&executor, &result, seed);
        if result.n_dropped > 0 {
            tell!("the context was full: {} tokens were dropped to go on", result.n_dropped);
        }
    }
    if args.stats {
        report::layers(&model, &executor);
        speculate::report(speculation.as_ref(), &executor);
    }
    if result.stop == Stop::Interrupted {
        return Err(Interrupted.into());
    }
    Ok(())
}

/// `--dry-run`: what would be computed where, and how fast.
fn dry_run(args: &Args) -> Result<()> {
    let path = args.which.path(&Bar::new())?;
    plan::check_plot(&args.plan, path.as_deref())?;
    let model = models::open(models::open_file(path.as_deref())?, args.compute.activation, None)?;
    let params = executor_params(args, &model)?;
    model.check_mode(params.mode)?;
    model.check_context(params.n_ctx)?;
    let work = Workload::of(&model);
    let room = args.lines.room().unwrap_or_else(|| args.speculation.room());
    let run = Run { room, ..params.run(params.n_ctx) };
    let given = args.plan.hardware.as_deref();
    let choice = args.compute.device_choice()?;
    let hardware = hardware_to_show(given, choice, &work, &run, params.n_threads, params.isa, &Bar::new())?;
    plan::tell_lack(&hardware, &model, &params);
    if !args.plan.vram.is_given()
        && args.compute.layers_budget(&Planner { hardware: &hardware, work: &work, run: &run }).is_some()
    {
        tell!("note: -ngl: the plan is for all of the card; give that budget to see what is run");
    }
    plan::show(&args.plan, args.json, &hardware, &work, &run)
}

fn executor_params(args: &Args, model: &Model) -> Result<ExecutorParams> {
    let trained = model.config.n_ctx_train;
    let n_ctx = match args.ctx_size {
        None => trained.min(4096),
        Some(0) => trained,
        Some(n) => n,
    };
    // With learned positions that is an error.
    if n_ctx > trained && model.config.positions.is_none() {
        tell!("warning: -c {n_ctx} is more than the {trained} tokens that the model was trained on");
    }
    let n_threads = args.threads.unwrap_or_else(common::default_threads);
    common::warn_of_threads(n_threads);
    Ok(ExecutorParams {
        n_threads,
        n_ctx,
        kv_type: args.batches.cache.kv_type(),
        mode: args.mode,
        n_ubatch: args.batches.n_ubatch(),
        isa: args.compute.isa(),
    })
}

/// The prompt from the flags, from a pipe, or none.
fn prompt(args: &Args) -> Result<Option<String>> {
    if let Some(text) = given_prompt(args)? {
        return Ok(Some(text));
    }
    if stdin().is_terminal() {
        ensure!(!args.json, "--json needs a prompt: give -p, -f, or pipe one in");
        return Ok(None);
    }
    let text = models::read_standard_input(MOST_PROMPT, &Silent)?;
    Ok(Some(without_last_newline(text, args)))
}

/// Editors and `echo` end a text with a newline that is not meant; where ids are asked for, all of it counts.
fn without_last_newline(mut text: String, args: &Args) -> String {
    if !args.tokenize && text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn given_prompt(args: &Args) -> Result<Option<String>> {
    if let Some(path) = &args.file {
        return models::read_text(path, MOST_PROMPT, &Silent).map(|t| Some(without_last_newline(t, args)));
    }
    let Some(text) = &args.prompt else { return Ok(None) };
    match text.to_str() {
        Some(text) => Ok(Some(text.to_owned())),
        None => bail!("-p: the prompt is not UTF-8; set the terminal to UTF-8 or give it with -f"),
    }
}

/// How special tokens count that are written in the prompt.
fn special(args: &Args) -> Special {
    if args.parse_special { Special::Parse } else { Special::AsText }
}

fn tokenize(args: &Args) -> Result<()> {
    let text = prompt(args)?.context("--tokenize needs a prompt: give -p, -f, or pipe one in")?;
    let path = args.which.path(&Bar::new())?;
    let gguf = models::open_file(path.as_deref())?;
    let tokenizer: Tokenizer = models::tokenizer(&gguf)?;
    let ids = if args.chat.is_asked_for() {
        let chat = args.chat.chat(&gguf, &tokenizer)?;
        let messages: Vec<_> = chat.system.iter().cloned().chain([template::user(&text)]).collect();
        chat.encode(&messages, usize::MAX)?.tokens
    } else {
        tokenizer.encode_prompt(&text, special(args), !args.no_bos)?
    };
    if args.json {
        return print_json(serde_json::to_string_pretty(&serde_json::json!({ "tokens": ids }))?);
    }
    let ids: Vec<_> = ids.iter().map(u32::to_string).collect();
    print(ids.join(" ") + "\n")
}
