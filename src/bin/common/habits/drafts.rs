//! Flags of speculative decoding.

use super::Takes::{Nothing, Value};
use super::{Group, by, note, refused, same, same_but, values};

const CHANGED: &str = "the draft model is read and run as its file says; leave it out, the text is the same";
const NO_CACHE: &str = "drafts come from the prompt and the text; leave it out, the text is the same";
const ON_THE_CPU: &str = "drafts are computed on the processor, with the threads of -t";

/// Speculative decoding.
pub const DRAFTS: Group = Group {
    heading: "Speculative decoding",
    habits: &[
        same_but(
            &["-md", "--model-draft", "--spec-draft-model"],
            "model-draft",
            "Its vocabulary must be the model's, token by token.",
        ),
        refused(
            &["-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"],
            "-md hf:OWNER/MODEL/FILE.gguf names a draft model of the hub",
        ),
        same_but(
            &["--draft-max", "--draft", "--draft-n", "--spec-draft-n-max"],
            "draft-max",
            "At most; how many are drafted is measured. 0 switches speculation off, which is on without a draft model, too.",
        ),
        same_but(
            &["--draft-min", "--draft-n-min", "--spec-draft-n-min"],
            "draft-min",
            "From 1 on drafts are made wherever there are so many guesses, also where that is slower.",
        ),
        same(&["--draft-p-min", "--spec-draft-p-min"], "draft-p-min"),
        note(&["--draft-p-split", "--spec-draft-p-split"], Value, "a draft is one sequence of tokens"),
        note(&["-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft", "--spec-draft-ngl"], Value, ON_THE_CPU),
        note(&["-devd", "--device-draft", "--spec-draft-device"], Value, ON_THE_CPU),
        same(&["-cd", "--ctx-size-draft", "--spec-draft-ctx-size"], "ctx-size-draft"),
        note(
            &[
                "-td",
                "--threads-draft",
                "--spec-draft-threads",
                "-tbd",
                "--threads-batch-draft",
                "--spec-draft-threads-batch",
            ],
            Value,
            ON_THE_CPU,
        ),
        note(
            &[
                "-ctkd",
                "--cache-type-k-draft",
                "--spec-draft-type-k",
                "-ctvd",
                "--cache-type-v-draft",
                "--spec-draft-type-v",
            ],
            Value,
            "the draft model's cache is of the type of the model's",
        ),
        note(
            &["-Cd", "--cpu-mask-draft", "-Crd", "--cpu-range-draft", "-Cbd", "--cpu-mask-batch-draft"],
            Value,
            "threads are not pinned; start it with taskset -c to choose processors",
        ),
        note(&["-otd", "--override-tensor-draft"], Value, ON_THE_CPU),
        note(&["-cmoed", "--cpu-moe-draft"], Nothing, ON_THE_CPU),
        note(&["-ncmoed", "--n-cpu-moe-draft"], Value, ON_THE_CPU),
        by(
            &["--spec-type"],
            Value,
            values::speculation,
            "none is `--draft-max 0`; n-grams of the text are looked up in any case.",
        ),
        note(&["--spec-default"], Nothing, "speculation is on in any case, where it is faster"),
        refused(&["--spec-replace"], CHANGED),
        refused(&["-lcs", "--lookup-cache-static", "-lcd", "--lookup-cache-dynamic"], NO_CACHE),
    ],
};
