"""Importance matrices as files: llama.cpp's GGUF imatrix, and reading its older .dat format.

Both are as ``tools/imatrix/imatrix.cpp`` and ``common/imatrix-loader.cpp`` of llama.cpp write and read them:
for each weight, sorted by name, the F32 tensors ``<weight>.in_sum2`` and ``<weight>.counts``.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.calibrate.calibration import Calibration, Sums
from terazi.errors import FormatError, NotFoundError, UsageError
from terazi.formats import gguf
from terazi.formats.gguf.values import Cursor
from terazi.model import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_calibration", "load", "read_sums", "save", "tensors_of"]

_SQUARES, _COUNTS = ".in_sum2", ".counts"
_HINT = "make a new one with `terazi calibrate`"
_LEGACY_CHUNK = 512  # not in the file; the tool's default


def save(path: Path | str, calibration: Calibration, *, force: bool = False) -> Path:
    """Write a GGUF imatrix that llama-quantize reads; the same calibration gives the same bytes."""
    metadata: dict[str, Any] = {
        "general.type": "imatrix",
        "imatrix.datasets": list(calibration.datasets),
        "imatrix.chunk_count": np.uint32(calibration.chunks),
        "imatrix.chunk_size": np.uint32(calibration.chunk_size),
    }
    if calibration.text_digests:
        metadata["terazi.text.sha256"] = list(calibration.text_digests)
    return gguf.write(path, metadata, tensors_of(calibration.sums), force=force)


def tensors_of(sums: Mapping[str, Sums]) -> list[Tensor]:
    """Return the tensors; like ggml, a single matrix is written as a vector. float64 sums stay so."""
    tensors = []
    for name in sorted(sums):
        entry = sums[name]
        counts = entry.counts.astype(np.float32)
        single = len(counts) == 1
        tensors.append(Tensor.from_array(name + _SQUARES, entry.squares[0] if single else entry.squares))
        tensors.append(Tensor.from_array(name + _COUNTS, counts if single else counts[:, None]))
    return tensors


def load(path: Path | str) -> Calibration:
    """Read an importance matrix: GGUF, or the older .dat with or without its trailer.

    Raises `FormatError` when it is damaged, of another kind or has values that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: is a directory", hint=_HINT)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    if not gguf.detect(path):
        return _load_legacy(path)
    contents = gguf.read_contents(path)
    metadata = contents.metadata
    if metadata.get("general.type", "imatrix") != "imatrix":
        raise FormatError(path, "is a GGUF file, but holds no importance matrix", hint=_HINT)
    return Calibration(
        sums=read_sums(path, contents.tensors),
        datasets=_texts(metadata.get("imatrix.datasets")),
        text_digests=_texts(metadata.get("terazi.text.sha256")),
        chunks=_whole(path, metadata, "imatrix.chunk_count", 0),
        chunk_size=_whole(path, metadata, "imatrix.chunk_size", _LEGACY_CHUNK),
        path=path,
    )


def is_calibration(path: Path | str) -> bool:
    """Whether there is an importance matrix at ``path``: GGUF that says so, or a .dat file."""
    path = Path(path)
    if not path.is_file():
        return False
    if not gguf.detect(path):
        return path.suffix == ".dat"
    return gguf.read_contents(path).metadata.get("general.type") == "imatrix"


def read_sums(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Sums]:
    """Pair sums with counts. Squares keep their type: F32, or F64 in the state of a running collection."""
    names = sorted(name.removesuffix(_SQUARES) for name in tensors if name.endswith(_SQUARES))
    if not names:
        raise FormatError(path, "holds no importance matrix", hint=_HINT)
    if strays := tensors.keys() - {name + suffix for name in names for suffix in (_SQUARES, _COUNTS)}:
        raise FormatError(path, f"{min(strays)!r} belongs to no sums", hint=_HINT)
    return {name: _pair(path, name, tensors) for name in names}


def _pair(path: Path, name: str, tensors: Mapping[str, Tensor]) -> Sums:
    squares, counts = tensors[name + _SQUARES], tensors.get(name + _COUNTS)
    if counts is None:
        raise FormatError(path, f"{name} has sums without counts", hint=_HINT)
    kinds = {"F32": np.float32, "F64": np.float64}
    if squares.type not in kinds or counts.type != "F32":
        raise FormatError(path, f"{name}: sums and counts must be F32, not {squares.type}", hint=_HINT)
    if squares.size % counts.size:
        raise FormatError(path, f"{name}: {squares.size} sums do not fit {counts.size} counts", hint=_HINT)
    values = squares.encoded().reshape(-1).view(kinds[squares.type]).reshape(counts.size, -1).copy()
    seen = counts.encoded().reshape(-1).view(np.float32)
    _check(path, name, values)
    if not (np.isfinite(seen).all() and (seen >= 0).all()):
        raise FormatError(path, f"{name}: a count is not a positive number", hint=_HINT)
    return Sums(values, np.rint(seen).astype(np.int64))


def _check(path: Path, name: str, values: np.ndarray) -> None:
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise FormatError(path, f"{name[:80]!r}: a sum of squares is not finite or negative", hint=_HINT)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def _whole(path: Path, metadata: Mapping[str, Any], key: str, default: int) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int | np.integer) or value < 0:
        raise FormatError(path, f"{key} is not a whole number", hint=_HINT)
    return int(value)


def _load_legacy(path: Path) -> Calibration:
    """Read i32 entries of (name, calls, values); then, in newer files, the chunks and the text's name."""
    if path.stat().st_size < 4:
        raise FormatError(path, "is no importance matrix", hint=_HINT)
    with path.open("rb") as file:
        cursor = Cursor(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    entries = _count(cursor, "the number of entries")
    if not 0 < entries <= len(cursor.data) // 16:
        raise FormatError(path, "is no importance matrix in a known format", hint=_HINT)
    sums: dict[str, Sums] = {}
    for _ in range(entries):
        name = _text(cursor, "a name")
        calls = _count(cursor, f"the calls of {name[:80]!r}")
        values = _floats(cursor, _count(cursor, f"the size of {name[:80]!r}"), f"the values of {name[:80]!r}")
        if name in sums or not len(values):
            raise cursor.fail(f"{name[:80]!r} appears twice or has no values")
        # A value is the mean times the number of calls; scaled to what tokens would have summed up to.
        with np.errstate(over="ignore", invalid="ignore"):
            squares = values[None] * np.float32(_LEGACY_CHUNK)
        _check(path, name, squares)
        sums[name] = Sums(squares, np.array([max(calls, 1) * _LEGACY_CHUNK]))
    chunks, datasets = 0, ()
    if cursor.position < len(cursor.data):
        chunks = _count(cursor, "the number of chunks")
        if cursor.position < len(cursor.data):
            datasets = (_text(cursor, "the text's name"),)
    return Calibration(sums=sums, datasets=datasets, chunks=chunks, path=path)


def _count(cursor: Cursor, what: str) -> int:
    value = cursor.u32(what)
    if value >= 1 << 31:
        raise cursor.fail(f"{what} is negative")
    return value


def _text(cursor: Cursor, what: str) -> str:
    length = _count(cursor, f"the length of {what}")
    start = cursor.take(length, what)
    try:
        return cursor.data[start : start + length].decode()
    except UnicodeDecodeError:
        raise cursor.fail(f"{what} is not UTF-8") from None


def _floats(cursor: Cursor, count: int, what: str) -> np.ndarray:
    start = cursor.take(4 * count, what)
    return np.frombuffer(cursor.data[start : cursor.position], "<f4")
