"""The keys of the tokenizer, of the folder's files for it."""

from . import pre_tokenizers, sentencepiece
from .checkpoint import read_json, read_json_if_there
from .fail import fail
from .vocabulary import BYTE, NORMAL, UNKNOWN, Vocabulary

# What config.json and transformers call special tokens: what GGUF calls them.
SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def merge_pairs(tokenizer):
    return [tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in tokenizer["model"].get("merges", [])]


def fill_tokens(path, tokenizer, vocab, kind_and_score):
    for text, i in tokenizer["model"]["vocab"].items():
        if i >= len(vocab.tokens):
            fail(f"{path}: token {i} is beyond the model's vocabulary of {len(vocab.tokens)}")
        vocab.set(i, text, *kind_and_score(text))


def byte_level(path, tokenizer, n_vocab, pre):
    vocab = Vocabulary("gpt2", n_vocab)
    vocab.pre = pre or pre_tokenizers.detect(path, tokenizer)
    fill_tokens(path, tokenizer, vocab, lambda text: (NORMAL,))
    vocab.merges = [" ".join(pair) for pair in merge_pairs(tokenizer)]
    vocab.set_added(tokenizer.get("added_tokens", []), path)
    return vocab


def is_byte_token(text):
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def adds_space_prefix(tokenizer):
    """Whether the LLaMA tokenizer puts a space before the text: by a Prepend normalizer or by Metaspace."""
    normalizer = tokenizer.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    pre = tokenizer.get("pre_tokenizer") or {}
    if pre.get("type") == "Metaspace":
        return pre.get("prepend_scheme", "always") != "never" and pre.get("add_prefix_space", True)
    return any(s.get("type") == "Prepend" for s in steps)


def byte_fallback(path, tokenizer, n_vocab):
    """SentencePiece's BPE as tokenizer.json has it. A token's score is the rank of the first merge that makes it."""
    ranks = {}
    for rank, pair in enumerate(merge_pairs(tokenizer)):
        ranks.setdefault("".join(pair), rank)
    never = -float(len(ranks) + n_vocab)
    unknown = tokenizer["model"].get("unk_token")

    def kind_and_score(text):
        if text == unknown:
            return UNKNOWN, 0.0
        if is_byte_token(text):
            return BYTE, 0.0
        return NORMAL, -float(ranks[text]) if text in ranks else never

    vocab = Vocabulary("llama", n_vocab)
    fill_tokens(path, tokenizer, vocab, kind_and_score)
    vocab.set_added(tokenizer.get("added_tokens", []), path)
    vocab.add_space_prefix = adds_space_prefix(tokenizer)
    return vocab


def load(folder, n_vocab, pre):
    model, path = folder / "tokenizer.model", folder / "tokenizer.json"
    if model.exists():
        return sentencepiece.vocabulary(model, n_vocab)
    tokenizer = read_json(path)
    if tokenizer.get("model", {}).get("type") != "BPE":
        fail(f"{path}: only BPE tokenizers are read")
    if tokenizer["model"].get("byte_fallback"):
        return byte_fallback(path, tokenizer, n_vocab)
    return byte_level(path, tokenizer, n_vocab, pre)


def content(token):
    return token.get("content") if isinstance(token, dict) else token


def special_ids(tokens, settings, config):
    """Ids of the special tokens: by name from tokenizer_config.json, else by number from config.json."""
    index = {text: i for i, text in enumerate(tokens)}
    ids = {}
    for kind in SPECIAL:
        i = index.get(content(settings.get(f"{kind}_token")))
        if i is None:
            i = config.get(f"{kind}_token_id")
            i = i[0] if isinstance(i, list) and i else i
        if isinstance(i, int) and 0 <= i < len(tokens):
            ids[kind] = i
    return ids


def template_adds(tokenizer, kind, text):
    """Whether the post-processor puts this special token first (bos) or last (eos)."""
    processor = tokenizer.get("post_processor") or {}
    for p in processor.get("processors", [processor]):
        if p.get("type") == "TemplateProcessing" and p.get("single"):
            step = p["single"][0 if kind == "bos" else -1]
            return step.get("SpecialToken", {}).get("id") == text
    return None


def chat_template(folder, settings):
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    return settings.get("chat_template") or read_json_if_there(folder / "chat_template.json").get("chat_template")


def write_keys(keys, folder, n_vocab, config, pre=None):
    """`config` is config.json; `pre` is a name that is not to be detected."""
    vocab = load(folder, n_vocab, pre)
    vocab.write(keys)
    settings = read_json_if_there(folder / "tokenizer_config.json")
    tokenizer = read_json_if_there(folder / "tokenizer.json")
    ids = special_ids(vocab.tokens, settings, config)
    for kind, i in ids.items():
        keys.u32(f"tokenizer.ggml.{SPECIAL[kind]}_token_id", i)
    for kind in ("bos", "eos"):
        add = settings.get(f"add_{kind}_token")
        if add is None and kind in ids:
            add = template_adds(tokenizer, kind, vocab.tokens[ids[kind]])
        if add is not None:
            keys.bool(f"tokenizer.ggml.add_{kind}_token", add)
    template = chat_template(folder, settings)
    if template:
        keys.string("tokenizer.chat_template", template)
