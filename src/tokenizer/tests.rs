//! Made-up vocabularies: what the tokenizers promise, and what they refuse.

use super::pre::PreTokenizer;
use super::{Special, TextStream, Tokenizer, Vocab, bpe};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

/// Ids 0..=2 unknown, BOS, EOS; 3..=258 bytes; then `tokens` with their types.
fn spm(tokens: &[(&str, i32)]) -> Vocab {
    let mut vocab = Vocab { model: "llama".into(), ..Vocab::default() };
    let mut add = |text: &str, kind: i32| {
        vocab.scores.push(-(vocab.tokens.len() as f32));
        vocab.tokens.push(text.into());
        vocab.token_types.push(kind);
    };
    add("<unk>", 2);
    add("<s>", 3);
    add("</s>", 3);
    for byte in 0..=255 {
        add(&format!("<0x{byte:02X}>"), 6);
    }
    for (text, kind) in tokens {
        add(text, *kind);
    }
    vocab
}

/// Every character of the byte alphabet, ids 0..=255 in its order; then the results of the merges; then `more`.
fn gpt2(pre: &str, merges: &[&str], more: &[(&str, i32)]) -> Vocab {
    let alphabet = super::bytes::ByteAlphabet::new();
    let chars = (0..0x144).filter_map(char::from_u32).filter(|c| alphabet.byte(*c).is_some());
    let mut tokens: Vec<Vec<u8>> = chars.map(|c| c.to_string().into_bytes()).collect();
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "").into_bytes()));
    let mut token_types = vec![1; tokens.len()];
    for (text, kind) in more {
        tokens.push((*text).into());
        token_types.push(*kind);
    }
    let merges = merges.iter().map(|merge| (*merge).into()).collect();
    Vocab { model: "gpt2".into(), pre: Some(pre.into()), tokens, token_types, merges, ..Vocab::default() }
}

fn texts(tokenizer: &Tokenizer, text: &str, special: Special) -> Vec<String> {
    tokenizer.encode(text, special).unwrap().iter().map(|&id| tokenizer.token_text(id).into_owned()).collect()
}

fn refusal(vocab: Vocab) -> String {
    let error = Tokenizer::new(vocab).err().expect("a vocabulary that is refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

fn words(pre: &PreTokenizer) -> impl Fn(&str) -> Vec<String> {
    let splitter = bpe::splitter(pre).unwrap();
    move |text| {
        let mut text = PreTokenizedString::from(text);
        splitter.pre_tokenize(&mut text).unwrap();
        let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(word, _, _)| word.to_owned()).collect()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn text(&mut self, max_len: u64) -> String {
        let len = self.below(max_len + 1);
        (0..len)
            .map(|_| match self.below(4) {
                0 => [' ', '\n', '\t', '\r', '\'', '\u{a0}', '\u{3000}', '0', '7'][self.below(9) as usize],
                1 => char::from(self.below(128) as u8),
                2 => char::from_u32(self.below(0x3000) as u32).unwrap_or('é'),
                _ => char::from_u32(self.below(0x11_0000) as u32).unwrap_or('🦙'),
            })
            .collect()
    }
}

const LETTERS: &[(&str, i32)] = &[("▁", 1), ("h", 1), ("i", 1), ("hi", 1), ("▁hi", 1), ("<", 1), ("s", 1), (">", 1)];

#[test]
fn spm_joins_by_score_and_falls_back_to_bytes() {
    let tokenizer = Tokenizer::new(spm(LETTERS)).unwrap();
    assert_eq!(texts(&tokenizer, "hi hi", Special::AsText), ["▁hi", "▁hi"]);
    assert_eq!(texts(&tokenizer, "é", Special::AsText), ["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("hi é\n🦙", Special::AsText).unwrap()), "hi é\n🦙");
}

#[test]
fn spm_without_byte_tokens_gives_one_unknown_for_a_run() {
    let mut vocab = spm(LETTERS);
    vocab.tokens.drain(3..259);
    vocab.scores.drain(3..259);
    vocab.token_types.drain(3..259);
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(texts(&tokenizer, "hiéé", Special::AsText), ["▁hi", "<unk>"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("hiéé", Special::AsText).unwrap()), "hi");
}

#[test]
fn spm_with_neither_scores_nor_types_still_knows_its_bytes() {
    let vocab = Vocab { scores: Vec::new(), token_types: Vec::new(), ..spm(LETTERS) };
    let tokenizer = Tokenizer::new(vocab).unwrap();
    let ids = tokenizer.encode("hi\n", Special::AsText).unwrap();
    assert_eq!(tokenizer.decode(&ids), "hi\n");
}

#[test]
fn control_tokens_come_from_text_only_when_parsed() {
    let mut vocab = spm(&[LETTERS, &[("<s", 1), ("s>", 1)]].concat());
    vocab.scores[1] = 100.0;
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(texts(&tokenizer, "<s>hi", Special::Parse), ["<s>", "▁hi"]);
    assert_eq!(texts(&tokenizer, "<s>hi", Special::AsText), ["▁", "<s", ">", "hi"]);
    assert_eq!(texts(&tokenizer, "hi<unk>", Special::Parse), ["▁hi", "<unk>"]);

    let tokenizer = Tokenizer::new(gpt2("glm4", &["< |", "<| >"], &[("<s>", 3), ("<|>", 3)])).unwrap();
    assert_eq!(texts(&tokenizer, "<s>x", Special::Parse), ["<s>", "x"]);
    assert_eq!(texts(&tokenizer, "<s>x", Special::AsText), ["<", "s", ">", "x"]);
    assert_eq!(texts(&tokenizer, "<|>", Special::Parse), ["<|>"]);
}

#[test]
fn merges_do_not_make_control_tokens() {
    let mut vocab = gpt2("glm4", &["< |", "<| >"], &[]);
    *vocab.token_types.last_mut().unwrap() = 3;
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(texts(&tokenizer, "<|>", Special::AsText), ["<|", ">"]);
    assert!(tokenizer.notes()[0].starts_with("1 of 2 merges"), "{:?}", tokenizer.notes());
}

#[test]
fn user_defined_tokens_are_found_either_way_and_printed_as_they_are() {
    let tokenizer = Tokenizer::new(spm(&[LETTERS, &[("▁<tool>", 4), ("<tool>", 4)]].concat())).unwrap();
    for special in [Special::AsText, Special::Parse] {
        assert_eq!(texts(&tokenizer, "hi<tool>hi", special), ["▁hi", "<tool>", "▁hi"]);
        assert_eq!(texts(&tokenizer, "▁<tool>", special), ["▁<tool>"]);
    }
    assert_eq!(tokenizer.decode(&tokenizer.encode("▁<tool>", Special::AsText).unwrap()), "▁<tool>");
    let tokenizer = Tokenizer::new(gpt2("gpt-2", &[], &[("Ġ  é", 4)])).unwrap();
    let ids = tokenizer.encode("aĠ  éb", Special::AsText).unwrap();
    assert_eq!((ids.len(), tokenizer.decode(&ids).as_str()), (3, "aĠ  éb"));
}

#[test]
fn the_longest_special_token_wins() {
    let tokenizer = Tokenizer::new(gpt2("gpt-2", &[], &[("<a", 4), ("<a>", 4), ("b<", 4)])).unwrap();
    assert_eq!(texts(&tokenizer, "b<a><a<a>", Special::AsText), ["b", "<a>", "<a", "<a>"]);
}

#[test]
fn bos_and_eos_are_added_as_the_vocabulary_says() {
    let encode = |vocab: Vocab, bos| {
        let tokenizer = Tokenizer::new(vocab).unwrap();
        let ids = tokenizer.encode_prompt("h", Special::Parse, bos).unwrap();
        ids.iter().map(|&id| tokenizer.token_text(id).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(encode(spm(LETTERS), true), ["<s>", "▁", "h"]);
    assert_eq!(encode(spm(LETTERS), false), ["▁", "h"]);
    assert_eq!(encode(Vocab { add_bos: Some(false), ..spm(LETTERS) }, true), ["▁", "h"]);
    assert_eq!(encode(Vocab { add_eos: Some(true), ..spm(LETTERS) }, true), ["<s>", "▁", "h", "</s>"]);
    assert_eq!(encode(Vocab { add_space_prefix: Some(false), ..spm(LETTERS) }, true), ["<s>", "h"]);

    let gpt2 = |pre| Vocab { bos: Some(256), ..gpt2(pre, &[], &[("<s>", 3)]) };
    assert_eq!(encode(gpt2("gpt-2"), true), ["h"]);
    assert_eq!(encode(gpt2("llama-bpe"), true), ["<s>", "h"]);
    assert_eq!(encode(Vocab { add_bos: Some(true), ..gpt2("gpt-2") }, true), ["<s>", "h"]);

    let tokenizer = Tokenizer::new(Vocab { bos: None, ..gpt2("llama-bpe") }).unwrap();
    assert!(!tokenizer.adds_bos() && tokenizer.notes()[0].contains("bos"), "{:?}", tokenizer.notes());
}

#[test]
fn generation_ends_at_eos_eot_and_tokens_known_by_text() {
    let vocab = gpt2("gpt-2", &[], &[("<e>", 3), ("<t>", 3), ("<|im_end|>", 1), ("<|end|>", 3), ("<other>", 3)]);
    let tokenizer = Tokenizer::new(Vocab { eos: Some(256), eot: Some(257), ..vocab }).unwrap();
    let ends: Vec<u32> = (0..300).filter(|&id| tokenizer.is_end_of_generation(id)).collect();
    assert_eq!(ends, [256, 257, 258, 259]);
    assert_eq!(tokenizer.token_bytes(258), b"", "a token known to end a turn is a control token whatever its type");

    let harmony = gpt2("gpt-4o", &[], &[("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3)]);
    let tokenizer = Tokenizer::new(harmony).unwrap();
    assert_eq!((0..300).filter(|&id| tokenizer.is_end_of_generation(id)).collect::<Vec<u32>>(), [257, 258]);
}

#[test]
fn byte_level_text_survives_the_round_trip() {
    let mut random = Random(11);
    for pre in PreTokenizer::known() {
        let tokenizer = Tokenizer::new(gpt2(pre, &["Ġ t", "h e", "Ġt he", "Ã ©"], &[])).unwrap();
        for _ in 0..60 {
            let text = random.text(40);
            assert_eq!(tokenizer.decode(&tokenizer.encode(&text, Special::AsText).unwrap()), text, "{pre}");
        }
    }
}

#[test]
fn byte_level_merges_apply_in_order_and_within_words() {
    let tokenizer = Tokenizer::new(gpt2("gpt-2", &["h e", "Ġ t", "Ġt he", "t h", "Ġ t"], &[])).unwrap();
    assert_eq!(texts(&tokenizer, "the the", Special::AsText), ["t", "he", "Ġthe"]);
    assert_eq!(texts(&tokenizer, "th", Special::AsText), ["th"]);
}

#[test]
fn whole_words_skip_the_merges_only_where_the_pre_tokenizer_says_so() {
    let more = &[("the", 1)];
    let tokenizer = Tokenizer::new(gpt2("gpt-2", &["t h"], more)).unwrap();
    assert_eq!(texts(&tokenizer, "the", Special::AsText), ["th", "e"]);
    let tokenizer = Tokenizer::new(gpt2("llama-bpe", &["t h"], more)).unwrap();
    assert_eq!(texts(&tokenizer, "the", Special::AsText), ["the"]);
}

#[test]
fn empty_text_gives_no_tokens() {
    for vocab in [spm(LETTERS), gpt2("gpt-2", &[], &[])] {
        let tokenizer = Tokenizer::new(vocab).unwrap();
        assert_eq!(tokenizer.encode("", Special::AsText).unwrap(), [0; 0]);
        assert_eq!(tokenizer.decode(&[]), "");
    }
}

#[test]
fn decoding_takes_off_only_the_space_that_encoding_put_in_front() {
    let tokenizer = Tokenizer::new(spm(LETTERS)).unwrap();
    for text in ["hi", " hi", "  hi ", " "] {
        let ids = tokenizer.encode_prompt(text, Special::AsText, true).unwrap();
        assert_eq!(tokenizer.decode(&ids), text);
    }
    let tokenizer = Tokenizer::new(Vocab { add_space_prefix: Some(false), ..spm(LETTERS) }).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode(" hi", Special::AsText).unwrap()), " hi");
}

#[test]
fn ids_out_of_range_print_nothing() {
    let tokenizer = Tokenizer::new(spm(LETTERS)).unwrap();
    assert_eq!((tokenizer.token_bytes(u32::MAX), &*tokenizer.token_text(u32::MAX)), (&b""[..], ""));
    assert!(!tokenizer.is_end_of_generation(u32::MAX));
    assert_eq!(tokenizer.decode(&[u32::MAX]), "");
}

#[test]
fn repeated_and_broken_tokens_leave_the_other_ids_where_they_are() {
    let mut vocab = spm(&[("▁", 1), ("h", 1), ("?", 1), ("h", 1), ("", 1), ("i", 1), ("hi", 1)]);
    vocab.tokens[261] = b"\xe2\x96".to_vec();
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(tokenizer.encode("hhi", Special::AsText).unwrap(), [259, 260, 265]);
    assert_eq!(tokenizer.token_bytes(261), b"\xe2\x96");
    assert_eq!(tokenizer.token_bytes(262), b"h");

    let mut vocab = gpt2("gpt-2", &["h i"], &[]);
    vocab.tokens[0] = b"\xff".to_vec();
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(tokenizer.encode("hi", Special::AsText).unwrap(), [256]);
    assert_eq!(tokenizer.token_bytes(0), b"\xff");
}

#[test]
fn hostile_vocabularies_are_refused_in_one_line() {
    assert!(refusal(Vocab { model: "llama".into(), ..Vocab::default() }).contains("empty"));
    assert!(refusal(Vocab { model: "bert\n".into(), ..spm(LETTERS) }).contains("unknown model \"bert\\n\""));
    assert!(refusal(Vocab { scores: vec![0.0], ..spm(LETTERS) }).contains("scores: 1 values for 267 tokens"));
    assert!(refusal(Vocab { token_types: vec![1; 9], ..spm(LETTERS) }).contains("token_type: 9 values"));
    assert!(refusal(Vocab { bos: Some(267), ..spm(LETTERS) }).contains("bos_token_id: 267"));
    assert!(refusal(Vocab { eot: Some(u32::MAX), ..spm(LETTERS) }).contains("eot_token_id"));
    for merge in ["", " ", "ab", "a ", " b", "Ġ"] {
        let vocab = Vocab { merges: vec![b"a b".to_vec(), merge.into()], ..gpt2("gpt-2", &[], &[]) };
        assert!(refusal(vocab).contains("merges[1]"), "{merge:?}");
    }
    let vocab = Vocab { merges: vec![b"\xff \xff".to_vec()], ..gpt2("gpt-2", &[], &[]) };
    assert!(refusal(vocab).contains("merges[0]"));
}

#[test]
fn odd_but_usable_vocabularies_do_not_panic() {
    for token in [&b""[..], b"\0", b"\xff", b"a"] {
        let scores = vec![f32::NAN];
        for model in ["llama", "gpt2"] {
            let tokens = vec![token.to_vec()];
            let vocab = Vocab { model: model.into(), tokens, scores: scores.clone(), ..Vocab::default() };
            let tokenizer = Tokenizer::new(vocab).unwrap();
            tokenizer.encode("a\0é ", Special::Parse).unwrap();
        }
    }
}

#[test]
fn an_unknown_pre_tokenizer_is_refused_by_name() {
    let error = refusal(gpt2("gpt-99", &[], &[]));
    assert!(error.contains("\"gpt-99\"") && error.contains("llama-bpe, "), "{error}");
    let tokenizer = Tokenizer::new(Vocab { pre: None, ..gpt2("", &[], &[]) }).unwrap();
    assert!(tokenizer.notes()[0].contains("default"), "{:?}", tokenizer.notes());
}

#[test]
fn every_pre_tokenizer_compiles_and_has_its_names_to_itself() {
    let mut names: Vec<&str> = PreTokenizer::known().collect();
    for name in &names {
        bpe::splitter(PreTokenizer::named(name).unwrap()).unwrap();
    }
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn pre_tokenizers_cut_as_their_models_were_trained() {
    let cut = |name, text| words(PreTokenizer::named(name).unwrap())(text);
    assert_eq!(cut("gpt-2", "I'll  go 1234"), ["I", "'ll", "Ġ", "Ġgo", "Ġ1234"]);
    assert_eq!(cut("llama-bpe", "I'LL  go\n\n12345"), ["I", "'LL", "Ġ", "Ġgo", "ĊĊ", "123", "45"]);
    assert_eq!(cut("qwen2", "a12 (b)"), ["a", "1", "2", "Ġ(", "b", ")"]);
    assert_eq!(cut("falcon", "a+b 12345"), ["a", "+", "b", "Ġ", "123", "45"]);
    assert_eq!(cut("starcoder", "x12"), ["x", "1", "2"]);
    assert_eq!(cut("tekken", "camelCase HTTPServer"), ["camel", "Case", "ĠHTTPServer"]);
    assert_eq!(cut("gpt-4o", "Don't 1234"), ["Don't", "Ġ", "123", "4"]);
    assert_eq!(cut("deepseek-v3", "a.b é1234"), ["a", ".b", "ĠÃ©", "123", "4"]);
    assert_eq!(cut("deepseek-llm", "Ok éЖ 12"), ["Ok", "ĠÃ©Ðĸ", "Ġ", "12"]);
    assert_eq!(cut("deepseek-llm", "é\u{1e943}\u{fb01}").len(), 1, "letters of scripts with cases stay together");
    assert_eq!(cut("deepseek-llm", "K\u{212a}").len(), 2, "the ideographs' range takes in U+0800 to U+4E00");
}

#[test]
fn classes_of_letters_mean_what_the_lookaheads_they_replace_meant() {
    const LOOKAHEADS: PreTokenizer = PreTokenizer {
        names: &["tekken, as written upstream"],
        regexes: &[concat!(
            r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+|",
            r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*|\p{N}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )],
        ignore_merges: true,
        add_bos: true,
    };
    let (classes, lookaheads) = (words(PreTokenizer::named("tekken").unwrap()), words(&LOOKAHEADS));
    let mut random = Random(5);
    for _ in 0..500 {
        let text = random.text(30) + "aBC dE";
        assert_eq!(classes(&text), lookaheads(&text), "{text:?}");
    }
}

#[test]
fn long_runs_finish_quickly() {
    let start = std::time::Instant::now();
    let spaces = [("▁▁", 1), ("▁▁▁▁", 1), ("a", 1), ("aa", 1), ("aaaa", 1)];
    let tokenizer = Tokenizer::new(spm(&[LETTERS, &spaces].concat())).unwrap();
    for run in [" ".repeat(100_000), "a".repeat(100_000), "🦙".repeat(25_000), "\n".repeat(100_000)] {
        let ids = tokenizer.encode(&run, Special::Parse).unwrap();
        assert!(tokenizer.decode(&ids) == run);
    }
    for pre in ["default", "gpt-2", "llama-bpe", "qwen2", "falcon", "tekken", "gpt-4o", "deepseek-llm", "deepseek-v3"] {
        let tokenizer = Tokenizer::new(gpt2(pre, &["Ġ Ġ", "ĠĠ ĠĠ", "a a"], &[])).unwrap();
        for run in [" ".repeat(100_000), "a".repeat(100_000), " ".repeat(100_000) + "a", "a ".repeat(50_000)] {
            let ids = tokenizer.encode(&run, Special::Parse).unwrap();
            assert!(tokenizer.decode(&ids) == run, "{pre}");
        }
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn tokens_nested_in_each_other_do_not_take_quadratic_time() {
    let nested: Vec<String> = (1..=600).map(|n| "a".repeat(n)).collect();
    let tokens: Vec<(&str, i32)> = nested.iter().map(|token| (token.as_str(), 1)).collect();
    assert!(Tokenizer::new(spm(&tokens)).is_ok());
    let nested: Vec<String> = (1..=3000).map(|n| "a".repeat(n)).collect();
    let tokens: Vec<(&str, i32)> = nested.iter().map(|token| (token.as_str(), 1)).collect();
    assert!(refusal(spm(&tokens)).contains("too many ways"));
}

#[test]
fn a_stream_never_shows_half_a_character() {
    let mut stream = TextStream::new();
    let shown: Vec<String> = "a🦙b".bytes().map(|byte| stream.push(&[byte])).collect();
    assert_eq!(shown, ["a", "", "", "", "🦙", "b"]);
    assert_eq!(stream.finish(), "");
}

#[test]
fn a_stream_replaces_invalid_bytes_at_once_and_an_unfinished_character_at_the_end() {
    let mut stream = TextStream::new();
    assert_eq!(stream.push(b"a\xffb"), "a\u{fffd}b");
    assert_eq!(stream.push(b"\xf0\x9f"), "");
    assert_eq!(stream.push(b"c"), "\u{fffd}c");
    assert_eq!(stream.push(b"\xe2\x96"), "");
    assert_eq!(stream.finish(), "\u{fffd}");
    assert_eq!(stream.finish(), "");
}

#[test]
fn a_stream_in_any_pieces_equals_the_whole() {
    let mut random = Random(17);
    for _ in 0..500 {
        let mut bytes = random.text(12).into_bytes();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64 + 1) as usize;
            bytes.insert(at, random.below(256) as u8);
        }
        let mut stream = TextStream::new();
        let mut joined = String::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
            joined += &stream.push(piece);
            rest = after;
        }
        joined += &stream.finish();
        assert_eq!(joined, String::from_utf8_lossy(&bytes));
    }
}
