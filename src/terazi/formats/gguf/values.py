"""GGUF's typed values (numbers, truth values, strings, arrays) to bytes and back.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Reading keeps the stored type: numbers
become NumPy scalars, numeric arrays NumPy arrays, string arrays lists. Writing takes those back unchanged and
gives plain Python numbers the smallest usual type.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from mmap import mmap
    from pathlib import Path

__all__ = ["Cursor", "encode_pairs", "encode_string"]

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_IDS = {(kind.kind, kind.itemsize): id for id, kind in _NUMBERS.items()}
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A position in a mapped file; every read is checked against the end and names what it was reading."""

    def __init__(self, path: Path, data: mmap) -> None:
        self.path = path
        self.data = data
        self.position = 0

    def fail(self, problem: str) -> FormatError:
        """Return the error to raise for ``problem`` in this file."""
        return FormatError(self.path, problem, hint="the file is damaged or hostile: get it again")

    def take(self, nbytes: int, what: str) -> int:
        """Move over ``nbytes`` and return where they begin."""
        start = self.position
        if nbytes > len(self.data) - start:
            raise self.fail(f"ends inside {what} (byte {start} of {len(self.data)})")
        self.position = start + nbytes
        return start

    def u32(self, what: str) -> int:
        """Read an unsigned 32-bit number."""
        return _U32.unpack_from(self.data, self.take(4, what))[0]

    def u64(self, what: str) -> int:
        """Read an unsigned 64-bit number."""
        return _U64.unpack_from(self.data, self.take(8, what))[0]

    def string(self, what: str) -> str:
        """Read a length-prefixed UTF-8 string."""
        length = self.u64(what)
        start = self.take(length, what)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None

    def value(self, what: str) -> Any:
        """Read a type and a value of that type."""
        id = self.u32(f"the type of {what}")
        if id == _STRING:
            return self.string(what)
        if id == _ARRAY:
            return self._array(what)
        if id == _BOOL:
            return bool(self._truths(1, what)[0])
        return self._numbers(id, 1, what)[0]

    def _array(self, what: str) -> Any:
        id = self.u32(f"the element type of {what}")
        count = self.u64(f"the length of {what}")
        if id == _ARRAY:
            raise self.fail(f"{what} is an array of arrays, which no reader supports")
        if id == _STRING:
            if count * 8 > len(self.data) - self.position:
                raise self.fail(f"{what} claims {count} strings, more than the file can hold")
            return [self.string(what) for _ in range(count)]
        return self._truths(count, what) if id == _BOOL else self._numbers(id, count, what)

    def _numbers(self, id: int, count: int, what: str) -> np.ndarray:
        kind = _NUMBERS.get(id)
        if kind is None:
            raise self.fail(f"{what} has unknown value type {id}")
        start = self.take(count * kind.itemsize, what)
        return np.frombuffer(self.data[start : self.position], kind)

    def _truths(self, count: int, what: str) -> np.ndarray:
        start = self.take(count, what)
        stored = np.frombuffer(self.data[start : self.position], np.uint8)
        if (stored > 1).any():
            raise self.fail(f"{what} has a truth value that is neither 0 nor 1")
        return stored.astype(bool)


def encode_string(text: str) -> bytes:
    """Encode a length-prefixed UTF-8 string."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text[:40]!r} is not valid Unicode text and cannot be written to GGUF") from None
    return _U64.pack(len(data)) + data


def encode_pairs(metadata: Mapping[str, Any]) -> bytes:
    """Encode all key/value pairs in order. Raises `UsageError` for a value that GGUF cannot hold."""
    out = bytearray()
    for key, value in metadata.items():
        try:
            out += encode_string(key) + _encode(value)
        except (TypeError, OverflowError):
            raise UsageError(f"{key}: a value of type {type(value).__name__} has no GGUF type") from None
    return bytes(out)


def _encode(value: Any) -> bytes:
    if isinstance(value, str):
        return _U32.pack(_STRING) + encode_string(value)
    if isinstance(value, list | tuple):
        return _encode_list(list(value))
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise TypeError
        id = _id(value.dtype)
        return _U32.pack(_ARRAY) + _U32.pack(id) + _U64.pack(value.size) + _little_endian(value)
    scalar = np.asarray(_typed(value))
    return _U32.pack(_id(scalar.dtype)) + _little_endian(scalar)


def _encode_list(values: list[Any]) -> bytes:
    """Encode a list; an empty one becomes an array of no strings."""
    if all(isinstance(value, str) for value in values):
        head = _U32.pack(_ARRAY) + _U32.pack(_STRING) + _U64.pack(len(values))
        return head + b"".join(map(encode_string, values))
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return _encode(np.array(values, bool))
    if kinds == {int}:
        small = all(-(1 << 31) <= value < 1 << 31 for value in values)
        return _encode(np.array(values, np.int32 if small else np.int64))
    if kinds <= {int, float}:
        return _encode(np.array(values, np.float32))
    raise TypeError


def _typed(value: Any) -> Any:
    if isinstance(value, np.generic | bool):
        return value
    if isinstance(value, int):
        fits = np.uint32 if 0 <= value < 1 << 32 else np.int32 if -(1 << 31) <= value < 0 else None
        return (fits or (np.uint64 if value > 0 else np.int64))(value)
    if isinstance(value, float):
        return np.float32(value)
    raise TypeError


def _id(kind: np.dtype) -> int:
    if kind.kind == "b":
        return _BOOL
    if (kind.kind, kind.itemsize) not in _IDS:
        raise TypeError
    return _IDS[kind.kind, kind.itemsize]


def _little_endian(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
