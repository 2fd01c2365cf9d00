"""Writing GGUF files (version 3, little-endian), one tensor after the other."""

import os
import struct
from pathlib import Path

from .fail import fail, reason

ALIGNMENT = 32
# Numbers of value types.
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
PACKED = {UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, item):
    return string(item) if kind == STRING else struct.pack(PACKED[kind], item)


def padded(n):
    return -n % ALIGNMENT


class Keys:
    """The metadata of a file, in the order in which it is written."""

    def __init__(self, arch):
        self.arch = arch
        self.entries = {}
        self.string("general.architecture", arch)

    def add(self, key, kind, data):
        """`{}` in a key stands for the architecture's name."""
        self.entries[key.format(self.arch)] = struct.pack("<I", kind) + data

    def u32(self, key, number):
        self.add(key, UINT32, value(UINT32, int(number)))

    def f32(self, key, number):
        self.add(key, FLOAT32, value(FLOAT32, float(number)))

    def bool(self, key, truth):
        self.add(key, BOOL, value(BOOL, bool(truth)))

    def string(self, key, text):
        self.add(key, STRING, string(text))

    def array(self, key, kind, items):
        head = struct.pack("<IQ", kind, len(items))
        self.add(key, ARRAY, head + b"".join(value(kind, item) for item in items))

    def bytes(self):
        return b"".join(string(key) + data for key, data in self.entries.items())


class GgufFile:
    """A file that has its name only once it is complete. Links are followed; devices and pipes are written as they are. `tensors`
    lists (name, shape with rows outermost, number of the type, bytes)."""

    def __init__(self, path, keys, tensors):
        self.path, self.left = Path(path), [tensor[3] for tensor in tensors]
        place = Path(os.path.realpath(path))
        self.place, self.temporary = place, place.with_name(f".{place.name}.{os.getpid()}.tmp")
        if place.exists() and not place.is_file():
            self.temporary = None
        head, offset = struct.pack("<IIQQ", 0x46554747, 3, len(tensors), len(keys.entries)) + keys.bytes(), 0
        for name, shape, kind, n_bytes in tensors:
            sizes = struct.pack(f"<{len(shape)}Q", *reversed(shape))
            head += string(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)
            offset += n_bytes + padded(n_bytes)
        try:
            self.file = open(self.temporary, "xb") if self.temporary else open(self.place, "wb")
            self.file.write(head + bytes(padded(len(head))))
        except OSError as e:
            self.discard()
            fail(f"{self.path}: {reason(e)}")

    def append(self, chunks):
        """The bytes of the next tensor, in pieces."""
        expected = written = self.left.pop(0)
        for chunk in chunks:
            written -= len(chunk)
            self.file.write(chunk)
        if written:
            fail(f"{self.path}: a tensor has {expected - written} bytes, not {expected}")
        self.file.write(bytes(padded(expected)))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _trace):
        if kind is None:
            try:
                self.file.flush()
                if self.temporary:
                    os.fsync(self.file.fileno())
                self.file.close()
                if self.temporary:
                    os.replace(self.temporary, self.place)
            except OSError as e:
                self.discard()
                fail(f"{self.path}: {reason(e)}")
        else:
            self.discard()
            if isinstance(error, OSError):
                fail(f"{self.path}: {reason(error)}")

    def discard(self):
        if hasattr(self, "file"):
            try:
                self.file.close()
            except OSError:
                pass  # what could not be written is thrown away
        if self.temporary:
            self.temporary.unlink(missing_ok=True)
