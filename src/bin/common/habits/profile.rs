//! Flags of llama-imatrix.

use super::Takes::{Maybe, Nothing, Value};
use super::values::SWITCH;
use super::{Group, already, by, note, refused, same, same_but, values};

const ON_CPU: &str = "profiles are made on the processor";

/// What is read and written.
pub const TEXT: Group = Group {
    heading: "Texts and profiles",
    habits: &[
        same_but(&["-f", "--file"], "file", "Several, also folders."),
        same_but(
            &["-o", "--output", "--output-file"],
            "output",
            "A profile; it does not hold an importance matrix of all tensors.",
        ),
        same(&["-c", "--ctx-size"], "ctx-size"),
        same(&["--parse-special"], "parse-special"),
        refused(&["--chunks"], "--tokens N says how much of the texts is profiled"),
        refused(&["--chunk", "--from-chunk"], "--shard I/N profiles a part of the windows"),
        refused(&["--in-file"], "--merge PROFILE PROFILE adds profiles up"),
        same(&["--show-statistics"], "show"),
        note(
            &["-ofreq", "--output-frequency", "--save-frequency"],
            Value,
            "progress is kept twice a minute; the same command resumes",
        ),
        already(&["--no-ppl"], Nothing, "Perplexity is measured by powerinfer-bench --perplexity."),
        refused(&["--ppl"], "powerinfer-bench --perplexity FILE measures it"),
        by(&["--process-output"], Maybe(SWITCH), values::process_output, "Profiles are of FFN neurons."),
        refused(&["--output-format"], "a profile has one format (docs/formats.md)"),
        refused(&["--nextn"], "layers that predict further tokens are not computed; leave it out"),
        same(&["-s", "--seed"], "seed"),
        refused(&["-p", "--prompt"], "-f FILE names a text; -f - is standard input"),
        refused(&["-bf", "--binary-file"], "-f FILE takes a text in UTF-8"),
    ],
};

/// What is computed with.
pub const PROCESSOR: Group = Group {
    heading: "Where it is computed",
    habits: &[
        note(
            &[
                "-ngl",
                "--gpu-layers",
                "--n-gpu-layers",
                "-dev",
                "--device",
                "-sm",
                "--split-mode",
                "-ts",
                "--tensor-split",
                "-mg",
                "--main-gpu",
            ],
            Value,
            ON_CPU,
        ),
        note(&["-ot", "--override-tensor", "-ncmoe", "--n-cpu-moe"], Value, ON_CPU),
        already(&["-cmoe", "--cpu-moe", "-nkvo", "--no-kv-offload"], Nothing, "Profiles are made on the processor."),
        already(&["-nopo", "--no-op-offload"], Nothing, "Profiles are made on the processor."),
        note(&["-kvo", "--kv-offload", "--op-offload"], Nothing, ON_CPU),
        note(&["-fit", "--fit"], Maybe(SWITCH), ON_CPU),
        note(&["-fitt", "--fit-target", "-fitc", "--fit-ctx"], Value, ON_CPU),
        refused(&["--list-devices"], "profiles are made on the processor; powerinfer-run --list-devices lists cards"),
        note(&["-np", "--parallel"], Value, "a window of -c tokens is computed at once"),
        note(&["-lm", "--load-mode", "-lzm", "--lazy-mode"], Value, "files are always mapped"),
        already(&["-ndio", "--no-direct-io"], Nothing, "Files are mapped."),
        note(&["-dio", "--direct-io", "--repack", "--no-host"], Nothing, "files are mapped, and computed as they are"),
        note(&["-b", "--batch-size", "-ub", "--ubatch-size"], Value, "a window of -c tokens is computed at once"),
        refused(&["--rpc", "-rpc"], "other machines are not used; leave it out"),
        already(
            &["--mmap", "-nr", "--no-repack", "--no-warmup"],
            Nothing,
            "Files are mapped, and computed as they are.",
        ),
        note(&["--no-mmap", "--mlock"], Nothing, "files are always mapped"),
    ],
};
