//! A vocabulary as a GGUF file states it, and the checks that make it safe to build from.

use anyhow::{Result, bail, ensure};

/// The `tokenizer.ggml.*` keys, unchecked: [`Tokenizer::new`](super::Tokenizer::new) refuses what is inconsistent.
#[derive(Clone, Debug, Default)]
pub struct Vocab {
    /// `tokenizer.ggml.model`: "llama" (SentencePiece) or "gpt2" (byte-level BPE).
    pub model: String,
    /// `tokenizer.ggml.pre`; only "gpt2" looks at it.
    pub pre: Option<String>,
    /// By id, as in the file; need not be UTF-8.
    pub tokens: Vec<Vec<u8>>,
    /// By id, or empty: all alike.
    pub scores: Vec<f32>,
    /// By id, or empty (all normal): 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// "gpt2" only: two tokens with a space between them, the first merge first.
    pub merges: Vec<Vec<u8>>,
    /// `tokenizer.ggml.bos_token_id`; absent, "llama" has it at 1.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`; absent, "llama" has it at 2.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`; absent, "llama" has it at 0.
    pub unk: Option<u32>,
    /// Further tokens that end a generation: `tokenizer.ggml.eot_token_id`, `eom_token_id`, `fim_pad_token_id`,
    /// `fim_rep_token_id` and `fim_sep_token_id`.
    pub ends: Ends,
    /// `tokenizer.ggml.add_bos_token`; absent, true for "llama" and for models of architecture opt, else up to `pre` for "gpt2".
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`; absent, false.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`; absent, true. "gpt2" never adds one.
    pub add_space_prefix: Option<bool>,
    /// Whether white space behind special tokens is dropped. No key says so; llama.cpp knows it of models whose name
    /// contains "phi-3" or "phi3".
    pub strips_behind_special: bool,
}

/// Ids of tokens that end a generation, beside EOS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// End of turn.
    pub eot: Option<u32>,
    /// End of message.
    pub eom: Option<u32>,
    /// Padding of infilling.
    pub fim_pad: Option<u32>,
    /// Name of a repository, in infilling.
    pub fim_rep: Option<u32>,
    /// Separator of files, in infilling.
    pub fim_sep: Option<u32>,
}

impl Ends {
    /// Those that the file names, with the beginning of their key.
    pub(super) fn named(&self) -> [(&'static str, Option<u32>); 5] {
        [
            ("eot", self.eot),
            ("eom", self.eom),
            ("fim_pad", self.fim_pad),
            ("fim_rep", self.fim_rep),
            ("fim_sep", self.fim_sep),
        ]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Vocab {
    pub(super) fn check(&self) -> Result<()> {
        let n = self.tokens.len();
        ensure!(n > 0, "tokenizer.ggml.tokens: the vocabulary is empty");
        ensure!(u32::try_from(n).is_ok(), "tokenizer.ggml.tokens: {n} tokens do not fit 32-bit ids");
        for (key, len) in [("scores", self.scores.len()), ("token_type", self.token_types.len())] {
            ensure!(len == 0 || len == n, "tokenizer.ggml.{key}: {len} values for {n} tokens");
        }
        let ids = [("bos", self.bos), ("eos", self.eos), ("unknown", self.unk)];
        for (key, id) in ids.into_iter().chain(self.ends.named()) {
            if let Some(id) = id
                && id as usize >= n
            {
                bail!("tokenizer.ggml.{key}_token_id: {id}, but the vocabulary has {n} tokens");
            }
        }
        Ok(())
    }

    /// `id` must be in range, and the lengths checked.
    pub(super) fn kind(&self, id: usize) -> Kind {
        match self.token_types.get(id) {
            None => Kind::Normal,
            Some(1) => Kind::Normal,
            Some(2) => Kind::Unknown,
            Some(3) => Kind::Control,
            Some(4) => Kind::UserDefined,
            Some(6) => Kind::Byte,
            Some(_) => Kind::Unused,
        }
    }

    pub(super) fn score(&self, id: usize) -> f32 {
        self.scores.get(id).copied().unwrap_or(0.0)
    }
}
