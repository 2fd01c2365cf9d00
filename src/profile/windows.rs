//! Texts cut into windows of tokens; one run of the model takes one window.

use super::choice::mix;
use super::file::{ProfiledText, coalesced};
use crate::progress::{self, Progress};
use crate::tokenizer::{Special, Tokenizer};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// Texts are tokenized in pieces of about this many bytes, cut after a newline, to bound memory.
const PIECE_BYTES: usize = 1 << 20;

/// A calibration text with the name it is known by in messages.
pub struct Text {
    /// Path, for messages.
    pub name: String,
    /// Contents.
    pub text: String,
}

/// One of several parts of a corpus, each profiled by itself: of all windows, every `of`th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorpusPart {
    /// From 0.
    index: usize,
    of: usize,
}

impl CorpusPart {
    /// All of the corpus.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    fn has(self, window: usize) -> bool {
        window % self.of == self.index
    }
}

impl FromStr for CorpusPart {
    type Err = anyhow::Error;

    /// `I/N`, where `I` counts from 1.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').map(|(i, n)| (i.parse::<usize>(), n.parse::<usize>()));
        match parts {
            Some((Ok(i), Ok(n))) if (1..=n).contains(&i) => Ok(Self { index: i - 1, of: n }),
            _ => bail!("{text}: a shard is I/N with I from 1 to N, such as 3/8"),
        }
    }
}

impl fmt::Display for CorpusPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.of)
    }
}

/// What to cut, and how.
pub(super) struct Cut {
    pub(super) n_ctx: usize,
    pub(super) max_tokens: Option<u64>,
    pub(super) special: Special,
    pub(super) part: CorpusPart,
}

pub(super) struct Window {
    pub(super) tokens: Vec<u32>,
    /// Leading tokens that are not counted: BOS.
    pub(super) skipped: usize,
    /// SHA-256 of the text.
    pub(super) text: [u8; 32],
    /// Where in the text the counted tokens begin.
    pub(super) first: u64,
    /// Whether it is in the second half of all windows, those of other parts among them.
    pub(super) second_half: bool,
}

impl Window {
    pub(super) fn n_counted(&self) -> u64 {
        (self.tokens.len() - self.skipped) as u64
    }

    /// Positions of the counted tokens in the text.
    pub(super) fn positions(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.n_counted()
    }
}

/// Windows as they come; keeps those of the part.
struct Cutter {
    part: CorpusPart,
    n_seen: usize,
    /// Each with its number among all that were seen.
    windows: Vec<(usize, Window)>,
}

impl Cutter {
    fn push(&mut self, window: impl FnOnce() -> Window) {
        if self.part.has(self.n_seen) {
            self.windows.push((self.n_seen, window()));
        }
        self.n_seen += 1;
    }

    fn finish(self) -> Result<Vec<Window>> {
        let (n, part) = (self.n_seen, self.part);
        ensure!(n > 0, "no tokens to profile; --tokens must be at least 1");
        ensure!(
            !self.windows.is_empty(),
            "--shard {part}: the texts have only {n} window(s) of tokens; take fewer shards, or a smaller -c"
        );
        let in_half = |(i, window)| Window { second_half: i >= n.div_ceil(2), ..window };
        Ok(self.windows.into_iter().map(in_half).collect())
    }
}

/// The windows of `texts` that belong to the part.
pub(super) fn of_texts(
    tokenizer: &Tokenizer,
    texts: &[Text],
    cut: &Cut,
    progress: &dyn Progress,
) -> Result<Vec<Window>> {
    progress.begin("tokenizing", texts.iter().map(|t| t.text.len() as u64).sum());
    let mut left = cut.max_tokens.unwrap_or(u64::MAX);
    let mut cutter = Cutter { part: cut.part, n_seen: 0, windows: Vec::new() };
    for (i, text) in texts.iter().enumerate() {
        // What a short text leaves unused goes to those after it.
        let share = left.div_ceil((texts.len() - i) as u64);
        left -= of_text(tokenizer, text, cut, share, &mut cutter, progress).with_context(|| text.name.clone())?;
    }
    cutter.finish()
}

/// Cuts at most `limit` tokens of a text into windows; returns the tokens that will be counted, in all parts.
fn of_text(
    tokenizer: &Tokenizer,
    text: &Text,
    cut: &Cut,
    limit: u64,
    cutter: &mut Cutter,
    progress: &dyn Progress,
) -> Result<u64> {
    ensure!(!text.text.trim().is_empty(), "the text is empty");
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let skipped = usize::from(bos.is_some());
    let sha256 = Sha256::digest(&text.text).into();
    let mut counted = 0;
    let mut rest = text.text.as_str();
    while !rest.is_empty() && counted < limit {
        progress::check(progress)?;
        let (piece, tail) = rest.split_at(piece_len(rest));
        rest = tail;
        let ids = tokenizer.encode(piece, cut.special)?;
        progress.advance(piece.len() as u64);
        for chunk in ids.chunks(cut.n_ctx - skipped) {
            let n = chunk.len().min(usize::try_from(limit - counted).unwrap_or(usize::MAX));
            if n == 0 {
                break;
            }
            let tokens = || bos.into_iter().chain(chunk[..n].iter().copied()).collect();
            cutter.push(|| Window { tokens: tokens(), skipped, text: sha256, first: counted, second_half: false });
            counted += n as u64;
        }
    }
    Ok(counted)
}

fn piece_len(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let end = text.floor_char_boundary(PIECE_BYTES);
    text[..end].rfind('\n').map_or(end, |at| at + 1)
}

/// Windows of `n` random tokens, for models without a tokenizer. They count as a text of their own.
pub(super) fn of_random_tokens(n: u64, n_vocab: usize, seed: u64, cut: &Cut) -> Result<Vec<Window>> {
    let mut name = Sha256::new();
    name.update(b"powerinfer random tokens");
    [seed, n, n_vocab as u64].iter().for_each(|v| name.update(v.to_le_bytes()));
    let text = name.finalize().into();
    // Independent of the hashes that choose samples, which would otherwise prefer some tokens.
    let stream = mix(seed ^ u64::from_le_bytes(*b"rndtoken"));
    let token = |i: u64| ((u128::from(mix(stream.wrapping_add(i))) * n_vocab as u128) >> 64) as u32;
    let mut cutter = Cutter { part: cut.part, n_seen: 0, windows: Vec::new() };
    let mut first = 0;
    while first < n {
        let end = n.min(first + cut.n_ctx as u64);
        let tokens = || (first..end).map(token).collect();
        cutter.push(|| Window { tokens: tokens(), skipped: 0, text, first, second_half: false });
        first = end;
    }
    cutter.finish()
}

/// The texts that `windows` come from, as a profile lists them.
pub(super) fn profiled(windows: &[Window], n_ctx: usize) -> Vec<ProfiledText> {
    let mut texts: Vec<ProfiledText> = Vec::new();
    for window in windows {
        match texts.last_mut() {
            Some(last) if last.sha256 == window.text => last.n_tokens += window.n_counted(),
            _ => texts.push(ProfiledText { sha256: window.text, n_tokens: window.n_counted(), n_ctx: n_ctx as u32 }),
        }
    }
    coalesced(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(part: &str) -> Cut {
        Cut { n_ctx: 8, max_tokens: None, special: Special::AsText, part: part.parse().unwrap() }
    }

    #[test]
    fn shards_are_written_as_people_count() {
        assert_eq!("3/8".parse::<CorpusPart>().unwrap().to_string(), "3/8");
        assert_eq!("1/1".parse::<CorpusPart>().unwrap(), CorpusPart::WHOLE);
        for wrong in ["0/8", "9/8", "3", "3/", "/8", "a/b", "0/0", "-1/2"] {
            let error = wrong.parse::<CorpusPart>().unwrap_err().to_string();
            assert!(error.contains("such as 3/8"), "{error}");
        }
    }

    #[test]
    fn shards_divide_the_windows() {
        let whole = of_random_tokens(100, 50, 1, &cut("1/1")).unwrap();
        assert_eq!(whole.len(), 13);
        assert_eq!(whole[12].positions(), 96..100);
        let mut parts: Vec<_> = (1..=3)
            .flat_map(|i| of_random_tokens(100, 50, 1, &cut(&format!("{i}/3"))).unwrap())
            .map(|w| (w.first, w.tokens, w.second_half))
            .collect();
        parts.sort();
        assert!(parts.iter().zip(&whole).all(|(a, b)| a.0 == b.first && a.1 == b.tokens && a.2 == b.second_half));
        assert_eq!(whole.iter().filter(|w| w.second_half).count(), 6);
        assert_eq!(profiled(&whole, 8)[0].n_tokens, 100);
        let error = of_random_tokens(16, 50, 1, &cut("3/3")).err().unwrap().to_string();
        assert!(error.contains("only 2 window(s)"), "{error}");
    }

    #[test]
    fn random_tokens_are_of_the_vocabulary_and_depend_on_the_seed() {
        let tokens = |seed| of_random_tokens(1000, 10, seed, &cut("1/1")).unwrap().into_iter().flat_map(|w| w.tokens);
        let mut seen = [0; 10];
        tokens(1).for_each(|t| seen[t as usize] += 1);
        assert!(seen.iter().all(|n| (60..140).contains(n)), "{seen:?}");
        assert!(tokens(1).ne(tokens(2)));
    }
}
