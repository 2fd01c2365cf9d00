//! Flags that say which model, and how its file is read.

use super::Takes::{Nothing, Value};
use super::{Group, already, by, note, refused, same, same_but, undo, values};

/// Which model.
pub const MODEL: Group = Group {
    heading: "Model",
    habits: &[
        same_but(
            &["-m", "--model"],
            "model",
            "Names (`--list-models`) and `hf:OWNER/MODEL/FILE.gguf` are understood, too; without it, the embedded model.",
        ),
        same(&["-hf", "-hfr", "--hf-repo"], "hf-repo"),
        same(&["-hff", "--hf-file"], "hf-file"),
        same_but(&["-hft", "--hf-token"], "hf-token", "`HF_TOKEN` keeps it out of the list of processes."),
        same(&["--offline"], "offline"),
        same_but(&["-cl", "--cache-list"], "list-models", "Models that have names, and which of them are here."),
        refused(&["-mu", "--model-url"], "give -hf OWNER/MODEL, or fetch the file and give -m FILE"),
        refused(&["-dr", "--docker-repo"], "models of Docker Hub are not fetched; give -hf OWNER/MODEL"),
        same(&["--check-tensors"], "check-tensors"),
    ],
};

/// How the file is read.
pub const MEMORY: Group = Group {
    heading: "Loading",
    habits: &[
        undo(&["--mmap"], "no-mmap", "Files are mapped unless `--no-mmap` follows."),
        same(&["--no-mmap"], "no-mmap"),
        same(&["--mlock"], "mlock"),
        by(
            &["-lm", "--load-mode"],
            Value,
            values::load_mode,
            "`mlock` is `--mlock`, `none` is `--no-mmap`; the others map the file.",
        ),
        note(&["-lzm", "--lazy-mode"], Value, "files are mapped, and read as they are needed"),
        already(&["-ndio", "--no-direct-io"], Nothing, "Files are mapped."),
        note(&["-dio", "--direct-io"], Nothing, "files are mapped, and read as they are needed"),
        already(&["-nr", "--no-repack"], Nothing, "Weights are computed as they are in the file."),
        note(&["--repack"], Nothing, "weights are computed as they are in the file"),
        note(&["--no-host"], Nothing, "there are no host buffers; files are mapped"),
    ],
};
