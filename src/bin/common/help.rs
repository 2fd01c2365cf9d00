//! How help looks in all commands: flags under headings, short with `-h`, in full with `--help`.

use super::version;
use clap::{Arg, ArgAction, Command};

/// Headings, and the arguments under them which say none themselves.
const HEADINGS: [(&str, &[&str]); 11] = [
    (
        "Model",
        &[
            "model",
            "hf_repo",
            "hf_file",
            "hf_token",
            "offline",
            "models",
            "list_models",
            "activation",
            "check_tensors",
            "mlock",
        ],
    ),
    ("Prompt", &["prompt", "no_escape", "parse_special", "tokenize", "no_bos", "verbose_prompt", "no_display_prompt"]),
    ("Texts", &["file", "random_tokens", "tokens", "shard", "text", "ctx_size"]),
    ("Length", &["n_predict", "ignore_eos"]),
    ("Chat", &["conversation", "interactive"]),
    ("Sampling", &["seed", "temp", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n"]),
    (
        "Tests",
        &[
            "n_prompt",
            "n_gen",
            "pg",
            "n_depth",
            "repetitions",
            "no_warmup",
            "delay",
            "perplexity",
            "kl",
            "kl_base",
            "chunks",
            "kernels",
            "types",
            "predict",
            "measure_hardware",
        ],
    ),
    ("Synthetic models", &["synthetic", "synthetic_plain", "synthetic_layers", "synthetic_seed", "cache_dir"]),
    ("Processor", &["threads", "mode", "ubatch_size", "batch_size", "isa", "cache_type", "hot"]),
    ("Graphics card", &["device", "list_devices", "n_gpu_layers", "card_limit", "vram_budget", "vram_total"]),
    ("Plan", &["dry_run", "hardware", "explain", "shape"]),
];
/// Arguments of `powerinfer-run` that are of texts elsewhere.
const OF_RUN: [(&str, &str); 2] = [("file", "Prompt"), ("ctx_size", "Length")];
/// What is under none of them.
const OTHERS: &str = "Output";
/// Behind `-h`.
const MORE: &str = "--help says more of each flag, and has examples.";

/// `command` with its flags under headings.
pub fn dressed(command: Command) -> Command {
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let name = command.get_name();
    let is_run = name == "powerinfer-run";
    let examples = format!(
        "{examples}\n\nllama.cpp's flags are understood, or refused by name: docs/llama-cpp.md. {name} completions SHELL prints completions\n\
         for bash, elvish, fish, powershell or zsh."
    );
    let help = Arg::new("help").short('h').long("help").action(ArgAction::Help);
    let version = Arg::new("version").short('V').long("version").action(ArgAction::Version);
    command
        .args_override_self(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(help.help("Print help: a line for each flag with -h, all of it with --help"))
        .arg(version.help(
            "Print the version; with --version also what it was built from, and the processor's instruction sets",
        ))
        .long_version(version::text())
        .after_help(MORE)
        .after_long_help(examples)
        .mut_args(|arg| with_heading(arg, is_run))
        .mut_args(with_short_help)
}

fn with_heading(arg: Arg, is_run: bool) -> Arg {
    if arg.get_help_heading().is_some() {
        return arg;
    }
    let id = arg.get_id().as_str();
    let of_run = OF_RUN.iter().find(|(of, _)| is_run && *of == id).map(|(_, heading)| *heading);
    let heading = HEADINGS.iter().find(|(_, ids)| ids.contains(&id)).map(|(heading, _)| *heading);
    let heading = of_run.or(heading).unwrap_or(OTHERS);
    arg.help_heading(heading)
}

/// All of it stays for `--help`.
fn with_short_help(arg: Arg) -> Arg {
    match (arg.get_help().map(ToString::to_string), arg.get_long_help()) {
        (Some(help), None) => {
            let short = first_clause(&help);
            // What holds without the flag stands at the end.
            let default = help[short.len()..].rfind(" [default: ").map(|at| &help[short.len() + at..]);
            arg.help(format!("{short}{}", default.unwrap_or_default())).long_help(help)
        }
        _ => arg,
    }
}

/// `text` up to its first semicolon or full stop outside of brackets.
fn first_clause(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return &text[..at],
            '.' if depth == 0 && text[at + 1..].starts_with(' ') => return &text[..at],
            _ => {}
        }
    }
    text
}
