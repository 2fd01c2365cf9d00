"""`tokenizer.ggml.pre` by what tokenizer.json says of how text is cut into words."""

from .fail import fail

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL
ONE_DIGIT_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")
UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN_SPLIT = rf"{UPPER}*{LOWER}+|{UPPER}+{LOWER}*|\p{{N}}|" + CASED_TAIL
GPT4O_SPLIT = rf"{UPPER}*{LOWER}+{CONTRACTIONS}?|{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}|" + CASED_TAIL
# Runs of spaces in powers of two.
JAIS2_SPLIT = LLAMA3_SPLIT.removesuffix(r"|\s+(?!\S)|\s+") + "".join(rf"|\s{{{1 << n}}}(?!\S)" for n in range(9, -1, -1)) + r"|\s+"
DEEPSEEK_CJK = "[一-龥ࠀ-一가-퟿]+"
# What shape() gives: the name.
NAMES = {
    ("ByteLevel+regex",): "gpt-2",
    (ONE_DIGIT_SPLIT, "ByteLevel"): "qwen2",
    (TEKKEN_SPLIT, "ByteLevel"): "tekken",
    (GPT4O_SPLIT, "ByteLevel"): "gpt-4o",
    (JAIS2_SPLIT, "ByteLevel"): "jais-2",
    ("Digits", "ByteLevel+regex"): "smollm",
    ("Punctuation", "ByteLevel+regex", "AllDigits", "[0-9][0-9][0-9]"): "falcon",
    ("[\r\n]", "LATIN", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", DEEPSEEK_CJK, "Digits", "ByteLevel"): "deepseek-llm",
    ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, "Digits", "ByteLevel"): "deepseek-coder",
}
# The same where words that are tokens are taken without looking at merges, and where they are not.
BY_MERGES = {(LLAMA3_SPLIT, "ByteLevel"): {True: "llama-bpe", False: "dbrx"}}
# All that our tools read.
KNOWN = (
    "default", "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code",
    "roberta-bpe", "a.x-4.0", "mellum", "modern-bert", "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling",
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "dbrx",
    "smaug-bpe", "chatglm-bpe", "jais-2", "glm4", "glm5", "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez",
    "stablelm2", "hunyuan", "solar-open", "grok-2", "qwen35", "falcon", "starcoder", "refact", "command-r", "smollm",
    "codeshell", "exaone", "minerva-7b", "mellum2", "deepseek-llm", "deepseek-coder", "deepseek-v3", "hunyuan-dense",
    "joyai-llm", "hy_v4", "tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "bloom", "gpt3-finnish", "poro-chat",
    "viking", "bailingmoe", "bailingmoe2", "llada-moe", "seed-coder", "exaone-moe", "chameleon", "minicpm5",
)  # fmt: skip
# Split's (behavior, invert) that make each match of the regex a word; the regexes above match all text.
KEEPS_MATCHES = (("Isolated", False), ("Removed", True))


def shape(node):
    """The pre-tokenizer of tokenizer.json as a tuple of steps, or None where a step is none that we know."""
    if not isinstance(node, dict):
        return None
    kind = node.get("type")
    if kind == "Sequence" and isinstance(node.get("pretokenizers"), list):
        shapes = [shape(n) for n in node["pretokenizers"]]
        return None if None in shapes else sum(shapes, ())
    if kind == "ByteLevel" and not node.get("add_prefix_space"):
        return ("ByteLevel+regex" if node.get("use_regex", True) else "ByteLevel",)
    if kind == "Digits":
        return ("Digits" if node.get("individual_digits") else "AllDigits",)
    if kind == "Punctuation" and node.get("behavior") == "Contiguous":
        return ("Punctuation",)
    if kind == "Split" and (node.get("behavior"), node.get("invert", False)) in KEEPS_MATCHES:
        pattern = node.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        if isinstance(regex, str):
            return ("LATIN" if regex.startswith(r"\s?[A-Za-zµÀ-Ö") else regex,)
    return None


def is_plain(normalizer):
    """Whether text is taken as it is; composed characters are not looked at."""
    if not normalizer:
        return True
    if not isinstance(normalizer, dict):
        return False
    steps = normalizer.get("normalizers")
    return normalizer.get("type") == "NFC" or (isinstance(steps, list) and all(is_plain(step) for step in steps))


def detect(tokenizer):
    """The name for a `TokenizerJson`."""
    if tokenizer.pre:
        return tokenizer.pre
    steps = shape(tokenizer.raw.get("pre_tokenizer"))
    name = BY_MERGES[steps][tokenizer.ignores_merges] if steps in BY_MERGES else NAMES.get(steps)
    if name is None or not is_plain(tokenizer.raw.get("normalizer")):
        part = "pre_tokenizer" if name is None else "normalizer"
        fail(f"{tokenizer.path}: unknown {part}; --pre NAME forces one, such as gpt-2 or llama-bpe")
    return name
