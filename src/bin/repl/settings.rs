//! `/set`: parameters of sampling that change within a conversation, by the names of their flags.

use crate::common::line;
use crate::common::sampling::Sampling;
use anyhow::{Context, Result, anyhow, ensure};
use clap::{Arg, ArgAction, CommandFactory, Parser};
use powerinfer::grammar::Rules;
use powerinfer::sampler::SamplerParams;

/// The flags of sampling alone.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true, args_override_self = true)]
struct Flags {
    #[command(flatten)]
    sampling: Sampling,
}

/// Flags of which the last one says what the grammar is.
const GRAMMARS: [&str; 4] = ["grammar", "grammar-file", "json-schema", "json-schema-file"];
/// In the place of a grammar: from now on there is none.
const NONE: &str = "none";

/// What comes of a change.
pub struct Changed {
    /// All parameters.
    pub params: SamplerParams,
    /// The rules of the grammar, or none, if that is what has changed.
    pub grammar: Option<Option<Rules>>,
    /// All settings.
    pub settings: Settings,
}

/// What has been set.
pub struct Settings {
    /// Flags without their dashes, and values: those of the command line, and what came later in their places.
    set: Vec<(String, String)>,
    seed: u64,
}

impl Settings {
    /// Those of the command line of `A`; `seed` is what it has come to.
    pub fn new<A: CommandFactory>(seed: u64) -> Self {
        let is_sampling = |name: &str| Flags::command().get_arguments().any(|arg| arg.get_long() == Some(name));
        let mut set = line::given::<A>();
        set.retain(|(name, _)| is_sampling(name));
        Self { set, seed }
    }

    /// The seed that sampling began with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A line for each parameter that has a value.
    pub fn list(&self) -> String {
        let command = Flags::command();
        let rows = command.get_arguments().filter_map(|arg| {
            let value = self.value(arg);
            let value = if arg.get_long() == Some("seed") { self.seed.to_string() } else { value };
            Some(format!("{:<22} {value}", arg.get_long()?)).filter(|_| !value.is_empty())
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    /// The value of a parameter; empty where it has none.
    fn value(&self, arg: &Arg) -> String {
        let of_arg = self.set.iter().filter(|(name, _)| arg.get_long() == Some(name));
        let mut values: Vec<String> = of_arg.map(|(_, value)| value.clone()).collect();
        if values.is_empty() {
            values = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        }
        values.join(" ")
    }

    /// One parameter by the name of its flag, also with underscores and dashes in front: the name, and its value.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn one(&self, name: &str) -> Result<String> {
        let arg = found(name)?;
        let value = self.value(&arg);
        Ok(format!("{} {}", arg.get_long().unwrap_or_default(), if value.is_empty() { "(none)" } else { &value }))
    }

    /// What comes of changing `name` to `value`.
    ///
    /// # Errors
    /// In one line: there is none of that name, or it has no such value.
    pub fn with(&self, name: &str, value: &str) -> Result<Changed> {
        let arg = found(name)?;
        let name = arg.get_long().context("has no name")?;
        let is_grammar = GRAMMARS.contains(&name);
        let mut set = self.set.clone();
        set.retain(|(other, _)| other != name && !(is_grammar && GRAMMARS.contains(&other.as_str())));
        if !is_grammar || value != NONE {
            set.push((name.to_owned(), value.to_owned()));
        }
        let line = set.iter().map(|(name, value)| format!("--{name}={value}"));
        let parsed = Flags::try_parse_from(line).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            anyhow!(line)
        });
        let sampling = parsed?.sampling;
        let grammar = is_grammar.then(|| sampling.rules()).transpose()?;
        let mut params = sampling.params();
        params.validate()?;
        // Without a seed of the user's each reading has another.
        let seeded = set.iter().any(|(name, value)| name == "seed" && !value.starts_with('-'));
        if !seeded && name != "seed" {
            params.seed = self.seed;
        }
        let seed = params.seed;
        Ok(Changed { params, grammar, settings: Self { set, seed } })
    }
}

/// The flag of that name.
fn found(name: &str) -> Result<Arg> {
    let wanted = name.trim_start_matches('-').replace('_', "-");
    let command = Flags::command();
    let mut takes_value =
        command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append));
    let is_called = |arg: &&Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        arg.get_long() == Some(&wanted) || aliases.contains(&wanted.as_str())
    };
    let arg = takes_value.find(is_called).cloned();
    ensure!(arg.is_some(), "{name}: is no parameter of sampling; /set lists them");
    arg.context("is none")
}
