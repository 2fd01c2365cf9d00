//! What llama.cpp calls the sizes of models: "7B" and the like, which follow from the architecture and the number of layers.

use super::config::Config;

/// An architecture, and its numbers of layers with what they are called.
type Sizes = (&'static str, &'static [(usize, &'static str)]);

/// Those of which the number of layers says all.
const SIZES: [Sizes; 24] = [
    ("arcee", &[(36, "4B")]),
    ("exaone", &[(32, "8B")]),
    ("falcon", &[(32, "7B"), (60, "40B")]),
    ("gemma2", &[(26, "2B"), (42, "9B"), (46, "27B")]),
    ("gemma3", &[(18, "270M"), (26, "1B"), (32, "8B"), (34, "4B"), (48, "12B"), (62, "27B")]),
    ("gpt-oss", &[(24, "20B"), (36, "120B")]),
    ("granite", &[(32, "3B"), (40, "3B")]),
    ("granitemoe", &[(32, "3B"), (40, "3B")]),
    ("jais2", &[(32, "8B"), (68, "70B")]),
    (
        "llama",
        &[
            (16, "1B"),
            (22, "1B"),
            (26, "3B"),
            (28, "3B"),
            (30, "256M"),
            (36, "8B"),
            (40, "13B"),
            (48, "34B"),
            (60, "30B"),
        ],
    ),
    ("minicpm", &[(40, "2B"), (52, "1B")]),
    ("mistral3", &[(26, "3B"), (34, "8B"), (40, "14B")]),
    ("nemotron", &[(32, "4B")]),
    ("nemotron_h", &[(52, "31B.A3.5B"), (56, "9B"), (88, "120B.A12B")]),
    ("nemotron_h_moe", &[(52, "31B.A3.5B"), (56, "9B"), (88, "120B.A12B")]),
    ("olmo2", &[(16, "1B"), (32, "7B"), (40, "13B"), (64, "32B")]),
    ("phi3", &[(24, "1B"), (32, "3B"), (40, "14B")]),
    ("plm", &[(32, "1.8B")]),
    ("qwen2", &[(32, "7B"), (36, "3B"), (48, "14B"), (64, "32B"), (80, "70B")]),
    ("qwen3", &[(40, "14B"), (64, "32B")]),
    ("qwen3moe", &[(48, "30B.A3B"), (94, "235B.A22B")]),
    ("smallthinker", &[(32, "4B"), (52, "20B")]),
    ("smollm3", &[(36, "3B")]),
    ("stablelm", &[(24, "1B"), (32, "3B"), (40, "12B")]),
];

/// Of a size that has no name.
const UNKNOWN: &str = "?B";

impl Config {
    /// What llama.cpp calls a model of this size; "?B" where it has no name for it.
    pub fn size_class(&self) -> &'static str {
        let many_experts = self.experts.is_some();
        let one = |is: bool, so: &'static str, otherwise: &'static str| if is { so } else { otherwise };
        match (self.arch.as_str(), self.n_layer) {
            ("llama", 32) if many_experts => "8x7B",
            ("llama", 56) if many_experts => "8x22B",
            ("llama", _) if many_experts => UNKNOWN,
            ("llama", 32) if self.n_vocab == 49152 => "3B",
            ("llama", 32) => one(self.n_vocab < 40_000, "7B", "8B"),
            ("llama", 80) => one(self.n_head == self.n_head_kv, "65B", "70B"),
            ("qwen2", 24) => one(self.n_embd == 1024, "0.5B", "1B"),
            ("qwen2", 28) => one(self.n_embd == 1536, "1.5B", "7B"),
            ("qwen2", 40) => one(self.n_head == 20, "4B", "13B"),
            ("qwen3", 28) => one(self.n_embd == 1024, "0.6B", "1.7B"),
            ("qwen3", 36) => one(self.n_embd == 2560, "4B", "8B"),
            ("starcoder2", n) => named(&[(30, "3B"), (32, "7B"), (40, "15B"), (52, "20B"), (88, "34B")], n),
            (arch, n) => SIZES.iter().find(|(name, _)| *name == arch).map_or(UNKNOWN, |(_, sizes)| named(sizes, n)),
        }
    }
}

fn named(sizes: &[(usize, &'static str)], n_layer: usize) -> &'static str {
    sizes.iter().find(|(n, _)| *n == n_layer).map_or(UNKNOWN, |(_, name)| name)
}
