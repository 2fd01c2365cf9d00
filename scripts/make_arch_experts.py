"""Tiny random models whose FFNs are mixtures of experts: for make_arch_gguf.py.

Of six experts two are chosen, and the numbers of neurons, of experts and of elements of the residual stream all differ.

    smallthinker   text of bytes (GPT-2, cut as Qwen does), as the one with 4 billion weights: no window, sigmoid, tied output
    smallthinker-window  no tokenizer, as the one with 21 billion: a window, layers that do not rotate, softmax
    smallthinker-pattern  no tokenizer, a window in all layers but the first of three, another rotary base there
    llama-experts  no tokenizer, as Mixtral
    llama-experts-old  no tokenizer, a tensor for each expert, as in files from before April 2024
    llama-experts-drelu  no tokenizer, as TurboSparse-Mixtral: key of the activation, scaled weights, tied output
    qwen3moe       text of bytes (GPT-2, cut as Qwen does), norms of heads, output of its own
    qwen3moe-fused  no tokenizer, gate and up of experts in one tensor, YaRN, tied output
    qwen3moe-q8    no tokenizer, experts in Q8_0
    granitemoe     no tokenizer, all four scales, biases of q, k and v, tied output
    granitemoe-shared  no tokenizer, an expert for all tokens beside the others, output of its own
    gpt-oss        text of bytes (GPT-2, cut as GPT-4o does), a window in even layers, sinks, all biases, YaRN
    gpt-oss-mxfp4  no tokenizer, experts in MXFP4, another rotary base where there is a window

To add one: as in make_arch_gguf.py.
"""

from dataclasses import dataclass

import gguf
import numpy as np

from make_arch_parts import QKV, Shape, gpt2_bytes, llama_like, no_vocab, qwen_bytes

SOFTMAX, SIGMOID = 1, 2


@dataclass(frozen=True)
class Experts:
    """How many there are, how many of them are chosen, and how files have them."""

    n_ff: int
    n: int = 6
    n_used: int = 2
    # A tensor for each.
    single: bool = False
    # Gate and up in one tensor.
    fused: bool = False
    biases: bool = False
    # Neurons of the expert for all tokens.
    n_shared: int = 0
    kind: gguf.GGMLQuantizationType | None = None


def gpt4o_bytes(writer, shape):
    return gpt2_bytes(writer, shape, "gpt-4o")


def expert_tensors(weights, block, shape, experts):
    """The router and what it chooses from."""
    # So large that tokens differ in whom they choose.
    weights.matrix(f"{block}.ffn_gate_inp.weight", experts.n, shape.n_embd, 2.0)
    if experts.biases:
        weights.bias(f"{block}.ffn_gate_inp.bias", experts.n)
    up, down = (experts.n_ff, shape.n_embd), (shape.n_embd, experts.n_ff)
    sizes = {"ffn_gate": (*up, 1.5), "ffn_up": (*up, 1.0), "ffn_down": (*down, 1.0)}
    if experts.fused:
        sizes = {"ffn_gate_up": (2 * experts.n_ff, shape.n_embd, 1.2), "ffn_down": (*down, 1.0)}
    for name, (rows, columns, gain) in sizes.items():
        values = weights.rng.standard_normal((experts.n, rows, columns)) * gain / np.sqrt(columns)
        if experts.single:
            for i, of_expert in enumerate(values):
                weights.add(f"{block}.{name}.{i}.weight", of_expert)
            continue
        weights.add(f"{block}.{name}_exps.weight", values)
        if experts.kind is not None:
            weights.quantize(f"{block}.{name}_exps.weight", experts.kind)
        if experts.biases:
            weights.bias(f"{block}.{name}_exps.bias", (experts.n, rows))
    if experts.n_shared:
        for name, rows, columns in (
            ("gate", experts.n_shared, shape.n_embd),
            ("up", experts.n_shared, shape.n_embd),
            ("down", shape.n_embd, experts.n_shared),
        ):
            weights.matrix(f"{block}.ffn_{name}_shexp.weight", rows, columns)


def moe(writer, weights, shape, n_vocab, experts, **kinds):
    """As `llama_like`, with experts."""
    writer.add_expert_count(experts.n)
    writer.add_expert_used_count(experts.n_used)

    def feed(block):
        expert_tensors(weights, block, shape, experts)

    llama_like(writer, weights, shape, n_vocab, gated=True, feed=feed, **kinds)


def llama_moe(writer, weights, shape, n_vocab, *, scale=None, **kinds):
    moe(writer, weights, shape, n_vocab, Experts(shape.n_ff, single=kinds.pop("single", False)), **kinds)
    if scale:
        writer.add_expert_weights_scale(scale)


def smallthinker(writer, weights, shape, n_vocab, *, gating, pattern=None, window_base=None, **kinds):
    moe(writer, weights, shape, n_vocab, Experts(shape.n_ff), **kinds)
    writer.add_expert_feed_forward_length(shape.n_ff)
    writer.add_uint32("smallthinker.expert_gating_func", gating)
    if pattern:
        writer.add_array("smallthinker.attention.sliding_window_pattern", pattern)
    if window_base:
        writer.add_float32("smallthinker.rope.freq_base_swa", window_base)


def qwen3moe(writer, weights, shape, n_vocab, *, experts, **kinds):
    moe(writer, weights, shape, n_vocab, experts, head_norms=(shape.head_dim, shape.head_dim), **kinds)
    writer.add_expert_feed_forward_length(experts.n_ff)


def granitemoe(writer, weights, shape, n_vocab, *, scales, n_shared=0, **kinds):
    moe(writer, weights, shape, n_vocab, Experts(shape.n_ff, n_shared=n_shared), **kinds)
    for name, scale in scales.items():
        writer.add_float32(f"granitemoe.{name}", scale)
    if n_shared:
        writer.add_expert_shared_feed_forward_length(n_shared)


def gpt_oss(writer, weights, shape, n_vocab, *, experts, window_base=None, **kinds):
    biases = (*QKV, "attn_output")
    moe(writer, weights, shape, n_vocab, experts, biases=biases, **kinds)
    writer.add_expert_feed_forward_length(experts.n_ff)
    if window_base:
        writer.add_float32("gpt-oss.rope.freq_base_swa", window_base)
    for i in range(shape.n_layer):
        weights.bias(f"blk.{i}.attn_sinks.weight", shape.n_head)
        # It has this name for the norm in front of the FFN.
        weights.tensors[f"blk.{i}.post_attention_norm.weight"] = weights.tensors.pop(f"blk.{i}.ffn_norm.weight")


# As MODELS of make_arch_gguf.py.
SMALL = Shape(n_embd=16, n_ff=12, n_head=4, n_head_kv=2, key_length=6, n_layer=3)
BLOCKS = Shape(n_embd=32, n_ff=64, n_head=4, n_head_kv=2, key_length=12, n_layer=2)
SCALES = {"embedding_scale": 1.75, "residual_scale": 0.4, "logit_scale": 2.5, "attention.scale": 0.15}
FIVE = Shape(n_embd=16, n_ff=12, n_head=4, n_head_kv=2, key_length=6)
SQUARE = Shape(n_embd=16, n_ff=12, n_head=4, n_head_kv=2, n_layer=3)
Q8_0, MXFP4 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.MXFP4
MODELS = {
    "smallthinker": (smallthinker, qwen_bytes, FIVE, {"gating": SIGMOID, "tied": True}),
    "smallthinker-window": (smallthinker, no_vocab, FIVE, {"gating": SOFTMAX, "window": 3}),
    "smallthinker-pattern": (
        smallthinker, no_vocab, FIVE, {"gating": SIGMOID, "window": 3, "window_base": 5.0, "pattern": [False, True, True, False, True]},
    ),
    "llama-experts": (llama_moe, no_vocab, SMALL, {}),
    "llama-experts-old": (llama_moe, no_vocab, SQUARE, {"single": True}),
    "llama-experts-drelu": (llama_moe, no_vocab, SQUARE, {"activation": "drelu", "scale": 1.5, "tied": True}),
    "qwen3moe": (qwen3moe, qwen_bytes, FIVE, {"experts": Experts(10)}),
    "qwen3moe-fused": (qwen3moe, no_vocab, SMALL, {"experts": Experts(10, fused=True), "tied": True, "yarn": (4.0, 128)}),
    "qwen3moe-q8": (qwen3moe, no_vocab, BLOCKS, {"experts": Experts(64, kind=Q8_0)}),
    "granitemoe": (granitemoe, no_vocab, SQUARE, {"scales": SCALES, "biases": QKV, "tied": True}),
    "granitemoe-shared": (granitemoe, no_vocab, SQUARE, {"scales": {"logit_scale": 0.5}, "n_shared": 20}),
    "gpt-oss": (gpt_oss, gpt4o_bytes, FIVE, {"experts": Experts(12, biases=True), "window": 3, "yarn": (4.0, 128)}),
    "gpt-oss-mxfp4": (
        gpt_oss, no_vocab, BLOCKS, {"experts": Experts(64, biases=True, kind=MXFP4), "window": 3, "window_base": 5.0},
    ),
}  # fmt: skip
NAMES = {llama_moe: "llama", gpt_oss: "gpt-oss"}
