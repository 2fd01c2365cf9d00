//! Flags of messages and of what all programs of llama.cpp take, whether they make use of it or not.

use super::Takes::{Maybe, Nothing, Value};
use super::values::SWITCH;
use super::{Group, already, note, refused};

const FORM: &str = "messages go to standard error, in one form";
const LEVEL: &str = "messages have one level; --stats and --verbose-prompt say more";
const DRAWN: &str = "no token is drawn";

/// What is said beside the results.
pub const MESSAGES: Group = Group {
    heading: "Messages",
    habits: &[
        refused(&["--log-file"], "messages go to standard error: 2> FILE keeps them"),
        note(&["--log-colors"], Maybe(SWITCH), FORM),
        note(&["--log-prefix", "--no-log-prefix", "--log-timestamps", "--no-log-timestamps"], Nothing, FORM),
        note(&["-v", "--verbose", "--log-verbose"], Nothing, LEVEL),
        note(&["-lv", "--verbosity", "--log-verbosity"], Value, LEVEL),
    ],
};

/// What llama-perplexity and llama-imatrix take as all programs do.
pub const OF_ALL: Group = Group {
    heading: "What all programs of llama.cpp take",
    habits: &[
        note(&["--log-disable"], Nothing, "messages go to standard error: 2> /dev/null drops them"),
        already(&["--perf"], Nothing, "Timings are printed."),
        note(&["--no-perf"], Nothing, "timings are printed in any case"),
        already(&["--no-escape"], Nothing, "Texts of files are taken as they are."),
        note(&["-e", "--escape"], Nothing, "texts of files are taken as they are, without unescaping"),
        note(&["-co", "--color"], Maybe(SWITCH), "text has no colours"),
        note(&["--swa-full"], Nothing, "layers with sliding windows keep what their windows hold"),
        already(&["-dt", "--defrag-thold"], Value, "Nothing is ever scattered in the KV cache."),
        already(&["-kvu", "--kv-unified", "-cb", "--cont-batching"], Nothing, "There is one sequence."),
        note(&["-s", "--seed"], Value, DRAWN),
        note(&["--temp", "--temperature", "--top-k", "--top-p", "--min-p", "--repeat-penalty"], Value, DRAWN),
        note(&["--samplers", "--sampler-seq", "--sampling-seq", "--mirostat"], Value, DRAWN),
        note(&["--ignore-eos"], Nothing, DRAWN),
    ],
};
