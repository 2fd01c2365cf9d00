"""Floats of 16 and 32 bits, as bits: F32, F16, and BF16, which NumPy does not know."""

import numpy as np

# Name: (number of the type in GGUF, general.file_type of a file of it, NumPy's type of its bits).
TYPES = {"f32": (0, 0, "<u4"), "f16": (1, 1, "<u2"), "bf16": (30, 32, "<u2")}
# Elements that are converted at a time.
PIECE = 1 << 22


def size(kind):
    """Bytes of an element."""
    return np.dtype(TYPES[kind][2]).itemsize


def values(bits, kind):
    """As 32-bit floats, without loss."""
    if kind == "f32":
        return bits.view("<f4")
    if kind == "f16":
        return bits.view("<f2").astype("<f4")
    return (bits.astype("<u4") << 16).view("<f4")


def rounded(floats, kind):
    """Bits of 32-bit floats in a type, rounded to the nearest, ties to even. None where F16 cannot hold a finite one."""
    if kind == "f32":
        return floats.view("<u4")
    if kind == "f16":
        with np.errstate(over="ignore"):
            half = floats.astype("<f2")
        if (np.isinf(half) & np.isfinite(floats)).any():
            return None
        return half.view("<u2")
    bits = floats.view("<u4")
    quiet = np.isnan(floats)
    even = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(quiet, (bits >> 16) | 0x40, even).astype("<u2")


def converted(bits, source, target):
    """The bits of another type, in pieces of bytes; None in place of a piece that F16 cannot hold."""
    flat = bits.reshape(-1)
    for at in range(0, len(flat), PIECE):
        piece = np.ascontiguousarray(flat[at : at + PIECE])
        if source != target:
            piece = rounded(values(piece, source), target)
        yield None if piece is None else memoryview(piece).cast("B")
