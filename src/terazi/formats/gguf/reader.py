"""Reading GGUF: the checked header, lazily mapped tensors, the parts of a split file."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.dtypes import TYPES_BY_ID
from terazi.errors import FormatError, NotFoundError, UnsupportedError
from terazi.formats.gguf.describe import describe
from terazi.formats.gguf.values import Cursor
from terazi.formats.mapped import MappedFile
from terazi.model import Model, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ALIGNMENT",
    "MAGIC",
    "MAX_NAME_BYTES",
    "Contents",
    "detect",
    "read",
    "read_contents",
    "shard_path",
    "tensor_parts",
]

MAGIC = b"GGUF"
ALIGNMENT = 32

# Limits of ggml itself (ggml.h): GGML_MAX_NAME counts the final zero, GGML_MAX_DIMS the axes.
MAX_NAME_BYTES = 63
_MAX_AXES = 4
_MAX_ALIGNMENT = 1 << 20
_MAX_WEIGHTS = 1 << 62
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a GGUF file holds, whatever it is about (a model, an importance matrix, an adapter).

    ``metadata`` lacks the ``split.*`` keys: the parts of a split file are put together.
    """

    files: tuple[Path, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def detect(path: Path) -> bool:
    """Whether ``path`` is a GGUF file, or a directory that holds GGUF files and no other checkpoint."""
    if path.is_dir():
        return not (path / "config.json").exists() and any(path.glob("*.gguf"))
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read(path: Path | str) -> Model:
    """Open a model. Raises `FormatError`, `NotFoundError` (a missing part) or `UnsupportedError`."""
    path = Path(path)
    if path.is_dir():
        path = _only_model_in(path)
    contents = read_contents(path)
    config, tokenizer, variant = describe(path, contents.metadata, contents.tensors)
    text = {key: value for key, value in contents.metadata.items() if isinstance(value, str)}
    return Model(
        path=path,
        format="gguf",
        files=contents.files,
        name=text.get("general.name") or path.stem,
        config=config,
        tokenizer=tokenizer,
        tensors=contents.tensors,
        metadata=contents.metadata,
        license=text.get("general.license"),
        variant=variant,
    )


def read_contents(path: Path | str) -> Contents:
    """Open any GGUF file, with all its parts when it is split, whichever part is named."""
    path = Path(path)
    metadata, tensors = _read_file(path)
    count = _split_number(path, metadata, "split.count", 1)
    if count <= 1:
        return Contents(files=(path,), metadata=_without_split(metadata), tensors=tensors)
    named = _SHARD.match(path.name)
    if named is None or int(named["count"]) != count:
        raise FormatError(
            path,
            f"is one of {count} parts, but is not named so",
            hint=f"give the parts their names again: NAME-00001-of-{count:05}.gguf, ...",
        )
    files = tuple(path.with_name(shard_path(named["stem"], part, count)) for part in range(count))
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        raise NotFoundError(f"{missing}: part of a split model is missing", hint=f"all {count} are needed")
    return _join(files, count)


def tensor_parts(files: Sequence[Path]) -> dict[str, int]:
    """Return which of a split model's files (from 0) holds each tensor."""
    return {name: part for part, file in enumerate(files) for name in _read_file(file)[1]}


def shard_path(stem: str, part: int, count: int) -> str:
    """Return the name of part ``part`` (from 0) of a split file."""
    return f"{stem}-{part + 1:05}-of-{count:05}.gguf"


def _only_model_in(directory: Path) -> Path:
    found = [
        file
        for file in sorted(directory.glob("*.gguf"))
        if (shard := _SHARD.match(file.name)) is None or int(shard["number"]) == 1
    ]
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5])
        raise FormatError(directory, f"holds {len(found)} models ({names})", hint="name one of the files")
    return found[0]


def _join(files: tuple[Path, ...], count: int) -> Contents:
    metadata: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    promised = 0
    for number, file in enumerate(files):
        part_metadata, part_tensors = _read_file(file)
        if _split_number(file, part_metadata, "split.count", 1) != count:
            raise FormatError(file, f"is not one of the same {count} parts")
        if _split_number(file, part_metadata, "split.no", 0) != number:
            raise FormatError(file, f"its name says part {number + 1} of {count}, its contents another")
        if twice := tensors.keys() & part_tensors.keys():
            raise FormatError(file, f"tensor {min(twice)!r} is in another part too")
        if number == 0:
            metadata = part_metadata
            promised = _split_number(file, part_metadata, "split.tensors.count", 0)
        tensors |= part_tensors
    if promised and promised != len(tensors):
        raise FormatError(files[0], f"promises {promised} tensors, its parts hold {len(tensors)}")
    return Contents(files=files, metadata=_without_split(metadata), tensors=tensors)


def _split_number(path: Path, metadata: Mapping[str, Any], key: str, default: int) -> int:
    value = metadata.get(key, default)
    if not isinstance(value, int | np.integer):
        raise FormatError(path, f"{key} is not a whole number")
    return int(value)


def _without_split(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if not key.startswith("split.")}


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise FormatError(path, "not a GGUF file")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    cursor = Cursor(path, data)
    cursor.take(4, "the magic number")
    version = cursor.u32("the version")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        kind = "big-endian GGUF" if swapped in (2, 3) else f"GGUF version {version}"
        raise UnsupportedError(f"{path}: {kind} is not supported", hint="convert the model again")
    tensor_count = cursor.u64("the tensor count")
    pair_count = cursor.u64("the metadata count")
    # The smallest pair takes 13 bytes and the smallest tensor 25: counts beyond that are lies.
    if pair_count * 13 + tensor_count * 25 > len(data):
        raise cursor.fail(f"claims {pair_count} keys and {tensor_count} tensors, more than it can hold")
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.string("a metadata key")
        if key in metadata:
            raise cursor.fail(f"metadata key {key[:80]!r} appears twice")
        metadata[key] = cursor.value(f"metadata {key[:80]!r}")
    entries = [_read_entry(cursor) for _ in range(tensor_count)]
    return metadata, _locate(cursor, entries, _alignment(cursor, metadata))


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


def _read_entry(cursor: Cursor) -> _Entry:
    name = cursor.string("a tensor name")
    what = f"tensor {name[:80]!r}"
    if len(name.encode()) > MAX_NAME_BYTES:
        raise cursor.fail(f"{what}: the name is longer than {MAX_NAME_BYTES} bytes")
    axes = cursor.u32(f"the axes of {what}")
    if axes > _MAX_AXES:
        raise cursor.fail(f"{what} claims {axes} axes; GGUF has at most {_MAX_AXES}")
    shape = tuple(cursor.u64(f"the shape of {what}") for _ in range(axes))[::-1]
    if not all(shape) or prod(shape) > _MAX_WEIGHTS:
        raise cursor.fail(f"{what} has the impossible shape {shape}")
    id = cursor.u32(f"the type of {what}")
    kind = TYPES_BY_ID.get(id)
    if kind is None:
        raise cursor.fail(f"{what} has unknown type {id}")
    columns = shape[-1] if shape else 1
    if columns % kind.block_size:
        raise cursor.fail(f"{what}: rows of {columns} are no whole number of {kind.name} blocks")
    nbytes = prod(shape) // kind.block_size * kind.block_bytes
    return _Entry(name, shape, kind.name, cursor.u64(f"the offset of {what}"), nbytes)


def _alignment(cursor: Cursor, metadata: Mapping[str, Any]) -> int:
    value = metadata.get("general.alignment")
    if value is None:
        return ALIGNMENT
    if type(value) is not np.uint32 or not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):
        raise cursor.fail(f"general.alignment must be a power of two, not {str(value)[:40]!r}")
    return int(value)


def _locate(cursor: Cursor, entries: list[_Entry], alignment: int) -> dict[str, Tensor]:
    """Check that tensors lie apart inside the file, and map them."""
    base = -(-cursor.position // alignment) * alignment
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        what = f"tensor {entry.name!r}"
        if entry.offset % alignment:
            raise cursor.fail(f"{what} begins at {entry.offset}, which is not aligned to {alignment}")
        if entry.offset < end:
            raise cursor.fail(f"{what} overlaps another tensor")
        end = entry.offset + entry.nbytes
        if base + end > len(cursor.data):
            raise cursor.fail(f"{what} ends at byte {base + end}, the file at {len(cursor.data)}")
    mapped = MappedFile(cursor.data)
    tensors = {entry.name: _tensor(entry, mapped, base) for entry in entries}
    if len(tensors) < len(entries):
        names = [entry.name for entry in entries]
        raise cursor.fail(f"tensor {next(n for n in names if names.count(n) > 1)!r} appears twice")
    return tensors


def _tensor(entry: _Entry, mapped: MappedFile, base: int) -> Tensor:
    read = mapped.rows(base + entry.offset, entry.nbytes, prod(entry.shape[:-1]))
    return Tensor(name=entry.name, shape=entry.shape, type=entry.type, read=read)
