//! `--logit-bias`: what is added to the logits of chosen tokens before anything else.

use super::candidates::Candidates;
use anyhow::{Context, Result, ensure};
use std::str::FromStr;

/// A token and what is added to its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitBias {
    /// The token.
    pub token: u32,
    /// Added to its logit; -inf means never.
    pub bias: f32,
}

impl FromStr for LogitBias {
    type Err = anyhow::Error;

    /// Reads `ID+X` or `ID-X`, as llama.cpp writes them; `ID-inf` is never.
    fn from_str(text: &str) -> Result<Self> {
        let form = "must be a token id, + or -, and a number, such as 15043-1 or 15043-inf";
        let at = text.find(['+', '-']).context(form)?;
        let (id, bias) = text.split_at(at);
        let token = id.trim().parse().ok().context(form)?;
        let number = &bias[1..];
        // "--5" and "+-5" are slips.
        ensure!(!number.starts_with(['+', '-']), form);
        let bias: f32 = bias.parse().ok().context(form)?;
        ensure!(!bias.is_nan(), form);
        ensure!(bias < f32::INFINITY, "a bias of +inf is none: give a large number, such as {id}+100");
        Ok(Self { token, bias })
    }
}

/// Adds the biases; those of one token add up.
pub fn apply(biases: &[LogitBias], candidates: &mut Candidates) {
    for bias in biases {
        candidates.set_logits_of([bias.token].into_iter(), |c| c.logit + f64::from(bias.bias));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_is_an_id_a_sign_and_a_number() {
        let read = |text: &str| text.parse::<LogitBias>().map(|b| (b.token, b.bias));
        assert_eq!(read("15043+1").unwrap(), (15043, 1.0));
        assert_eq!(read("15043-1.5").unwrap(), (15043, -1.5));
        assert_eq!(read("3-inf").unwrap(), (3, f32::NEG_INFINITY));
        assert_eq!(read("3+1e2").unwrap(), (3, 100.0));
        assert_eq!(read("3-1e-2").unwrap(), (3, -0.01));
        for wrong in
            ["", "3", "+1", "x+1", "3+", "3-x", "3--5", "3+-5", "3+nan", "-1+2", "3+inf", "99999999999+1", "3*4"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
