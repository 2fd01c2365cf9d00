#!/usr/bin/env python3
"""Holds what `powerinfer-split --quantize-only` writes against ggml's quantizers: bytes, errors, and speed.

    pip install numpy gguf xllamacpp
    scripts/compare_quantizers.py --bin target/release            # bytes and errors on random rows
    scripts/compare_quantizers.py --bin target/release --speed    # million weights per second of processor time, one thread

ggml is that of the xllamacpp package, or of the shared library that --ggml names. It must have ggml_quantize_chunk.
Fails where an error is more than 0.5 % above ggml's.
"""

import argparse
import ctypes
import importlib.util
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import quants

TYPES = {
    "q4_0": "Q4_0", "q4_1": "Q4_1", "q5_0": "Q5_0", "q5_1": "Q5_1", "q8_0": "Q8_0", "f16": "F16", "bf16": "BF16",
    "q2_k": "Q2_K", "q3_k_s": "Q3_K", "q4_k_s": "Q4_K", "q5_k_s": "Q5_K", "q6_k": "Q6_K", "iq4_nl": "IQ4_NL", "iq4_xs": "IQ4_XS",
}
ROWS, COLS = 256, 1024
WORST = 1.005


def ggml(path):
    """The library, with the functions that are used declared."""
    if path is None:
        spec = importlib.util.find_spec("xllamacpp")
        if spec is None:
            sys.exit("xllamacpp is not installed; --ggml names another library")
        path = next(Path(spec.origin).parent.glob("xllamacpp*.so"))
    library = ctypes.CDLL(str(path))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    return library


def theirs(library, dtype, x):
    """The bytes that ggml writes."""
    if dtype in (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16):
        return quants.quantize(x, dtype).view(np.uint8).reshape(-1)
    block, size = gguf.GGML_QUANT_SIZES[dtype]
    out = np.zeros(x.size // block * size, np.uint8)
    library.ggml_quantize_chunk(int(dtype), x.ctypes.data, out.ctypes.data, 0, x.shape[0], x.shape[1], None)
    return out


def written(folder, tensors):
    """A file that holds these F32 matrices and is nobody's model."""
    path = folder / "source.gguf"
    writer = gguf.GGUFWriter(path, "none")
    for name, x in tensors.items():
        writer.add_tensor(f"blk.0.{name}.weight", x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def split(args, source, recipe):
    """Quantizes, and returns the file and the seconds of processor time it took."""
    out = source.with_name("out.gguf")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [Path(args.bin) / "powerinfer-split", "--quantize-only", "--pure", source, out, recipe, "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return out, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def random_rows():
    """Matrices of several distributions."""
    random = np.random.default_rng(1)
    shape = (ROWS, COLS)
    rows = {
        "normal": random.standard_normal(shape) * 0.02,
        "student": random.standard_t(4, shape) * 0.02,
        "laplace": random.laplace(size=shape) * 0.02,
        "uniform": (random.random(shape) - 0.5) * 0.1,
        "shifted": random.standard_normal(shape) * 0.02 + 0.01,
    }
    return {name: x.astype(np.float32) for name, x in rows.items()}


def compare(args, folder):
    library, rows, fine = ggml(args.ggml), random_rows(), True
    source = written(folder, rows)
    print("| type | rows | bytes equal | error, ggml | error, ours | ratio |\n|---|---|---:|---:|---:|---:|")
    for recipe, name in TYPES.items():
        dtype = gguf.GGMLQuantizationType[name]
        out, _ = split(args, source, recipe)
        tensors = {t.name: t for t in gguf.GGUFReader(out).tensors}
        for kind, x in rows.items():
            tensor = tensors[f"blk.0.{kind}.weight"]
            assert tensor.tensor_type == dtype, tensor.tensor_type
            both = [theirs(library, dtype, x), np.asarray(tensor.data).view(np.uint8).reshape(-1)]
            errors = [np.sqrt(((quants.dequantize(b.reshape(ROWS, -1), dtype) - x) ** 2).mean() / (x**2).mean()) for b in both]
            ratio = errors[1] / errors[0]
            fine &= bool(ratio <= WORST)
            equal = 100 * np.mean(both[0] == both[1])
            print(f"| {name} | {kind} | {equal:.2f} % | {errors[0]:.5f} | {errors[1]:.5f} | {ratio:.4f} |")
    if not fine:
        sys.exit(f"an error is more than {WORST} of ggml's")


def speed(args, folder):
    n = 1 << 24
    x = (np.random.default_rng(1).standard_normal((n // 4096, 4096)) * 0.02).astype(np.float32)
    source = written(folder, {"normal": x})
    print("| type | million weights per second |\n|---|---:|")
    for recipe, name in TYPES.items():
        print(f"| {name} | {n / min(split(args, source, recipe)[1] for _ in range(3)) / 1e6:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release", help="folder of powerinfer-split")
    parser.add_argument("--ggml", help="shared library with ggml_quantize_chunk")
    parser.add_argument("--speed", action="store_true", help="measure speed, not errors")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (speed if args.speed else compare)(args, Path(folder))


if __name__ == "__main__":
    main()
