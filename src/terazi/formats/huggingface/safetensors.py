"""The safetensors container: a checked JSON header, then tensors mapped lazily.

Format: https://huggingface.co/docs/safetensors. Parsed here rather than by the safetensors library because
rows must be readable lazily without torch (NumPy has no bfloat16) and errors must name tensor and file.
"""

from __future__ import annotations

import json
import mmap
from math import prod
from typing import TYPE_CHECKING, Any

from terazi.dtypes import dtype
from terazi.errors import FormatError, UnsupportedError
from terazi.formats.mapped import MappedFile
from terazi.model import Tensor

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["detect", "parse_json", "read"]

_MAX_HEADER = 100_000_000  # the format's own limit
_MAX_AXES = 16
# Names are the same as GGUF's. Integers are buffers such as position ids.
_TYPES = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")
# What packed weights are stored as -> the name of that here; E8M0 is the exponent of a power of two.
_PACKED_TYPES = {"U8": "U8", "U32": "U32", "F8_E4M3": "F8", "F8_E8M0": "U8"}
_OTHER_TYPES = (
    "BOOL",
    "U8",
    "U16",
    "U32",
    "U64",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F6_E2M3",
    "F6_E3M2",
    "F4",
    "C64",
)
_HINT = "the file is damaged or hostile: get it again"


def detect(path: Path) -> bool:
    """Whether the file begins like safetensors: a header length, then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{"


def read(path: Path, *, packed: bool = False) -> dict[str, Tensor]:
    """Map all tensors of one file, by name, in file order; with ``packed`` also those of packed weights.

    Raises `FormatError`, and `UnsupportedError` for other types.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if size < 8:
            raise FormatError(path, "ends before its header", hint=_HINT)
        if length > min(_MAX_HEADER, size - 8):
            raise FormatError(path, f"claims a header of {length} bytes; it has {size}", hint=_HINT)
        header = parse_json(path, file.read(length), "its header")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    base = 8 + length
    entries = [
        _entry(path, name, value, size - base, packed)
        for name, value in header.items()
        if name != "__metadata__"
    ]
    entries.sort(key=lambda entry: entry[3])
    end = 0
    for name, _, _, start, stop in entries:
        if start < end:
            raise FormatError(path, f"tensor {name!r} overlaps another tensor", hint=_HINT)
        end = stop
    mapped = MappedFile(data)
    return {entry[0]: _tensor(mapped, base, *entry) for entry in entries}


def parse_json(path: Path, text: bytes, what: str) -> dict[str, Any]:
    """Parse one JSON object whose names are unique. Raises `FormatError`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name appears twice")
        return found

    try:
        value = json.loads(text.decode(), object_pairs_hook=unique)
    except RecursionError:
        raise FormatError(path, f"{what} is nested too deeply", hint=_HINT) from None
    except ValueError as error:
        raise FormatError(path, f"{what} is not valid JSON ({str(error)[:80]})", hint=_HINT) from None
    if not isinstance(value, dict):
        raise FormatError(path, f"{what} is not a JSON object", hint=_HINT)
    return value


def _entry(
    path: Path, name: str, value: Any, room: int, packed: bool
) -> tuple[str, str, tuple[int, ...], int, int]:
    """Check one header entry against the file; returns name, type, shape, start, stop."""
    what = f"tensor {name[:80]!r}"
    try:
        kind, shape, (start, stop) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise FormatError(path, f"{what} lacks a dtype, shape or data_offsets", hint=_HINT) from None
    if kind in _OTHER_TYPES and not (packed and kind in _PACKED_TYPES):
        raise UnsupportedError(
            f"{path}: {what} has type {kind}; weights must be F32, F16 or BF16",
            hint="get the original, unquantized checkpoint of this model",
        )
    if kind not in (*_TYPES, *_PACKED_TYPES):
        raise FormatError(path, f"{what} has unknown type {str(kind)[:40]!r}", hint=_HINT)
    kind = _PACKED_TYPES.get(kind, kind)
    numbers = [*shape, start, stop] if isinstance(shape, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) > _MAX_AXES:
        raise FormatError(path, f"{what} has an impossible shape or position", hint=_HINT)
    if not all(shape):
        raise FormatError(path, f"{what} has no elements: its shape is {shape}", hint=_HINT)
    if start > stop or stop > room:
        raise FormatError(path, f"{what} lies outside the file", hint=_HINT)
    if prod(shape) * dtype(kind).block_bytes != stop - start:
        raise FormatError(
            path, f"{what}: {kind} of shape {shape} does not fill its {stop - start} bytes", hint=_HINT
        )
    return name, kind, tuple(shape), start, stop


def _tensor(
    mapped: MappedFile, base: int, name: str, kind: str, shape: tuple[int, ...], start: int, stop: int
) -> Tensor:
    read = mapped.rows(base + start, stop - start, prod(shape[:-1]))
    return Tensor(name=name, shape=shape, type=kind, read=read)
