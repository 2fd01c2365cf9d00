#!/usr/bin/env python3
"""Make tiny random models, one or more for each architecture, as GGUF files for tests.

    pip install -r scripts/requirements.txt
    python scripts/make_arch_gguf.py --out tests/golden/arch [NAME...]

Without names it writes all that it knows. Weights are F32 and depend on the name and --seed only. Sizes are such that mistakes
show: five layers, fewer key/value heads than heads, heads that together are wider or narrower than the residual stream, a
rotary base so small that every pair turns within ten tokens, a large epsilon. `scripts/reference.py` computes their logits.

    llama          text of bytes (SentencePiece), chat template, tied output, rope_freqs, widths that are no multiple of 32
    llama-biases   no tokenizer, biases of q, k, v and output, linear scaling, widths of 32
    llama-yarn     no tokenizer, YaRN
    llama-window   no tokenizer, a window in all layers
    llama-fatrelu  no tokenizer, keys of the activation: a threshold
    llama-gelu-erf  no tokenizer, key of the activation
    llama-drelu    no tokenizer, key of the activation: gate and up, tied output
    bamboo         text of bytes (SentencePiece), chat template, dReLU, output of its own, widths that are no multiple of 32
    bamboo-fatrelu  no tokenizer, keys of the activation: a threshold, and not its own
    arcee          text of bytes (GPT-2), chat template, output of its own, widths that are no multiple of 32
    arcee-biases   no tokenizer, biases of q, k and v, rope_freqs, linear scaling, tied output, widths of 32
    arcee-quick    no tokenizer, key of the activation
    arcee-yarn     no tokenizer, YaRN
    qwen2          text of bytes (GPT-2, cut as Qwen does), chat template, biases of q, k and v, output of its own with a bias
    qwen2-tied     no tokenizer, biases of q, k and v, tied output, YaRN, widths of 32
    qwen2-fused    no tokenizer, q, k and v in one tensor with one bias, output of its own
    qwen3          no tokenizer, norms of heads, which together are narrower than the residual stream
    qwen3-yarn     no tokenizer, norms of heads, which together are wider, YaRN, tied output
    qwen3-window   no tokenizer, a window in two of three layers, tied output
    granite        no tokenizer, all four scales, biases of q, k, v and output, tied output
    granite-still  no tokenizer, no rotation, scale of logits only, output of its own
    minicpm        no tokenizer, all three scales, biases of q and k, tied output
    minicpm-old    no tokenizer, no keys of scales, linear scaling
    smollm3        no tokenizer, nine layers, tied output
    smollm3-yarn   no tokenizer, YaRN
    nemotron       no tokenizer, six of eight elements of a head rotated
    nemotron-biases  no tokenizer, half of each head rotated, all biases that may be, linear scaling
    jais2          text of bytes (GPT-2, cut as Jais 2 does), all biases, tied output
    jais2-own      no tokenizer, no biases of q, k and v, as many key/value heads as heads, output of its own, linear scaling
    opt            text of bytes (GPT-2), positions without rows before, tied output
    opt-offset     no tokenizer, positions with two rows before, output of its own
    falcon         text of bytes (GPT-2, cut as Falcon does), q, k and v in one tensor, one key/value head, one norm, tied output
    falcon-two     no tokenizer, q, k and v in one tensor, two norms, output of its own
    falcon-relu    the same, tied output; its logits are those with ReLU
    olmo2          no tokenizer, output of its own
    olmo2-yarn     no tokenizer, YaRN
    olmo2-window   no tokenizer, as OLMo 3: a window in all but the fourth layer, YaRN in that one
    mistral3       no tokenizer, YaRN with keys of its own from a context of 4, a temperature
    mistral3-tied  no tokenizer, tied output, neither of both
    stablelm       no tokenizer, biases of q, k and v, half of each head rotated
    stablelm-parallel  no tokenizer, one norm for both blocks, six of eight elements of a head rotated
    stablelm-heads  no tokenizer, as StableLM 2 12B: one norm for both blocks, norms of queries and keys with weights for each head
    starcoder2     no tokenizer, biases of all matrices, tied output
    starcoder2-own  no tokenizer, biases of all matrices, output of its own, linear scaling
    exaone         no tokenizer, rope_freqs, tied output
    gemma2         text of pieces as Gemma has them, both soft caps, a window in even layers, norms before and behind blocks
    gemma2-base    no tokenizer, caps and the pattern that no key says, linear scaling, another rotary base where there is a window
    gemma3         no tokenizer, seven layers, a window in all but the sixth, linear scaling of that one, norms of heads
    gemma3-wide    no tokenizer, no window, a soft cap of logits, YaRN, output of its own
    phi3           no tokenizer, q, k and v in one tensor, gate and up in one, factors for long contexts, a part of each head rotated
    phi3-short     no tokenizer, as phi3 with factors for short contexts, a window that is not honoured, tied output
    llama-long     no tokenizer, longrope with factors for long contexts
    plm            no tokenizer, keys and values from a narrow vector, values of another width than keys, tied output
    plm-yarn       no tokenizer, the same with YaRN

To add an architecture: a function below that writes its keys and gives its tensors, and its models in MODELS.
"""

import argparse
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    # Elements of a head, where they are not n_embd / n_head.
    key_length: int | None = None
    n_layer: int = 5
    # Entries of the vocabulary, where the tokenizer does not say.
    n_vocab: int = 40
    n_ctx: int = 512

    @property
    def head_dim(self):
        return self.key_length or self.n_embd // self.n_head


class Weights:
    """Random tensors by name, in the order in which they are asked for."""

    def __init__(self, rng):
        self.rng = rng
        self.tensors = {}

    def matrix(self, name, rows, columns, gain=1.0):
        self.add(name, self.rng.standard_normal((rows, columns)) * gain / np.sqrt(columns))

    def norm(self, name, n):
        self.add(name, 1 + 0.3 * self.rng.standard_normal(n))

    def bias(self, name, n):
        self.add(name, 0.5 * self.rng.standard_normal(n))

    def add(self, name, values):
        self.tensors[name] = values.astype(np.float32)


# Tokenizers. Each writes its keys and gives the number of tokens.


def no_vocab(writer, shape):
    writer.add_tokenizer_model("no_vocab")
    return shape.n_vocab


def spm_bytes(writer, _shape):
    """A SentencePiece vocabulary of all bytes and a few pieces."""
    pieces = {"▁": -2.0, "t": -3.0, "h": -4.0, "e": -5.0, "th": -6.0, "▁th": -7.0, "▁the": -8.0}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kind = gguf.TokenType
    types = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL, *[kind.BYTE] * 256, *[kind.NORMAL] * len(pieces)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + list(pieces.values()))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def gemma_pieces(writer, _shape):
    """As Gemma has them: padding and end first, bytes behind markup, no space put before a text, runs of spaces as pieces."""
    markup = ["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁", "▁▁▁"]
    pieces = {"▁": -2.0, "t": -3.0, "h": -4.0, "e": -5.0, "th": -6.0, "▁th": -7.0, "▁the": -8.0}
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *markup, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kind = gguf.TokenType
    types = [*[kind.CONTROL] * 3, kind.UNKNOWN, *[kind.CONTROL] * 2, *[kind.USER_DEFINED] * 4, *[kind.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * 266 + list(pieces.values()))
    writer.add_token_types([*types, *[kind.NORMAL] * len(pieces)])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    return len(tokens)


def gpt2_bytes(writer, _shape, pre="llama-bpe"):
    """A byte-level BPE vocabulary of all bytes, two merges, and special tokens."""
    # GPT-2 writes bytes that do not print as characters from U+0100 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (chr(0x100 + i) for i in range(256))
    letters = [chr(byte) if byte in printable else next(others) for byte in range(256)]
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*letters, "th", "Ġth", *special]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 258 + [gguf.TokenType.CONTROL] * len(special))
    writer.add_token_merges(["t h", "Ġ th"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(261)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def qwen_bytes(writer, shape):
    return gpt2_bytes(writer, shape, "qwen2")


def opt_bytes(writer, shape):
    n_tokens = gpt2_bytes(writer, shape, "gpt-2")
    writer.add_add_bos_token(True)
    return n_tokens


def falcon_bytes(writer, shape):
    return gpt2_bytes(writer, shape, "falcon")


def jais_bytes(writer, shape):
    return gpt2_bytes(writer, shape, "jais-2")


# What architectures share.

QKV = ("attn_q", "attn_k", "attn_v")


def write_sizes(writer, shape, n_vocab, n_value=None):
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(n_vocab)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    if shape.key_length:
        writer.add_key_length(shape.key_length)
        writer.add_value_length(n_value or shape.key_length)


def write_rope(writer, shape, base, n_rot=None, linear=None, yarn=None):
    """`n_rot` elements of a head are rotated, or all; `linear` is a factor, `yarn` a factor and the context before scaling."""
    writer.add_rope_dimension_count(n_rot or shape.head_dim)
    writer.add_rope_freq_base(base)
    if linear:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(linear)
    if yarn:
        factor, n_ctx = yarn
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(n_ctx)


def attention(weights, block, shape, biases=(), fused=False):
    """`biases` names the matrices that have one; `fused` puts those of q, k and v into one tensor."""
    q, kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    # Gains above 1 make attention uneven.
    for name, rows, columns, gain in (
        ("attn_q", q, shape.n_embd, 1.6),
        ("attn_k", kv, shape.n_embd, 1.6),
        ("attn_v", kv, shape.n_embd, 1.0),
        ("attn_output", shape.n_embd, q, 1.0),
    ):
        weights.matrix(f"{block}.{name}.weight", rows, columns, gain)
        if name in biases:
            weights.bias(f"{block}.{name}.bias", rows)
    for end in ("weight", "bias") if fused else ():
        parts = [weights.tensors.pop(f"{block}.{name}.{end}", None) for name in QKV]
        if parts[0] is not None:
            weights.add(f"{block}.attn_qkv.{end}", np.concatenate(parts))


def rope_freqs(weights, n_rot):
    weights.add("rope_freqs.weight", weights.rng.uniform(0.6, 3.0, n_rot // 2))


# Architectures.


def llama_like(
    writer, weights, shape, n_vocab, *, gated, biases=(), factors=False, tied=False, head_bias=False, head_norms=None,
    layer_norms=False, behind=False, both=False, parallel=False, two_norms=False, fused=False, fused_ffn=False, long=None,
    positions=None, base=20.0, window=None, period=None, activation=None, threshold=None, **rotation,
):  # fmt: skip
    """Serial blocks with norms in front of them, or `behind`, or `both`: RMS ones, or layer norms with biases. `biases` names the
    matrices with one; `head_norms` gives the sizes of norms of queries and keys; `fused` puts q, k and v into one tensor,
    `fused_ffn` gate and up; `long` gives the context for which short factors of rotations are, and what rotated values are scaled by;
    `window` is how many tokens a token looks back on, in all layers or, with `period`, in all but the last of so many;
    `positions` gives the rows of their learned embeddings before that of position 0, and nothing rotates; `activation` and
    `threshold` are keys of our own."""
    def norm(name):
        weights.norm(f"{name}.weight", shape.n_embd)
        if layer_norms:
            weights.bias(f"{name}.bias", shape.n_embd)

    def matrix(name, rows, columns, gain=1.0):
        weights.matrix(f"{name}.weight", rows, columns, gain)
        if name.split(".")[-1] in biases:
            weights.bias(f"{name}.bias", rows)

    write_sizes(writer, shape, n_vocab)
    # So large that another one shows.
    (writer.add_layer_norm_eps if layer_norms else writer.add_layer_norm_rms_eps)(0.02)
    if positions is None:
        write_rope(writer, shape, base, **rotation)
    if window:
        writer.add_sliding_window(window)
    if period:
        writer.add_uint32(f"{writer.arch}.attention.sliding_window_pattern", period)
    if activation:
        writer.add_string(f"{writer.arch}.hidden_activation", activation)
    if threshold is not None:
        writer.add_float32(f"{writer.arch}.activation_threshold", threshold)
    weights.matrix("token_embd.weight", n_vocab, shape.n_embd, np.sqrt(shape.n_embd))
    if positions is not None:
        weights.matrix("position_embd.weight", positions + shape.n_ctx, shape.n_embd, np.sqrt(shape.n_embd))
    if factors:
        rope_freqs(weights, rotation.get("n_rot") or shape.head_dim)
    if long:
        n_ctx, scale = long
        writer.add_rope_scaling_orig_ctx_len(n_ctx)
        writer.add_rope_scaling_attn_factors(scale)
        for length in ("long", "short"):
            weights.add(f"rope_factors_{length}.weight", weights.rng.uniform(0.6, 3.0, (rotation.get("n_rot") or shape.head_dim) // 2))
    for i in range(shape.n_layer):
        block = f"blk.{i}"
        if not behind:
            norm(f"{block}.attn_norm")
        if two_norms:
            norm(f"{block}.attn_norm_2")
        attention(weights, block, shape, biases, fused)
        if head_norms:
            weights.norm(f"{block}.attn_q_norm.weight", head_norms[0])
            weights.norm(f"{block}.attn_k_norm.weight", head_norms[1])
        if behind or both:
            norm(f"{block}.post_attention_norm")
        if not behind and not parallel:
            norm(f"{block}.ffn_norm")
        if gated and not fused_ffn:
            matrix(f"{block}.ffn_gate", shape.n_ff, shape.n_embd, 1.5)
        matrix(f"{block}.ffn_up", shape.n_ff * (2 if fused_ffn else 1), shape.n_embd)
        matrix(f"{block}.ffn_down", shape.n_embd, shape.n_ff)
        if behind or both:
            norm(f"{block}.post_ffw_norm")
    norm("output_norm")
    if not tied:
        weights.matrix("output.weight", n_vocab, shape.n_embd, 1.5)
        if head_bias:
            weights.bias("output.bias", n_vocab)


def llama(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, **kinds)


def bamboo(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, **kinds)


def arcee(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=False, **kinds)


def qwen2(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, biases=QKV, **kinds)


def granite(writer, weights, shape, n_vocab, *, scales, rotated=True, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, **kinds)
    for name, scale in scales.items():
        writer.add_float32(f"granite.{name}", scale)
    if not rotated:
        writer.add_bool("granite.rope.scaling.finetuned", False)


def minicpm(writer, weights, shape, n_vocab, *, scales=None, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, **kinds)
    for name, scale in (scales or {}).items():
        writer.add_float32(f"minicpm.{name}", scale)


def smollm3(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, **kinds)


def nemotron(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=False, layer_norms=True, **kinds)


def jais2(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=False, layer_norms=True, **kinds)


def opt(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=False, layer_norms=True, biases=ALL, **kinds)


def falcon(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=False, layer_norms=True, parallel=True, fused=True, **kinds)
    writer.add_tensor_data_layout("jploski")


def olmo2(writer, weights, shape, n_vocab, **kinds):
    norms = (shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim)
    llama_like(writer, weights, shape, n_vocab, gated=True, head_norms=norms, behind=True, **kinds)


def mistral3(writer, weights, shape, n_vocab, *, numbers=None, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, **kinds)
    for name, number in (numbers or {}).items():
        writer.add_float32(f"mistral3.{name}", number)


def stablelm(writer, weights, shape, n_vocab, own_norms=False, **kinds):
    if own_norms:
        kinds["head_norms"] = ((shape.n_head, shape.head_dim), (shape.n_head_kv, shape.head_dim))
    llama_like(writer, weights, shape, n_vocab, gated=True, layer_norms=True, **kinds)
    # Of both kinds.
    writer.add_parallel_residual(True)


def starcoder2(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=False, layer_norms=True, biases=ALL, **kinds)


def exaone(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, **kinds)


def gemma2(writer, weights, shape, n_vocab, *, numbers=None, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, both=True, tied=True, **kinds)
    for name, number in (numbers or {}).items():
        writer.add_float32(f"gemma2.{name}", number)


def gemma3(writer, weights, shape, n_vocab, *, numbers=None, **kinds):
    norms = (shape.head_dim, shape.head_dim)
    llama_like(writer, weights, shape, n_vocab, gated=True, both=True, head_norms=norms, **kinds)
    for name, number in (numbers or {}).items():
        writer.add_float32(f"gemma3.{name}", number)


def phi3(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, fused=True, fused_ffn=True, **kinds)


def llama_long(writer, weights, shape, n_vocab, **kinds):
    llama(writer, weights, shape, n_vocab, **kinds)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)


def plm(writer, weights, shape, n_vocab, *, n_rot, n_value, n_narrow, **rotation):
    write_sizes(writer, shape, n_vocab, n_value)
    writer.add_kv_lora_rank(n_narrow)
    writer.add_layer_norm_rms_eps(0.02)
    write_rope(writer, shape, 20.0, n_rot=n_rot, **rotation)
    n_embd, heads = shape.n_embd, shape.n_head
    weights.matrix("token_embd.weight", n_vocab, n_embd, np.sqrt(n_embd))
    for i in range(shape.n_layer):
        block = f"blk.{i}"
        weights.norm(f"{block}.attn_norm.weight", n_embd)
        weights.matrix(f"{block}.attn_q.weight", heads * shape.head_dim, n_embd, 1.6)
        weights.matrix(f"{block}.attn_kv_a_mqa.weight", n_narrow + n_rot, n_embd, 1.6)
        weights.norm(f"{block}.attn_kv_a_norm.weight", n_narrow)
        weights.matrix(f"{block}.attn_kv_b.weight", heads * (shape.head_dim - n_rot + n_value), n_narrow, 1.6)
        weights.matrix(f"{block}.attn_output.weight", n_embd, heads * n_value)
        weights.norm(f"{block}.ffn_norm.weight", n_embd)
        weights.matrix(f"{block}.ffn_up.weight", shape.n_ff, n_embd)
        weights.matrix(f"{block}.ffn_down.weight", n_embd, shape.n_ff)
    weights.norm("output_norm.weight", n_embd)


def qwen3(writer, weights, shape, n_vocab, **kinds):
    llama_like(writer, weights, shape, n_vocab, gated=True, head_norms=(shape.head_dim, shape.head_dim), **kinds)


# Name: architecture, tokenizer, shape, and what the architecture takes beside these.
NARROW = Shape(n_embd=32, n_ff=32, n_head=4, n_head_kv=2, key_length=4)
# As wide as its heads together, where llama.cpp takes no other.
SQUARE = Shape(n_embd=32, n_ff=36, n_head=4, n_head_kv=2)
LATENT = Shape(n_embd=32, n_ff=36, n_head=4, n_head_kv=4, key_length=10)
YARN = Shape(n_embd=16, n_ff=20, n_head=4, n_head_kv=2, key_length=8)
SCALES = {"embedding_scale": 1.75, "residual_scale": 0.4, "logit_scale": 2.5, "attention.scale": 0.15}
THREE_SCALES = {"embedding_scale": 4.5, "residual_scale": 0.7, "logit_scale": 0.125}
ALL = (*QKV, "attn_output", "ffn_up", "ffn_down")
SHARPER = {
    "attention.temperature_scale": 0.6,
    "rope.scaling.yarn_beta_fast": 0.5,
    "rope.scaling.yarn_beta_slow": 0.05,
    "rope.scaling.yarn_log_multiplier": 1.0,
}
# So small that they show.
CAPS = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 20.0}
MODELS = {
    "llama": (llama, spm_bytes, Shape(n_embd=20, n_ff=28, n_head=4, n_head_kv=2, key_length=6), {"factors": True, "tied": True}),
    "llama-biases": (llama, no_vocab, replace(NARROW, n_layer=4), {"biases": (*QKV, "attn_output"), "linear": 2.5}),
    "llama-yarn": (llama, no_vocab, YARN, {"yarn": (4.0, 128)}),
    "llama-window": (llama, no_vocab, replace(NARROW, n_layer=3), {"window": 4}),
    "llama-fatrelu": (llama, no_vocab, replace(SQUARE, n_layer=2), {"activation": "fatrelu", "threshold": 0.3}),
    "llama-gelu-erf": (llama, no_vocab, replace(SQUARE, n_layer=2), {"activation": "gelu_erf"}),
    "llama-drelu": (llama, no_vocab, replace(SQUARE, n_layer=2), {"activation": "drelu", "tied": True}),
    "bamboo": (bamboo, spm_bytes, Shape(n_embd=16, n_ff=44, n_head=4, n_head_kv=2, key_length=6, n_layer=3), {}),
    "bamboo-fatrelu": (bamboo, no_vocab, replace(SQUARE, n_layer=2), {"activation": "fatrelu", "threshold": 0.1}),
    "arcee": (arcee, gpt2_bytes, Shape(n_embd=16, n_ff=36, n_head=4, n_head_kv=2, key_length=6), {}),
    "arcee-biases": (arcee, no_vocab, NARROW, {"biases": QKV, "factors": True, "tied": True, "linear": 2.5}),
    "arcee-quick": (arcee, no_vocab, replace(NARROW, n_layer=2), {"activation": "gelu_quick"}),
    "arcee-yarn": (arcee, no_vocab, YARN, {"yarn": (4.0, 128)}),
    "qwen2": (qwen2, qwen_bytes, Shape(n_embd=24, n_ff=28, n_head=4, n_head_kv=2, n_layer=3), {"head_bias": True}),
    "qwen2-tied": (qwen2, no_vocab, SQUARE, {"tied": True, "yarn": (4.0, 128)}),
    "qwen2-fused": (qwen2, no_vocab, replace(SQUARE, n_layer=2), {"fused": True}),
    "granite": (granite, no_vocab, replace(SQUARE, n_layer=3), {"scales": SCALES, "biases": (*QKV, "attn_output"), "tied": True}),
    "granite-still": (granite, no_vocab, replace(SQUARE, n_layer=2), {"scales": {"logit_scale": 0.5}, "rotated": False}),
    "minicpm": (minicpm, no_vocab, replace(SQUARE, n_layer=3), {"scales": THREE_SCALES, "biases": QKV[:2], "tied": True}),
    "minicpm-old": (minicpm, no_vocab, replace(SQUARE, n_layer=2), {"linear": 2.5}),
    "smollm3": (smollm3, no_vocab, Shape(n_embd=16, n_ff=20, n_head=4, n_head_kv=2, n_layer=9), {"tied": True}),
    "smollm3-yarn": (smollm3, no_vocab, replace(YARN, key_length=None), {"yarn": (4.0, 128)}),
    "nemotron": (nemotron, no_vocab, replace(SQUARE, n_layer=3), {"n_rot": 6}),
    "nemotron-biases": (nemotron, no_vocab, replace(SQUARE, n_layer=3), {"n_rot": 4, "biases": ALL, "linear": 2.5}),
    "jais2": (jais2, jais_bytes, Shape(n_embd=24, n_ff=36, n_head=4, n_head_kv=2, n_layer=3), {"biases": ALL, "tied": True}),
    "jais2-own": (jais2, no_vocab, replace(SQUARE, n_head_kv=4, n_layer=2), {"biases": ALL[3:], "linear": 2.5}),
    "opt": (opt, opt_bytes, Shape(n_embd=24, n_ff=36, n_head=4, n_head_kv=4, n_layer=3, n_ctx=96), {"positions": 0, "tied": True}),
    "opt-offset": (opt, no_vocab, replace(SQUARE, n_head_kv=4, n_layer=3, n_ctx=32), {"positions": 2}),
    "falcon": (falcon, falcon_bytes, Shape(n_embd=24, n_ff=36, n_head=4, n_head_kv=1, n_layer=3), {"tied": True}),
    "falcon-two": (falcon, no_vocab, replace(SQUARE, n_layer=3), {"two_norms": True}),
    "falcon-relu": (falcon, no_vocab, replace(SQUARE, n_layer=2), {"two_norms": True, "tied": True}),
    "olmo2": (olmo2, no_vocab, replace(SQUARE, n_layer=3), {}),
    "olmo2-yarn": (olmo2, no_vocab, replace(YARN, key_length=None), {"yarn": (4.0, 128)}),
    "olmo2-window": (olmo2, no_vocab, replace(YARN, key_length=None), {"yarn": (4.0, 128), "window": 3}),
    "mistral3": (mistral3, no_vocab, YARN, {"yarn": (4.0, 4), "numbers": SHARPER}),
    "mistral3-tied": (mistral3, no_vocab, replace(NARROW, n_layer=2), {"tied": True}),
    "stablelm": (stablelm, no_vocab, replace(SQUARE, n_layer=3), {"n_rot": 4, "biases": QKV}),
    "stablelm-parallel": (stablelm, no_vocab, replace(SQUARE, n_layer=3), {"n_rot": 6, "parallel": True}),
    "stablelm-heads": (stablelm, no_vocab, replace(SQUARE, n_layer=2), {"n_rot": 4, "parallel": True, "own_norms": True}),
    "starcoder2": (starcoder2, no_vocab, replace(SQUARE, n_layer=3), {"tied": True}),
    "starcoder2-own": (starcoder2, no_vocab, replace(SQUARE, n_layer=2), {"linear": 2.5}),
    "exaone": (exaone, no_vocab, replace(NARROW, n_layer=3), {"factors": True, "tied": True}),
    "gemma2": (gemma2, gemma_pieces, NARROW, {"window": 3, "numbers": CAPS}),
    "gemma2-base": (gemma2, no_vocab, replace(NARROW, n_layer=3), {"linear": 2.5, "numbers": {"rope.freq_base_swa": 5.0}}),
    "gemma3": (gemma3, no_vocab, replace(NARROW, n_layer=7), {"window": 3, "linear": 2.5, "tied": True, "numbers": {"rope.freq_base_swa": 5.0}}),
    "gemma3-wide": (gemma3, no_vocab, replace(NARROW, n_layer=2), {"yarn": (4.0, 128), "numbers": {"final_logit_softcapping": 4.0}}),
    "phi3": (phi3, no_vocab, replace(SQUARE, n_layer=3), {"n_rot": 6, "long": (8, 1.2)}),
    "phi3-short": (phi3, no_vocab, replace(SQUARE, n_layer=2), {"long": (512, 0.9), "window": 3, "tied": True}),
    "llama-long": (llama_long, no_vocab, replace(NARROW, n_layer=2), {"long": (8, 1.2)}),
    "plm": (plm, no_vocab, replace(LATENT, n_layer=3), {"n_rot": 4, "n_value": 8, "n_narrow": 12}),
    "plm-yarn": (plm, no_vocab, replace(LATENT, n_layer=2), {"n_rot": 6, "n_value": 14, "n_narrow": 8, "yarn": (4.0, 128)}),
    "qwen3": (qwen3, no_vocab, NARROW, {}),
    "qwen3-yarn": (qwen3, no_vocab, YARN, {"tied": True, "yarn": (4.0, 128)}),
    "qwen3-window": (qwen3, no_vocab, YARN, {"tied": True, "window": 3, "period": 3}),
}


def write(path, name, seed):
    arch, tokenizer, shape, kinds = MODELS[name]
    temporary = path.with_name(path.name + ".tmp")
    writer = gguf.GGUFWriter(temporary, arch.__name__.split("_")[0])
    writer.add_name(f"random {name}")
    n_vocab = tokenizer(writer, shape)
    weights = Weights(np.random.default_rng([zlib.crc32(name.encode()), seed]))
    arch(writer, weights, shape, n_vocab, **kinds)
    for tensor, values in weights.tensors.items():
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(temporary, path)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for NAME.gguf")
    ap.add_argument("--seed", type=int, default=1, help="of the weights (default: 1)")
    ap.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(MODELS)} (default: all)")
    args = ap.parse_args()
    for name in args.names:
        if name not in MODELS:
            ap.error(f'model "{name}" is not known; {", ".join(MODELS)} are')

    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or MODELS:
        path = args.out / f"{name}.gguf"
        write(path, name, args.seed)
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
