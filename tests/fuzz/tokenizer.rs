//! Vocabularies and texts: ids are of the vocabulary, and where that has every byte, they spell the text.

use super::bytes;
use super::target::{Form, Target};
use super::vocabulary::{self, MadeUp};
use crate::support::Random;
use anyhow::{Result, anyhow};
use powerinfer::tokenizer::{Special, TextStream, Tokenizer};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A vocabulary, as the bytes that mean it, and a text.
#[derive(Clone)]
pub struct Case {
    vocab: Vec<u8>,
    text: Vec<u8>,
}

impl Case {
    fn of(input: &[u8]) -> Self {
        let Some((len, rest)) = input.split_first_chunk() else { return Self { vocab: Vec::new(), text: Vec::new() } };
        let (vocab, text) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*len))));
        Self { vocab: vocab.to_vec(), text: text.to_vec() }
    }
}

impl Form for Case {
    fn change(&mut self, other: &Self, words: &[&str], random: &mut Random) {
        match random.below(256) {
            0 => (0..1 + bytes::short(random) % 16)
                .for_each(|_| bytes::change(&mut self.vocab, &other.vocab, &[], random)),
            1..8 => {
                // Long words are work for who joins them.
                self.text = self.text.repeat(1 + bytes::short(random));
                self.text.truncate(1 << 12);
            }
            8..16 => self.text.truncate(bytes::short(random)),
            _ => bytes::change(&mut self.text, &other.text, words, random),
        }
        self.vocab.truncate(usize::from(u16::MAX));
    }

    fn bytes(&self) -> Vec<u8> {
        [&(self.vocab.len() as u16).to_le_bytes()[..], &self.vocab, &self.text].concat()
    }
}

struct Built {
    tokenizer: Tokenizer,
    n: usize,
    exact: bool,
    spm: bool,
}

type Refusable = Result<Rc<Built>, String>;

/// The tokenizers of the last vocabularies: to make one takes a hundred times as long as to use it.
#[derive(Default)]
pub struct Vocabularies(RefCell<HashMap<Vec<u8>, Refusable>>);

const MOST_BUILT: usize = 64;

impl Vocabularies {
    fn build(&self, vocab: &[u8]) -> Refusable {
        if let Some(built) = self.0.borrow().get(vocab) {
            return built.clone();
        }
        let MadeUp { vocab: made_up, exact } = MadeUp::of(vocab);
        let (n, spm) = (made_up.tokens.len(), made_up.model == "llama");
        let built = Tokenizer::new(made_up).map(|tokenizer| Rc::new(Built { tokenizer, n, exact, spm }));
        let built = built.map_err(|error| format!("{error:#}"));
        let mut all = self.0.borrow_mut();
        if all.len() >= MOST_BUILT {
            all.clear();
        }
        all.insert(vocab.to_vec(), built.clone());
        built
    }
}

impl Target for Vocabularies {
    type Form = Case;

    fn name(&self) -> &'static str {
        "tokenizer"
    }

    fn seeds(&self) -> Vec<Case> {
        let text = "ab  abba <s>\u{e9}'ll 1234\n\n\u{4e2d}\u{6587}".as_bytes();
        vocabulary::seeds().into_iter().map(|vocab| Case { vocab, text: text.to_vec() }).collect()
    }

    fn words(&self) -> &[&str] {
        &[
            "\u{2581}",
            "\u{2581}a",
            "<0x61>",
            "<s>",
            "</s>",
            "<|eot_id|>",
            " ",
            "  ",
            "\n\n",
            "'ll",
            "'",
            "123",
            "a",
            "ab",
            "\u{120}",
            "\u{e9}",
            "\u{301}",
            "\u{1f600}",
            "\u{4e2d}",
            "\u{200d}",
            "\u{85}",
            "\u{a0}",
            "\0",
            "\r",
        ]
    }

    fn run(&self, input: &[u8]) -> Result<()> {
        let Case { vocab, text } = Case::of(input);
        let built = self.build(&vocab).map_err(|error| anyhow!(error))?;
        let Built { tokenizer, n, exact, spm } = &*built;
        let text = String::from_utf8_lossy(&text);
        for special in [Special::AsText, Special::Parse] {
            let ids = tokenizer.encode(&text, special)?;
            assert!(ids.iter().all(|id| (*id as usize) < *n), "an id that is not in the vocabulary");
            let decoded = tokenizer.decode(&ids);
            let mut stream = TextStream::new();
            let pieces: String = ids.iter().map(|id| stream.push(tokenizer.token_bytes(*id))).collect();
            let streamed = pieces + &stream.finish();
            assert!(streamed.ends_with(&decoded), "{streamed:?} is streamed and {decoded:?} decoded");
            // The sign for a space is one of two spellings of a space.
            let one_spelling = !(*spm && text.contains('\u{2581}'));
            if *exact && one_spelling && special == Special::AsText {
                assert_eq!(decoded, text, "decoded is not what was encoded");
            }
        }
        // The whole of it, or every other stretch.
        let all = 0..text.len();
        let protected = tokenizer.encode_protected(&text, std::slice::from_ref(&all), Special::Parse)?;
        assert_eq!(protected, tokenizer.encode(&text, Special::AsText)?, "what is protected is more than text");
        let stretches: Vec<_> = (0..text.len()).step_by(6).map(|at| at..at + 3).collect();
        tokenizer.encode_protected(&text, &stretches, Special::Parse)?;
        tokenizer.encode_prompt(&text, Special::Parse, true).map(drop)
    }
}
