//! Prompts of several blocks of keys through the command.

use crate::support::{Outcome, tool};

/// What follows a prompt of a few hundred tokens.
fn said(flags: &[&str]) -> String {
    let prompt = "Once upon a time there was a little dog who lived in a house by the sea. ".repeat(12);
    let mut command = tool("run");
    command.args(["--temp", "0", "-n", "6", "--ignore-eos", "-c", "512", "-p", &prompt]).args(flags);
    Outcome::from(command.output().unwrap()).ok().stdout
}

#[test]
fn the_text_depends_on_the_prompt_and_not_on_how_it_is_computed() {
    for cache in ["f16", "q8_0", "f32"] {
        let whole = said(&["-t", "1", "--cache-type", cache]);
        assert!(whole.trim().len() > 880, "{whole}");
        for flags in [["-t", "3", "-ub", "100"], ["-t", "2", "-ub", "7"]] {
            assert_eq!(whole, said(&[&flags[..], &["--cache-type", cache]].concat()), "{cache}, {flags:?}");
        }
    }
}
