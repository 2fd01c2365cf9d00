//! Byte-level BPE vocabularies ("gpt2").

use super::bytes::ByteAlphabet;
use super::pre::PreTokenizer;
use super::vocab::{Kind, Vocab};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::HashSet;
use tokenizers::models::bpe::{BPE, Vocab as Ids};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

/// Longer runs of white space exceed what the regex engine keeps in mind for `\s+(?!\S)`; it would end in silence.
const MAX_SPACES: usize = 500_000;

/// A byte-level BPE vocabulary.
pub(super) struct Bpe {
    inner: tokenizers::Tokenizer,
    /// Ids from here on stand for bytes that the vocabulary has no token for.
    n_tokens: u32,
}

impl Bpe {
    /// Merges of, or into, something that is not in the vocabulary are skipped and counted in the notes. Control tokens
    /// count as not in it, so that text cannot become one.
    pub fn new(vocab: &Vocab, kinds: &[Kind], pre: &PreTokenizer, notes: &mut Vec<String>) -> Result<Self> {
        let mut ids = Ids::default();
        for (id, (token, kind)) in (0..).zip(vocab.tokens.iter().zip(kinds)) {
            if let Ok(text) = std::str::from_utf8(token)
                && !text.is_empty()
                && !matches!(kind, Kind::Control | Kind::Unknown)
            {
                ids.entry(text.to_owned()).or_insert(id);
            }
        }
        let merges = merges(vocab, &ids, notes)?;
        if merges.is_empty() {
            check_letters(vocab, kinds)?;
        }
        // A byte without a token keeps its neighbours apart until all is merged, and then prints nothing.
        let n_tokens = vocab.tokens.len() as u32;
        let alphabet = ByteAlphabet::new();
        let absent: Vec<_> = alphabet.chars().map(String::from).filter(|c| !ids.contains_key(c)).collect();
        ids.extend(absent.into_iter().zip(n_tokens..));
        let bpe = BPE::builder()
            .vocab_and_merges(ids, merges)
            .ignore_merges(pre.ignore_merges)
            .build()
            .map_err(|e| anyhow!("byte-level BPE vocabulary: {e}"))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(splitter(pre)?));
        Ok(Self { inner, n_tokens })
    }

    /// Appends the ids of a text.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let spaces = text.split(|c: char| !c.is_whitespace()).map(|run| run.chars().count()).max();
        if let Some(n) = spaces.filter(|n| *n > MAX_SPACES) {
            bail!("tokenizing: {n} white-space characters in a row; at most {MAX_SPACES} can be tokenized");
        }
        let encoding = self.inner.encode_fast(text, false).map_err(|e| anyhow!("tokenizing: {e}"))?;
        ids.extend(encoding.get_ids().iter().filter(|id| **id < self.n_tokens));
        Ok(())
    }
}

pub(super) fn splitter(pre: &PreTokenizer) -> Result<Sequence> {
    let mut steps = Vec::new();
    for regex in pre.regexes {
        let split = Split::new(SplitPattern::Regex((*regex).to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| anyhow!("pre-tokenizer \"{}\": {regex}: {e}", pre.names[0]))?;
        steps.push(PreTokenizerWrapper::Split(split));
    }
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
    Ok(Sequence::new(steps))
}

/// A vocabulary of bytes alone needs no merges. Any other would be taken letter by letter without them.
fn check_letters(vocab: &Vocab, kinds: &[Kind]) -> Result<()> {
    let letters = |token: &[u8]| String::from_utf8_lossy(token).chars().count();
    let mut normal = vocab.tokens.iter().zip(kinds).filter(|(_, kind)| **kind == Kind::Normal);
    if let Some((word, _)) = normal.find(|(token, _)| letters(token) > 1) {
        let (n, shown) = (vocab.merges.len(), String::from_utf8_lossy(word).chars().take(40).collect::<String>());
        bail!(
            "tokenizer.ggml.merges: {n} merges, of which none can be used, so that no text becomes \"{}\" or any other \
             token of several letters; convert the model again",
            shown.escape_debug()
        );
    }
    Ok(())
}

fn merges(vocab: &Vocab, ids: &Ids, notes: &mut Vec<String>) -> Result<Vec<(String, String)>> {
    let mut merges = Vec::with_capacity(vocab.merges.len());
    let mut seen = HashSet::with_capacity(vocab.merges.len());
    let mut passed_over = 0;
    let mut joined = String::new();
    for (i, merge) in vocab.merges.iter().enumerate() {
        let (left, right) = parts(merge).with_context(|| {
            let text = String::from_utf8_lossy(merge);
            format!(
                "tokenizer.ggml.merges[{i}] is \"{}\", not two tokens with a space between them",
                text.escape_debug()
            )
        })?;
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if ![left, right, &joined].iter().all(|text| ids.contains_key(*text)) {
            passed_over += 1;
        } else if seen.insert((left, right)) {
            // Only the first counts: the builder would give a repeated pair its last rank.
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    if passed_over > 0 {
        notes.push(format!(
            "{passed_over} of {} merges name tokens that are not in the vocabulary; they are ignored",
            vocab.merges.len()
        ));
    }
    Ok(merges)
}

fn parts(merge: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(merge).ok()?;
    let first = text.chars().next()?.len_utf8();
    let space = first + text[first..].find(' ')?;
    let (left, right) = (&text[..space], &text[space + 1..]);
    (!right.is_empty()).then_some((left, right))
}
