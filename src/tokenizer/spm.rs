//! SentencePiece vocabularies ("llama"): neighbours are joined by score (Kudo and Richardson, arXiv 1808.06226, the BPE
//! model), as llama.cpp does it.

use super::bytes::{SPACE, byte};
use super::vocab::{Kind, Vocab};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Joins the neighbours whose concatenation is the token with the highest score, the leftmost of equals, until no two
/// neighbours are a token.
///
/// Where all normal tokens have one score, the file does not say in which order its model joins (there are converters that
/// write -1000 everywhere); then the token that comes first in the vocabulary wins, as it did in training.
pub(super) struct Spm {
    /// By text: the token's id, and its place in the order of joining, the first lowest.
    pieces: HashMap<Box<str>, Piece>,
    /// The tokens of single bytes.
    bytes: [Option<u32>; 256],
    unk: Option<u32>,
    /// Neighbouring characters that some token has: between any others a text can be cut before it is tokenized.
    pairs: HashSet<(char, char)>,
    /// Bytes of the longest token.
    longest: usize,
    /// Whether the places come from the order of ids. Of several ways to make one token, that with the longest left part is
    /// then the first.
    by_id: bool,
}

#[derive(Clone, Copy)]
struct Piece {
    id: u32,
    rank: u32,
}

impl Spm {
    /// Control and unknown tokens are left out, so that text cannot become one, and byte tokens only stand for bytes.
    pub fn new(vocab: &Vocab, kinds: &[Kind], unk: Option<u32>) -> Self {
        let mut spm =
            Self { pieces: HashMap::new(), bytes: [None; 256], unk, pairs: HashSet::new(), longest: 0, by_id: false };
        let mut normal = kinds.iter().enumerate().filter(|(_, kind)| **kind == Kind::Normal).map(|(id, _)| id);
        let first = normal.next().map(|id| rank(vocab.score(id)));
        spm.by_id = normal.all(|id| Some(rank(vocab.score(id))) == first);
        for (id, (token, kind)) in (0..).zip(vocab.tokens.iter().zip(kinds)) {
            let Ok(text) = std::str::from_utf8(token) else { continue };
            match kind {
                Kind::Control | Kind::Unknown => {}
                Kind::Byte => {
                    if let Some(byte) = byte(token) {
                        spm.bytes[usize::from(byte)].get_or_insert(id);
                    }
                }
                _ if text.is_empty() || spm.pieces.contains_key(text) => {}
                _ => {
                    let rank = if spm.by_id { id } else { rank(vocab.score(id as usize)) };
                    spm.pieces.insert(text.into(), Piece { id, rank });
                    spm.pairs.extend(text.chars().zip(text.chars().skip(1)));
                    spm.longest = spm.longest.max(text.len());
                }
            }
        }
        spm
    }

    /// Appends the ids of a text that [`normalize`] has made ready.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut work = Work::default();
        let (mut begin, mut last) = (0, None);
        for (at, c) in text.char_indices() {
            if last.is_some_and(|last| !self.pairs.contains(&(last, c))) {
                self.encode_part(&text[begin..at], &mut work, ids);
                begin = at;
            }
            last = Some(c);
        }
        self.encode_part(&text[begin..], &mut work, ids);
    }

    fn encode_part(&self, text: &str, Work { symbols, joins }: &mut Work, ids: &mut Vec<u32>) {
        symbols.clear();
        symbols.extend(text.char_indices().enumerate().map(|(i, (start, c))| Symbol {
            start,
            len: c.len_utf8(),
            before: i.checked_sub(1),
            after: Some(i + 1),
        }));
        if let Some(last) = symbols.last_mut() {
            last.after = None;
        }
        for right in 1..symbols.len() {
            joins.extend(self.join(text, symbols, right - 1, right));
        }
        while let Some(Reverse(Join { left, right, len, .. })) = joins.pop() {
            // Either may have been joined with its other neighbour meanwhile.
            let gone = symbols[left].len == 0 || symbols[right].len == 0;
            if gone || symbols[left].len + symbols[right].len != len {
                continue;
            }
            let (before, after) = (symbols[left].before, symbols[right].after);
            symbols[right].len = 0;
            symbols[left].len = len;
            symbols[left].after = after;
            if let Some(after) = after {
                symbols[after].before = Some(left);
                joins.extend(self.join(text, symbols, left, after));
            }
            joins.extend(before.and_then(|before| self.join(text, symbols, before, left)));
        }
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            self.push(&text[symbol.start..symbol.start + symbol.len], ids);
        }
    }

    fn join(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Reverse<Join>> {
        let (a, b) = (&symbols[left], &symbols[right]);
        let len = a.len + b.len;
        if len > self.longest {
            return None;
        }
        let piece = self.pieces.get(&text[a.start..a.start + len])?;
        let cut = if self.by_id { usize::MAX - a.len } else { 0 };
        Some(Reverse(Join { rank: piece.rank, cut, left, right, len }))
    }

    /// The token of `text`; where it is none, those of its bytes; where some of these are missing, one unknown token for a
    /// whole run.
    fn push(&self, text: &str, ids: &mut Vec<u32>) {
        if let Some(piece) = self.pieces.get(text) {
            ids.push(piece.id);
            return;
        }
        let begin = ids.len();
        for byte in text.bytes() {
            match self.bytes[usize::from(byte)] {
                Some(id) => ids.push(id),
                None => {
                    ids.truncate(begin);
                    ids.extend(self.unk.filter(|unk| ids.last() != Some(unk)));
                    return;
                }
            }
        }
    }
}

/// What [`Spm::encode`] allocates once for all parts.
#[derive(Default)]
struct Work {
    symbols: Vec<Symbol>,
    joins: BinaryHeap<Reverse<Join>>,
}

/// A piece of the text, in a list of neighbours; of length 0 once it has been joined to the one before it.
struct Symbol {
    start: usize,
    len: usize,
    before: Option<usize>,
    after: Option<usize>,
}

/// Two neighbours that are a token together, in the order of joining.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Join {
    rank: u32,
    cut: usize,
    left: usize,
    right: usize,
    /// Bytes of both.
    len: usize,
}

/// The text that the model sees: spaces written out, one more in front if the vocabulary wants it.
pub(super) fn normalize(text: &str, space_prefix: bool) -> String {
    let prefix = if space_prefix { SPACE } else { "" };
    format!("{prefix}{}", text.replace(' ', SPACE))
}

/// Scores as numbers that sort the other way round: the highest first, both zeros alike.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !rising
}
