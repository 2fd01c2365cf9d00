"""Tokens with their types, padded to the size of the embedding."""

from . import gguf_file

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


class Vocabulary:
    """Scores where `model` is "llama", merges where it is "gpt2"."""

    def __init__(self, model, n_vocab):
        self.model = model
        self.tokens = [f"[PAD{i}]" for i in range(n_vocab)]
        self.types = [UNUSED] * n_vocab
        self.scores = [-10000.0] * n_vocab
        self.merges = []
        self.pre = None
        self.add_space_prefix = None

    def set(self, i, text, kind, score=0.0):
        self.tokens[i], self.types[i], self.scores[i] = text, kind, score

    def set_added(self, entries, path):
        """(id, text, whether it is special) each: special ones are control tokens, the others the user's own."""
        for i, text, special in entries:
            if i >= len(self.tokens):
                print(f"{path}: token {i} {text!r} has no embedding and is left out")
            elif self.types[i] not in (UNKNOWN, BYTE):
                kind = CONTROL if special else USER_DEFINED
                self.set(i, text, kind, self.scores[i] if self.types[i] != UNUSED else -1000.0)

    def write(self, keys):
        keys.string("tokenizer.ggml.model", self.model)
        if self.pre:
            keys.string("tokenizer.ggml.pre", self.pre)
        keys.array("tokenizer.ggml.tokens", gguf_file.STRING, self.tokens)
        if self.model == "llama":
            keys.array("tokenizer.ggml.scores", gguf_file.FLOAT32, self.scores)
        keys.array("tokenizer.ggml.token_type", gguf_file.INT32, self.types)
        if self.merges:
            keys.array("tokenizer.ggml.merges", gguf_file.STRING, self.merges)
        if self.add_space_prefix is not None:
            keys.bool("tokenizer.ggml.add_space_prefix", self.add_space_prefix)
