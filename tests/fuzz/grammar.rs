//! Grammars and JSON schemas that users write.

use super::target::Target;
use anyhow::{Result, ensure};
use powerinfer::grammar::{Grammar, Rules};
use powerinfer::tokenizer::{Tokenizer, Vocab};

/// Tokens that are followed through a grammar at most.
const STEPS: usize = 60;

/// A vocabulary of all bytes, and of some strings of JSON.
fn tokenizer() -> Tokenizer {
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let words = ["{\"", "\":", ",\"", "}]", "true", "\\u00", "aa", "ab", "é"].map(String::from);
    let tokens: Vec<Vec<u8>> = ["<unk>", "<s>", "</s>"]
        .map(String::from)
        .into_iter()
        .chain(bytes)
        .chain(words)
        .map(String::into_bytes)
        .collect();
    let kinds = |id: usize| {
        if id == 0 {
            2
        } else if id < 3 {
            3
        } else if id < 259 {
            6
        } else {
            1
        }
    };
    let token_types = (0..tokens.len()).map(kinds).collect();
    let scores = vec![0.0; tokens.len()];
    Tokenizer::new(Vocab { model: "llama".to_owned(), tokens, token_types, scores, ..Vocab::default() })
        .expect("a vocabulary")
}

/// Follows a grammar, mostly by what ends things; returns the text where it came to its end.
fn follow(rules: &Rules, tokenizer: &Tokenizer) -> Result<Option<Vec<u8>>> {
    let mut grammar = Grammar::new(rules, tokenizer)?;
    let n = tokenizer.n_tokens() as u32;
    let mut text = Vec::new();
    for step in 0..STEPS {
        let ends = |id: &u32| tokenizer.is_end_of_generation(*id);
        if grammar.is_over() || (0..n).any(|id| ends(&id) && grammar.allows(id)) {
            return Ok(Some(text));
        }
        let allowed: Vec<u32> = (0..n).filter(|id| grammar.allows(*id)).collect();
        ensure!(!allowed.is_empty(), "a grammar that goes on allows something");
        let closing = allowed.iter().find(|id| [&b"\""[..], b"}", b"]", b":"].contains(&tokenizer.token_bytes(**id)));
        let token = closing.filter(|_| step % 3 > 0).or(allowed.get(step * 7 % allowed.len())).copied().unwrap_or(0);
        text.extend_from_slice(tokenizer.token_bytes(token));
        grammar.advance(token)?;
    }
    Ok(None)
}

pub struct Grammars(Tokenizer);

impl Grammars {
    pub fn new() -> Self {
        Self(tokenizer())
    }
}

impl Target for Grammars {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "grammar"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let json = "root ::= object\nvalue ::= object | array | string | number | (\"true\" | \"null\") ws\nobject ::= \"{\" ws (string \":\" ws \
                    value (\",\" ws string \":\" ws value)*)? \"}\" ws\narray ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\nstring ::= \
                    \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}))* \"\\\"\" ws\nnumber ::= \"-\"? \
                    [0-9]{1,9} ws\nws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";
        let others =
            ["root ::= [a-c]+ \"x\"? | <[5]> !<[6]> # end", "root ::= (\"ab\"{2,} | .){3} a\na ::= \"\" | \"é\" a"];
        [json].into_iter().chain(others).map(|text| text.as_bytes().to_vec()).collect()
    }

    fn words(&self) -> &[&str] {
        &[
            "::=",
            "root",
            "(",
            ")*",
            "{0,999}",
            "{9999}",
            "[^",
            "]",
            "\"",
            "\\x",
            "\\U0010FFFF",
            "|",
            "<[2]>",
            "!<s>",
            "\n",
            "#",
            "+",
            "?",
        ]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        follow(&Rules::from_gbnf(std::str::from_utf8(input)?, "input")?, &self.0).map(drop)
    }
}

pub struct Schemas(Tokenizer);

impl Schemas {
    pub fn new() -> Self {
        Self(tokenizer())
    }
}

impl Target for Schemas {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "schema"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let texts = [
            r##"{"type":"object","properties":{"a":{"type":"string","maxLength":3},"b":{"$ref":"#/$defs/x"}},"required":["a"],"additionalProperties":{"type":"null"},"$defs":{"x":{"type":"array","items":{"type":"integer","minimum":-5,"maximum":70},"minItems":1,"maxItems":3}}}"##,
            r##"{"anyOf":[{"enum":[1,"a",{"k":[null]}]},{"type":["number","boolean"],"exclusiveMinimum":-2.5},{"pattern":"^[a-f]{2}\\d|x$"}]}"##,
            r##"{"allOf":[{"properties":{"p":{"type":"integer"}}},{"required":["p"],"properties":{"p":{"maximum":9}}}],"prefixItems":[true]}"##,
        ];
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    fn words(&self) -> &[&str] {
        &[
            "{",
            "}",
            "[",
            "]",
            ",",
            "\"$ref\":\"#\"",
            "\"allOf\":[",
            "\"minLength\":9999",
            "1e300",
            "-",
            "\"format\":\"date\"",
            "\"(a*)*\"",
            "true",
            "\\ud800",
        ]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let rules = Rules::from_json_schema(std::str::from_utf8(input)?, "input")?;
        if let Some(text) = follow(&rules, &self.0)? {
            let text = String::from_utf8(text)?;
            serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        Ok(())
    }
}
