//! Flags of llama-bench and llama-perplexity.

use super::Takes::{Maybe, Nothing, Value};
use super::values::SWITCH;
use super::{Group, already, by, note, refused, same, same_but, values};

const PLACED: &str = "the planner decides what the card does; --vram-budget bounds it";

/// What is measured.
pub const TESTS: Group = Group {
    heading: "Tests",
    habits: &[
        same(&["-p", "--n-prompt"], "n-prompt"),
        same(&["-n", "--n-gen"], "n-gen"),
        same(&["-pg"], "pg"),
        same(&["-d", "--n-depth"], "n-depth"),
        same(&["-r", "--repetitions"], "repetitions"),
        same(&["-b", "--batch-size"], "batch-size"),
        same(&["-ub", "--ubatch-size"], "ubatch-size"),
        same(&["-o", "--output"], "output"),
        same(&["-oe", "--output-err"], "output-err"),
        same(&["--delay"], "delay"),
        same(&["--progress"], "progress"),
        same_but(&["-t", "--threads"], "threads", "A list, as there."),
        same(&["--no-warmup"], "no-warmup"),
        note(&["--n-gen-warmup"], Value, "the warm-up is a run of the test, which --no-warmup leaves out"),
        by(&["-ngl", "--gpu-layers", "--n-gpu-layers"], Value, values::layers, "One value, as for powerinfer-run."),
        already(&["-v", "--verbose"], Nothing, "What there is to say is said on standard error."),
    ],
};

/// What llama-bench has as 0 or 1.
pub const SWITCHES: Group = Group {
    heading: "Switches of llama-bench",
    habits: &[
        by(&["-mmp", "--mmap"], Maybe(SWITCH), values::mapped, "0 is `--no-mmap`."),
        by(
            &["-dio", "--direct-io", "--repack"],
            Maybe(SWITCH),
            values::off_here,
            "Files are mapped, and computed as they are.",
        ),
        by(
            &["-nkvo", "--no-kv-offload", "-nopo", "--no-op-offload", "--no-host"],
            Maybe(SWITCH),
            values::placed,
            PLACED,
        ),
        by(&["-embd", "--embeddings"], Maybe(SWITCH), values::embeddings, "Only 0."),
    ],
};

/// Of llama-perplexity.
pub const PERPLEXITY: Group = Group {
    heading: "Perplexity and KL divergence",
    habits: &[
        same(&["-f", "--file"], "perplexity"),
        refused(&["-bf", "--binary-file"], "--perplexity FILE takes a text in UTF-8"),
        same(&["-c", "--ctx-size"], "ctx-size"),
        same(&["--chunks"], "chunks"),
        refused(
            &["--ppl-stride", "--ppl-output-type"],
            "windows follow each other, and the second half of each is scored",
        ),
        refused(
            &["--kl-divergence"],
            "--kl TEXT --kl-base MODEL compares two models at once, without a file of logits",
        ),
        refused(
            &["--kl-divergence-base", "--save-all-logits"],
            "no file of logits is read or written; --kl TEXT --kl-base MODEL compares two models at once",
        ),
        refused(
            &[
                "--hellaswag",
                "--hellaswag-tasks",
                "--winogrande",
                "--winogrande-tasks",
                "--multiple-choice",
                "--multiple-choice-tasks",
            ],
            "of what llama-perplexity measures, --perplexity and --kl are here",
        ),
        same_but(
            &["-np", "--parallel"],
            "parallel",
            "Each test with so many sequences at once; a list, as all of them.",
        ),
        same(&["-npp"], "npp"),
        same(&["-ntg"], "ntg"),
        same(&["-npl"], "npl"),
        same(&["-pps"], "pps"),
        refused(&["-tgs"], "sequences are decoded together; -npl 1 measures one alone"),
        same_but(&["--output-format"], "output", "One of five."),
    ],
};
