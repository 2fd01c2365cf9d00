#!/usr/bin/env python3
"""Logits of a GGUF model by the book: NumPy, 64-bit floats, all tokens at once, nothing skipped and nothing fast.

    pip install -r scripts/requirements.txt
    python scripts/reference.py MODEL.gguf [--tokens 3,1,4,1,5] [--activation relu]    the likeliest tokens after each token
    python scripts/reference.py --golden tests/golden/arch/*.gguf                      writes MODEL.json beside each
    python scripts/reference.py --check tests/golden/arch/*.json                       computes them again and compares

Knows the architectures of ARCHITECTURES below, each a function that reads like the paper; to add one, write another. What it
does is what llama.cpp does with the same file (scripts/compare_logits.py), so llama is SiLU unless --activation or the file's
hidden_activation, which llama.cpp does not read, says otherwise.
A JSON file holds the model's file name, the token ids, the activation, and for each token its logits with nine digits.
"""

import argparse
import json
import math
from pathlib import Path

import gguf
import numpy as np

N_TOKENS = 10


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


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    """As Google's code has it: an approximation by tanh."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def gelu_quick(x):
    return x / (1 + np.exp(-1.702 * x))


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
    """Of gate and up: see gated_ffn."""
    fail("drelu is of gate and up, and this FFN has no gate")


def long_factors(model):
    """Those for contexts beyond the original one, or those for others."""
    long, short = model.get("rope_factors_long.weight"), model.get("rope_factors_short.weight")
    n_ctx = model.key("rope.scaling.original_context_length", model.key("context_length"))
    return long if model.n_ctx > n_ctx else short


def frequencies(model):
    """Angle per position of each rotated pair, and what cosine and sine are multiplied with."""
    n_rot = model.key("rope.dimension_count", model.head_dim)
    base = model.key("rope.freq_base", 10000.0)
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
    cap=0,
):  # fmt: skip
    """Causal, with groups of heads that share keys and values. `halves` says which elements rotate together,
    `rotated` whether they do, `head_norm` how each head of queries and keys is normalised before that, `norm` how all heads together
    are, `scale` what scores are multiplied with, `sharper` with what beside that for each query, and `seen` how many tokens a
    query looks back on, itself among them: what the file says, where it is not given, and 0 for all. `turns` is another rotation
    than the file's, `cap` what scores stay below."""
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
    weights = softmax(np.where(masked, -np.inf, scores))
    y = np.einsum("hqk,khd->qhd", weights, v).reshape(len(x), -1)
    return model.linear(y, f"{block}.attn_output")


def gated_ffn(model, x, block, activation):
    up = model.linear(x, f"{block}.ffn_up")
    if f"{block}.ffn_gate.weight" in model.tensors:
        gate = model.linear(x, f"{block}.ffn_gate")
    else:
        # The one above the other.
        gate, up = np.split(up, 2, axis=-1)
    hidden = relu(gate) * relu(up) if activation is drelu else activation(gate) * up
    return model.linear(hidden, f"{block}.ffn_down")


def ungated_ffn(model, x, block, activation):
    return model.linear(activation(model.linear(x, f"{block}.ffn_up")), f"{block}.ffn_down")


def head(model, x):
    name = "output" if "output.weight" in model.tensors else "token_embd"
    return model.linear(x, name)


# Architectures: from embedded tokens `[token, n_embd]` to logits `[token, n_vocab]`.


def llama(model, x, activation=silu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, rms_norm(model, x, f"{block}.attn_norm"), block)
        x = x + gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def bamboo(model, x, activation=drelu):
    return llama(model, x, activation)


def arcee(model, x, activation=relu2):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, rms_norm(model, x, f"{block}.attn_norm"), block)
        x = x + ungated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def qwen2(model, x, activation=silu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, rms_norm(model, x, f"{block}.attn_norm"), block, halves=True)
        x = x + gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def qwen3(model, x, activation=silu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        h = rms_norm(model, x, f"{block}.attn_norm")
        x = x + attention(model, h, block, halves=True, head_norm=rms_norm)
        x = x + gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def granite(model, x, activation=silu):
    # Some of the family say in this way that they do not rotate.
    rotated = model.key("rope.scaling.finetuned", True)
    x = x * (model.key("embedding_scale", 0.0) or 1)
    residual_scale = model.key("residual_scale", 0.0) or 1
    for i in range(model.n_layer):
        block = f"blk.{i}"
        h = rms_norm(model, x, f"{block}.attn_norm")
        x = x + residual_scale * attention(model, h, block, scale=model.key("attention.scale", 0.0), rotated=rotated)
        x = x + residual_scale * gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm")) / (model.key("logit_scale", 0.0) or 1)


def minicpm(model, x, activation=silu):
    n_embd = x.shape[-1]
    x = x * (model.key("embedding_scale", 0.0) or 12)
    residual_scale = model.key("residual_scale", 0.0) or 1.4 / np.sqrt(model.n_layer)
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + residual_scale * attention(model, rms_norm(model, x, f"{block}.attn_norm"), block)
        x = x + residual_scale * gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    # hidden_size / dim_model_base, as the makers' code has it. Without the key llama.cpp divides by the inverse.
    return head(model, rms_norm(model, x, "output_norm")) / (model.key("logit_scale", 0.0) or n_embd / 256)


def smollm3(model, x, activation=silu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        h = rms_norm(model, x, f"{block}.attn_norm")
        # The last one of every four layers does not rotate.
        x = x + attention(model, h, block, rotated=(i + 1) % 4 != 0)
        x = x + gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def nemotron(model, x, activation=relu2):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, layer_norm(model, x, f"{block}.attn_norm"), block, halves=True)
        x = x + ungated_ffn(model, layer_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, layer_norm(model, x, "output_norm"))


def jais2(model, x, activation=relu2):
    return nemotron(model, x, activation)


def opt(model, x, activation=relu):
    table = model["position_embd.weight"]
    # Tables as long as a power of two have position 0 in their first row; those with two rows more have it in their third.
    before = 2 if (len(table) - 2).bit_count() == 1 else 0
    x = x + table[before : before + len(x)]
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, layer_norm(model, x, f"{block}.attn_norm"), block, rotated=False)
        x = x + ungated_ffn(model, layer_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, layer_norm(model, x, "output_norm"))


def falcon(model, x, activation=gelu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        h = layer_norm(model, x, f"{block}.attn_norm")
        # The larger models have a norm of its own for attention.
        own = f"{block}.attn_norm_2"
        a = layer_norm(model, x, own) if f"{own}.weight" in model.tensors else h
        x = x + attention(model, a, block, halves=True) + ungated_ffn(model, h, block, activation)
    return head(model, layer_norm(model, x, "output_norm"))


def olmo2(model, x, activation=silu):
    # OLMo 3 has layers with a window, which are rotated as if nothing were scaled.
    near = (plain_frequencies(model, model.key("rope.freq_base", 10000.0)), 1.0)
    for i in range(model.n_layer):
        block = f"blk.{i}"
        seen = window(model, i, 0, 4)
        turns = near if seen else frequencies(model)
        attn = attention(model, x, block, halves=True, norm=rms_norm, seen=seen, turns=turns)
        x = x + rms_norm(model, attn, f"{block}.post_attention_norm")
        x = x + rms_norm(model, gated_ffn(model, x, block, activation), f"{block}.post_ffw_norm")
    return head(model, rms_norm(model, x, "output_norm"))


def mistral3(model, x, activation=silu):
    # Attention grows sharper each time that the original context has been gone through.
    n_ctx = model.key("rope.scaling.original_context_length", model.key("context_length"))
    sharper = 1 + model.key("attention.temperature_scale", 0.0) * np.log(1 + np.arange(len(x)) // n_ctx)
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, rms_norm(model, x, f"{block}.attn_norm"), block, sharper=sharper[:, None])
        x = x + gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def own_head_norm(model, x, name):
    """A layer norm of each head, with weights of its own and without a bias."""
    x = x - np.mean(x, -1, keepdims=True)
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + model.key("attention.layer_norm_epsilon")) * model[f"{name}.weight"]


def stablelm(model, x, activation=silu):
    head_norm = own_head_norm if "blk.0.attn_q_norm.weight" in model.tensors else None
    for i in range(model.n_layer):
        block = f"blk.{i}"
        h = layer_norm(model, x, f"{block}.attn_norm")
        attn = attention(model, h, block, halves=True, head_norm=head_norm)
        if f"{block}.ffn_norm.weight" in model.tensors:
            x = x + attn
            x = x + gated_ffn(model, layer_norm(model, x, f"{block}.ffn_norm"), block, activation)
        else:
            x = x + attn + gated_ffn(model, h, block, activation)
    return head(model, layer_norm(model, x, "output_norm"))


def starcoder2(model, x, activation=gelu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, layer_norm(model, x, f"{block}.attn_norm"), block, halves=True)
        x = x + ungated_ffn(model, layer_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, layer_norm(model, x, "output_norm"))


def exaone(model, x, activation=silu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + attention(model, rms_norm(model, x, f"{block}.attn_norm"), block, halves=True)
        x = x + gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def gemma(model, x, activation, attend):
    """`attend(i, block, h)` is the attention of a layer."""
    x = x * np.sqrt(x.shape[-1])
    for i in range(model.n_layer):
        block = f"blk.{i}"
        h = attend(i, block, rms_norm(model, x, f"{block}.attn_norm"))
        x = x + rms_norm(model, h, f"{block}.post_attention_norm")
        h = gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
        x = x + rms_norm(model, h, f"{block}.post_ffw_norm")
    return head(model, rms_norm(model, x, "output_norm"))


def gemma_scale(model, n_layer_27b):
    # Of the largest model it is that of heads as wide as the residual stream allows.
    wide = model.n_layer == n_layer_27b
    usual = 1 / np.sqrt(model.key("embedding_length") // model.n_head if wide else model.head_dim)
    return model.key("attention.scale", 0.0) or usual


def gemma2(model, x, activation=gelu):
    scale, cap = gemma_scale(model, 46), model.key("attn_logit_softcapping", 50.0)
    frequency, magnitude = frequencies(model)
    base = model.key("rope.freq_base", 10000.0)
    again = plain_frequencies(model, model.key("rope.freq_base_swa", base)) / plain_frequencies(model, base)

    def attend(i, block, h):
        seen = window(model, i, 4096, 2)
        turns = (frequency * again if seen else frequency, magnitude)
        return attention(model, h, block, halves=True, scale=scale, cap=cap, seen=seen, turns=turns)

    return capped(gemma(model, x, activation, attend), model.key("final_logit_softcapping", 30.0))


def gemma3(model, x, activation=gelu):
    scale = gemma_scale(model, 62)
    full = frequencies(model)
    near = (plain_frequencies(model, model.key("rope.freq_base_swa", 10000.0)), full[1])

    def attend(i, block, h):
        seen = window(model, i, 0, 6)
        turns = near if seen else full
        return attention(model, h, block, halves=True, head_norm=rms_norm, scale=scale, seen=seen, turns=turns)

    return capped(gemma(model, x, activation, attend), model.key("final_logit_softcapping", 0.0))


def phi3(model, x, activation=silu):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        # Files state a window that llama.cpp does not honour.
        x = x + attention(model, rms_norm(model, x, f"{block}.attn_norm"), block, halves=True, seen=0)
        x = x + gated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


def latent_attention(model, x, block):
    """Keys and values come from a narrow vector, but for what is rotated: that part of the keys is the same for all heads."""
    n, n_head = len(x), model.n_head
    n_rot, n_value, n_narrow = (model.key(name) for name in ("rope.dimension_count", "attention.value_length", "attention.kv_lora_rank"))
    n_still = model.head_dim - n_rot
    q_still, q_turned = np.split(model.linear(x, f"{block}.attn_q").reshape(n, n_head, model.head_dim), [n_still], -1)
    narrow, k_turned = np.split(model.linear(x, f"{block}.attn_kv_a_mqa"), [n_narrow], -1)
    wide = model.linear(rms_norm(model, narrow, f"{block}.attn_kv_a_norm"), f"{block}.attn_kv_b")
    k_still, v = np.split(wide.reshape(n, n_head, n_still + n_value), [n_still], -1)
    q_turned, k_turned = rope(model, q_turned, False), rope(model, k_turned[:, None], False)
    scores = np.einsum("qhd,khd->hqk", q_still, k_still) + np.einsum("qhd,kd->hqk", q_turned, k_turned[:, 0])
    later = np.triu(np.ones((n, n), bool), 1)
    weights = softmax(np.where(later, -np.inf, scores / np.sqrt(model.head_dim)))
    return model.linear(np.einsum("hqk,khd->qhd", weights, v).reshape(n, -1), f"{block}.attn_output")


def plm(model, x, activation=relu2):
    for i in range(model.n_layer):
        block = f"blk.{i}"
        x = x + latent_attention(model, rms_norm(model, x, f"{block}.attn_norm"), block)
        x = x + ungated_ffn(model, rms_norm(model, x, f"{block}.ffn_norm"), block, activation)
    return head(model, rms_norm(model, x, "output_norm"))


ARCHITECTURES = {
    "llama": llama,
    "bamboo": bamboo,
    "arcee": arcee,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "granite": granite,
    "minicpm": minicpm,
    "smollm3": smollm3,
    "nemotron": nemotron,
    "jais2": jais2,
    "opt": opt,
    "falcon": falcon,
    "olmo2": olmo2,
    "mistral3": mistral3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "exaone": exaone,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "phi3": phi3,
    "plm": plm,
}
ACTIVATIONS = {
    "silu": silu, "gelu": gelu, "gelu_erf": gelu_erf, "gelu_quick": gelu_quick, "relu": relu, "relu2": relu2, "drelu": drelu,
}  # fmt: skip


def function(name, threshold=None):
    """The activation of this name, which may have a threshold behind a colon."""
    stem, _, own = name.partition(":")
    if stem != "fatrelu":
        return ACTIVATIONS.get(name) or fail(f"activation {name} is not known")
    return fatrelu(float(own) if own else fail("fatrelu needs a threshold") if threshold is None else threshold)


def logits(path, tokens, activation=None):
    """Logits `[token, n_vocab]` after each of `tokens`."""
    model = Model(path)
    if model.arch not in ARCHITECTURES:
        fail(f'{path}: general.architecture: "{model.arch}" is not known; {", ".join(ARCHITECTURES)} are')
    if not all(0 <= token < model.n_vocab for token in tokens):
        fail(f"{path}: tokens are 0 to {model.n_vocab - 1}")
    stated = model.key("hidden_activation", "")
    kinds = {}
    if activation or stated:
        kinds["activation"] = function(activation or stated, model.key("activation_threshold", -1.0))
    model.n_ctx = len(tokens)
    result = ARCHITECTURES[model.arch](model, model["token_embd.weight"][tokens], **kinds)
    unused = sorted(set(model.tensors) - model.used)
    if unused:
        fail(f"{path}: {unused[0]}: the tensor is not used; this is another model")
    return result


def some_tokens(path):
    """Tokens that are the same each time, with one that comes twice."""
    n_vocab = len(Model(path)["token_embd.weight"])
    tokens = np.random.default_rng(N_TOKENS).integers(0, n_vocab, N_TOKENS).tolist()
    tokens[-2] = tokens[1]
    return tokens


def write_golden(path, tokens, activation):
    rows = logits(path, tokens, activation)
    lines = ",\n".join("  [" + ", ".join(f"{value:.9g}" for value in row) + "]" for row in rows)
    head = [f'"{key}": {json.dumps(value)}' for key, value in (("model", path.name), ("tokens", tokens), ("activation", activation))]
    out = path.with_suffix(".json")
    out.write_text("{" + ",\n ".join([*head, f'"logits": [\n{lines}\n]']) + "}\n")
    print(f"{out}: {len(rows)} tokens, {out.stat().st_size} bytes")


def check_golden(path):
    """Largest difference between a golden file and what is computed now."""
    golden = json.loads(path.read_text())
    now = logits(path.with_name(golden["model"]), golden["tokens"], golden["activation"])
    apart = np.abs(now - golden["logits"]).max()
    print(f"{path}: {apart:.1e} apart")
    return apart


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("files", type=Path, nargs="+", metavar="FILE", help="models; with --check, golden files")
    ap.add_argument("--tokens", metavar="N,N", help=f"token ids (default: {N_TOKENS} that are chosen for the vocabulary)")
    ap.add_argument("--activation", metavar="NAME", help=f"of the FFN: {', '.join(ACTIVATIONS)}, fatrelu:T (default: the file's)")
    what = ap.add_mutually_exclusive_group()
    what.add_argument("--golden", action="store_true", help="write the logits of each model to MODEL.json")
    what.add_argument("--check", action="store_true", help="compare golden files with what is computed now")
    args = ap.parse_args()
    if args.check:
        if not all(check_golden(path) < 1e-6 for path in args.files):
            fail("golden files differ from what is computed now")
        return
    for path in args.files:
        tokens = [int(n) for n in args.tokens.split(",")] if args.tokens else some_tokens(path)
        if args.golden:
            write_golden(path, tokens, args.activation)
            continue
        print(path)
        for token, row in zip(tokens, logits(path, tokens, args.activation)):
            best = np.argsort(-row)[:4]
            print(f"{token:6}  " + "  ".join(f"{i}: {row[i]:.6f}" for i in best))


if __name__ == "__main__":
    main()
