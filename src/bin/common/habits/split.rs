//! Flags of llama-quantize and llama-gguf-split.

use super::{Group, refused, same, same_but};

/// Of llama-quantize.
pub const TYPES: Group = Group {
    heading: "Quantizing",
    habits: &[
        same_but(&["-m", "--model"], "model", "llama-quantize takes it without a flag."),
        same(&["-t", "--threads"], "threads"),
        same(&["--dry-run"], "dry-run"),
        same_but(&["-np", "--parallel"], "parallel", "Sequences that plans are for."),
        same(&["--imatrix"], "imatrix"),
        refused(
            &["--include-weights", "--exclude-weights"],
            "importance is used for all tensors that it has; leave it out",
        ),
        same(&["--tensor-type"], "tensor-type"),
        same(&["--output-tensor-type"], "output-tensor-type"),
        same(&["--token-embedding-type"], "token-embedding-type"),
        refused(&["--tensor-type-file"], "give --tensor-type for each"),
        same(&["--pure"], "pure"),
        same(&["--leave-output-tensor"], "leave-output-tensor"),
        same(&["--allow-requantize"], "allow-requantize"),
        refused(&["--prune-layers"], "layers are not left out"),
        refused(
            &["--target-bpw", "--keep-bpw-state", "--no-importance"],
            "types are not searched for; a type such as q4_k_m and --tensor-type say which",
        ),
        refused(&["--keep-split"], "one file is written; llama-gguf-split divides it"),
        refused(&["--override-kv"], "keys are kept as they are; gguf_set_metadata.py of llama.cpp changes them"),
    ],
};

/// Of llama-gguf-split, which is another thing.
pub const PARTS: Group = Group {
    heading: "Files in parts",
    habits: &[
        refused(
            &["--split", "--split-max-size", "--split-max-tensors", "--no-tensor-first-split"],
            "powerinfer-split orders neurons; llama-gguf-split cuts files into parts, which are opened here by the first one",
        ),
        refused(
            &["--merge"],
            "files in parts are opened by the first one; llama-gguf-split --merge makes one file of them",
        ),
    ],
};
