//! What is odd about a file and does not prevent its use.

use super::config::Config;
use crate::printable::printable;

/// The most keys that a note names, and characters of each.
const MAX_KEYS: usize = 100;
const MAX_CHARS: usize = 80;

/// One line each: on rows of the vocabulary without a token, and on keys that are not known.
pub(super) fn of(config: &Config, unknown: &[&str]) -> Vec<String> {
    let mut notes = Vec::new();
    if config.n_tokens < config.n_vocab {
        notes.push(format!(
            "token_embd.weight has {} rows for {} tokens; the others are padding and are never sampled",
            config.n_vocab, config.n_tokens
        ));
    }
    if !unknown.is_empty() {
        let key = |suffix: &&str| {
            let key: String = config.arch.chars().chain(['.']).chain(suffix.chars()).take(MAX_CHARS).collect();
            printable(&key).into_owned()
        };
        let mut list: Vec<String> = unknown.iter().take(MAX_KEYS).map(key).collect();
        if unknown.len() > MAX_KEYS {
            list.push(format!("and {} more", unknown.len() - MAX_KEYS));
        }
        notes.push(format!("keys that are not known are ignored: {}", list.join(", ")));
    }
    notes
}
