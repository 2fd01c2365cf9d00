//! Vocabularies and texts: ids are of the vocabulary, and where that has every byte, they spell the text.

use super::target::Target;
use anyhow::Result;
use powerinfer::tokenizer::{Special, TextStream, Tokenizer, Vocab};

const PRE: [&str; 12] = [
    "gpt-2",
    "llama-bpe",
    "default",
    "deepseek-llm",
    "tekken",
    "qwen2",
    "gpt-4o",
    "falcon",
    "bloom",
    "chameleon",
    "deepseek-v3",
    "exaone-moe",
];
const NORMAL: i32 = 1;
const BYTE: i32 = 6;

/// Takes numbers and pieces off the front of an input, which may be too short.
struct Taker<'a>(&'a [u8]);

impl<'a> Taker<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One in four.
    fn id(&mut self, n: usize) -> Option<u32> {
        let byte = self.byte();
        (byte % 4 == 0).then_some(u32::from(byte) % (n as u32 + 1))
    }

    /// Two in three are said.
    fn answer(&mut self) -> Option<bool> {
        [None, Some(false), Some(true)][usize::from(self.byte() % 3)]
    }
}

/// What an input means: any bytes mean something.
struct Case {
    vocab: Vocab,
    /// Whether every text can be spelled, and the tokens print what they are found by.
    exact: bool,
    text: String,
}

/// The characters that stand for bytes in byte-level vocabularies: those that are printed for themselves, and others
/// from U+0100 on.
fn alphabet() -> impl Iterator<Item = char> {
    let printed = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let n_others = (0..=u8::MAX).filter(|byte| !printed(byte)).count() as u32;
    (0..=u8::MAX).filter(printed).map(char::from).chain((0x100..0x100 + n_others).filter_map(char::from_u32))
}

impl Case {
    fn of(input: &[u8]) -> Self {
        let mut taker = Taker(input);
        let flags = taker.byte();
        let (spm, whole, scored, typed) = (flags & 1 == 0, flags & 6 != 0, flags & 8 == 0, flags & 16 == 0);
        let mut vocab = Vocab { model: if spm { "llama" } else { "gpt2" }.to_owned(), ..Vocab::default() };
        vocab.pre = Some(PRE[usize::from(taker.byte()) % PRE.len()].to_owned());
        let mut tokens: Vec<(Vec<u8>, i32)> = Vec::new();
        if whole && spm {
            (0..=255).for_each(|byte| tokens.push((format!("<0x{byte:02X}>").into_bytes(), BYTE)));
            // Without one a space is spelled as the bytes of its sign.
            tokens.push(("\u{2581}".into(), NORMAL));
        } else if whole {
            alphabet().for_each(|c| tokens.push((c.to_string().into_bytes(), NORMAL)));
        }
        let n_first = tokens.len();
        for _ in 0..taker.byte() % 48 {
            let kind = match taker.byte() {
                kind @ 0..16 => i32::from(kind % 8),
                _ => NORMAL,
            };
            let len = usize::from(taker.byte() % 8);
            tokens.push((taker.bytes(len).to_vec(), kind));
        }
        for _ in 0..if spm { 0 } else { taker.byte() % 48 } {
            let n = tokens.len().max(1);
            let mut part = || tokens.get(usize::from(taker.byte()) * 3 % n).map_or_else(Vec::new, |t| t.0.clone());
            let (left, right) = (part(), part());
            vocab.merges.push([&left[..], b" ", &right].concat());
            tokens.push(([left, right].concat(), NORMAL));
        }
        let n = tokens.len();
        // Others print something else than they are found by, or put a space in front of what follows.
        let plain = |(token, kind): &(Vec<u8>, i32)| {
            let byte = spm && token.starts_with(b"<0x");
            matches!(kind, 1..=3) && !byte && !token.is_empty()
        };
        let plain = tokens[n_first..].iter().all(plain);
        let kinds;
        (vocab.tokens, kinds) = tokens.into_iter().unzip();
        if scored {
            vocab.scores = (0..n).map(|_| f32::from(taker.byte() as i8)).collect();
        }
        if typed {
            vocab.token_types = kinds;
        }
        vocab.unk = taker.id(n);
        vocab.bos = taker.id(n);
        vocab.eos = taker.id(n);
        vocab.eot = taker.id(n);
        (vocab.add_bos, vocab.add_eos, vocab.add_space_prefix) = (taker.answer(), taker.answer(), taker.answer());
        let text = String::from_utf8_lossy(taker.0).into_owned();
        let exact = whole && (plain && typed) && !(spm && text.contains('\u{2581}'));
        Self { vocab, exact, text }
    }
}

pub struct Vocabularies;

impl Target for Vocabularies {
    type Form = Vec<u8>;

    fn name(&self) -> &'static str {
        "tokenizer"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let token = |text: &str| [&[255, text.len() as u8], text.as_bytes()].concat();
        let tokens = |texts: &[&str]| [vec![texts.len() as u8], texts.iter().flat_map(|t| token(t)).collect()].concat();
        let text = "ab  abba <s>\u{e9}'ll 1234\n\n\u{4e2d}\u{6587}";
        // All bytes and some tokens, no scores, nothing else said; the same byte by byte, with merges.
        let spm =
            [&[2 | 8, 0][..], &tokens(&["\u{2581}", "a", "b", "ab", "\u{2581}ab", "<s>"]), &[1; 7], text.as_bytes()];
        let scored = [&[2, 0][..], &tokens(&["a", "ab", "bb"]), &[1; 260], &[1; 7], text.as_bytes()];
        let merges = [&[3 | 8, 0][..], &tokens(&["ab", "<s>"]), &[2, 21, 22, 86, 86], &[1; 7], text.as_bytes()];
        vec![spm.concat(), scored.concat(), merges.concat()]
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
        let Case { vocab, exact, text } = Case::of(input);
        let n = vocab.tokens.len();
        let tokenizer = Tokenizer::new(vocab)?;
        for special in [Special::AsText, Special::Parse] {
            let ids = tokenizer.encode(&text, special)?;
            assert!(ids.iter().all(|id| (*id as usize) < n), "an id that is not in the vocabulary");
            let decoded = tokenizer.decode(&ids);
            let mut stream = TextStream::new();
            let pieces: String = ids.iter().map(|id| stream.push(tokenizer.token_bytes(*id))).collect();
            let streamed = pieces + &stream.finish();
            assert!(streamed.ends_with(&decoded), "{streamed:?} is streamed and {decoded:?} decoded");
            if exact && special == Special::AsText {
                assert_eq!(decoded, text, "decoded is not what was encoded");
            }
        }
        tokenizer.encode_prompt(&text, Special::Parse, true).map(drop)
    }
}
