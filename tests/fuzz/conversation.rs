//! Conversations in JSON, and texts that are cut before stop strings.

use super::target::Target;
use anyhow::Result;
use powerinfer::conversation::{from_json, to_json};
use powerinfer::stop_strings::StopStrings;

pub struct Conversations;

/// Wherever pieces end, the text is cut at the same place, and nothing of it is lost.
fn cut(text: &str) {
    let stops = ["user", "r\"", "\"role\": \"", "\u{e9}", "er"].map(str::to_owned);
    let by = |n: usize| {
        let (mut search, mut out) = (StopStrings::new(&stops), String::new());
        for piece in text.chars().collect::<Vec<_>>().chunks(n) {
            let pushed = search.push(&piece.iter().collect::<String>());
            out += &pushed.text;
            if pushed.stop.is_some() {
                return (out, pushed.stop);
            }
        }
        (out + &search.finish(), None)
    };
    let whole = by(text.len().max(1));
    assert!(text.starts_with(&whole.0) && (whole.1.is_some() || whole.0 == text), "{whole:?}");
    for n in 1..4 {
        assert_eq!(by(n), whole, "pieces of {n}");
    }
}

impl Target for Conversations {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "conversation"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        [
            r#"[{"role": "system", "content": "a"}, {"role": "user", "content": "b\n\u00e9"}, {"role": "assistant", "content": ""}]"#,
            r#"{"model": "m", "messages": [{"role": "user", "content": "hi", "name": "me"}], "temperature": 0.5}"#,
            "[]",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into()
    }

    fn words(&self) -> &[&str] {
        &[
            "\"role\"",
            "\"content\"",
            "\"messages\"",
            "\"user\"",
            "system",
            "null",
            "1e999",
            "[",
            "{",
            "\\ud83e",
            "\u{e9}",
        ]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(input);
        cut(&text);
        let said = from_json(&text)?;
        assert!(said.iter().skip(1).all(|message| message.role != "system"));
        assert_eq!(from_json(&to_json(&said)?)?, said);
        Ok(())
    }
}
