"""Just enough of protocol buffers to read the vocabulary of a SentencePiece model."""

import struct

VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5


def varint(data, at):
    """(number, where it ends)"""
    number = shift = 0
    while shift < 64:
        if at >= len(data):
            raise ValueError("the file ends within a number")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
        shift += 7
    raise ValueError("a number has too many bytes")


def fields(data):
    """Of a message: (number, value) in order. Values are whole numbers, floats, or bytes."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = varint(data, at)
        elif wire in (DOUBLE, FLOAT):
            size = 8 if wire == DOUBLE else 4
            if at + size > len(data):
                raise ValueError("the file ends within a number")
            value = struct.unpack_from("<d" if wire == DOUBLE else "<f", data, at)[0]
            at += size
        elif wire == BYTES:
            size, at = varint(data, at)
            if at + size > len(data):
                raise ValueError("the file ends within a field")
            value, at = bytes(data[at : at + size]), at + size
        else:
            raise ValueError(f"wire type {wire} is not known")
        yield number, value
