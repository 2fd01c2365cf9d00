//! Finds the tokens that a text is searched for before it is tokenized: control, unknown and user-defined ones.

use super::vocab::{Kind, Vocab};
use std::ops::Range;

/// What happens if a text spells a control token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// It is text like any other: for what users write.
    AsText,
    /// It becomes that token: for chat templates.
    Parse,
}

struct Entry {
    text: String,
    id: u32,
    user_defined: bool,
    /// Whether white space behind it is dropped.
    strips: bool,
}

pub(super) struct Specials(Vec<Entry>);

#[derive(Clone, Debug)]
pub(super) enum Fragment {
    /// These bytes of the text.
    Text(Range<usize>),
    Token(u32),
}

/// Texts of special tokens behind which white space stays where [`Vocab::strips_behind_special`] holds.
const NOT_STRIPPING: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

impl Specials {
    pub fn new(vocab: &Vocab, kinds: &[Kind]) -> Specials {
        let mut entries: Vec<Entry> = (0..)
            .zip(&vocab.tokens)
            .zip(kinds)
            .filter(|(_, kind)| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined))
            .filter_map(|((id, token), kind)| {
                let text = std::str::from_utf8(token).ok().filter(|text| !text.is_empty())?;
                let strips = vocab.strips_behind_special && !NOT_STRIPPING.contains(&text);
                Some(Entry { text: text.to_owned(), id, user_defined: *kind == Kind::UserDefined, strips })
            })
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.text.len()));
        Specials(entries)
    }

    /// Longest token first over the whole text, as in llama.cpp: not the same as leftmost first if two overlap. Where the
    /// text of a token overlaps one of the byte ranges in `protected` it is text.
    pub fn split(&self, text: &str, protected: &[Range<usize>], special: Special) -> Vec<Fragment> {
        if text.is_empty() {
            return Vec::new();
        }
        let pairs = Pairs::of(text);
        let mut fragments = vec![Fragment::Text(0..text.len())];
        for entry in &self.0 {
            if (special == Special::Parse || entry.user_defined) && pairs.may_contain(&entry.text) {
                let cut = |fragment| match fragment {
                    Fragment::Text(range) => entry.cut(text, range, protected),
                    token @ Fragment::Token(_) => vec![token],
                };
                fragments = fragments.into_iter().flat_map(cut).collect();
            }
        }
        fragments
    }

    /// The byte ranges of `text` that spell tokens which are not user-defined, in order; those that touch are one.
    pub fn spelled(&self, text: &str) -> Vec<Range<usize>> {
        let pairs = Pairs::of(text);
        let entries = self.0.iter().filter(|e| !e.user_defined && pairs.may_contain(&e.text));
        let mut found: Vec<_> =
            entries.flat_map(|e| text.match_indices(&e.text).map(|(at, t)| at..at + t.len())).collect();
        found.sort_by_key(|range| range.start);
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for range in found {
            match ranges.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => ranges.push(range),
            }
        }
        ranges
    }
}

impl Entry {
    fn cut(&self, text: &str, range: Range<usize>, protected: &[Range<usize>]) -> Vec<Fragment> {
        let (mut out, mut begin) = (Vec::new(), range.start);
        for (at, _) in text[range.clone()].match_indices(&self.text) {
            let (start, end) = (range.start + at, range.start + at + self.text.len());
            if start < begin || (!self.user_defined && protected.iter().any(|p| p.start < end && start < p.end)) {
                continue;
            }
            if begin < start {
                out.push(Fragment::Text(begin..start));
            }
            out.push(Fragment::Token(self.id));
            begin = end;
            if self.strips {
                // White space as C has it.
                let behind = text[end..range.end].bytes().take_while(|b| matches!(b, b' ' | b'\t'..=b'\r'));
                begin += behind.count();
            }
        }
        if begin < range.end {
            out.push(Fragment::Text(begin..range.end));
        }
        out
    }
}

/// Which pairs of neighbouring bytes a text has, so that it need not be searched for each of a vocabulary's thousands
/// of special tokens.
struct Pairs(Vec<u64>);

impl Pairs {
    fn of(text: &str) -> Pairs {
        let mut bits = vec![0; 1 << 10];
        for pair in text.as_bytes().windows(2) {
            let (word, bit) = Self::place(pair);
            bits[word] |= bit;
        }
        Pairs(bits)
    }

    fn may_contain(&self, part: &str) -> bool {
        part.as_bytes().windows(2).all(|pair| {
            let (word, bit) = Self::place(pair);
            self.0[word] & bit != 0
        })
    }

    fn place(pair: &[u8]) -> (usize, u64) {
        (usize::from(pair[0]) << 2 | usize::from(pair[1] >> 6), 1 << (pair[1] & 63))
    }
}
