//! Flags that say how tokens are drawn.

use super::Takes::{Nothing, Value};
use super::{Group, already, note, refused, same};

/// Samplers, in llama.cpp's order.
pub const SAMPLING: Group = Group {
    heading: "Sampling",
    habits: &[
        same(&["-s", "--seed"], "seed"),
        same(&["--temp", "--temperature"], "temp"),
        same(&["--top-k"], "top-k"),
        same(&["--top-p"], "top-p"),
        same(&["--min-p"], "min-p"),
        same(&["--typical", "--typical-p"], "typical"),
        same(&["--top-nsigma", "--top-n-sigma"], "top-nsigma"),
        same(&["--xtc-probability"], "xtc-probability"),
        same(&["--xtc-threshold"], "xtc-threshold"),
        same(&["--repeat-last-n"], "repeat-last-n"),
        same(&["--repeat-penalty"], "repeat-penalty"),
        same(&["--presence-penalty"], "presence-penalty"),
        same(&["--frequency-penalty"], "frequency-penalty"),
        same(&["--dry-multiplier"], "dry-multiplier"),
        same(&["--dry-base"], "dry-base"),
        same(&["--dry-allowed-length"], "dry-allowed-length"),
        same(&["--dry-penalty-last-n"], "dry-penalty-last-n"),
        same(&["--dry-sequence-breaker"], "dry-sequence-breaker"),
        same(&["--dynatemp-range"], "dynatemp-range"),
        same(&["--dynatemp-exp"], "dynatemp-exp"),
        same(&["--mirostat"], "mirostat"),
        same(&["--mirostat-lr"], "mirostat-lr"),
        same(&["--mirostat-ent"], "mirostat-ent"),
        same(&["-l", "--logit-bias"], "logit-bias"),
        same(&["--samplers"], "samplers"),
        same(&["--sampler-seq", "--sampling-seq"], "sampling-seq"),
        same(&["--ignore-eos"], "ignore-eos"),
        same(&["--grammar"], "grammar"),
        same(&["--grammar-file"], "grammar-file"),
        same(&["-j", "--json-schema"], "json-schema"),
        same(&["-jf", "--json-schema-file"], "json-schema-file"),
        refused(
            &["--adaptive-target", "--adaptive-decay"],
            "adaptive-p is not a sampler here; --min-p and --xtc-probability come near it",
        ),
        note(&["-bs", "--backend-sampling"], Nothing, "tokens are drawn on the processor"),
        refused(&["--tfs"], "tail-free sampling is gone from llama.cpp, too; --min-p replaces it"),
        already(&["--no-penalize-nl"], Nothing, "Line breaks are penalized as any other token."),
        refused(&["--penalize-nl"], "line breaks are penalized as any other token; leave it out"),
        refused(&["--n-probs"], "probabilities of tokens are not printed; leave it out"),
        note(&["--slot-save-path"], Value, "there is no server; --prompt-cache keeps a session"),
    ],
};
