//! SentencePiece vocabularies ("llama") as BPE: the merges that are equivalent to joining by score.

use super::bytes::{SPACE, byte};
use super::vocab::{Kind, Vocab};
use anyhow::{Result, anyhow, ensure};
use tokenizers::models::bpe::{BPE, Vocab as Ids};

/// Real vocabularies need a few megabytes; nested runs of one character could ask for any amount.
const MAX_MERGE_BYTES: usize = 256 << 20;

/// A key for the unknown token that no text can spell, since lookups of text are by single character.
const UNKNOWN: &str = "\0unknown";

struct Piece<'a> {
    text: &'a str,
    id: u32,
    score: f32,
}

/// SentencePiece joins the neighbours whose concatenation is the token with the highest score; so each way of cutting a
/// token into two tokens is a merge, ranked by that score.
///
/// Two cuts of one token get different ranks, whereas SentencePiece would take the leftmost of equals; that shows only
/// if both overlap in a text once everything ranked higher is joined, as in `aa a aa` with the token `aaa`.
///
/// Control and unknown tokens are left out, so that text cannot become one, and byte tokens only stand for bytes.
pub(super) fn build(vocab: &Vocab, kinds: &[Kind], unk: Option<u32>) -> Result<tokenizers::Tokenizer> {
    let mut ids = Ids::default();
    let mut pieces = Vec::new();
    for (id, (token, kind)) in (0..).zip(vocab.tokens.iter().zip(kinds)) {
        let Ok(text) = std::str::from_utf8(token) else { continue };
        match kind {
            Kind::Control | Kind::Unknown => {}
            Kind::Byte => {
                if let Some(byte) = byte(token) {
                    ids.entry(format!("<0x{byte:02X}>")).or_insert(id);
                }
            }
            _ if text.is_empty() || ids.contains_key(text) => {}
            _ => {
                ids.insert(text.to_owned(), id);
                pieces.push(Piece { text, id, score: vocab.score(id as usize) });
            }
        }
    }
    let merges = merges(&pieces)?;
    let mut builder = BPE::builder().byte_fallback(true).fuse_unk(true);
    if let Some(id) = unk {
        ids.insert(UNKNOWN.to_owned(), id);
        builder = builder.unk_token(UNKNOWN.to_owned());
    }
    let bpe = builder.vocab_and_merges(ids, merges).build().map_err(|e| anyhow!("SentencePiece vocabulary: {e}"))?;
    Ok(tokenizers::Tokenizer::new(bpe))
}

/// The text that the model sees: spaces written out, one more in front if the vocabulary wants it.
pub(super) fn normalize(text: &str, space_prefix: bool) -> String {
    let prefix = if space_prefix { SPACE } else { "" };
    format!("{prefix}{}", text.replace(' ', SPACE))
}

fn merges(pieces: &[Piece]) -> Result<Vec<(String, String)>> {
    let prefixes = chains(pieces, |a, b| a.bytes().cmp(b.bytes()), |text, part| text.starts_with(part));
    let suffixes = chains(pieces, |a, b| a.bytes().rev().cmp(b.bytes().rev()), |text, part| text.ends_with(part));
    let mut found = Vec::new();
    let mut bytes = 0;
    for (i, piece) in pieces.iter().enumerate() {
        let len = |j: usize| pieces[j].text.len();
        let lefts = follow(&prefixes, i).map(len);
        let mut rights: Vec<usize> = follow(&suffixes, i).map(len).collect();
        // Lefts get shorter as rights, taken from the back, get longer.
        for left in lefts {
            let wanted = piece.text.len() - left;
            while rights.pop_if(|right| *right < wanted).is_some() {}
            if rights.last() == Some(&wanted) {
                bytes += piece.text.len();
                found.push((piece, left));
            }
        }
        ensure!(
            bytes <= MAX_MERGE_BYTES,
            "SentencePiece vocabulary: its tokens can be split into one another in too many ways"
        );
    }
    found.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    Ok(found
        .into_iter()
        .map(|(piece, left)| {
            let (left, right) = piece.text.split_at(left);
            (left.to_owned(), right.to_owned())
        })
        .collect())
}

/// For each piece, the longest other one that it begins (or ends) with. Texts must be distinct.
///
/// In sorted order, all pieces between a piece and what it begins with have that same beginning; so a stack finds them
/// in time linear in the total length, however the pieces nest.
fn chains(
    pieces: &[Piece],
    order: impl Fn(&str, &str) -> std::cmp::Ordering,
    contains: impl Fn(&str, &str) -> bool,
) -> Vec<Option<usize>> {
    let mut sorted: Vec<usize> = (0..pieces.len()).collect();
    sorted.sort_unstable_by(|&a, &b| order(pieces[a].text, pieces[b].text));
    let mut longest = vec![None; pieces.len()];
    let mut stack: Vec<usize> = Vec::new();
    for i in sorted {
        while stack.pop_if(|top| !contains(pieces[i].text, pieces[*top].text)).is_some() {}
        longest[i] = stack.last().copied();
        stack.push(i);
    }
    longest
}

fn follow(chain: &[Option<usize>], start: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(chain[start], |&i| chain[i])
}
