#!/usr/bin/env python3
"""Logits of a GGUF model by the book: NumPy, 64-bit floats, all tokens at once, nothing skipped and nothing fast.

    pip install -r scripts/requirements.txt
    python scripts/reference.py MODEL.gguf [--tokens 3,1,4,1,5] [--activation relu]    the likeliest tokens after each token
    python scripts/reference.py --golden tests/golden/arch/*.gguf                      writes MODEL.json beside each
    python scripts/reference.py --check tests/golden/arch/*.json                       computes them again and compares

Knows the architectures of ARCHITECTURES below, each a function that reads like the paper, of what reference_parts.py has; to add
one, write another. Those with experts are in reference_experts.py. What it does is what llama.cpp does with the same file (scripts/compare_logits.py), so llama is SiLU unless --activation or the file's
hidden_activation, which llama.cpp does not read, says otherwise.
A JSON file holds the model's file name, the token ids, the activation, and for each token its logits with nine digits.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from reference_experts import gpt_oss, granitemoe, mixtral, qwen3moe, smallthinker
from reference_hybrid import nemotron_h
from reference_parts import (
    ACTIVATIONS, Model, attention, capped, drelu, fail, fatrelu, frequencies, gated_ffn, gelu, head, layer_norm,
    plain_frequencies, relu, relu2, rms_norm, rope, silu, softmax, ungated_ffn, window,
)  # fmt: skip

N_TOKENS = 10


# Architectures: from embedded tokens `[token, n_embd]` to logits `[token, n_vocab]`.


def llama(model, x, activation=silu):
    if model.key("expert_count", 0):
        return mixtral(model, x, activation)
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
    "nemotron_h": nemotron_h,
    "nemotron_h_moe": nemotron_h,
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
    "smallthinker": smallthinker,
    "qwen3moe": qwen3moe,
    "granitemoe": granitemoe,
    "gpt-oss": gpt_oss,
}


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
