"""tokenizer.json, checked: or vocab.json and merges.txt, of which older folders have the same."""

from .checkpoint import read_json, read_json_if_there
from .fail import fail, reason

# Classes of tokenizers that vocab.json and merges.txt are enough for: how they cut text into words.
BY_CLASS = {"GPT2Tokenizer": "gpt-2", "GPT2TokenizerFast": "gpt-2", "Qwen2Tokenizer": "qwen2", "Qwen2TokenizerFast": "qwen2"}
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


def is_text(value):
    """Whether it is a string that can be written: one without halves of characters."""
    return isinstance(value, str) and not any(0xD800 <= ord(c) < 0xE000 for c in value)


def content(token):
    """The text of a token, which may be an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if is_text(text) else None


def added_tokens(path, entries):
    """(id, text, whether it is special) of a list of objects."""
    if not isinstance(entries, list):
        fail(f"{path}: added_tokens is no list")
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or entry["id"] < 0 or not is_text(entry.get("content")):
            fail(f"{path}: added_tokens: {str(entry)[:60]} makes no sense")
        found.append((entry["id"], entry["content"], entry.get("special") is True))
    return found


class TokenizerJson:
    """What a folder says of a tokenizer whose model is BPE."""

    def __init__(self, path, raw, pre=None):
        """`pre`: how text is cut into words, where another file says it."""
        self.path, self.raw, self.pre = path, raw, pre
        model = raw.get("model")
        kind = model.get("type") if isinstance(model, dict) else None
        if kind != "BPE":
            fail(f"{path}: only BPE tokenizers are read, not {str(kind)[:60]}")
        self.model = model

    @property
    def byte_fallback(self):
        return self.model.get("byte_fallback") is True

    @property
    def ignores_merges(self):
        """Whether words that are tokens are taken without looking at merges. LLaMA 3 did so before the files could say it."""
        return self.model.get("ignore_merges", True) is True

    def vocab(self, n_vocab):
        """(id, text) of each token, all below `n_vocab`."""
        vocab = self.model.get("vocab")
        if not isinstance(vocab, dict) or not vocab:
            fail(f"{self.path}: no vocab")
        seen = set()
        for text, i in vocab.items():
            if not is_text(text) or type(i) is not int or i < 0:
                fail(f"{self.path}: vocab: {text[:60]!r}: {str(i)[:60]} makes no sense")
            if i >= n_vocab:
                fail(f"{self.path}: token {i} is beyond the model's vocabulary of {n_vocab}")
            if i in seen:
                fail(f"{self.path}: vocab: two tokens have number {i}")
            seen.add(i)
            yield i, text

    def merges(self):
        """Pairs of texts, first what is merged first."""
        merges = self.model.get("merges", [])
        if not isinstance(merges, list):
            fail(f"{self.path}: merges is no list")
        pairs = []
        for merge in merges:
            pair = tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ", 1)) if isinstance(merge, str) else ()
            if len(pair) != 2 or not all(is_text(half) and half for half in pair):
                fail(f"{self.path}: merges: {str(merge)[:60]} is no pair of tokens")
            pairs.append(pair)
        return pairs

    def added(self):
        return added_tokens(self.path, self.raw.get("added_tokens") or [])


def of_two_files(folder, settings):
    """The same of vocab.json and merges.txt."""
    kind = settings.get("tokenizer_class", "GPT2Tokenizer")
    if kind not in BY_CLASS:
        fail(f"{folder}: tokenizer.json is missing, without which tokenizers of class {str(kind)[:60]} are not read")
    path, merges = folder / "vocab.json", folder / "merges.txt"
    vocab = read_json(path)
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as e:
        fail(f"{merges}: {reason(e)}")
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    special = {content(settings.get(name)) for name in SPECIAL_TOKENS}
    added = [{"id": i, "content": text, "special": True} for text, i in vocab.items() if text in special]
    more = read_json_if_there(folder / "added_tokens.json")
    added += [{"id": i, "content": text, "special": text in special} for text, i in more.items()]
    model = {"type": "BPE", "vocab": vocab, "merges": [line for line in lines if line]}
    return TokenizerJson(path, {"model": model, "added_tokens": added}, BY_CLASS[kind])


def read(folder, settings):
    """`settings` is tokenizer_config.json."""
    path = folder / "tokenizer.json"
    if path.exists():
        return TokenizerJson(path, read_json(path))
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return of_two_files(folder, settings)
    if (folder / "tekken.json").exists():
        fail(f"{folder}: tekken.json is not read; the same model's tokenizer.json is")
    fail(f"{folder}: no tokenizer: neither tokenizer.model nor tokenizer.json")
