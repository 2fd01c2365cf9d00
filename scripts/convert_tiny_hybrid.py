#!/usr/bin/env python3
"""Write the hybrid that scripts/train_tiny.py trains as a GGUF file of architecture nemotron_h, which llama.cpp opens.

    pip install numpy
    python scripts/convert_tiny_hybrid.py OUT/hf -o OUT.gguf --name "Tiny stories, hybrid"

Matrices are F16, as they were rounded when the figures in report.json were measured; vectors are F32.
"""

import argparse
import math
from pathlib import Path

import numpy as np

from convert import floats, tokenizer
from convert.checkpoint import Checkpoint, read_json
from convert.gguf_file import INT32, GgufFile, Keys

MAMBA, ATTENTION, FFN = "M*-"
AROUND = {"token_embd.weight": "backbone.embeddings.weight"}
BEHIND = {"output_norm.weight": "backbone.norm_f.weight", "output.weight": "lm_head.weight"}
# Of each kind of layer, the tensors by the names of the mixer's parts.
PARTS = {
    MAMBA: {
        "ssm_in.weight": "in_proj.weight",
        "ssm_conv1d.weight": "conv1d.weight",
        "ssm_conv1d.bias": "conv1d.bias",
        "ssm_dt.bias": "dt_bias",
        "ssm_a": "A_log",
        "ssm_d": "D",
        "ssm_norm.weight": "norm.weight",
        "ssm_out.weight": "out_proj.weight",
    },
    ATTENTION: {f"attn_{ours}.weight": f"{theirs}_proj.weight" for ours, theirs in zip(("q", "k", "v", "output"), "qkvo")},
    FFN: {"ffn_up.weight": "up_proj.weight", "ffn_down.weight": "down_proj.weight"},
}


def write_keys(config, kinds, keys):
    for key, name in {
        "vocab_size": "vocab_size",
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "block_count": "num_hidden_layers",
        "attention.head_count": "num_attention_heads",
        "attention.key_length": "head_dim",
        "attention.value_length": "head_dim",
        "ssm.conv_kernel": "conv_kernel",
        "ssm.state_size": "ssm_state_size",
        "ssm.time_step_rank": "mamba_num_heads",
        "ssm.group_count": "n_groups",
    }.items():
        keys.u32(f"{{}}.{key}", config[name])
    keys.u32("{}.ssm.inner_size", config["mamba_num_heads"] * config["mamba_head_dim"])
    keys.array("{}.attention.head_count_kv", INT32, [config["num_key_value_heads"] * (kind == ATTENTION) for kind in kinds])
    keys.array("{}.feed_forward_length", INT32, [config["intermediate_size"] * (kind == FFN) for kind in kinds])
    for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon"):
        keys.f32(f"{{}}.attention.{name}", config["layer_norm_epsilon"])


def as_stored(name, values, config):
    """A tensor as files have it, rows outermost."""
    if name.endswith("ssm_a"):
        values = -np.exp(values)
    if name.endswith(("ssm_a", "ssm_d")):
        return values[:, None]
    if name.endswith("ssm_conv1d.weight"):
        return values[:, 0]
    return values.reshape(config["n_groups"], -1) if name.endswith("ssm_norm.weight") else values


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("dir", type=Path, metavar="DIR", help="the folder hf that train_tiny.py writes")
    ap.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.gguf")
    ap.add_argument("--name", required=True, help="general.name")
    args = ap.parse_args()
    config, checkpoint = read_json(args.dir / "config.json"), Checkpoint(args.dir)
    kinds = config["hybrid_override_pattern"]
    keys = Keys("nemotron_h")
    keys.string("general.name", args.name)
    keys.u32("general.file_type", floats.TYPES["f16"][1])
    write_keys(config, kinds, keys)
    tokenizer.write_keys(keys, args.dir, config["vocab_size"], config)

    sources = dict(AROUND)
    for i, kind in enumerate(kinds):
        sources[f"blk.{i}.attn_norm.weight"] = f"backbone.layers.{i}.norm.weight"
        sources |= {f"blk.{i}.{ours}": f"backbone.layers.{i}.mixer.{theirs}" for ours, theirs in PARTS[kind].items()}
    tensors, arrays = [], []
    for name, source in (sources | BEHIND).items():
        values = as_stored(name, floats.values(checkpoint.read(source), checkpoint.kind(source)), config)
        matrix = values.ndim > 1 and "ssm_" not in name or name.endswith(("ssm_in.weight", "ssm_out.weight"))
        arrays.append(values.astype("<f2" if matrix else "<f4"))
        kind = floats.TYPES["f16" if matrix else "f32"][0]
        tensors.append((name, values.shape, kind, math.prod(values.shape) * (2 if matrix else 4)))
    with GgufFile(args.out, keys, tensors) as file:
        for array in arrays:
            file.append([array.tobytes()])
    print(f"{args.out}: {len(tensors)} tensors, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
