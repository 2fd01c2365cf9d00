//! Flags for what is not computed here.

use super::{Group, refused};

const ROPE: &str = "RoPE is computed as the file's keys say; gguf_set_metadata.py of llama.cpp changes them";
const MEDIA: &str = "only text is read; leave it out";
const SERVER: &str = "there is no server here; -cnv chats at the terminal";

/// Other weights, keys or positions than those of the file.
pub const CHANGED_MODELS: Group = Group {
    heading: "Models that are changed",
    habits: &[
        refused(
            &["--lora", "--lora-scaled", "--lora-base"],
            "adapters are not applied; llama-export-lora merges them into a file",
        ),
        refused(
            &["--control-vector", "--control-vector-scaled", "--control-vector-layer-range"],
            "control vectors are not applied; leave it out",
        ),
        refused(
            &["--override-kv"],
            "keys are read as the file has them; gguf_set_metadata.py of llama.cpp changes them",
        ),
        refused(&["--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale"], ROPE),
        refused(
            &["--yarn-orig-ctx", "--yarn-ext-factor", "--yarn-attn-factor", "--yarn-beta-slow", "--yarn-beta-fast"],
            ROPE,
        ),
    ],
};

/// Pictures, servers, downloads.
pub const OTHERS: Group = Group {
    heading: "Not text at a terminal",
    habits: &[
        refused(
            &[
                "-mm",
                "--mmproj",
                "-mmu",
                "--mmproj-url",
                "--image",
                "--audio",
                "--video",
                "--image-min-tokens",
                "--image-max-tokens",
            ],
            MEDIA,
        ),
        super::already(&["--no-mmproj", "--no-mmproj-auto"], super::Takes::Nothing, "Only text is read."),
        refused(&["--mmproj-auto", "--mmproj-offload", "--no-mmproj-offload", "-mmdev", "--mmproj-device"], MEDIA),
        refused(&["-mv", "--model-vocoder", "-hfv", "-hfrv", "--hf-repo-v", "-hffv", "--hf-file-v"], MEDIA),
        refused(&["--server-base", "--host", "--port", "--api-key"], SERVER),
        refused(&["--log-prompts-dir"], "--verbose-prompt prints prompts on standard error: 2> FILE keeps them"),
        refused(
            &[
                "--gpt-oss-20b-default",
                "--gpt-oss-120b-default",
                "--vision-gemma-4b-default",
                "--vision-gemma-12b-default",
            ],
            "-hf OWNER/MODEL names a model; --list-models shows those that have names here",
        ),
        refused(&["--license"], "MIT OR Apache-2.0: LICENSE-MIT and LICENSE-APACHE"),
        refused(&["--completion-bash"], "powerinfer-run completions bash prints them"),
        refused(
            &["--pooling", "--attention", "--embd-normalize", "--embd-output-format", "--embedding", "--embeddings"],
            "embeddings are not computed; leave it out",
        ),
    ],
};
