//! Flags of llama-server, which people pass on to other commands, and finer ones of what is not here.

use super::Takes::Value;
use super::{Group, note, refused};

const SERVER: &str = "only llama-server takes it, and there is no server here; leave it out";
const DRAFT: &str = "how drafts are made is not chosen here; leave it out, the text is the same";
const REUSED: &str = "what was computed of a conversation is used again in any case";

/// What llama-cli has from its server, and has an effect on speed alone.
pub const REUSE: Group = Group {
    heading: "Memory of a conversation",
    habits: &[
        note(&["-cram", "--cache-ram"], Value, REUSED),
        note(&["-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"], Value, REUSED),
        note(&["-cpent", "--checkpoint-every-n-tokens", "--cache-reuse"], Value, REUSED),
    ],
};

/// Of llama-server alone.
pub const SERVERS: Group = Group {
    heading: "Servers",
    habits: &[
        refused(
            &[
                "-a",
                "--alias",
                "--tags",
                "--path",
                "--api-prefix",
                "--api-key-file",
                "--ssl-key-file",
                "--ssl-cert-file",
                "--reuse-port",
                "-to",
                "--timeout",
                "--threads-http",
            ],
            SERVER,
        ),
        refused(
            &[
                "--webui",
                "--no-webui",
                "--ui",
                "--no-ui",
                "--webui-config",
                "--webui-config-file",
                "--webui-mcp-proxy",
                "--no-webui-mcp-proxy",
                "--tools",
                "--media-path",
                "--metrics",
                "--props",
                "--slots",
                "--no-slots",
            ],
            SERVER,
        ),
        refused(
            &[
                "-sps",
                "--slot-prompt-similarity",
                "--cache-prompt",
                "--no-cache-prompt",
                "--cache-idle-slots",
                "--no-cache-idle-slots",
                "--sleep-idle-seconds",
                "--lora-init-without-apply",
                "--spm-infill",
                "--prefill-assistant",
                "--no-prefill-assistant",
            ],
            SERVER,
        ),
        refused(
            &["--models-dir", "--models-preset", "--models-max", "--models-autoload", "--no-models-autoload"],
            SERVER,
        ),
        refused(&["--rerank", "--reranking"], "embeddings are not computed; leave it out"),
        refused(
            &[
                "--embd-gemma-default",
                "--fim-qwen-1.5b-default",
                "--fim-qwen-3b-default",
                "--fim-qwen-7b-default",
                "--fim-qwen-7b-spec",
                "--fim-qwen-14b-spec",
                "--fim-qwen-30b-default",
            ],
            "-hf OWNER/MODEL names a model; --list-models shows those that have names here",
        ),
    ],
};

/// How a draft model is computed, and drafts without one.
pub const FINER_DRAFTS: Group = Group {
    heading: "Speculative decoding, in detail",
    habits: &[
        refused(
            &[
                "--spec-draft-cpu-mask",
                "--spec-draft-cpu-range",
                "--spec-draft-cpu-strict",
                "--cpu-strict-draft",
                "--spec-draft-prio",
                "--prio-draft",
                "--spec-draft-poll",
                "--poll-draft",
                "--spec-draft-cpu-mask-batch",
                "--spec-draft-cpu-range-batch",
                "-Crbd",
                "--cpu-range-batch-draft",
            ],
            DRAFT,
        ),
        refused(
            &[
                "--spec-draft-cpu-strict-batch",
                "--cpu-strict-batch-draft",
                "--spec-draft-prio-batch",
                "--prio-batch-draft",
                "--spec-draft-poll-batch",
                "--poll-batch-draft",
                "--spec-draft-override-tensor",
                "--spec-draft-cpu-moe",
                "--spec-draft-n-cpu-moe",
                "--spec-draft-ncmoe",
            ],
            DRAFT,
        ),
        refused(
            &[
                "--spec-draft-replace",
                "--spec-draft-backend-sampling",
                "--no-spec-draft-backend-sampling",
                "--spec-ngram-size-n",
                "--spec-ngram-size-m",
                "--spec-ngram-min-hits",
                "--spec-ngram-mod-n-min",
                "--spec-ngram-mod-n-max",
                "--spec-ngram-mod-n-match",
            ],
            DRAFT,
        ),
        refused(
            &[
                "--spec-ngram-simple-size-n",
                "--spec-ngram-simple-size-m",
                "--spec-ngram-simple-min-hits",
                "--spec-ngram-map-k-size-n",
                "--spec-ngram-map-k-size-m",
                "--spec-ngram-map-k-min-hits",
                "--spec-ngram-map-k4v-size-n",
                "--spec-ngram-map-k4v-size-m",
                "--spec-ngram-map-k4v-min-hits",
            ],
            DRAFT,
        ),
    ],
};
