#!/usr/bin/env python3
"""Make a small random SiLU `llama` model as GGUF files of several format versions, for comparing with llama.cpp.

    pip install -r scripts/requirements.txt
    python scripts/make_silu_gguf.py --out DIR --tokenizer GGUF [--versions 1,2,3] [--seed N]

Writes DIR/silu-v1.gguf, silu-v2.gguf and silu-v3.gguf with the same F32 weights and metadata: grouped-query
attention, untied output, weights scaled such that attention is uneven and logits spread by about 1.5. The
tokenizer is copied from a GGUF file, as convert_hf_to_gguf.py makes one.

Version 3 is written by the gguf package. Version 2 has the same layout. Version 1 has 32-bit counts: of
tensors, of metadata, of a string's bytes, of an array's items, and of a tensor's dimensions; tensor offsets have
64 bits in all.
"""

import argparse
import os
import struct
from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFValueType

N_EMBD, N_FF, N_LAYER, N_HEAD, N_HEAD_KV, HEAD_DIM, N_CTX = 128, 320, 3, 8, 2, 16, 512
ALIGNMENT = 32
SCALARS = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.FLOAT64: "<d",
    GGUFValueType.BOOL: "<?",
}


def random_tensors(n_vocab, seed):
    rng = np.random.default_rng(seed)

    def matrix(rows, cols, gain):
        return (rng.standard_normal((rows, cols)) * gain / np.sqrt(cols)).astype(np.float32)

    def norm():
        return (1 + 0.2 * rng.standard_normal(N_EMBD)).astype(np.float32)

    q, kv = N_HEAD * HEAD_DIM, N_HEAD_KV * HEAD_DIM
    tensors = {"token_embd.weight": rng.standard_normal((n_vocab, N_EMBD)).astype(np.float32)}
    for i in range(N_LAYER):
        tensors |= {
            f"blk.{i}.attn_norm.weight": norm(),
            f"blk.{i}.attn_q.weight": matrix(q, N_EMBD, 1.4),
            f"blk.{i}.attn_k.weight": matrix(kv, N_EMBD, 1.4),
            f"blk.{i}.attn_v.weight": matrix(kv, N_EMBD, 1.0),
            f"blk.{i}.attn_output.weight": matrix(N_EMBD, q, 1.0),
            f"blk.{i}.ffn_norm.weight": norm(),
            f"blk.{i}.ffn_gate.weight": matrix(N_FF, N_EMBD, 1.5),
            f"blk.{i}.ffn_up.weight": matrix(N_FF, N_EMBD, 1.0),
            f"blk.{i}.ffn_down.weight": matrix(N_EMBD, N_FF, 1.0),
        }
    return tensors | {"output_norm.weight": norm(), "output.weight": matrix(n_vocab, N_EMBD, 1.5)}


def copy_tokenizer(writer, path):
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError) as e:
        raise SystemExit(f"{path}: {getattr(e, 'strerror', None) or e}")
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)


def add_metadata(writer, source):
    copy_tokenizer(writer, source)
    n_vocab = len(writer.kv_data[0]["tokenizer.ggml.tokens"].value)
    writer.add_name("random SiLU")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(n_vocab)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_string("llama.hidden_activation", "silu")
    return n_vocab


def write_newest(writer, tensors):
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class OldWriter:
    """GGUF of version 1 or 2, by hand."""

    def __init__(self, version):
        self.version = version
        self.size_format = "<I" if version == 1 else "<Q"

    def size(self, n):
        return struct.pack(self.size_format, n)

    def string(self, text):
        data = text.encode() if isinstance(text, str) else text
        return self.size(len(data)) + data

    def value(self, value, kind, item_kind):
        if kind == GGUFValueType.STRING:
            return self.string(value)
        if kind == GGUFValueType.ARRAY:
            item_kind = item_kind or GGUFValueType.get_type(value[0])
            items = b"".join(self.value(item, item_kind, None) for item in value)
            return struct.pack("<I", item_kind) + self.size(len(value)) + items
        return struct.pack(SCALARS[kind], value)

    def tensor_info(self, name, array, offset):
        dims = b"".join(self.size(n) for n in reversed(array.shape))
        return self.string(name) + struct.pack("<I", array.ndim) + dims + struct.pack("<IQ", gguf.GGMLQuantizationType.F32, offset)

    def file(self, metadata, tensors):
        head = b"GGUF" + struct.pack("<I", self.version) + self.size(len(tensors)) + self.size(len(metadata))
        for key, v in metadata.items():
            head += self.string(key) + struct.pack("<I", v.type) + self.value(v.value, v.type, v.sub_type)
        data = b""
        for name, array in tensors.items():
            head += self.tensor_info(name, array, len(data))
            data += pad(array.tobytes())
        return pad(head) + data


def pad(data):
    return data + bytes(-len(data) % ALIGNMENT)


def versions(text):
    found = sorted({int(v) for v in text.split(",")})
    if not found or not set(found) <= {1, 2, 3}:
        raise ValueError
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for silu-vN.gguf")
    ap.add_argument("--tokenizer", type=Path, required=True, metavar="GGUF", help="where the tokenizer is from")
    ap.add_argument("--versions", type=versions, default=[1, 3], metavar="1,2,3", help="versions to write (default: 1,3)")
    ap.add_argument("--seed", type=int, default=1, help="of the weights")
    args = ap.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    for version in args.versions:
        path = args.out / f"silu-v{version}.gguf"
        temporary = path.with_name(path.name + ".tmp")
        writer = gguf.GGUFWriter(temporary, "llama")
        n_vocab = add_metadata(writer, args.tokenizer)
        tensors = random_tensors(n_vocab, args.seed)
        if version == 3:
            write_newest(writer, tensors)
        else:
            temporary.write_bytes(OldWriter(version).file(writer.kv_data[0], tensors))
        os.replace(temporary, path)
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
