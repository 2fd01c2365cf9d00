//! Grammars and texts as llama.cpp's own code takes them: `scripts/make_grammar_golden.py` has written what it says.

use super::automaton::{Automaton, DEAD};
use super::graph::Graph;
use super::*;
use serde_json::Value;
use std::path::Path;

/// Where both differ, and why.
const DIFFERENT: [(&str, &str); 0] = [];

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
    let (mut n_grammars, mut n_texts, mut n_differing) = (0, 0, 0);
    for case in &cases {
        let grammar = case["grammar"].as_str().unwrap();
        let known = DIFFERENT.iter().any(|(known, _)| *known == grammar);
        let rules = Rules::from_gbnf(grammar, "g").and_then(|rules| judged(&rules, "").map(|_| rules));
        let agrees = match (&rules, case["texts"].as_object()) {
            (Err(_), None) => true,
            (Ok(rules), Some(texts)) => {
                n_grammars += 1;
                n_texts += texts.len();
                texts.iter().all(|(text, wanted)| {
                    let agrees = judged(rules, text).unwrap() == wanted;
                    assert!(agrees || known, "{grammar}\n{text:?} is {wanted} to llama.cpp");
                    agrees
                })
            }
            (rules, texts) => {
                let is_grammar = texts.is_some();
                assert!(
                    known,
                    "{grammar}\nto llama.cpp it is a grammar: {is_grammar}; here: {:?}",
                    rules.as_ref().err()
                );
                false
            }
        };
        assert!(agrees || known);
        n_differing += usize::from(!agrees);
    }
    assert!(n_grammars >= 50 && n_texts >= 500, "{n_grammars} grammars, {n_texts} texts");
    assert_eq!(n_differing, DIFFERENT.len());
}
