"""The keys of the tokenizer, of the folder's files for it."""

from . import pre_tokenizers, sentencepiece, tokenizer_json
from .checkpoint import read_json_if_there
from .fail import fail, reason
from .tokenizer_json import content, is_text
from .vocabulary import BYTE, NORMAL, UNKNOWN, Vocabulary

# What config.json and transformers call special tokens: what GGUF calls them.
SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def byte_level(tokenizer, n_vocab, pre):
    vocab = Vocabulary("gpt2", n_vocab)
    vocab.pre = pre or pre_tokenizers.detect(tokenizer)
    for i, text in tokenizer.vocab(n_vocab):
        vocab.set(i, text, NORMAL)
    vocab.merges = [" ".join(pair) for pair in tokenizer.merges()]
    vocab.set_added(tokenizer.added(), tokenizer.path)
    return vocab


def is_byte_token(text):
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def adds_space_prefix(tokenizer):
    """Whether the LLaMA tokenizer puts a space before the text: by a Prepend normalizer or by Metaspace."""
    normalizer, pre = (tokenizer.get(part) if isinstance(tokenizer.get(part), dict) else {} for part in ("normalizer", "pre_tokenizer"))
    steps = normalizer.get("normalizers", [normalizer])
    if pre.get("type") == "Metaspace":
        return pre.get("prepend_scheme", "always") != "never" and bool(pre.get("add_prefix_space", True))
    return any(isinstance(s, dict) and s.get("type") == "Prepend" for s in steps if isinstance(steps, list))


def byte_fallback(tokenizer, n_vocab):
    """SentencePiece's BPE as tokenizer.json has it. A token's score is the rank of the first merge that makes it."""
    ranks = {}
    for rank, pair in enumerate(tokenizer.merges()):
        ranks.setdefault("".join(pair), rank)
    never = -float(len(ranks) + n_vocab)
    unknown = tokenizer.model.get("unk_token")
    vocab = Vocabulary("llama", n_vocab)
    for i, text in tokenizer.vocab(n_vocab):
        if text == unknown or is_byte_token(text):
            vocab.set(i, text, UNKNOWN if text == unknown else BYTE)
        else:
            vocab.set(i, text, NORMAL, -float(ranks[text]) if text in ranks else never)
    vocab.set_added(tokenizer.added(), tokenizer.path)
    vocab.add_space_prefix = adds_space_prefix(tokenizer.raw)
    return vocab


def load(folder, settings, n_vocab, pre):
    model = folder / "tokenizer.model"
    if model.exists():
        return sentencepiece.vocabulary(model, settings, n_vocab)
    tokenizer = tokenizer_json.read(folder, settings)
    return byte_fallback(tokenizer, n_vocab) if tokenizer.byte_fallback else byte_level(tokenizer, n_vocab, pre)


def special_ids(tokens, settings, config):
    """Ids of the special tokens: by name from tokenizer_config.json, else by number from config.json."""
    index = {text: i for i, text in enumerate(tokens)}
    ids = {}
    for kind in SPECIAL:
        i = index.get(content(settings.get(f"{kind}_token")))
        if i is None:
            i = config.get(f"{kind}_token_id")
            i = i[0] if isinstance(i, list) and i else i
        if type(i) is int and 0 <= i < len(tokens):
            ids[kind] = i
    return ids


def template_adds(tokenizer, kind, text):
    """Whether the post-processor puts this special token first (bos) or last (eos)."""
    processor = tokenizer.get("post_processor")
    if not isinstance(processor, dict):
        return None
    processors = processor.get("processors", [processor])
    for p in processors if isinstance(processors, list) else []:
        single = p.get("single") if isinstance(p, dict) and p.get("type") == "TemplateProcessing" else None
        if isinstance(single, list) and single:
            special = single[0 if kind == "bos" else -1]
            special = special.get("SpecialToken") if isinstance(special, dict) else None
            return isinstance(special, dict) and special.get("id") == text
    return None


def chat_template(folder, settings):
    """Where there are several, the one called default."""
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as e:
            fail(f"{path}: {reason(e)}")
    template = settings.get("chat_template") or read_json_if_there(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        template = next((t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"), None)
    return template if is_text(template) else None


def write_keys(keys, folder, n_vocab, config, pre=None):
    """`config` is config.json; `pre` is a name that is not to be detected."""
    settings = read_json_if_there(folder / "tokenizer_config.json")
    vocab = load(folder, settings, n_vocab, pre)
    vocab.write(keys)
    tokenizer = read_json_if_there(folder / "tokenizer.json")
    ids = special_ids(vocab.tokens, settings, config)
    for kind, i in ids.items():
        keys.u32(f"tokenizer.ggml.{SPECIAL[kind]}_token_id", i)
    for kind in ("bos", "eos"):
        add = settings.get(f"add_{kind}_token")
        if add is None and kind in ids:
            add = template_adds(tokenizer, kind, vocab.tokens[ids[kind]])
        if isinstance(add, bool):
            keys.bool(f"tokenizer.ggml.add_{kind}_token", add)
    template = chat_template(folder, settings)
    if template:
        keys.string("tokenizer.chat_template", template)
