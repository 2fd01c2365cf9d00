//! What each token prints.

use super::Model;
use super::vocab::{Kind, Vocab};

/// U+2581, which SentencePiece vocabularies write for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// By id. Control, unknown and unused tokens print nothing.
pub(super) fn printed(vocab: &Vocab, kinds: &[Kind], model: Model) -> Vec<Box<[u8]>> {
    let alphabet = ByteAlphabet::new();
    let print = |(token, kind): (&Vec<u8>, &Kind)| match (kind, model) {
        (Kind::Control | Kind::Unknown | Kind::Unused, _) => Vec::new(),
        (Kind::UserDefined, _) => token.clone(),
        (Kind::Byte, Model::Spm) => byte(token).map_or_else(|| token.clone(), |byte| vec![byte]),
        (Kind::Normal, Model::Spm) => spaces(token),
        (Kind::Normal | Kind::Byte, Model::Gpt2) => alphabet.decode(token),
    };
    vocab.tokens.iter().zip(kinds).map(|pair| print(pair).into_boxed_slice()).collect()
}

/// The byte that `<0x0A>` and the like stand for.
pub(super) fn byte(token: &[u8]) -> Option<u8> {
    let hex = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if hex.len() != 2 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

fn spaces(token: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(token.len());
    let mut rest = token;
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SPACE.as_bytes()) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(first);
            rest = after;
        }
    }
    out
}

/// GPT-2's alphabet: a printable character for each byte. Printable Latin-1 stands for itself, the other bytes for the
/// characters from U+0100 on.
pub(super) struct ByteAlphabet {
    /// By code point; the last one in use is U+0143.
    bytes: [Option<u8>; 0x144],
}

impl ByteAlphabet {
    pub fn new() -> ByteAlphabet {
        let mut bytes = [None; 0x144];
        let mut next = 0x100;
        for byte in 0..=u8::MAX {
            match byte {
                b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => bytes[usize::from(byte)] = Some(byte),
                _ => {
                    bytes[next] = Some(byte);
                    next += 1;
                }
            }
        }
        ByteAlphabet { bytes }
    }

    /// Its 256 characters.
    pub fn chars(&self) -> impl Iterator<Item = char> {
        (0..).zip(self.bytes).filter_map(|(code, byte)| byte.and(char::from_u32(code)))
    }

    pub fn byte(&self, c: char) -> Option<u8> {
        self.bytes.get(c as usize).copied().flatten()
    }

    /// Whatever is not in the alphabet, or not UTF-8, stays as it is.
    fn decode(&self, token: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(token) else {
            return token.to_vec();
        };
        let mut out = Vec::with_capacity(token.len());
        for c in text.chars() {
            match self.byte(c) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out
    }
}
