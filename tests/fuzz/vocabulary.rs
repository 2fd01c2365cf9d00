//! Vocabularies out of bytes.

use powerinfer::tokenizer::Vocab;

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
        byte.is_multiple_of(4).then_some(u32::from(byte) % (n as u32 + 1))
    }

    /// Two in three are said.
    fn answer(&mut self) -> Option<bool> {
        [None, Some(false), Some(true)][usize::from(self.byte() % 3)]
    }
}

/// A vocabulary that any bytes mean.
pub struct MadeUp {
    pub vocab: Vocab,
    /// Whether every text can be spelled, and the tokens print what they are found by.
    pub exact: bool,
}

/// The characters that stand for bytes in byte-level vocabularies: those that are printed for themselves, and others
/// from U+0100 on.
fn alphabet() -> impl Iterator<Item = char> {
    let printed = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let n_others = (0..=u8::MAX).filter(|byte| !printed(byte)).count() as u32;
    (0..=u8::MAX).filter(printed).map(char::from).chain((0x100..0x100 + n_others).filter_map(char::from_u32))
}

impl MadeUp {
    pub fn of(input: &[u8]) -> Self {
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
        (vocab.ends.eot, vocab.ends.fim_pad) = (taker.id(n), taker.id(n));
        vocab.strips_behind_special = flags & 32 != 0;
        (vocab.add_bos, vocab.add_eos, vocab.add_space_prefix) = (taker.answer(), taker.answer(), taker.answer());
        Self { vocab, exact: whole && plain && typed }
    }
}

/// Bytes that mean a few vocabularies: one with all bytes and some tokens, one with scores, one with merges.
pub fn seeds() -> Vec<Vec<u8>> {
    let token = |text: &str| [&[255, text.len() as u8], text.as_bytes()].concat();
    let tokens = |texts: &[&str]| [vec![texts.len() as u8], texts.iter().flat_map(|t| token(t)).collect()].concat();
    let nothing_else = [1; 8];
    vec![
        [&[2 | 8, 0][..], &tokens(&["a", "b", "ab", "\u{2581}ab", "<s>"]), &nothing_else].concat(),
        [&[2, 0][..], &tokens(&["a", "ab", "bb"]), &[1; 260], &nothing_else].concat(),
        [&[3 | 8, 0][..], &tokens(&["ab", "<s>"]), &[2, 21, 22, 86, 86], &nothing_else].concat(),
    ]
}
