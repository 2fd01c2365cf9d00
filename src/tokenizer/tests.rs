//! Made-up vocabularies: what the tokenizers promise, and what they refuse.

use super::pre::PreTokenizer;
use super::{Ends, Special, Tokenizer, Vocab, bpe};
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

pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    pub fn text(&mut self, max_len: u64) -> String {
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

/// Sets the scores of the tokens behind the bytes.
fn with_scores(mut vocab: Vocab, scores: &[f32]) -> Vocab {
    let n = vocab.scores.len() - scores.len();
    vocab.scores[n..].copy_from_slice(scores);
    vocab
}

#[test]
fn of_equal_scores_the_leftmost_pair_is_joined() {
    let tokens = [("x", 1), ("y", 1), ("z", 1), ("yz", 1), ("xy", 1), ("xyz", 1)];
    let vocab = Vocab { add_space_prefix: Some(false), ..spm(&tokens[..5]) };
    let tokenizer = Tokenizer::new(with_scores(vocab.clone(), &[-1.0, -2.0, -3.0, -9.0, -9.0])).unwrap();
    assert_eq!(texts(&tokenizer, "xyz", Special::AsText), ["xy", "z"]);
    assert_eq!(texts(&tokenizer, "yzxyz", Special::AsText), ["yz", "xy", "z"]);
    let tokenizer = Tokenizer::new(with_scores(vocab.clone(), &[-1.0, -2.0, -3.0, -8.0, -9.0])).unwrap();
    assert_eq!(texts(&tokenizer, "xyz", Special::AsText), ["x", "yz"]);
    // Both zeros are one score.
    let tokenizer = Tokenizer::new(with_scores(vocab, &[-1.0, -2.0, -3.0, -0.0, 0.0])).unwrap();
    assert_eq!(texts(&tokenizer, "xyz", Special::AsText), ["xy", "z"]);
    // Two ways to make one token: either is that token.
    let vocab = Vocab { add_space_prefix: Some(false), ..spm(&tokens) };
    let tokenizer = Tokenizer::new(with_scores(vocab, &[-1.0, -2.0, -3.0, -9.0, -9.0, -9.0])).unwrap();
    assert_eq!(texts(&tokenizer, "xyzx", Special::AsText), ["xyz", "x"]);
}

#[test]
fn where_all_scores_are_one_the_order_of_ids_decides() {
    let tokens = [("x", 1), ("y", 1), ("z", 1), ("yz", 1), ("xy", 1), ("<t>", 4)];
    let vocab = Vocab { add_space_prefix: Some(false), ..spm(&tokens) };
    // Bytes and user-defined tokens have scores of their own.
    let tokenizer = Tokenizer::new(with_scores(vocab.clone(), &[-1e3, -1e3, -1e3, -1e3, -1e3, 0.0])).unwrap();
    assert_eq!(texts(&tokenizer, "xyz", Special::AsText), ["x", "yz"]);
    let tokenizer = Tokenizer::new(Vocab { scores: Vec::new(), ..vocab }).unwrap();
    assert_eq!(texts(&tokenizer, "xyz", Special::AsText), ["x", "yz"]);
}

/// Joins as the specification says, looking at all neighbours each time.
fn plainly_joined(vocab: &Vocab, text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = text.chars().map(String::from).collect();
    let score = |text: &str| {
        let id = vocab.tokens.iter().position(|t| t == text.as_bytes())?;
        (vocab.token_types[id] == 1).then(|| vocab.scores[id])
    };
    loop {
        let mut best: Option<(f32, usize)> = None;
        for i in 1..pieces.len() {
            let score = score(&format!("{}{}", pieces[i - 1], pieces[i]));
            if let Some(score) = score.filter(|s| best.is_none_or(|(b, _)| *s > b)) {
                best = Some((score, i));
            }
        }
        let Some((_, i)) = best else { return pieces };
        let right = pieces.remove(i);
        pieces[i - 1] += &right;
    }
}

#[test]
fn random_vocabularies_join_as_the_specification_says() {
    let mut random = Random(29);
    for _ in 0..200 {
        let letters = ["a", "b", "c", "d"];
        let mut tokens: Vec<String> = letters.iter().map(|l| (*l).to_owned()).collect();
        for _ in 0..random.below(12) {
            let part = |random: &mut Random| tokens[random.below(tokens.len() as u64) as usize].clone();
            let joined = part(&mut random) + &part(&mut random);
            if !tokens.contains(&joined) {
                tokens.push(joined);
            }
        }
        let listed: Vec<(&str, i32)> = tokens.iter().map(|t| (t.as_str(), 1)).collect();
        let mut vocab = Vocab { add_space_prefix: Some(false), ..spm(&listed) };
        vocab.scores[259..].iter_mut().for_each(|s| *s = -(random.below(4) as f32));
        vocab.scores[259] = 1.0;
        let tokenizer = Tokenizer::new(vocab.clone()).unwrap();
        for _ in 0..10 {
            let text: String = (0..random.below(24)).map(|_| letters[random.below(4) as usize]).collect();
            assert_eq!(texts(&tokenizer, &text, Special::AsText), plainly_joined(&vocab, &text), "{tokens:?} {text}");
        }
    }
}

#[test]
fn a_character_that_is_no_token_can_be_part_of_one() {
    let vocab = Vocab { add_space_prefix: Some(false), ..spm(&[("q", 1), ("qé", 1), ("ü", 1), ("qéü", 1)]) };
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(texts(&tokenizer, "qé", Special::AsText), ["qé"]);
    assert_eq!(texts(&tokenizer, "éqéüé", Special::AsText), ["<0xC3>", "<0xA9>", "qéü", "<0xC3>", "<0xA9>"]);
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
    let ends = Ends { eot: Some(257), ..Ends::default() };
    let tokenizer = Tokenizer::new(Vocab { eos: Some(256), ends, ..vocab }).unwrap();
    let ends: Vec<u32> = (0..300).filter(|&id| tokenizer.is_end_of_generation(id)).collect();
    assert_eq!(ends, [256, 257, 258, 259]);
    assert_eq!(tokenizer.token_bytes(258), b"", "a token known to end a turn is a control token whatever its type");

    let harmony = gpt2("gpt-4o", &[], &[("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3)]);
    let tokenizer = Tokenizer::new(harmony).unwrap();
    assert_eq!((0..300).filter(|&id| tokenizer.is_end_of_generation(id)).collect::<Vec<u32>>(), [257, 258]);
}

fn ends(vocab: Vocab) -> Vec<String> {
    let tokenizer = Tokenizer::new(vocab).unwrap();
    let ids = (0..2000).filter(|&id| tokenizer.is_end_of_generation(id));
    ids.map(|id| tokenizer.token_text(id).into_owned()).collect()
}

#[test]
fn keys_name_further_ends_of_a_generation() {
    let tokens = [("<a>", 3), ("<b>", 3), ("<c>", 3), ("<d>", 3), ("<e>", 3), ("<f>", 3)];
    let vocab = |ends| Vocab { eos: Some(261), ends, ..gpt2("gpt-2", &[], &tokens) };
    let all = Ends { eot: Some(256), eom: Some(257), fim_pad: Some(258), fim_rep: Some(259), fim_sep: Some(260) };
    assert_eq!(ends(vocab(all)), ["<a>", "<b>", "<c>", "<d>", "<e>", "<f>"]);
    assert_eq!(ends(vocab(Ends::default())), ["<f>"]);
}

#[test]
fn padding_repositories_and_separators_of_infilling_end_a_generation_unless_a_key_names_others() {
    for text in [
        "<|fim_pad|>",
        "<fim-pad>",
        "<fim_pad>",
        "<PAD>",
        "[PAD]",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
        "<|file_sep|>",
    ] {
        assert_eq!(ends(gpt2("gpt-2", &[], &[(text, 1)])), [text]);
    }
    let named = Ends { fim_pad: Some(257), ..Ends::default() };
    assert_eq!(ends(Vocab { ends: named, ..gpt2("gpt-2", &[], &[("<PAD>", 3), ("<p>", 3)]) }), ["<p>"]);
}

#[test]
fn tokens_of_infilling_are_control_tokens_whatever_the_file_calls_them() {
    for text in ["<｜fim▁hole｜>", "<fim_prefix>", "<|fim_middle|>", "▁<SUF>"] {
        let tokenizer = Tokenizer::new(gpt2("deepseek-coder", &[], &[(text, 4)])).unwrap();
        assert!(!tokenizer.encode(text, Special::AsText).unwrap().contains(&256), "{text}");
        assert_eq!(tokenizer.encode(text, Special::Parse).unwrap(), [256], "{text}");
        assert!(!tokenizer.is_end_of_generation(256), "{text}");
    }
}

#[test]
fn markup_within_a_turn_does_not_end_it() {
    let tokens = [("<|end|>", 3), ("<|return|>", 3), ("<|call|>", 3), ("<|channel|>", 3)];
    let harmony = gpt2("gpt-4o", &[], &tokens);
    assert_eq!(ends(harmony.clone()), ["<|return|>", "<|call|>"]);
    let tokenizer = Tokenizer::new(harmony).unwrap();
    assert_eq!(tokenizer.token_bytes(259), b"<|channel|>", "structure is printed");
    assert_eq!(ends(gpt2("gpt-2", &["a b"], &[("</s>", 3), ("<|tool_response>", 3)])), ["<|tool_response>"]);
}

#[test]
fn white_space_behind_special_tokens_is_dropped_where_the_model_wants_it() {
    let tokens = [LETTERS, &[("<|user|>", 3), ("<|endoftext|>", 3), ("\n", 1)]].concat();
    let vocab = spm(&tokens);
    let tokenizer = Tokenizer::new(Vocab { strips_behind_special: true, ..vocab.clone() }).unwrap();
    assert_eq!(texts(&tokenizer, "<|user|> \n\thi<|user|>\n", Special::Parse), ["<|user|>", "▁hi", "<|user|>"]);
    assert_eq!(texts(&tokenizer, "<|endoftext|>\nhi", Special::Parse), ["<|endoftext|>", "▁", "\n", "hi"]);
    assert_eq!(texts(&tokenizer, "</s> hi<s> hi", Special::Parse), ["</s>", "▁hi", "<s>", "▁", "▁hi"]);
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(texts(&tokenizer, "<|user|>\nhi", Special::Parse), ["<|user|>", "▁", "\n", "hi"]);
}

#[test]
fn bytes_without_a_token_are_dropped_after_merging() {
    let mut vocab = gpt2("falcon", &["a b"], &[]);
    let at = vocab.tokens.iter().position(|t| t == b"q").unwrap();
    vocab.tokens[at] = b"[q was here]".to_vec();
    let tokenizer = Tokenizer::new(vocab).unwrap();
    assert_eq!(texts(&tokenizer, "aqb", Special::AsText), ["a", "b"]);
    assert_eq!(texts(&tokenizer, "qabq", Special::AsText), ["ab"]);
    assert_eq!(texts(&tokenizer, "q", Special::AsText), [""; 0]);
}

#[test]
fn a_text_that_goes_on_ends_without_eos() {
    let tokenizer = Tokenizer::new(Vocab { add_eos: Some(true), ..spm(LETTERS) }).unwrap();
    let ids = tokenizer.encode_opening("h", Special::AsText, true).unwrap();
    assert_eq!(ids.first(), Some(&1));
    assert_eq!([&ids[..], &[2]].concat(), tokenizer.encode_prompt("h", Special::AsText, true).unwrap());
}

#[test]
fn protected_control_tokens_are_text_and_leave_the_rest_as_it_is() {
    let tokenizer = Tokenizer::new(spm(&[LETTERS, &[("<tool>", 4)]].concat())).unwrap();
    let protected = |text: &str, range: std::ops::Range<usize>| {
        let ids = tokenizer.encode_protected(text, std::slice::from_ref(&range), Special::Parse).unwrap();
        ids.iter().map(|&id| tokenizer.token_text(id).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(protected("<s>hi<s>hi", 5..8), ["<s>", "▁hi", "<", "s", ">", "hi"]);
    assert_eq!(protected("<s>hi<s>hi", 7..8), ["<s>", "▁hi", "<", "s", ">", "hi"]);
    assert_eq!(protected("<s>hi", 3..5), ["<s>", "▁hi"]);
    assert_eq!(protected("<tool>hi", 0..6), ["<tool>", "▁hi"], "user-defined tokens are found either way");
}

#[test]
fn too_much_white_space_in_a_row_is_an_error_and_no_wrong_ids() {
    let tokenizer = Tokenizer::new(gpt2("gpt-2", &["Ġ Ġ"], &[])).unwrap();
    let error = tokenizer.encode(&" ".repeat(1_500_000), Special::AsText).unwrap_err().to_string();
    assert_eq!(error, "tokenizing: 1500000 white-space characters in a row; at most 500000 can be tokenized");
    // At the limit, words behind the run are still cut.
    let text = format!("{}\na b", " ".repeat(499_000));
    assert_eq!(tokenizer.encode(&text, Special::AsText).unwrap().iter().rev().take(4).count(), 4);
    assert!(texts(&tokenizer, &text, Special::AsText).ends_with(&["a".to_owned(), "Ġ".to_owned(), "b".to_owned()]));
    let tokenizer = Tokenizer::new(spm(LETTERS)).unwrap();
    assert!(tokenizer.encode(&" ".repeat(1_500_000), Special::AsText).is_ok());
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
    for ends in [
        Ends { eot: Some(u32::MAX), ..Ends::default() },
        Ends { eom: Some(267), ..Ends::default() },
        Ends { fim_pad: Some(267), ..Ends::default() },
        Ends { fim_rep: Some(267), ..Ends::default() },
        Ends { fim_sep: Some(267), ..Ends::default() },
    ] {
        let error = refusal(Vocab { ends, ..spm(LETTERS) });
        assert!(error.contains("_token_id: ") && error.contains("267 tokens"), "{error}");
    }
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
    for pre in [
        "default",
        "gpt-2",
        "llama-bpe",
        "qwen2",
        "falcon",
        "tekken",
        "gpt-4o",
        "deepseek-llm",
        "deepseek-v3",
        "jais-2",
    ] {
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
    let start = std::time::Instant::now();
    let nested: Vec<String> = (1..=3000).map(|n| "a".repeat(n)).collect();
    let tokens: Vec<(&str, i32)> = nested.iter().map(|token| (token.as_str(), 1)).collect();
    let vocab = Vocab { add_space_prefix: Some(false), ..spm(&tokens) };
    let tokenizer = Tokenizer::new(vocab).unwrap();
    let text = "a".repeat(20_000);
    assert!(tokenizer.decode(&tokenizer.encode(&text, Special::AsText).unwrap()) == text);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
