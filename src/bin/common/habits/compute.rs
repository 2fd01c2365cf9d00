//! Flags that say how long, with how many threads, and on what card.

use super::Takes::{Maybe, Nothing, Value};
use super::values::SWITCH;
use super::{Group, Habit, already, by, note, refused, same, same_but, undo, values};

const PLACED: &str = "the planner decides what the card does; --vram-budget bounds it, --dry-run shows it";
const PINNED: &str = "threads are not pinned; start it with taskset -c to choose processors";

/// How much text.
pub const LENGTHS: Group = Group {
    heading: "Lengths",
    habits: &[
        same_but(
            &["-c", "--ctx-size"],
            "ctx-size",
            "Without it the model's training context, at most 4096; 0 is all of that.",
        ),
        same_but(
            &["-n", "--predict", "--n-predict"],
            "n-predict",
            "-1 and -2: until the text ends or the context is full.",
        ),
        same_but(&["-b", "--batch-size"], "batch-size", "An upper limit on `-ub`."),
        same(&["-ub", "--ubatch-size"], "ubatch-size"),
        same(&["--keep"], "keep"),
        same(&["--context-shift"], "context-shift"),
        same(&["--no-context-shift"], "no-context-shift"),
        note(&["--swa-full"], Nothing, "layers with sliding windows keep what their windows hold"),
        by(&["-gan", "--grp-attn-n"], Value, values::group_attention, "Only 1, which is without it."),
        refused(
            &["-gaw", "--grp-attn-w"],
            "positions are those of the text; a file's own scaling of RoPE reaches further",
        ),
        already(&["-dt", "--defrag-thold"], Value, "Nothing is ever scattered in the KV cache."),
        by(
            &["-np", "--parallel"],
            Value,
            values::parallel,
            "For the lines of a file: `-f FILE --lines`. `-c` is for each of them. -1: one.",
        ),
        refused(
            &["-ns", "--sequences"],
            "each line of -f FILE --lines is a sequence, and -np says how many are computed at once",
        ),
        already(&["-cb", "--cont-batching"], Nothing, "A text that ends makes room for the next at once."),
        note(&["-nocb", "--no-cont-batching"], Nothing, "a text that ends makes room for the next at once"),
        already(
            &["-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"],
            Nothing,
            "Each text has a cache of its own; what prompts have in common at their beginning is computed once.",
        ),
    ],
};

/// Threads and instruction sets.
pub const PROCESSOR: Group = Group {
    heading: "Processor",
    habits: &[
        by(
            &["-t", "--threads"],
            Value,
            values::threads,
            "-1: all cores (of several kinds, the fast ones), as without it.",
        ),
        note(&["-tb", "--threads-batch"], Value, "prompts are computed with the threads of -t"),
        note(&["-C", "--cpu-mask", "-Cr", "--cpu-range", "--cpu-strict"], Value, PINNED),
        note(&["-Cb", "--cpu-mask-batch", "-Crb", "--cpu-range-batch", "--cpu-strict-batch"], Value, PINNED),
        note(&["--prio", "--prio-batch"], Value, "the priority stays what it is; start it with nice to lower it"),
        note(&["--poll", "--poll-batch"], Value, "how threads wait cannot be chosen"),
        note(
            &["--numa"],
            Value,
            "memory is placed by the system; start it with numactl --interleave=all on several nodes",
        ),
        by(
            &["-fa", "--flash-attn"],
            Maybe(SWITCH),
            values::flash_attention,
            "Attention always runs block by block, without a matrix of scores.",
        ),
        same_but(&["-ctk", "--cache-type-k"], "cache-type-k", "f16, q8_0 or f32; on a card that of `-ctv`."),
        same_but(&["-ctv", "--cache-type-v"], "cache-type-v", "f16, q8_0 or f32; on a card that of `-ctk`."),
    ],
};

/// What the card does.
pub const CARD: Group = Group {
    heading: "Graphics card",
    habits: &[
        same_but(
            &["-ngl", "--gpu-layers", "--n-gpu-layers"],
            "n-gpu-layers",
            "0 is `--device cpu`; N is about such a share of what a plan would put on the card, neuron by neuron; `--vram-budget` says it exactly.",
        ),
        by(
            &["-dev", "--device"],
            Value,
            values::device,
            "none or cpu, cuda, cuda:N (also CUDA0), auto; one card at most.",
        ),
        same(&["--list-devices"], "list-devices"),
        by(
            &["-mg", "--main-gpu"],
            Value,
            values::main_gpu,
            "N is `--device cuda:N`; 0 is the first card, if there is one.",
        ),
        by(&["-sm", "--split-mode"], Value, values::split_mode, "One card at most is used."),
        note(&["-ts", "--tensor-split"], Value, "one card is used at most"),
        note(&["-ot", "--override-tensor"], Value, PLACED),
        note(&["-cmoe", "--cpu-moe"], Nothing, PLACED),
        note(&["-ncmoe", "--n-cpu-moe"], Value, PLACED),
        note(&["--moe-cache"], Value, PLACED),
        already(
            &["-kvo", "--kv-offload"],
            Nothing,
            "K and V lie on the card for the layers whose attention it computes.",
        ),
        note(
            &["-nkvo", "--no-kv-offload"],
            Nothing,
            "K and V lie where attention is computed, which the planner decides; --vram-budget bounds it",
        ),
        already(&["--op-offload"], Nothing, "The planner decides what the card does."),
        note(&["-nopo", "--no-op-offload"], Nothing, PLACED),
        by(&["-fit", "--fit"], Maybe(SWITCH), values::fit, "What goes on the card always fits."),
        note(&["-fitt", "--fit-target"], Value, "--vram-budget says how much of the card is used"),
        note(&["-fitc", "--fit-ctx"], Value, "the context is that of -c; the planner fits the rest around it"),
        refused(&["--rpc", "-rpc"], "other machines are not used; leave it out"),
    ],
};

/// What is only undone.
pub const fn display_prompt() -> Habit {
    undo(&["--display-prompt"], "no-display-prompt", "The prompt is printed unless `--no-display-prompt` follows.")
}
