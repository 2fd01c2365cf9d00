#!/usr/bin/env python3
"""Write a plain GGUF model as PowerInfer has its own: the same bytes behind the magic PWRI, ffn_down by neurons, predictors.

    pip install -r scripts/requirements.txt
    python scripts/make_pwri.py MODEL.gguf -o MODEL.powerinfer.gguf [--predictors oracle|random|none] [--rank N]
                                [--threshold X] [--index NEURONS]

The models are for tests: nobody has trained their predictors. `oracle` are of twice the width of the model and name the neurons
that fire, in a serial model with RMS norms: the norm before the FFN only scales what its weights are multiplied with, so the
signs of the mask matrix's products are known from the residual stream. `random` ones, of --rank hidden values, name anybody.

With --index NEURONS it also writes MODEL.powerinfer.gguf.generated.gpuidx, PowerInfer's list of the neurons for a card, with that
many neurons of each layer, chosen by chance.

docs/powerinfer-files.md has the format. Quantized matrices other than ffn_down are copied; ffn_down, whose blocks run across
neurons, is refused unless its type is F32, F16 or BF16.
"""

import argparse
import os
from pathlib import Path

import gguf
import numpy as np

MAGIC = b"PWRI"
FLOATS = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16}
# The writer's own.
WRITTEN = {"general.architecture", "GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}


def copy_keys(reader, writer):
    for name, field in reader.fields.items():
        if name in WRITTEN:
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=element)


def floats(tensor):
    """[rows][columns], as 32-bit floats."""
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def by_neurons(tensor):
    """The rows of the transpose, in the type that the tensor has."""
    if tensor.tensor_type not in FLOATS:
        raise SystemExit(f"{tensor.name}: is {tensor.tensor_type.name}; F32, F16 and BF16 can be transposed")
    # BF16 is read as pairs of bytes.
    size = 4 if tensor.tensor_type == gguf.GGMLQuantizationType.F32 else 2
    elements = tensor.data.view(np.uint8).reshape(*tensor.shape[::-1], size)
    return np.ascontiguousarray(elements.transpose(1, 0, 2)).reshape(tensor.shape[0], -1)


def oracle(tensors, layer):
    """[2 n_embd][n_embd] and [n_ff][2 n_embd]: what is positive, and what is negative, of each input."""
    mask = next(t for t in (f"blk.{layer}.ffn_gate.weight", f"blk.{layer}.ffn_up.weight") if t in tensors)
    rows, norm = floats(tensors[mask]), floats(tensors[f"blk.{layer}.ffn_norm.weight"])
    diagonal = np.diag(norm)
    return np.concatenate([diagonal, -diagonal]), np.concatenate([rows, -rows], axis=1)


def random(rng, rank, tensors, layer):
    """[rank][n_embd] and [n_ff][rank]."""
    n_embd, n_ff = tensors[f"blk.{layer}.ffn_up.weight"].shape
    return rng.standard_normal((rank, n_embd)), rng.standard_normal((n_ff, rank))


def set_magic(path):
    with open(path, "r+b") as file:
        file.write(MAGIC)


def write_index(path, rng, n_neurons, layers):
    """`layers` are numbers of neurons."""
    writer = gguf.GGUFWriter(path, "generic.gpu_index")
    writer.add_uint32("generic.gpu_index.block_count", len(layers))
    writer.add_uint64("split.vram_capacity", 0)
    for layer, n_ff in enumerate(layers):
        ids = np.sort(rng.permutation(n_ff)[:n_neurons]).astype(np.int32)
        flags = np.zeros(n_ff, np.int32)
        flags[ids] = 1
        writer.add_tensor(f"blk.{layer}.gpu_idx", flags)
        writer.add_tensor(f"blk.{layer}.gpu_bucket", ids)
    finish(writer)
    set_magic(path)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--predictors", choices=["oracle", "random", "none"], default="oracle")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--threshold", type=float, help="score from which on a neuron is active [PowerInfer's default: 0]")
    parser.add_argument("--index", type=int, metavar="NEURONS")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    reader = gguf.GGUFReader(args.model)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    part = args.out.with_name(f".{args.out.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(part, reader.fields["general.architecture"].contents())
    try:
        copy_keys(reader, writer)
        if args.threshold is not None:
            writer.add_float32("powerinfer.sparse_threshold", args.threshold)
        widths = []
        for tensor in reader.tensors:
            name, data = tensor.name.replace(".ffn_down.", ".ffn_down_t."), tensor.data
            if tensor.name.endswith(".ffn_down.weight"):
                data = by_neurons(tensor)
                widths.append(int(tensor.shape[0]))
            data = np.ascontiguousarray(data).view(np.uint8)
            writer.add_tensor(name, data, raw_dtype=tensor.tensor_type)
        for layer in range(len(widths) if args.predictors != "none" else 0):
            pair = oracle(tensors, layer) if args.predictors == "oracle" else random(rng, args.rank, tensors, layer)
            for name, matrix in zip(("fc1", "fc2"), pair):
                writer.add_tensor(f"blk.{layer}.{name}.weight", matrix.astype(np.float32))
        finish(writer)
        set_magic(part)
        os.replace(part, args.out)
    finally:
        part.unlink(missing_ok=True)
    print(f"{args.out}: {len(widths)} layers, predictors: {args.predictors}")
    if args.index is not None:
        write_index(f"{args.out}.generated.gpuidx", rng, args.index, widths)


if __name__ == "__main__":
    main()
