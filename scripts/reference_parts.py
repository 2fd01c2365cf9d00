"""What the functions of reference.py are made of: a file's tensors, norms, rotations, attention, dense FFNs."""

import math

import gguf
import numpy as np


def fail(message):
    raise SystemExit(message)


class Model:
    """A file's keys, and its tensors as 64-bit floats."""

    def __init__(self, path):
        try:
            self.reader = gguf.GGUFReader(path)
        except (OSError, ValueError) as e:
            fail(f"{path}: {getattr(e, 'strerror', None) or e}")
        self.arch = self.reader.get_field("general.architecture").contents()
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.used = set()
        # Of the run: as many as there are tokens.
        self.n_ctx = 0
        self.n_layer = self.key("block_count")
        self.n_head = self.key("attention.head_count")
        self.n_head_kv = self.key("attention.head_count_kv", self.n_head)
        self.head_dim = self.key("attention.key_length", self.key("embedding_length") // self.n_head)
        self.n_vocab = len(self["token_embd.weight"])

    def key(self, name, default=None):
        field = self.reader.get_field(f"{self.arch}.{name}")
        if field is not None:
            return field.contents()
        if default is None:
            fail(f"{self.arch}.{name}: the key is missing")
        return default

    def get(self, name):
        """A tensor, its rows as rows; None where there is none."""
        tensor = self.tensors.get(name)
        if tensor is None:
            return None
        self.used.add(name)
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)

    def __getitem__(self, name):
        if name not in self.tensors:
            fail(f"{name}: the tensor is missing")
        return self.get(name)

    def linear(self, x, name):
        """W x + b for each row x; without b where there is no bias."""
        y = x @ self[f"{name}.weight"].T
        bias = self.get(f"{name}.bias")
        return y if bias is None else y + bias


# Parts.


def rms_norm(model, x, name):
    eps = model.key("attention.layer_norm_rms_epsilon")
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * model[f"{name}.weight"]


def layer_norm(model, x, name):
    x = x - np.mean(x, -1, keepdims=True)
    x = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + model.key("attention.layer_norm_epsilon"))
    return x * model[f"{name}.weight"] + model[f"{name}.bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def gelu(x):
    """As Google's code has it: an approximation by tanh."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def gelu_quick(x):
    return x * sigmoid(1.702 * x)


def relu(x):
    return np.maximum(x, 0)


def relu2(x):
    return relu(x) ** 2


def plain_frequencies(model, base):
    n_rot = model.key("rope.dimension_count", model.head_dim)
    return base ** (-2 * np.arange(n_rot // 2) / n_rot)


def fatrelu(threshold):
    """ReLU with a threshold: what is above it stays as it is."""
    return lambda x: np.where(x > threshold, x, 0)


def drelu(_x):
    """Of gate and up: see gated."""
    fail("drelu is of gate and up, and this FFN has no gate")


def swiglu_oai(_x):
    """Of gate and up: see gated."""
    fail("swiglu_oai is of gate and up, and this FFN has no gate")


def gated(activation, gate, up):
    """What neurons are worth, whose gate and up are these."""
    if activation is drelu:
        return relu(gate) * relu(up)
    if activation is swiglu_oai:
        return gelu_quick(np.minimum(gate, 7)) * (np.clip(up, -7, 7) + 1)
    return activation(gate) * up


def long_factors(model):
    """Those for contexts beyond the original one, or those for others."""
    long, short = model.get("rope_factors_long.weight"), model.get("rope_factors_short.weight")
    n_ctx = model.key("rope.scaling.original_context_length", model.key("context_length"))
    return long if model.n_ctx > n_ctx else short


def frequencies(model, base=None):
    """Angle per position of each rotated pair, and what cosine and sine are multiplied with; `base` is another one than the file's."""
    n_rot = model.key("rope.dimension_count", model.head_dim)
    base = base or model.key("rope.freq_base", 10000.0)
    i = np.arange(n_rot // 2)
    frequency = plain_frequencies(model, base)
    kind = model.key("rope.scaling.type", "linear")
    factors = model.get("rope_freqs.weight")
    if factors is None and (kind == "longrope" or model.arch == "phi3"):
        factors = long_factors(model)
    if factors is not None:
        frequency = frequency / factors
    factor = model.key("rope.scaling.factor", 0.0) or 1.0
    scale = model.key("rope.scaling.attn_factor", 1.0)
    if kind in ("linear", "longrope"):
        frequency = frequency / factor
    elif kind == "yarn":
        # Pairs that turn 32 times and more within the original context keep their frequency, those that turn less than once are
        # slowed down by the factor. llama.cpp takes other numbers of turns from files of few architectures.
        n_ctx = model.key("rope.scaling.original_context_length", model.key("context_length"))

        def pair_that_turns(times):
            return n_rot * np.log(n_ctx / (2 * np.pi * times)) / (2 * np.log(base))

        fast, slow = model.key("rope.scaling.yarn_beta_fast", 32.0), model.key("rope.scaling.yarn_beta_slow", 1.0)
        low, high = max(0, np.floor(pair_that_turns(fast))), min(n_rot - 1, np.ceil(pair_that_turns(slow)))
        kept = 1 - np.clip((i - low) / max(0.001, high - low), 0, 1)
        frequency = frequency * (kept + (1 - kept) / factor)
        scale *= (1 + 0.1 * np.log(factor)) / (1 + 0.1 * model.key("rope.scaling.yarn_log_multiplier", 0.0) * np.log(factor))
    elif kind != "none":
        fail(f"{model.arch}.rope.scaling.type: {kind} is not known")
    return frequency, scale


def rope(model, x, halves, turns=None):
    """Turns heads `[token, head, element]` by position: elements 2i and 2i + 1 are a pair, or i and i + n_rot / 2. `turns` is as
    `frequencies`."""
    frequency, scale = turns or frequencies(model)
    angle = np.arange(len(x))[:, None, None] * frequency
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    n = len(frequency)
    first, second = (slice(0, n), slice(n, 2 * n)) if halves else (slice(0, 2 * n, 2), slice(1, 2 * n, 2))
    y = x.copy()
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y


def window(model, layer, usual=0, period=0):
    """Tokens that a token of this layer looks back on, itself among them; 0 for all. Of each `period` layers the last looks back
    on all. Keys may say otherwise: one number for all layers, or one for each."""
    lengths = model.key("attention.sliding_window", usual)
    pattern = model.key("attention.sliding_window_pattern", period)
    if isinstance(pattern, list):
        limited = pattern[layer]
    else:
        limited = pattern == 0 or (layer + 1) % pattern != 0
    return (lengths[layer] if isinstance(lengths, list) else lengths) if limited else 0


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def capped(x, cap):
    return cap * np.tanh(x / cap) if cap else x


def attention(
    model, x, block, halves=False, head_norm=None, norm=None, scale=None, rotated=True, sharper=1, seen=None, turns=None,
    cap=0, sinks=None,
):  # fmt: skip
    """Causal, with groups of heads that share keys and values. `halves` says which elements rotate together,
    `rotated` whether they do, `head_norm` how each head of queries and keys is normalised before that, `norm` how all heads together
    are, `scale` what scores are multiplied with, `sharper` with what beside that for each query, and `seen` how many tokens a
    query looks back on, itself among them: what the file says, where it is not given, and 0 for all. `turns` is another rotation
    than the file's, `cap` what scores stay below. `sinks` are scores, one for each head, of a token that is worth nothing."""
    if seen is None:
        seen = window(model, int(block.split(".")[1]))

    sizes = np.cumsum([model.head_dim * n for n in (model.n_head, model.n_head_kv)])
    # Some files have the three in one tensor, row behind row.
    fused = f"{block}.attn_qkv.weight" in model.tensors
    qkv = dict(zip(("attn_q", "attn_k", "attn_v"), np.split(model.linear(x, f"{block}.attn_qkv"), sizes, -1))) if fused else {}

    def heads(name, n):
        y = qkv[name] if fused else model.linear(x, f"{block}.{name}")
        if norm and name != "attn_v":
            y = norm(model, y, f"{block}.{name}_norm")
        return y.reshape(len(x), n, model.head_dim)

    q, k = heads("attn_q", model.n_head), heads("attn_k", model.n_head_kv)
    if head_norm:
        q, k = head_norm(model, q, f"{block}.attn_q_norm"), head_norm(model, k, f"{block}.attn_k_norm")
    if rotated:
        q, k = rope(model, q, halves, turns), rope(model, k, halves, turns)
    v = heads("attn_v", model.n_head_kv)
    k, v = (np.repeat(y, model.n_head // model.n_head_kv, axis=1) for y in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) * (scale or 1 / np.sqrt(model.head_dim)) * sharper
    scores = capped(scores, cap)
    distance = np.arange(len(x))[:, None] - np.arange(len(x))
    masked = (distance < 0) | (distance >= (seen or len(x)))
    scores = np.where(masked, -np.inf, scores)
    if sinks is not None:
        scores = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (*scores.shape[:2], 1))], -1)
    weights = softmax(scores)[..., : len(x)]
    y = np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1)
    return model.linear(y, f"{block}.attn_output")


def gated_ffn(model, x, block, activation):
    up = model.linear(x, f"{block}.ffn_up")
    if f"{block}.ffn_gate.weight" in model.tensors:
        gate = model.linear(x, f"{block}.ffn_gate")
    else:
        # The one above the other.
        gate, up = np.split(up, 2, axis=-1)
    return model.linear(gated(activation, gate, up), f"{block}.ffn_down")


def ungated_ffn(model, x, block, activation):
    return model.linear(activation(model.linear(x, f"{block}.ffn_up")), f"{block}.ffn_down")


def head(model, x):
    name = "output" if "output.weight" in model.tensors else "token_embd"
    return model.linear(x, name)


ACTIVATIONS = {
    "silu": silu, "gelu": gelu, "gelu_erf": gelu_erf, "gelu_quick": gelu_quick, "relu": relu, "relu2": relu2, "drelu": drelu,
    "swiglu_oai": swiglu_oai,
}  # fmt: skip
