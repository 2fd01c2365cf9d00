//! How text is cut into words before merging, by the name a file gives in `tokenizer.ggml.pre`.

/// One way of cutting: each regex in turn splits what those before it left, and what none matches stays a word of its
/// own.
pub(super) struct PreTokenizer {
    pub names: &'static [&'static str],
    pub regexes: &'static [&'static str],
    /// A word that is a token as a whole is taken without looking at the merges.
    pub ignore_merges: bool,
    /// Whether prompts begin with BOS when the file has no `tokenizer.ggml.add_bos_token`.
    pub add_bos: bool,
}

impl PreTokenizer {
    pub fn named(name: &str) -> Option<&'static PreTokenizer> {
        TABLE.iter().find(|pre| pre.names.contains(&name))
    }

    pub fn known() -> impl Iterator<Item = &'static str> {
        TABLE.iter().flat_map(|pre| pre.names.iter().copied())
    }
}

/// GPT-2's: contractions, then words, numbers and other symbols, each with at most one space before it.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// Contractions in any case, digits in threes.
const CASELESS_3_DIGITS: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The same, but for runs of white space, which are cut into the longest of these lengths that leave a space to what follows.
const CASCADING_SPACES: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|",
    r"\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
);

/// As [`CASELESS_3_DIGITS`] with single digits.
const CASELESS_1_DIGIT: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Splits where capitals begin; `[\p{L}&&[^a-z]]` is any letter except lower-case ASCII, so other scripts count as both
/// cases.
const CASED_1_DIGIT: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const CASED_3_DIGITS: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|",
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Letters of the scripts that have cases, written as code points: several look like, or normalise to, others.
const CASED_SCRIPTS: &str = concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-",
    r"\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-",
    r"\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}",
    r"\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}",
    r"-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-",
    r"\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-",
    r"\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}",
    r"\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-",
    r"\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}",
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}",
    r"-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+",
);

const PUNCTUATED: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"##,
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
);

const CASELESS_LETTERS_AND_MARKS: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const BAILING: &str = concat!(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|",
    r"\s+(?!\S)|\s+",
);

const SEED: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}|",
    r" ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const EXAONE_WITH_MARKS: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
);

const CASELESS_ANY_DIGITS: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const WIDE_PUNCTUATION: &str = r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+";

const UNPUNCTUATED: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+";

const IDEOGRAPHS: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";

const IDEOGRAPHS_KANA: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";

const TABLE: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["default"],
        regexes: &[r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        regexes: &[WORDS],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        regexes: &[CASELESS_3_DIGITS],
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        regexes: &[CASELESS_3_DIGITS],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["jais-2"], regexes: &[CASCADING_SPACES], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["glm4", "glm5"], regexes: &[CASELESS_3_DIGITS], ignore_merges: true, add_bos: false },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        regexes: &[CASELESS_1_DIGIT],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["qwen35"], regexes: &[CASELESS_LETTERS_AND_MARKS], ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["falcon"],
        regexes: &[r"[\p{P}\$\+<=>\^~\|`]+", WORDS, r"[0-9][0-9][0-9]"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        regexes: &[r"\p{N}", WORDS],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        regexes: &[r"[\r\n]", CASED_SCRIPTS, WIDE_PUNCTUATION, r"\s+$", IDEOGRAPHS, r"\p{N}+"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        regexes: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", IDEOGRAPHS, r"\p{N}"],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        regexes: &[r"\p{N}{1,3}", IDEOGRAPHS_KANA, PUNCTUATED],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["tekken"], regexes: &[CASED_1_DIGIT], ignore_merges: true, add_bos: true },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        regexes: &[CASED_3_DIGITS],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["bloom", "gpt3-finnish", "poro-chat"],
        regexes: &[UNPUNCTUATED],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["viking"], regexes: &[UNPUNCTUATED, r"\p{N}"], ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        regexes: &[BAILING],
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["seed-coder"], regexes: &[SEED], ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["exaone-moe"], regexes: &[EXAONE_WITH_MARKS], ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["chameleon"],
        regexes: &[
            r"<sentinel:[0-9]+>",
            r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            WORDS,
        ],
        ignore_merges: false,
        add_bos: true,
    },
    PreTokenizer {
        names: &["minicpm5"],
        regexes: &[r"\p{N}{1,3}", CASELESS_ANY_DIGITS],
        ignore_merges: true,
        add_bos: false,
    },
];

#[cfg(test)]
mod tests {
    use super::PreTokenizer;
    use crate::tokenizer::bpe;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    /// Lengths of the words that spaces before `behind` are cut into, with what is behind.
    fn lengths(pre: &str, n_spaces: usize, behind: &str) -> Vec<usize> {
        let splitter = bpe::splitter(PreTokenizer::named(pre).unwrap()).unwrap();
        let mut text = PreTokenizedString::from(" ".repeat(n_spaces) + behind);
        splitter.pre_tokenize(&mut text).unwrap();
        let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(word, _, _)| word.chars().count()).collect()
    }

    #[test]
    fn runs_of_spaces_are_cut_into_powers_of_two_where_the_model_was_trained_so() {
        for (n, behind, wanted) in [
            (1, "a", &[2][..]),
            (2, "a", &[1, 2]),
            (3, "a", &[2, 2]),
            (5, "a", &[4, 2]),
            (6, "a", &[4, 1, 2]),
            (8, "a", &[4, 2, 1, 2]),
            (9, "a", &[8, 2]),
            (512, "a", &[256, 128, 64, 32, 16, 8, 4, 2, 1, 2]),
            (513, "a", &[512, 2]),
            // A space goes with letters and symbols, but not with digits.
            (3, "1", &[2, 1, 1]),
            (3, "\n", &[4]),
            (7, "", &[4, 2, 1]),
            (1027, "", &[512, 512, 2, 1]),
        ] {
            assert_eq!(lengths("jais-2", n, behind), wanted, "{n} spaces before {behind:?}");
        }
        assert_eq!(lengths("llama-bpe", 512, "a"), [511, 2]);
    }
}
