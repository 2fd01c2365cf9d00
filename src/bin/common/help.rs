//! How help looks in all commands: flags under headings, short with `-h`, in full with `--help`.

use super::version;
use clap::{Arg, ArgAction, Command};

/// Headings, and the arguments under them.
type Headings = &'static [(&'static str, &'static [&'static str])];

/// Of all commands. What stands here goes before what an argument says itself: the heading of a struct that is flattened holds for
/// all that follows it, too.
const HEADINGS: Headings = &[
    (
        "Model",
        &["model", "hf_repo", "hf_file", "hf_token", "offline", "models", "list_models", "activation", "check_tensors"],
    ),
    ("Prompt", &["prompt", "no_escape", "tokenize", "no_bos", "verbose_prompt"]),
    ("Texts", &["file", "random_tokens", "tokens", "shard", "text"]),
    ("Length", &["n_predict", "ignore_eos"]),
    (
        "Output",
        &[
            "output",
            "no_display_prompt",
            "special",
            "stats",
            "json",
            "quiet",
            "plot",
            "progress_json",
            "recipe",
            "down",
            "no_kl",
        ],
    ),
    ("Processor", &["threads", "mode", "ubatch_size", "batch_size", "isa"]),
    ("Graphics card", &["device", "list_devices", "n_gpu_layers", "card_limit", "vram_budget", "vram_total"]),
    ("Plan", &["dry_run", "hardware", "explain", "shape"]),
    ("Help", &["help", "version"]),
];
/// Of one command each; these go before the others.
const OF_ONE: &[(&str, Headings)] = &[
    ("powerinfer-run", &[("Prompt", &["file", "parse_special"]), ("Length", &["ctx_size"]), ("Plan", &["plot"])]),
    (
        "powerinfer-profile",
        &[
            ("Texts", &["ctx_size", "parse_special", "seed"]),
            ("Profiles that exist", &["merge", "show", "compare"]),
            (
                "Predictors and thresholds",
                &[
                    "samples",
                    "samples_cap",
                    "predictor",
                    "samples_from",
                    "target",
                    "predictor_size",
                    "threshold_search",
                    "kl_budget",
                ],
            ),
            ("Report", &["hardware", "vram_budget", "vram_total"]),
        ],
    ),
    (
        "powerinfer-split",
        &[
            ("Order of neurons", &["profile", "gpu_index", "keep_order", "predictor"]),
            ("Plan", &["ctx_size", "mode", "parallel", "plot"]),
        ],
    ),
    (
        "powerinfer-bench",
        &[
            ("Tests", &["n_prompt", "n_gen", "pg", "n_depth", "parallel", "repetitions", "no_warmup", "delay"]),
            ("Texts", &["parse_special"]),
            ("Synthetic models", &["synthetic", "synthetic_plain", "synthetic_layers", "synthetic_seed", "cache_dir"]),
            ("Processor", &["hot", "predictor"]),
            ("Machine", &["hardware", "measure_hardware", "kernels", "types", "predict"]),
        ],
    ),
];
/// What is under none of them.
const OTHERS: &str = "Output";
/// Behind `-h`.
const MORE: &str = "--help says more of each flag, and has examples.";

/// `command` with its flags under headings.
pub fn dressed(command: Command) -> Command {
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let name = command.get_name().to_owned();
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
        .mut_args(|arg| with_heading(arg, &name))
        .mut_args(with_short_help)
}

fn with_heading(arg: Arg, command: &str) -> Arg {
    let id = arg.get_id().as_str();
    let of = |headings: Headings| headings.iter().find(|(_, ids)| ids.contains(&id)).map(|(heading, _)| *heading);
    let of_one = OF_ONE.iter().find(|(name, _)| *name == command).and_then(|(_, headings)| of(headings));
    match of_one.or_else(|| of(HEADINGS)) {
        Some(heading) => arg.help_heading(heading),
        None if arg.get_help_heading().is_some() => arg,
        None => arg.help_heading(OTHERS),
    }
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
