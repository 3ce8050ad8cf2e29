"""Protocol buffers of ONNX on the wire: a model's graph without the bytes of its weights, and the reverse.

Encoding: https://protobuf.dev/programming-guides/encoding; numbers of fields: onnx.proto3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["INITIALIZER", "LARGE", "MODEL_GRAPH", "RAW_DATA", "header", "without_weights"]

MODEL_GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
LARGE = 1024
"""Bytes from which on a weight is left in its file."""

_EXTERNAL_DATA, _DATA_LOCATION, _BYTES = 13, 14, 2


def header(field: int, length: int) -> bytes:
    """Return what stands before ``length`` bytes of a field: its number, the kind of value, the length."""
    return _varint(field << 3 | _BYTES) + _varint(length)


def without_weights(buffer: memoryview, location: str) -> bytes:
    """Return the serialized model in ``buffer`` with large weights as external data of the file ``location``.

    Raises ValueError where the bytes are no protocol buffer.
    """
    pieces = []
    for field, start, first, stop in _fields(buffer, 0, len(buffer)):
        if field == MODEL_GRAPH:
            graph = _graph(buffer, first, stop, location)
            pieces += [header(MODEL_GRAPH, len(graph)), graph]
        else:
            pieces.append(bytes(buffer[start:stop]))
    return b"".join(pieces)


def _graph(buffer: memoryview, start: int, stop: int, location: str) -> bytes:
    pieces = []
    for field, begin, first, end in _fields(buffer, start, stop):
        if field == INITIALIZER and end - first >= LARGE:
            tensor = _tensor(buffer, first, end, location)
            pieces += [header(INITIALIZER, len(tensor)), tensor]
        else:
            pieces.append(bytes(buffer[begin:end]))
    return b"".join(pieces)


def _tensor(buffer: memoryview, start: int, stop: int, location: str) -> bytes:
    pieces = []
    for field, begin, first, end in _fields(buffer, start, stop):
        if field == RAW_DATA and end - first >= LARGE:
            places = {"location": location, "offset": str(first), "length": str(end - first)}
            for key, value in places.items():
                entry = _text(1, key) + _text(2, value)
                pieces += [header(_EXTERNAL_DATA, len(entry)), entry]
            pieces.append(_varint(_DATA_LOCATION << 3) + _varint(1))
        else:
            pieces.append(bytes(buffer[begin:end]))
    return b"".join(pieces)


def _fields(buffer: memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (number, start, start of the value, end) of every field of a message."""
    at = start
    while at < stop:
        begin = at
        tag, at = _read_varint(buffer, at, stop)
        kind, length = tag & 7, 0
        if kind == _BYTES:
            length, at = _read_varint(buffer, at, stop)
        elif kind == 0:
            first = at
            _, at = _read_varint(buffer, at, stop)
            yield tag >> 3, begin, first, at
            continue
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + length > stop:
            raise ValueError("a field ends past its message")
        yield tag >> 3, begin, at, at + length
        at += length


def _read_varint(buffer: memoryview, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise ValueError("the file ends in a number")
        byte = buffer[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of over ten bytes")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _text(field: int, value: str) -> bytes:
    raw = value.encode()
    return header(field, len(raw)) + raw
