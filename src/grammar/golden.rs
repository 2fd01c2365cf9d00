//! Grammars and texts as llama.cpp's own code takes them: `scripts/make_grammar_golden.py` has written what it says.

use super::automaton::{Automaton, DEAD};
use super::graph::Graph;
use super::*;
use serde_json::Value;
use std::path::Path;

/// Where both differ, and why.
const DIFFERENT: [(&str, &str); 1] = [(
    "root ::=\n  \"a\"\n  | \"b\"\n  | \"c\"",
    "an alternative may begin a line, where llama.cpp wants it behind the one before",
)];

/// What a text is to a grammar: `whole`, `begins` where more must follow, or `no`.
fn judged(rules: &Rules, text: &str) -> Result<&'static str> {
    let (mut automaton, mut state) = Automaton::new(Graph::new(rules, 0, &|text| bail!("{text}?"))?)?;
    for byte in text.bytes() {
        state = automaton.after(state, byte)?;
    }
    Ok(if automaton.is_complete(state) {
        "whole"
    } else if state == DEAD {
        "no"
    } else {
        "begins"
    })
}

#[test]
fn grammars_mean_what_they_mean_to_llama_cpp() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/grammars.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut n_grammars, mut n_texts, mut differing) = (0, 0, Vec::new());
    for case in &cases {
        let grammar = case["grammar"].as_str().unwrap();
        let rules = Rules::from_gbnf(grammar, "g").and_then(|rules| judged(&rules, "").map(|_| rules));
        match (&rules, case["texts"].as_object()) {
            (Err(_), None) => {}
            (Ok(rules), Some(texts)) => {
                n_grammars += 1;
                n_texts += texts.len();
                for (text, wanted) in texts {
                    let own = judged(rules, text).unwrap();
                    if own != wanted {
                        differing.push((grammar, format!("{text:?} is {own} here, and {wanted} to llama.cpp")));
                    }
                }
            }
            (Ok(_), None) => differing.push((grammar, "is none to llama.cpp".to_owned())),
            (Err(error), Some(_)) => differing.push((grammar, format!("is one to llama.cpp; here: {error:#}"))),
        }
    }
    assert!(n_grammars >= 50 && n_texts >= 500, "{n_grammars} grammars, {n_texts} texts");
    let unknown: Vec<_> =
        differing.iter().filter(|(grammar, _)| DIFFERENT.iter().all(|(known, _)| known != grammar)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(DIFFERENT.iter().all(|(known, _)| differing.iter().any(|(grammar, _)| grammar == known)));
}
