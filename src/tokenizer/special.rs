//! Finds the tokens that a text is searched for before it is tokenized: control, unknown and user-defined ones.

use super::vocab::{Kind, Vocab};

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
}

pub(super) struct Specials(Vec<Entry>);

#[derive(Clone, Copy)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    Token(u32),
}

impl Specials {
    pub fn new(vocab: &Vocab, kinds: &[Kind]) -> Specials {
        let mut entries: Vec<Entry> = (0..)
            .zip(&vocab.tokens)
            .zip(kinds)
            .filter(|(_, kind)| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined))
            .filter_map(|((id, token), kind)| {
                let text = std::str::from_utf8(token).ok().filter(|text| !text.is_empty())?;
                Some(Entry { text: text.to_owned(), id, user_defined: *kind == Kind::UserDefined })
            })
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.text.len()));
        Specials(entries)
    }

    /// Longest token first over the whole text, as in llama.cpp: not the same as leftmost first if two overlap.
    pub fn split<'a>(&self, text: &'a str, special: Special) -> Vec<Fragment<'a>> {
        if text.is_empty() {
            return Vec::new();
        }
        let pairs = Pairs::of(text);
        let mut fragments = vec![Fragment::Text(text)];
        for entry in &self.0 {
            if (special == Special::Parse || entry.user_defined) && pairs.may_contain(&entry.text) {
                fragments = fragments.into_iter().flat_map(|fragment| cut(fragment, entry)).collect();
            }
        }
        fragments
    }
}

fn cut<'a>(fragment: Fragment<'a>, entry: &Entry) -> Vec<Fragment<'a>> {
    let Fragment::Text(text) = fragment else {
        return vec![fragment];
    };
    let mut out = Vec::new();
    let mut parts = text.split(entry.text.as_str()).peekable();
    while let Some(part) = parts.next() {
        if !part.is_empty() {
            out.push(Fragment::Text(part));
        }
        if parts.peek().is_some() {
            out.push(Fragment::Token(entry.id));
        }
    }
    out
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
