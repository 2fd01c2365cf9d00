//! What the sampling flags of the command line set.

use super::bias::LogitBias;
use super::kind::Kind;
use anyhow::{Result, ensure};
use std::fmt::Display;

/// Settings of a [`Sampler`](super::Sampler); the defaults are llama.cpp's.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerParams {
    /// The samplers of the chain, in their order.
    pub samplers: Vec<Kind>,
    /// Divides the logits; 0 takes the most likely token instead of drawing.
    pub temp: f32,
    /// How far the temperature may go up and down with the entropy; 0 is not at all.
    pub dynatemp_range: f32,
    /// The power of the entropy that moves the temperature.
    pub dynatemp_exponent: f32,
    /// Keeps this many of the most likely tokens; 0 or less keeps all.
    pub top_k: i32,
    /// Keeps the fewest most likely tokens whose probabilities reach this sum, at least one; 1 keeps all.
    pub top_p: f32,
    /// Keeps the tokens at least this probable relative to the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens whose logits are at most so many standard deviations below the greatest; 0 or less keeps all.
    pub top_n_sigma: f32,
    /// Keeps the tokens about as surprising as is to be expected that have this probability together; 1 keeps all.
    pub typical_p: f32,
    /// How often the most likely tokens are left out where a less likely one would do; 0 is never.
    pub xtc_probability: f32,
    /// Probability of a token that would do; above 0.5, where there cannot be two, nothing is left out.
    pub xtc_threshold: f32,
    /// Weakens tokens seen recently: positive logits are divided by it, others multiplied; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from the logits of tokens seen recently, for each time; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted once from the logits of tokens seen recently; 0 is off.
    pub presence_penalty: f32,
    /// How many of the last tokens these three look at; 0 is off, -1 looks at all.
    pub repeat_last_n: i32,
    /// Subtracted from the logits of tokens that would go on with a repetition; 0 is off.
    pub dry_multiplier: f32,
    /// What it is multiplied by for each token of the repetition beyond the allowed length.
    pub dry_base: f32,
    /// Repetitions of fewer tokens are left alone.
    pub dry_allowed_length: i32,
    /// How many of the last tokens are searched for repetitions; 0 is off, -1 looks at all.
    pub dry_penalty_last_n: i32,
    /// Texts that no repetition goes beyond.
    pub dry_sequence_breakers: Vec<String>,
    /// 1 or 2 takes that version of mirostat in place of all samplers but the temperature; 0 is off.
    pub mirostat: u8,
    /// The surprise that mirostat aims at, in bits per token.
    pub mirostat_tau: f32,
    /// How fast mirostat learns.
    pub mirostat_eta: f32,
    /// Added to the logits of these tokens before anything else.
    pub logit_bias: Vec<LogitBias>,
    /// The same seed, parameters and logits give the same tokens on every platform.
    pub seed: u64,
}

impl Default for SamplerParams {
    fn default() -> Self {
        Self {
            samplers: Kind::ALL.to_vec(),
            temp: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            top_n_sigma: -1.0,
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_last_n: 64,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: -1,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

/// Fails unless `holds`, in one line that names the flag.
fn check(holds: bool, flag: &str, value: impl Display, wanted: &str) -> Result<()> {
    ensure!(holds, "{flag} {value}: must be {wanted}");
    Ok(())
}

impl SamplerParams {
    /// Rejects what has no meaning, in one line that names the flag.
    ///
    /// # Errors
    /// When there is something.
    pub fn validate(&self) -> Result<()> {
        let number = |flag: &str, value: f32, wanted: &str| check(value.is_finite(), flag, value, wanted);
        let positive =
            |flag: &str, value: f32, wanted: &str| check(value.is_finite() && value > 0.0, flag, value, wanted);
        let at_least_0 =
            |flag: &str, value: f32, wanted: &str| check(value.is_finite() && value >= 0.0, flag, value, wanted);
        let share = |flag: &str, value: f32| check((0.0..=1.0).contains(&value), flag, value, "between 0 and 1");
        let window = |flag: &str, n: i32| check(n >= -1, flag, n, "-1 (all tokens), 0 (off) or a number of tokens");

        at_least_0("--temp", self.temp, "0 (greedy) or a positive number")?;
        at_least_0("--dynatemp-range", self.dynatemp_range, "0 (off) or a positive number")?;
        at_least_0("--dynatemp-exp", self.dynatemp_exponent, "0 or a positive number")?;
        share("--top-p", self.top_p)?;
        share("--min-p", self.min_p)?;
        number("--top-nsigma", self.top_n_sigma, "a number (0 or less is off)")?;
        share("--typical", self.typical_p)?;
        share("--xtc-probability", self.xtc_probability)?;
        share("--xtc-threshold", self.xtc_threshold)?;
        positive("--repeat-penalty", self.repeat_penalty, "a positive number (1 is off)")?;
        number("--frequency-penalty", self.frequency_penalty, "a number (0 is off)")?;
        number("--presence-penalty", self.presence_penalty, "a number (0 is off)")?;
        window("--repeat-last-n", self.repeat_last_n)?;
        number("--dry-multiplier", self.dry_multiplier, "a number (0 is off)")?;
        check(self.dry_base.is_finite() && self.dry_base >= 1.0, "--dry-base", self.dry_base, "1 or more")?;
        check(self.dry_allowed_length >= 0, "--dry-allowed-length", self.dry_allowed_length, "a number of tokens")?;
        window("--dry-penalty-last-n", self.dry_penalty_last_n)?;
        check(self.mirostat <= 2, "--mirostat", self.mirostat, "0 (off), 1 or 2")?;
        at_least_0("--mirostat-ent", self.mirostat_tau, "0 or a positive number")?;
        at_least_0("--mirostat-lr", self.mirostat_eta, "0 or a positive number")
    }

    /// Rejects biases of tokens that a model with `n_tokens` does not have, in one line that names the flag.
    ///
    /// # Errors
    /// When there is one.
    pub fn check_tokens(&self, n_tokens: usize) -> Result<()> {
        for LogitBias { token, bias } in &self.logit_bias {
            ensure!(
                (*token as usize) < n_tokens,
                "--logit-bias {token}{bias:+}: the model has only {n_tokens} tokens; --tokenize shows the ids of a text"
            );
        }
        Ok(())
    }
}
