"""`tokenizer.ggml.pre` by what tokenizer.json says of how text is cut into words."""

from .fail import fail

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_CJK = "[一-龥ࠀ-一가-퟿]+"
# What shape() gives: the name.
NAMES = {
    ("ByteLevel+regex",): "gpt-2",
    (LLAMA3_SPLIT, "ByteLevel"): "llama-bpe",
    (LLAMA3_SPLIT.replace("{1,3}", ""), "ByteLevel"): "qwen2",
    (TEKKEN_SPLIT, "ByteLevel"): "tekken",
    ("Digits", "ByteLevel+regex"): "smollm",
    ("[\r\n]", "LATIN", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", DEEPSEEK_CJK, "Digits", "ByteLevel"): "deepseek-llm",
    ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, "Digits", "ByteLevel"): "deepseek-coder",
}
# Split's (behavior, invert) that make each match of the regex a word; the regexes above match all text.
KEEPS_MATCHES = (("Isolated", False), ("Removed", True))


def shape(node):
    """The pre-tokenizer of tokenizer.json as a tuple of steps, or None where a step is none that we know."""
    if node is None:
        return None
    if node["type"] == "Sequence":
        shapes = [shape(n) for n in node["pretokenizers"]]
        return None if None in shapes else sum(shapes, ())
    if node["type"] == "ByteLevel" and not node.get("add_prefix_space"):
        return ("ByteLevel+regex" if node.get("use_regex", True) else "ByteLevel",)
    if node["type"] == "Digits" and node.get("individual_digits"):
        return ("Digits",)
    if node["type"] == "Split" and (node.get("behavior"), node.get("invert", False)) in KEEPS_MATCHES:
        regex = node["pattern"].get("Regex")
        return ("LATIN" if regex and regex.startswith(r"\s?[A-Za-zµÀ-Ö") else regex,)
    return None


def detect(path, tokenizer):
    name = NAMES.get(shape(tokenizer.get("pre_tokenizer")))
    normalizer = tokenizer.get("normalizer") or {}
    plain = normalizer.get("type") in (None, "NFC") or normalizer.get("normalizers") == []
    if name is None or not plain:
        part = "pre_tokenizer" if name is None else "normalizer"
        fail(f"{path}: unknown {part}; --pre NAME forces one, such as gpt-2 or llama-bpe")
    return name
