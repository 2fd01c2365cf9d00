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

Models with experts are in make_arch_experts.py, those with recurrent layers in make_arch_hybrid.py. To add an architecture: a function below that writes its keys and gives its
tensors, and its models in MODELS.
"""

import argparse
import os
import zlib
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np

import make_arch_experts
import make_arch_hybrid
from make_arch_parts import (
    QKV, Shape, Weights, falcon_bytes, gemma_pieces, gpt2_bytes, jais_bytes, llama_like, no_vocab, opt_bytes, qwen_bytes,
    spm_bytes, write_rope, write_sizes,
)  # fmt: skip


# Architectures.


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


MODELS |= make_arch_experts.MODELS | make_arch_hybrid.MODELS
# Value of general.architecture, where it is not the function's name.
NAMES = {llama_long: "llama"} | make_arch_experts.NAMES | make_arch_hybrid.NAMES


def write(path, name, seed):
    arch, tokenizer, shape, kinds = MODELS[name]
    temporary = path.with_name(path.name + ".tmp")
    writer = gguf.GGUFWriter(temporary, NAMES.get(arch, arch.__name__))
    writer.add_name(f"random {name}")
    n_vocab = tokenizer(writer, shape)
    weights = Weights(np.random.default_rng([zlib.crc32(name.encode()), seed]))
    arch(writer, weights, shape, n_vocab, **kinds)
    for tensor, values in weights.tensors.items():
        writer.add_tensor(tensor, values, raw_dtype=weights.types.get(tensor))
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
