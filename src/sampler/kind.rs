//! The samplers that a chain can be made of, as `--samplers` and `--sampling-seq` name them.

use anyhow::{Result, anyhow, bail};

/// A sampler of the chain. Names and letters are llama.cpp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Repeat, frequency and presence penalty.
    Penalties,
    /// Penalty for going on with a repetition.
    Dry,
    /// Logits near the greatest, in standard deviations.
    TopNSigma,
    /// The k most likely.
    TopK,
    /// As surprising as is to be expected.
    Typical,
    /// The most likely that reach a sum.
    TopP,
    /// Those near the most likely.
    MinP,
    /// Not always the most likely.
    Xtc,
    /// Sharpens or flattens.
    Temperature,
}

impl Kind {
    /// In the order that is used unless the user gives another.
    pub const ALL: [Self; 9] = [
        Self::Penalties,
        Self::Dry,
        Self::TopNSigma,
        Self::TopK,
        Self::Typical,
        Self::TopP,
        Self::MinP,
        Self::Xtc,
        Self::Temperature,
    ];

    /// Whether the most likely token is never dropped.
    pub(super) fn keeps_best(self) -> bool {
        matches!(self, Self::TopNSigma | Self::TopK | Self::TopP | Self::MinP)
    }

    /// All names, the usual one first, and the letter.
    fn names(self) -> (&'static [&'static str], char) {
        match self {
            Self::Penalties => (&["penalties"], 'e'),
            Self::Dry => (&["dry"], 'd'),
            Self::TopNSigma => (&["top_n_sigma", "top-n-sigma"], 's'),
            Self::TopK => (&["top_k", "top-k"], 'k'),
            Self::Typical => (&["typ_p", "typ-p", "typ", "typical", "typical-p"], 'y'),
            Self::TopP => (&["top_p", "top-p", "nucleus"], 'p'),
            Self::MinP => (&["min_p", "min-p"], 'm'),
            Self::Xtc => (&["xtc"], 'x'),
            Self::Temperature => (&["temperature", "temp"], 't'),
        }
    }

    /// The samplers that `names` lists, separated by semicolons; none for an empty list.
    ///
    /// # Errors
    /// When a name is unknown.
    pub fn list(names: &str) -> Result<Vec<Self>> {
        let names = names.split(';').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| Self::find(name, |kind| kind.names().0.contains(&name))).collect()
    }

    /// The samplers that `letters` lists.
    ///
    /// # Errors
    /// When a letter is unknown.
    pub fn sequence(letters: &str) -> Result<Vec<Self>> {
        letters.chars().map(|c| Self::find(&c.to_string(), |kind| kind.names().1 == c)).collect()
    }

    fn find(name: &str, is: impl Fn(Self) -> bool) -> Result<Self> {
        if ["infill", "i", "adaptive_p", "adaptive-p", "a"].contains(&name) {
            bail!("sampler {name} is not available here");
        }
        Self::ALL.into_iter().find(|kind| is(*kind)).ok_or_else(|| {
            let known = Self::ALL.map(|kind| format!("{} ({})", kind.names().0[0], kind.names().1));
            anyhow!("no sampler is called \"{}\"; there are {}", name.escape_debug(), known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_letters_mean_the_same() {
        let usual = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature";
        assert_eq!(Kind::list(usual).unwrap(), Kind::ALL);
        assert_eq!(Kind::sequence("edskypmxt").unwrap(), Kind::ALL);
        assert_eq!(Kind::list("temp; nucleus;;top-k").unwrap(), [Kind::Temperature, Kind::TopP, Kind::TopK]);
        assert_eq!(Kind::list("").unwrap(), []);
        assert_eq!(Kind::sequence("").unwrap(), []);
    }

    #[test]
    fn unknown_ones_are_named_with_those_that_are_known() {
        let message = Kind::list("top_k;topp").unwrap_err().to_string();
        assert!(message.starts_with("no sampler is called \"topp\"; there are penalties (e), dry (d), "), "{message}");
        assert!(Kind::sequence("kz").unwrap_err().to_string().contains("\"z\""));
        assert!(Kind::list("infill").unwrap_err().to_string().contains("not available"));
        assert!(Kind::list("TOP_K").is_err());
    }
}
