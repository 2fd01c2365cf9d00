//! Arguments that say how tokens are drawn.

use super::models;
use super::terminal::tell;
use anyhow::Result;
use clap::Args;
use powerinfer::grammar::Rules;
use powerinfer::printable::printable;
use powerinfer::progress::Silent;
use powerinfer::sampler::{Kind, LogitBias, SamplerParams};
use powerinfer::units::Bytes;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// How the next token is drawn.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// Seed for sampling; -1: a new one each time
    #[arg(short, long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    seed: i64,
    /// Temperature; 0 is greedy
    #[arg(long, visible_alias = "temperature", value_name = "X", default_value_t = 0.8, allow_negative_numbers = true)]
    temp: f32,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 40, allow_negative_numbers = true)]
    top_k: i32,
    /// Keep the most likely tokens whose probabilities add up to P; 1 keeps all
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f32,
    /// Keep tokens at least P times as likely as the most likely one; 0 keeps all
    #[arg(long, value_name = "P", default_value_t = 0.05, allow_negative_numbers = true)]
    min_p: f32,
    /// Keep tokens whose logits are at most N standard deviations below the greatest; 0 or less keeps all
    #[arg(long, visible_alias = "top-n-sigma", value_name = "N", default_value_t = -1.0, allow_negative_numbers = true)]
    top_nsigma: f32,
    /// Keep tokens about as surprising as is to be expected, with probability P together; 1 keeps all
    #[arg(long, visible_alias = "typical-p", value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    typical: f32,
    /// How often XTC leaves out the most likely tokens; 0 is never
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    xtc_probability: f32,
    /// XTC leaves out all tokens of probability P or more except for the least likely of them; above 0.5 is off
    #[arg(long, value_name = "P", default_value_t = 0.1, allow_negative_numbers = true)]
    xtc_threshold: f32,
    /// Penalty for repeating recent tokens; 1 is off
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// How many of the last tokens count as recent; -1: all of them
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true)]
    repeat_last_n: i32,
    /// Subtracted from the logit of a token that is among the recent ones; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Subtracted from the logit of a token for each time that it is among the recent ones; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Strength of DRY, which makes it less likely that a repetition goes on; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    dry_multiplier: f32,
    /// DRY grows by this factor with each repeated token
    #[arg(long, value_name = "X", default_value_t = 1.75, allow_negative_numbers = true)]
    dry_base: f32,
    /// DRY leaves repetitions of fewer tokens alone
    #[arg(long, value_name = "N", default_value_t = 2, allow_negative_numbers = true)]
    dry_allowed_length: i32,
    /// How many of the last tokens DRY searches for repetitions; 0 is off, -1: all of them
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    dry_penalty_last_n: i32,
    /// A text that no repetition goes beyond, in place of the usual ones (line break, colon, quotation mark, asterisk); may be given
    /// several times; none: nothing
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    dry_sequence_breaker: Vec<String>,
    /// How far the temperature goes up and down with the entropy of the next token; 0 is off
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    dynatemp_range: f32,
    /// The power of the entropy that moves the temperature
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    dynatemp_exp: f32,
    /// Mirostat 1 or 2 in place of all other samplers but the temperature; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    mirostat: u8,
    /// How fast mirostat learns
    #[arg(long, value_name = "X", default_value_t = 0.1, allow_negative_numbers = true)]
    mirostat_lr: f32,
    /// The surprise that mirostat aims at, in bits per token
    #[arg(long, value_name = "X", default_value_t = 5.0, allow_negative_numbers = true)]
    mirostat_ent: f32,
    /// Add X to the logit of a token: 15043+1 makes it likelier, 15043-1 less likely, 15043-inf impossible; may be given several
    /// times
    #[arg(short, long, value_name = "ID+X", value_parser = str::parse::<LogitBias>)]
    logit_bias: Vec<LogitBias>,
    /// The samplers to use, in this order [default: penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature]
    #[arg(long, value_name = "NAMES", value_parser = Chain::names, overrides_with = "sampling_seq")]
    samplers: Option<Chain>,
    /// The same by their letters [default: edskypmxt]
    #[arg(long, visible_alias = "sampler-seq", value_name = "LETTERS", value_parser = Chain::letters)]
    sampling_seq: Option<Chain>,
    /// A grammar in GBNF that answers must follow
    #[arg(long, value_name = "GBNF", allow_hyphen_values = true, overrides_with_all = ["grammar_file", "json_schema", "json_schema_file"])]
    grammar: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE", overrides_with_all = ["grammar", "json_schema", "json_schema_file"])]
    grammar_file: Option<PathBuf>,
    /// A JSON schema of which answers must be; {} is any object
    #[arg(short, long, value_name = "SCHEMA", overrides_with_all = ["grammar", "grammar_file", "json_schema_file"])]
    json_schema: Option<String>,
    /// The same from a file (-jf)
    #[arg(long, value_name = "FILE", overrides_with_all = ["grammar", "grammar_file", "json_schema"])]
    json_schema_file: Option<PathBuf>,
}

/// Samplers in their order; a type of its own, as a list would be a repeated argument.
#[derive(Clone)]
struct Chain(Vec<Kind>);

impl Chain {
    fn names(text: &str) -> Result<Self> {
        Kind::list(text).map(Self)
    }

    fn letters(text: &str) -> Result<Self> {
        Kind::sequence(text).map(Self)
    }
}

/// Bytes of a grammar or a schema at most.
const MOST_GRAMMAR: Bytes = Bytes(16 << 20);
/// Keys that are told of at most.
const MOST_TOLD: usize = 5;

impl Sampling {
    /// The grammar that answers must follow, if any.
    ///
    /// # Errors
    /// When it cannot be read or means nothing, in one line that names the flag or the file.
    pub fn rules(&self) -> Result<Option<Rules>> {
        let read = |path: &PathBuf| models::read_text(path, MOST_GRAMMAR, &Silent);
        let rules = if let Some(text) = &self.grammar {
            Rules::from_gbnf(text, "--grammar")
        } else if let Some(path) = &self.grammar_file {
            Rules::from_gbnf(&read(path)?, &path.display().to_string())
        } else if let Some(text) = &self.json_schema {
            Rules::from_json_schema(text, "--json-schema")
        } else if let Some(path) = &self.json_schema_file {
            Rules::from_json_schema(&read(path)?, &path.display().to_string())
        } else {
            return Ok(None);
        };
        let rules = rules?;
        if !rules.unknown.is_empty() {
            let keys: Vec<&str> = rules.unknown.iter().take(MOST_TOLD).map(String::as_str).collect();
            let more = if rules.unknown.len() > MOST_TOLD { " and others" } else { "" };
            let keys = printable(&format!("{}{more}", keys.join(", "))).into_owned();
            tell!("note: {}: restricts nothing here, as it is not known: {keys}", printable(&rules.source));
        }
        Ok(Some(rules))
    }

    /// The settings of the sampler, with a seed of their own where none is given.
    pub fn params(&self) -> SamplerParams {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64) & 0xffff_ffff;
        let usual = SamplerParams::default();
        let chain = self.samplers.as_ref().or(self.sampling_seq.as_ref());
        SamplerParams {
            samplers: chain.map_or(usual.samplers, |chain| chain.0.clone()),
            temp: self.temp,
            dynatemp_range: self.dynatemp_range,
            dynatemp_exponent: self.dynatemp_exp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            top_n_sigma: self.top_nsigma,
            typical_p: self.typical,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            repeat_last_n: self.repeat_last_n,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_penalty_last_n: self.dry_penalty_last_n,
            dry_sequence_breakers: breakers(&self.dry_sequence_breaker).unwrap_or(usual.dry_sequence_breakers),
            mirostat: self.mirostat,
            mirostat_tau: self.mirostat_ent,
            mirostat_eta: self.mirostat_lr,
            logit_bias: self.logit_bias.clone(),
            seed: u64::try_from(self.seed).unwrap_or_else(|_| clock()),
        }
    }
}

/// The breakers that are given, where any are: "none" takes back those before it.
fn breakers(given: &[String]) -> Option<Vec<String>> {
    let from = given.iter().rposition(|breaker| breaker == "none").map_or(0, |none| none + 1);
    (!given.is_empty()).then(|| given[from..].to_vec())
}
