"""Tensors of a folder of safetensors files, read one at a time."""

import json
import math
import struct

import numpy as np

from . import floats
from .fail import fail, reason

FLOATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
# Of all types of the format, how many bytes an element has.
SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1,
         "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
# The format's own limit.
LONGEST_HEADER = 100_000_000


def read_json(path):
    """An object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        fail(f"{path}: {reason(e)}")
    if not isinstance(content, dict):
        fail(f"{path}: not an object")
    return content


def read_json_if_there(path):
    return read_json(path) if path.exists() else {}


class Entry:
    """Where a tensor is."""

    def __init__(self, path, name, raw, start, end):
        where = f"{path}: {name}"
        if not isinstance(raw, dict):
            fail(f"{where}: not an object")
        self.path, self.dtype, shape, offsets = path, raw.get("dtype"), raw.get("shape"), raw.get("data_offsets")
        whole = [shape, offsets]
        if not all(isinstance(n, list) and all(type(i) is int and i >= 0 for i in n) for n in whole) or len(offsets) != 2:
            fail(f"{where}: its shape or place makes no sense")
        self.shape, self.start, self.n_bytes = tuple(shape), start + offsets[0], offsets[1] - offsets[0]
        if self.dtype in SIZES and self.n_bytes != math.prod(shape) * SIZES[self.dtype]:
            fail(f"{where}: {self.n_bytes} bytes are not {shape} of {self.dtype}")
        if self.n_bytes < 0 or self.start + self.n_bytes > end:
            fail(f"{where}: reaches beyond the end of the file; is it complete?")


def entries(path):
    """The tensors of a file by name."""
    try:
        with open(path, "rb") as file:
            length = file.read(8)
            n = struct.unpack("<Q", length)[0] if len(length) == 8 else LONGEST_HEADER + 1
            if n > LONGEST_HEADER:
                fail(f"{path}: not a safetensors file")
            head = json.loads(file.read(n).decode())
            end = path.stat().st_size
    except (OSError, ValueError, RecursionError) as e:
        fail(f"{path}: {reason(e) if isinstance(e, OSError) else 'not a safetensors file'}")
    if not isinstance(head, dict):
        fail(f"{path}: not a safetensors file")
    head.pop("__metadata__", None)
    return {name: Entry(path, name, raw, 8 + n, end) for name, raw in head.items()}


def files(folder):
    """The safetensors files of a folder: those that its index lists, or all."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            fail(f"{index}: no weight_map")
        found = [folder / name for name in sorted(set(places.values()))]
        for path in found:
            if path.parent != folder:
                fail(f"{index}: {str(path)[:60]!r}: shards lie in the same folder")
            if not path.is_file():
                fail(f"{path}: a shard that {index.name} lists is missing")
        return found
    # Folders of Mistral's have the same weights once more, under other names.
    whole = folder / "model.safetensors"
    found = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    if not found:
        pickled = next((path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in sorted(folder.glob(pattern))), None)
        if pickled:
            fail(
                f"{folder}: {pickled} but no *.safetensors; weights in PyTorch's format are not read, as they may hold programs: "
                "transformers' save_pretrained or the hub's safetensors/convert writes *.safetensors"
            )
        fail(f"{folder}: no *.safetensors")
    return found


class Checkpoint:
    """The tensors of a folder by name."""

    def __init__(self, folder, prefixes=None):
        """`prefixes` says what stands in place of what a name begins with."""
        self.folder, self.entries = folder, {}
        for path in files(folder):
            for name, entry in entries(path).items():
                prefix = next((prefix for prefix in prefixes or {} if name.startswith(prefix)), None)
                if prefix is not None:
                    name = prefixes[prefix] + name.removeprefix(prefix)
                if name in self.entries:
                    fail(f"{path}: {name} is in {self.entries[name].path.name}, too")
                self.entries[name] = entry

    def __contains__(self, name):
        return name in self.entries

    def kind(self, name):
        """Type of a tensor, one of `floats.TYPES`."""
        entry = self.entries[name]
        if entry.dtype not in FLOATS:
            fail(f"{entry.path}: {name}: {entry.dtype} weights are not read; F32, F16 and BF16 are")
        return FLOATS[entry.dtype]

    def read(self, name):
        """Bits of a tensor."""
        entry, kind = self.entries[name], self.kind(name)
        with open(entry.path, "rb") as file:
            file.seek(entry.start)
            bits = np.fromfile(file, floats.TYPES[kind][2], math.prod(entry.shape))
        if len(bits) != math.prod(entry.shape):
            fail(f"{entry.path}: {name}: the file ends within it")
        return bits.reshape(entry.shape)

    def usual_kind(self):
        """The type of most elements, for `--outtype auto`."""
        n = dict.fromkeys(floats.TYPES, 0)
        for name, entry in self.entries.items():
            if entry.dtype in FLOATS and len(entry.shape) > 1:
                n[self.kind(name)] += math.prod(entry.shape)
        return max(n, key=n.get)
