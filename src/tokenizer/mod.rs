//! Text to token ids and back, by the vocabulary in a GGUF file.

mod bpe;
mod bytes;
mod eog;
mod from_gguf;
mod pre;
mod special;
mod spm;
mod stream;
#[cfg(test)]
mod tests;
mod vocab;

pub use from_gguf::read_vocab;
pub use special::Special;
pub use stream::TextStream;
pub use vocab::{Ends, Vocab};

use anyhow::{Result, anyhow, bail};
use bpe::Bpe;
use pre::PreTokenizer;
use special::{Fragment, Specials};
use spm::Spm;
use std::borrow::Cow;
use std::ops::Range;
use vocab::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Spm,
    Gpt2,
}

enum Pieces {
    Spm(Box<Spm>),
    Bpe(Box<Bpe>),
}

/// Gives the ids that llama.cpp gives for the same vocabulary. Tokenizing is safe to do from several threads.
pub struct Tokenizer {
    pieces: Pieces,
    specials: Specials,
    tokens: Vec<Vec<u8>>,
    /// By id; kept apart from `pieces`, which know neither repeated tokens nor those that are not UTF-8.
    printed: Vec<Box<[u8]>>,
    bos: Option<u32>,
    eos: Option<u32>,
    eog: Vec<u32>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    notes: Vec<String>,
}

impl Tokenizer {
    /// Fails with one line on anything inconsistent, on models other than "llama" and "gpt2", and on an unknown
    /// pre-tokenizer, since any other would silently give wrong tokens.
    pub fn new(vocab: Vocab) -> Result<Tokenizer> {
        let model = match vocab.model.as_str() {
            "llama" => Model::Spm,
            "gpt2" => Model::Gpt2,
            other => {
                bail!("tokenizer.ggml.model: unknown model \"{}\"; known are llama and gpt2", other.escape_debug())
            }
        };
        vocab.check()?;
        let n = vocab.tokens.len();
        let mut notes = Vec::new();
        // SentencePiece files may omit their special ids, which are then 0, 1 and 2.
        let default_id = |id: u32| (model == Model::Spm && (id as usize) < n).then_some(id);
        let unk = vocab.unk.or(default_id(0));
        let bos = vocab.bos.or(default_id(1));
        let eos = vocab.eos.or(default_id(2));

        let mut kinds: Vec<Kind> = (0..n).map(|id| vocab.kind(id)).collect();
        if model == Model::Spm && vocab.token_types.is_empty() {
            for (kind, token) in kinds.iter_mut().zip(&vocab.tokens) {
                if bytes::byte(token).is_some() {
                    *kind = Kind::Byte;
                }
            }
        }
        let eog = eog::end_of_generation(&vocab, &mut kinds, eos);
        let (pieces, add_bos) = match model {
            Model::Spm => (Pieces::Spm(Box::new(Spm::new(&vocab, &kinds, unk))), true),
            Model::Gpt2 => {
                let pre = pre_tokenizer(&vocab, &mut notes)?;
                (Pieces::Bpe(Box::new(Bpe::new(&vocab, &kinds, pre, &mut notes)?)), pre.add_bos)
            }
        };
        let add_bos = vocab.add_bos.unwrap_or(add_bos);
        let add_eos = vocab.add_eos.unwrap_or(false);
        for (add, id, name) in [(add_bos, bos, "bos"), (add_eos, eos, "eos")] {
            if add && id.is_none() {
                notes.push(format!(
                    "prompts should get a {name} token, but tokenizer.ggml.{name}_token_id is missing; none is added"
                ));
            }
        }
        Ok(Tokenizer {
            pieces,
            specials: Specials::new(&vocab, &kinds),
            printed: bytes::printed(&vocab, &kinds, model),
            bos,
            eos,
            eog,
            add_bos: add_bos && bos.is_some(),
            add_eos: add_eos && eos.is_some(),
            add_space_prefix: model == Model::Spm && vocab.add_space_prefix.unwrap_or(true),
            tokens: vocab.tokens,
            notes,
        })
    }

    /// The ids of `text` alone, without BOS and EOS. User-defined tokens are found with either `special`.
    ///
    /// # Errors
    /// When the text cannot be cut into words.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        self.encode_protected(text, &[], special)
    }

    /// As [`encode`](Self::encode), but control tokens whose text overlaps one of the byte ranges in `protected` are text:
    /// for what users write within what is parsed.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_protected(&self, text: &str, protected: &[Range<usize>], special: Special) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        // A space goes before every stretch of text that follows a special token, not only the first.
        let mut prefix = self.add_space_prefix;
        for fragment in self.specials.split(text, protected, special) {
            match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    prefix = self.add_space_prefix;
                }
                Fragment::Text(range) => {
                    match &self.pieces {
                        Pieces::Spm(spm) => spm.encode(&spm::normalize(&text[range], prefix), &mut ids),
                        Pieces::Bpe(bpe) => bpe.encode(&text[range], &mut ids)?,
                    }
                    prefix = false;
                }
            }
        }
        Ok(ids)
    }

    /// Tokens of the vocabulary.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Bytes of the longest token, as the file writes it: no text of more is one token.
    pub fn longest_token(&self) -> usize {
        self.tokens.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The byte ranges of `text` that spell control tokens, in order and apart.
    pub fn spelled(&self, text: &str) -> Vec<Range<usize>> {
        self.specials.spelled(text)
    }

    /// As [`encode`](Self::encode), with BOS if `bos` is set and the vocabulary asks for it, and EOS if the vocabulary
    /// asks for it. A text that begins with BOS gets a second one, as in llama.cpp.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str, special: Special, bos: bool) -> Result<Vec<u32>> {
        let mut ids = self.encode_opening(text, special, bos)?;
        ids.extend(self.eos.filter(|_| self.add_eos));
        Ok(ids)
    }

    /// As [`encode_prompt`](Self::encode_prompt), without EOS: for a text that the model is to continue, which it would not
    /// behind an EOS.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_opening(&self, text: &str, special: Special, bos: bool) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = self.bos.filter(|_| bos && self.add_bos).into_iter().collect();
        ids.extend(self.encode(text, special)?);
        Ok(ids)
    }

    /// What a token prints: possibly part of a character; nothing for control tokens and ids out of range.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.printed.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// What the ids print together, without the space that [`encode`](Self::encode) put in front. Bytes that are not
    /// UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        let bytes = match bytes.strip_prefix(b" ") {
            Some(rest) if self.add_space_prefix => rest,
            _ => &bytes,
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// 1 for "llama" if the file does not say.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// 2 for "llama" if the file does not say.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether [`encode_prompt`](Self::encode_prompt) begins with BOS when asked to.
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// EOS, end of turn, and the tokens whose text is known to end a turn.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.eog.binary_search(&id).is_ok()
    }

    /// The token as the file writes it (`▁the`, `<0x0A>`, `<s>`), empty for ids out of range.
    pub fn token_text(&self, id: u32) -> Cow<'_, str> {
        self.tokens.get(id as usize).map_or(Cow::Borrowed(""), |token| String::from_utf8_lossy(token))
    }

    /// The text of a token that prints nothing, as special tokens do; empty for others.
    pub fn unprinted_text(&self, id: u32) -> Cow<'_, str> {
        if self.token_bytes(id).is_empty() { self.token_text(id) } else { Cow::Borrowed("") }
    }

    /// What was odd about the vocabulary but did not prevent its use; one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn pre_tokenizer(vocab: &Vocab, notes: &mut Vec<String>) -> Result<&'static PreTokenizer> {
    let name = match vocab.pre.as_deref() {
        None | Some("") => {
            notes
                .push("tokenizer.ggml.pre is missing; using \"default\", so some words may be split differently than in training".to_owned());
            "default"
        }
        Some(name) => name,
    };
    PreTokenizer::named(name).ok_or_else(|| {
        let known: Vec<&str> = PreTokenizer::known().collect();
        anyhow!("tokenizer.ggml.pre: unknown pre-tokenizer \"{}\"; known are {}", name.escape_debug(), known.join(", "))
    })
}
