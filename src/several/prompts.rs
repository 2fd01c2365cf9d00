//! Files of prompts: one per line, as text or as JSON objects.

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

/// What the lines of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prompts.
    Text,
    /// JSON objects.
    Jsonl,
}

/// A prompt with what it asks for itself; what it does not say is as for all.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinePrompt {
    /// The line on which it stands, from 1 on.
    #[serde(skip)]
    pub line: usize,
    /// The text.
    pub prompt: String,
    /// Tokens to generate; a negative number is until the text ends.
    pub n_predict: Option<i64>,
    /// Of its random numbers.
    pub seed: Option<u64>,
    /// Texts before which it ends.
    pub stop: Option<Vec<String>>,
    /// Temperature.
    pub temperature: Option<f32>,
}

/// The prompts of a file with the contents `text`, which messages call `name`. Empty lines are none.
///
/// # Errors
/// When there is none, and when a line is no object of these keys: which line, and where on it.
pub fn read(text: &str, format: Format, name: &str) -> Result<Vec<LinePrompt>> {
    let mut prompts = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let prompt = match format {
            Format::Text => LinePrompt { prompt: line.to_owned(), ..LinePrompt::default() },
            Format::Jsonl => match serde_json::from_str::<LinePrompt>(line) {
                Ok(prompt) => prompt,
                Err(error) => {
                    // The line that it names is that of this text, which has one.
                    let (text, column) = (error.to_string(), error.column());
                    let what = text.split(" at line ").next().unwrap_or_default();
                    bail!("{name}: line {}, column {column}: {what}", number + 1)
                }
            },
        };
        prompts.push(LinePrompt { line: number + 1, ..prompt });
    }
    ensure!(!prompts.is_empty(), "{name}: has no prompts; one per line is wanted");
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_prompt_and_empty_ones_are_none() {
        let prompts = read("one\n\n two \r\n  \nthree", Format::Text, "x").unwrap();
        let got: Vec<(usize, &str)> = prompts.iter().map(|p| (p.line, p.prompt.as_str())).collect();
        assert_eq!(got, [(1, "one"), (3, " two "), (5, "three")]);
        assert_eq!(
            read("\n \n", Format::Text, "x").unwrap_err().to_string(),
            "x: has no prompts; one per line is wanted"
        );
    }

    #[test]
    fn objects_may_say_more_and_nothing_else() {
        let line =
            r#"{"prompt": "a\nb", "n_predict": -1, "seed": 18446744073709551615, "stop": ["x"], "temperature": 0.5}"#;
        let got = &read(line, Format::Jsonl, "x").unwrap()[0];
        assert_eq!(
            (got.prompt.as_str(), got.n_predict, got.seed, got.temperature),
            ("a\nb", Some(-1), Some(u64::MAX), Some(0.5))
        );
        assert_eq!(got.stop, Some(vec!["x".to_owned()]));
        let deep = "[".repeat(100_000);
        for (wrong, why) in [
            ("{\"prompt\": \"a\"}\n{\"prompt\": 1}", "x: line 2, column 12: invalid type"),
            ("{\"prompt\": \"a\", \"temp\": 1}", "x: line 1, column 22: unknown field `temp`, expected"),
            ("{\"n_predict\": 1}", "missing field `prompt`"),
            ("{\"prompt\": \"a\"} 1", "trailing characters"),
            ("{\"prompt\": \"a\", \"seed\": -1}", "invalid value"),
            ("{\"prompt\": \"a\", \"prompt\": \"b\"}", "duplicate field"),
            ("\u{0}", "expected value"),
            (&deep, "x: line 1, column "),
        ] {
            let error = read(wrong, Format::Jsonl, "x").unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
    }
}
