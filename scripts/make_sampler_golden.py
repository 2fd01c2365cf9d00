#!/usr/bin/env python3
"""Write the distributions that samplers make of random logits, as NumPy computes them from the samplers' definitions.

    pip install -r scripts/requirements.txt xllamacpp
    python scripts/make_sampler_golden.py --out tests/golden/samplers.json
    python scripts/make_sampler_golden.py --check             # against llama.cpp's own samplers

Each case has settings under the names of powerinfer's flags, logits, and what is left of them: pairs of a token and its
probability. Random numbers are taken out of the game: XTC is given a probability of 1, and mirostat is told which token was drawn.
`cargo test --lib sampler::golden` compares. --check calls the samplers in xllamacpp's library; --library names another one.
"""

import argparse
import ctypes
import importlib.util
import json
import math
from pathlib import Path

import numpy as np

DEFAULTS = {
    "samplers": "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature",
    "temp": 0.8, "dynatemp_range": 0.0, "dynatemp_exp": 1.0, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "top_nsigma": -1.0,
    "typical": 1.0, "xtc_probability": 0.0, "xtc_threshold": 0.1, "repeat_penalty": 1.0, "frequency_penalty": 0.0,
    "presence_penalty": 0.0, "repeat_last_n": 64, "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2,
    "dry_penalty_last_n": -1, "dry_sequence_breakers": [], "mirostat": 0, "mirostat_lr": 0.1, "mirostat_ent": 5.0, "logit_bias": {},
}  # fmt: skip
OFF = {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
MODEL = Path(__file__).parent.parent / "models/tiny-stories-f16.gguf"
# Of the first that is near a bound, rounding decides: such logits are not used.
NEAR = 1e-4


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def falling(ids, x):
    order = np.lexsort((ids, -x))
    return ids[order], x[order]


class Doubtful(Exception):
    """Rounding decides."""


def apart(a, b):
    if np.any(np.abs(np.asarray(a) - b) < NEAR):
        raise Doubtful


def penalties(p, ids, x, history):
    n = p["repeat_last_n"]
    recent = history if n < 0 else history[len(history) - min(n, len(history)) :]
    x = x.copy()
    for i, token in enumerate(ids):
        count = recent.count(token)
        if count:
            x[i] = x[i] / p["repeat_penalty"] if x[i] > 0 else x[i] * p["repeat_penalty"]
            x[i] -= count * p["frequency_penalty"] + p["presence_penalty"]
    return ids, x


def dry(p, ids, x, history, vocabulary):
    n = p["dry_penalty_last_n"]
    if p["dry_multiplier"] == 0 or n == 0:
        return ids, x
    text = history if n < 0 else history[len(history) - min(n, len(history)) :]
    allowed = p["dry_allowed_length"]
    if len(text) <= allowed:
        return ids, x
    heads = {}
    for breaker in p["dry_sequence_breakers"]:
        for head, tail in vocabulary.ways(breaker):
            heads.setdefault(head, set()).add(tail)
    # How much of the end may be a repetition: what has come since the last breaker.
    most = len(text)
    for back in range(len(text)):
        at = len(text) - 1 - back
        fits = [tail for tail in heads.get(text[at], ()) if tuple(text[at + 1 : at + 1 + len(tail)]) == tail]
        if fits:
            most = back - max(map(len, fits))
            break
    if most < allowed:
        return ids, x
    longest = {}
    for end in range(1, len(text)):
        # Before `end`, the text is as at its end, for so many tokens.
        length = 0
        while length < min(end, most) and text[end - 1 - length] == text[len(text) - 1 - length]:
            length += 1
        if length >= allowed:
            longest[text[end]] = max(longest.get(text[end], 0), length)
    x = x.copy()
    for i, token in enumerate(ids):
        if token in longest and () not in heads.get(token, ()):
            most_exponent = int(math.log(np.finfo(np.float32).max) / math.log(p["dry_base"])) if p["dry_base"] > 1.000001 else 10**9
            x[i] -= p["dry_multiplier"] * p["dry_base"] ** min(longest[token] - allowed, most_exponent)
    return ids, x


def top_n_sigma(p, ids, x):
    if p["top_nsigma"] <= 0 or len(x) < 2:
        return ids, x
    least = x.max() - p["top_nsigma"] * x.std()
    apart(x, least)
    return ids[x >= least], x[x >= least]


def top_k(p, ids, x):
    if p["top_k"] <= 0:
        return ids, x
    ids, x = falling(ids, x)
    n = min(p["top_k"], len(x))
    apart(x[n : n + 1], x[n - 1])
    return ids[:n], x[:n]


def typical(p, ids, x):
    if p["typical"] >= 1:
        return ids, x
    q = softmax(x)
    surprise = -np.log(q)
    score = np.abs(surprise - (q * surprise).sum())
    order = np.argsort(score, kind="stable")
    sums = np.cumsum(q[order])
    n = int(np.argmax(sums > p["typical"])) + 1 if sums[-1] > p["typical"] else len(x)
    apart(sums[n - 1], p["typical"])
    apart(score[order[n : n + 1]] * 10, score[order[n - 1]] * 10)
    return ids[order[:n]], x[order[:n]]


def top_p(p, ids, x):
    if p["top_p"] >= 1:
        return ids, x
    ids, x = falling(ids, x)
    sums = np.cumsum(softmax(x))
    n = int(np.argmax(sums >= p["top_p"])) + 1 if sums[-1] >= p["top_p"] else len(x)
    apart(sums[n - 1], p["top_p"])
    apart(x[n : n + 1], x[n - 1])
    return ids[:n], x[:n]


def min_p(p, ids, x):
    if p["min_p"] <= 0:
        return ids, x
    ratio = np.exp(x - x.max())
    apart(ratio, p["min_p"])
    return ids[ratio >= p["min_p"]], x[ratio >= p["min_p"]]


def xtc(p, ids, x):
    assert p["xtc_probability"] in (0, 1)
    if p["xtc_probability"] == 0 or p["xtc_threshold"] > 0.5 or len(x) < 2:
        return ids, x
    ids, x = falling(ids, x)
    q = softmax(x)
    if p["xtc_threshold"] > 0:
        apart(q, p["xtc_threshold"])
    n = int((q >= p["xtc_threshold"]).sum())
    return (ids[n - 1 :], x[n - 1 :]) if n > 1 else (ids, x)


def temperature(p, ids, x):
    temp = p["temp"]
    if p["dynatemp_range"] > 0:
        if len(x) < 2:
            return ids, x
        q = softmax(x)
        q = q[q > 0]
        share = -(q * np.log(q)).sum() / math.log(len(x))
        low, high = max(0.0, temp - p["dynatemp_range"]), temp + p["dynatemp_range"]
        temp = low + (high - low) * share ** p["dynatemp_exp"]
    if temp <= 0:
        best = falling(ids, x)[0][:1]
        return best, x[ids == best]
    return ids, x / temp


def run(p, logits, history, vocabulary):
    ids, x = np.arange(len(logits)), np.array(logits, dtype=np.float64)
    for token, bias in p["logit_bias"].items():
        x[int(token)] += bias
    ids, x = ids[x > -np.inf], x[x > -np.inf]
    for name in p["samplers"].split(";") if p["mirostat"] == 0 else ["temperature"]:
        if name == "penalties":
            ids, x = penalties(p, ids, x, history)
        elif name == "dry":
            ids, x = dry(p, ids, x, history, vocabulary)
        elif name:
            ids, x = {
                "top_n_sigma": top_n_sigma, "top_k": top_k, "typ_p": typical, "top_p": top_p, "min_p": min_p, "xtc": xtc,
                "temperature": temperature,
            }[name](p, ids, x)  # fmt: skip
    return ids, x


def mirostat(p, ids, x, mu, n_vocab):
    """What may be drawn."""
    ids, x = falling(ids, x)
    q = softmax(x)
    if p["mirostat"] == 2:
        surprise = -np.log2(q)
        apart(surprise, mu)
        n = max(1, int((surprise <= mu).sum()))
    else:
        pairs = min(99, len(q) - 1)
        t = np.array([math.log((i + 2) / (i + 1)) for i in range(pairs)])
        b = np.log(q[:pairs] / q[1 : pairs + 1])
        s = (t * b).sum() / (t * t).sum()
        k = ((s - 1) * 2**mu / (1 - n_vocab ** -(s - 1))) ** (1 / s)
        apart(k / 100, np.round(k) / 100)
        n = max(1, int(k))
    return ids[:n], x[:n]


def result(ids, x):
    q = softmax(x)
    return sorted((int(i), float(f"{v:.9g}")) for i, v in zip(ids, q))


class Vocabulary:
    """Tokens of a file, and how llama.cpp cuts text into them."""

    def __init__(self, llama):
        self.llama = llama
        self.found = {}

    def ways(self, breaker):
        if breaker not in self.found:
            self.found[breaker] = list(self._ways(breaker.encode()))
        return self.found[breaker]

    def _ways(self, breaker):
        for token, text in enumerate(self.llama.pieces):
            if breaker in text:
                yield token, ()
                continue
            for n in range(1, len(breaker)):
                if text.endswith(breaker[:n]):
                    yield token, tuple(self.llama.tokenize(breaker[n:]))


class Llama:
    """The samplers of llama.cpp's library, called one by one."""

    class Candidate(ctypes.Structure):
        _fields_ = [("id", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float)]

    class Candidates(ctypes.Structure):
        _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("selected", ctypes.c_int64), ("sorted", ctypes.c_bool)]

    class Bias(ctypes.Structure):
        _fields_ = [("token", ctypes.c_int32), ("bias", ctypes.c_float)]

    class Opaque(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint8 * 512)]

    def __init__(self, library):
        self.lib, self.vocab = ctypes.CDLL(str(library)), None
        pointer = ctypes.c_void_p
        for name in [name for name, *_ in self.calls({**DEFAULTS, "logit_bias": {1: 0}}, 1, "all")] + ["temp", "mirostat", "mirostat_v2"]:
            getattr(self.lib, "llama_sampler_init_" + name).restype = pointer
        self.lib.llama_model_default_params.restype = self.Opaque
        self.lib.llama_model_load_from_file.restype = pointer
        self.lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, self.Opaque]
        self.lib.llama_model_get_vocab.restype = pointer
        for name in ("llama_sampler_apply", "llama_sampler_accept", "llama_sampler_free", "llama_model_get_vocab"):
            getattr(self.lib, name).argtypes = [pointer] + {"apply": [pointer], "accept": [ctypes.c_int32]}.get(name.split("_")[-1], [])
        self.log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, pointer)(lambda *_: None)
        self.lib.llama_log_set(self.log, None)
        self.lib.llama_backend_init()
        model = self.lib.llama_model_load_from_file(str(MODEL).encode(), self.lib.llama_model_default_params())
        assert model, MODEL
        self.vocab = pointer(self.lib.llama_model_get_vocab(model))
        self.n_vocab = self.lib.llama_vocab_n_tokens(self.vocab)
        self.pieces = [self.piece(token) for token in range(self.n_vocab)]

    def piece(self, token):
        text = ctypes.create_string_buffer(256)
        n = self.lib.llama_token_to_piece(self.vocab, token, text, 256, 0, ctypes.c_bool(True))
        return text.raw[:n]

    def tokenize(self, text):
        ids = (ctypes.c_int32 * 256)()
        n = self.lib.llama_tokenize(self.vocab, text, len(text), ids, 256, ctypes.c_bool(False), ctypes.c_bool(False))
        assert n >= 0
        return list(ids[:n])

    def calls(self, p, n_vocab, chain):
        f, n = ctypes.c_float, ctypes.c_int32
        breakers = [breaker.encode() for breaker in p["dry_sequence_breakers"]]
        array = (ctypes.c_char_p * max(1, len(breakers)))(*breakers)
        biases = (self.Bias * max(1, len(p["logit_bias"])))(*[(int(t), b) for t, b in p["logit_bias"].items()])
        if p["logit_bias"]:
            yield "logit_bias", n(n_vocab), n(len(p["logit_bias"])), biases
        if p["mirostat"]:
            yield "temp", f(p["temp"])
            return
        last_n = 4096
        window = {"repeat_last_n": p["repeat_last_n"], "dry_penalty_last_n": p["dry_penalty_last_n"]}
        window = {key: last_n if value < 0 else value for key, value in window.items()}
        for name in DEFAULTS["samplers"].split(";") if chain == "all" else p["samplers"].split(";"):
            if name == "penalties":
                strengths = [f(p[key]) for key in ("repeat_penalty", "frequency_penalty", "presence_penalty")]
                yield name, n(n_vocab), n(window["repeat_last_n"]), *strengths
            elif name == "dry":
                yield (
                    name, self.vocab, f(p["dry_multiplier"]), f(p["dry_base"]), n(p["dry_allowed_length"]),
                    n(window["dry_penalty_last_n"]), array, ctypes.c_size_t(len(breakers)),
                )  # fmt: skip
            elif name == "top_n_sigma":
                yield name, f(p["top_nsigma"])
            elif name == "top_k":
                yield name, n(p["top_k"])
            elif name == "typ_p":
                yield "typical", f(p["typical"]), ctypes.c_size_t(0)
            elif name in ("top_p", "min_p"):
                yield name, f(p[name]), ctypes.c_size_t(0)
            elif name == "xtc":
                yield name, f(p["xtc_probability"]), f(p["xtc_threshold"]), ctypes.c_size_t(0), ctypes.c_uint32(1)
            elif name == "temperature":
                yield "temp_ext", f(p["temp"]), f(p["dynatemp_range"]), f(p["dynatemp_exp"])

    def chain(self, p, n_vocab, history):
        steps = []
        for name, *arguments in self.calls(p, n_vocab, None):
            steps.append(ctypes.c_void_p(getattr(self.lib, "llama_sampler_init_" + name)(*arguments)))
        if p["mirostat"]:
            f, seed = ctypes.c_float, ctypes.c_uint32(1)
            tau, eta = f(p["mirostat_ent"]), f(p["mirostat_lr"])
            if p["mirostat"] == 1:
                made = self.lib.llama_sampler_init_mirostat(ctypes.c_int32(n_vocab), seed, tau, eta, ctypes.c_int32(100))
            else:
                made = self.lib.llama_sampler_init_mirostat_v2(seed, tau, eta)
            steps.append(ctypes.c_void_p(made))
        for step in steps:
            for token in history:
                self.lib.llama_sampler_accept(step, token)
        return steps

    def apply(self, steps, logits):
        """Tokens, logits, and which of them was selected."""
        data = (self.Candidate * len(logits))(*[(i, x, 0) for i, x in enumerate(logits)])
        array = self.Candidates(ctypes.cast(data, ctypes.c_void_p), len(logits), -1, False)
        for step in steps:
            self.lib.llama_sampler_apply(step, ctypes.byref(array))
        left = (self.Candidate * array.size).from_address(array.data)
        ids = np.array([c.id for c in left])
        x = np.array([c.logit for c in left], dtype=np.float64)
        selected = int(ids[array.selected]) if array.selected >= 0 else None
        return ids[x > -np.inf], x[x > -np.inf], selected


def cases(rng, n_vocab):
    """Settings, whether the logits are of MODEL's vocabulary, and how long the history is."""
    yield "defaults", {}, 50, 0
    for temp in (0.0, 0.3, 1.0, 2.5):
        yield "temperature", {**OFF, "temp": temp}, 50, 0
    for k in (1, 7, 1000):
        yield "top_k", {**OFF, "top_k": k}, 50, 0
    for key, values in {"top_p": (0.0, 0.3, 0.9), "min_p": (0.02, 0.3), "top_nsigma": (0.5, 1.0, 2.0), "typical": (0.0, 0.2, 0.7, 0.99)}.items():
        for value in values:
            yield key, {**OFF, key: value}, 50, 0
    yield "many", {**OFF, "top_p": 0.9, "typical": 0.95}, 1500, 0
    for range_, exponent in ((0.5, 1.0), (0.5, 2.5), (3.0, 0.5), (0.9, 0.0)):
        yield "dynatemp", {**OFF, "dynatemp_range": range_, "dynatemp_exp": exponent}, 50, 0
    yield "dynatemp", {**OFF, "temp": 0.0, "dynatemp_range": 0.7}, 50, 0
    yield "dynatemp", {"dynatemp_range": 0.5}, 50, 0
    for settings in (
        {"repeat_penalty": 1.3}, {"repeat_penalty": 0.7}, {"frequency_penalty": 0.4}, {"presence_penalty": 0.9},
        {"frequency_penalty": -0.3, "presence_penalty": -0.5}, {"repeat_penalty": 1.2, "frequency_penalty": 0.2, "presence_penalty": 0.3},
        {"repeat_penalty": 1.2, "frequency_penalty": 0.2, "repeat_last_n": 5}, {"repeat_penalty": 2.0, "repeat_last_n": 0},
        {"frequency_penalty": 0.1, "repeat_last_n": -1},
    ):  # fmt: skip
        yield "penalties", {**OFF, **settings}, 12, 30
    for threshold in (0.0, 0.03, 0.1, 0.3, 0.5, 0.6):
        yield "xtc", {**OFF, "xtc_probability": 1.0, "xtc_threshold": threshold}, 12, 0
    yield "xtc", {"xtc_probability": 1.0}, 50, 0
    yield "xtc", {"xtc_probability": 1.0, "temp": 0.0}, 12, 0
    for settings in (
        {}, {"dry_base": 1.0}, {"dry_base": 3.0, "dry_allowed_length": 1}, {"dry_allowed_length": 0}, {"dry_allowed_length": 4},
        {"dry_penalty_last_n": 9}, {"dry_penalty_last_n": 0}, {"dry_multiplier": 0.2, "dry_base": 1.1},
    ):  # fmt: skip
        for size in (2, 3, 5):
            yield "dry", {**OFF, "dry_multiplier": 0.8, **settings}, size, 40
    for breakers in (["\n", ":", '"', "*"], [". She"], [" a", "the"], ["Once upon"], ["."]):
        yield "breakers", {**OFF, "top_k": 100, "dry_multiplier": 0.8, "dry_allowed_length": 1, "dry_sequence_breakers": breakers}, n_vocab, 60
    yield "logit_bias", {**OFF, "logit_bias": {3: 2.5, 4: -1.0, 5: -math.inf, 6: 0.5}}, 12, 0
    yield "logit_bias", {"logit_bias": {3: 5.0}, "repeat_penalty": 1.5}, 12, 20
    strong = {"repeat_penalty": 1.3, "dry_multiplier": 0.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "typical": 0.95, "top_nsigma": 2.0}
    names = DEFAULTS["samplers"].split(";")
    yield "order", {**strong, "xtc_probability": 1.0, "top_k": 8}, 50, 60
    for _ in range(20):
        chosen = [str(name) for name in rng.permutation(names)[: rng.integers(0, len(names) + 1)]]
        # Of what top-n-sigma drops, llama.cpp's typ_p takes the logarithm of 0.
        if {"top_n_sigma", "typ_p"} <= {*chosen} and chosen.index("top_n_sigma") < chosen.index("typ_p"):
            chosen.remove("top_n_sigma")
        yield "order", {**strong, "temp": 1.5, "xtc_probability": 1.0, "samplers": ";".join(chosen)}, 50, 60
    for version in (1, 2):
        yield "mirostat", {"mirostat": version}, 50, 12
        yield "mirostat", {"mirostat": version, "mirostat_ent": 1.5, "mirostat_lr": 0.5, "temp": 1.3}, 50, 12
        yield "mirostat", {"mirostat": version, "mirostat_ent": 0.5, "mirostat_lr": 1.0, "temp": 1.0}, 200, 12


def history_of(rng, name, n_vocab, n, llama):
    """Random tokens that repeat each other; for breakers, a text."""
    if name == "breakers":
        sentences = ["Once upon a time there was a cat.", " She saw the dog. She saw the cat.", ' "No", she said:\n', " a the a the"]
        text = "".join(sentences[i] for i in rng.integers(0, 4, 8))
        return llama.tokenize(text.encode())[-n:]
    history = [int(t) for t in rng.integers(0, n_vocab, n)]
    if n > 20:
        history[-7:] = history[5:12]
    return history


def make(rng, name, settings, n_vocab, n, llama, vocabulary):
    p = {**DEFAULTS, **settings}
    x = np.round(rng.normal(0, 3, n_vocab), 3)
    if len(set(x)) < n_vocab < 100:
        raise Doubtful
    if name != "mirostat":
        history = history_of(rng, name, n_vocab, n, llama)
        left = result(*run(p, x, history, vocabulary))
        ids, y, _ = llama.apply(llama.chain(p, n_vocab, history), x)
        compare(name, settings, left, result(ids, y))
        return {"name": name, "settings": settings, "history": history, "logits": list(x), "left": left}
    steps, mu, chain = [], 2 * p["mirostat_ent"], llama.chain(p, n_vocab, [])
    for _ in range(n):
        ids, y = mirostat(p, *run(p, x, [], vocabulary), mu, n_vocab)
        left = result(ids, y)
        ids, y, drawn = llama.apply(chain, x)
        compare(name, settings, left, result(ids, y))
        steps.append({"left": left, "drawn": drawn})
        mu -= p["mirostat_lr"] * (-math.log2(dict(left)[drawn]) - p["mirostat_ent"])
    return {"name": name, "settings": settings, "logits": list(x), "steps": steps}


def compare(name, settings, ours, theirs):
    assert [i for i, _ in ours] == [i for i, _ in theirs], f"{name} {settings}: {ours}\n{theirs}"
    worst = max(abs(a - b) / max(a, 1e-6) for (_, a), (_, b) in zip(ours, theirs))
    assert worst < 2e-4, f"{name} {settings}: {worst}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file to write")
    parser.add_argument("--check", action="store_true", help="only compare with llama.cpp, on 20 times as many logits")
    parser.add_argument("--library", type=Path, help="a shared library that exports llama.cpp's functions")
    args = parser.parse_args()
    library = args.library
    if library is None:
        library = next(Path(importlib.util.find_spec("xllamacpp").origin).parent.glob("xllamacpp*.so"))
    llama = Llama(library)
    vocabulary = Vocabulary(llama)
    rng = np.random.default_rng(16)
    made = []
    for _ in range(20 if args.check else 1):
        for name, settings, n_vocab, n in cases(rng, llama.n_vocab):
            for attempt in range(100):
                try:
                    made.append(make(rng, name, settings, n_vocab, n, llama, vocabulary))
                    break
                except Doubtful:
                    assert attempt < 99, f"{name} {settings}: always doubtful"
    print(f"{len(made)} cases: NumPy and llama.cpp agree")
    if args.out and not args.check:
        args.out.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in made) + "\n]\n")


if __name__ == "__main__":
    main()
