"""Graphs to files: one file where protobuf allows it, else weights in a second one beside it."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

from terazi.errors import ExistsError
from terazi.files import atomic_write, write_bytes
from terazi.formats.onnx.weights import Place, place
from terazi.formats.onnx.wire import INITIALIZER, LARGE, MODEL_GRAPH, RAW_DATA, header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnx import ModelProto, TensorProto

__all__ = ["LARGEST_FILE", "write_graph"]

LARGEST_FILE = 2_000_000_000
"""Bytes of one file: protobuf, and so ONNX's own tools, end at 2 GiB."""

_PAGE = 4096  # readers map external data page by page
_SLAB = 1 << 22


def write_graph(
    model: ModelProto,
    output: Path,
    *,
    origin: Path | None = None,
    spooled: Mapping[str, Place] | None = None,
    largest: int | None = None,
    force: bool = False,
) -> tuple[Path, ...]:
    """Write ``model``, which is used up, as ``output`` and return the files that it takes.

    Weights are in the model, in files beside ``origin`` that it names as external data, or where ``spooled``
    has their names. They are copied in pieces; from ``largest`` bytes (`LARGEST_FILE`) on they go to
    ``<output>.data``. At every moment ``output`` is the old graph or the new one, with its own weights.
    Raises `ExistsError` unless ``force``.
    """
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    found = [_found(tensor, origin, spooled or {}) for tensor in tensors]
    total = model.ByteSize() + sum(_length(where) + tensor.ByteSize() for tensor, where in found)
    if total < (LARGEST_FILE if largest is None else largest):
        with atomic_write(output, force=force) as file:
            _write_whole(model, found, file)
        return (output,)
    data = output.with_name(f"{output.name}.data")
    if data.exists() and not force:
        raise ExistsError(data)
    if not (output.exists() and data.exists()):
        _write_pair(model, found, output, data, force=force)
        return output, data
    # The old graph may need the old weights until it is replaced: the new ones get their name after that.
    aside = output.with_name(f"{output.name}.{os.urandom(4).hex()}.data")
    _write_pair(model, found, output, aside, force=force)
    try:
        data.unlink()
        os.link(aside, data)
    except OSError:  # a file system without links
        return output, aside
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data.name
    write_bytes(output, model.SerializeToString(), force=True)
    aside.unlink()
    return output, data


def _write_pair(
    model: ModelProto,
    found: list[tuple[TensorProto, Place | bytes]],
    output: Path,
    data: Path,
    *,
    force: bool,
) -> None:
    """Write a graph and its weights; these appear first, and go again when the graph does not follow."""
    new, before = not data.exists(), _inode(output)
    try:
        with atomic_write(output, force=force) as file, atomic_write(data, force=force) as weights:
            _write_apart(model, found, file, weights, data.name)
    except BaseException:
        if new and _inode(output) == before:
            data.unlink(missing_ok=True)
        raise


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _found(
    tensor: TensorProto, origin: Path | None, spooled: Mapping[str, Place]
) -> tuple[TensorProto, Place | bytes]:
    """Return an initializer without its bytes, and where they are; small ones stay what they are."""
    if tensor.name in spooled:
        return tensor, spooled[tensor.name]
    if tensor.external_data and origin:
        where = place(origin, tensor)
        del tensor.external_data[:]
        tensor.ClearField("data_location")
        return tensor, where
    if len(tensor.raw_data) < LARGE:
        return tensor, b""
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    return tensor, raw


def _length(where: Place | bytes) -> int:
    return len(where) if isinstance(where, bytes) else where.length


def _write_whole(model: ModelProto, found: list[tuple[TensorProto, Place | bytes]], file: IO[bytes]) -> None:
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    entries = []
    for tensor, where in found:
        length = _length(where)
        head = tensor.SerializeToString() + (header(RAW_DATA, length) if length else b"")
        entries.append((header(INITIALIZER, len(head) + length) + head, where))
    size = len(graph) + sum(len(head) + _length(where) for head, where in entries)
    file.write(model.SerializeToString() + header(MODEL_GRAPH, size) + graph)
    for head, where in entries:
        file.write(head)
        _copy(where, file)


def _write_apart(
    model: ModelProto,
    found: list[tuple[TensorProto, Place | bytes]],
    file: IO[bytes],
    weights: IO[bytes],
    location: str,
) -> None:
    for tensor, where in found:
        if _length(where):
            offset = -(-weights.tell() // _PAGE) * _PAGE
            weights.write(bytes(offset - weights.tell()))
            _copy(where, weights)
            tensor.data_location = tensor.EXTERNAL
            for key, value in (("location", location), ("offset", offset), ("length", _length(where))):
                tensor.external_data.add(key=key, value=str(value))
        model.graph.initializer.append(tensor)
    file.write(model.SerializeToString())


def _copy(where: Place | bytes, file: IO[bytes]) -> None:
    if isinstance(where, bytes):
        file.write(where)
        return
    with where.file.open("rb") as opened:
        opened.seek(where.offset)
        left = where.length
        while left:
            piece = opened.read(min(left, _SLAB))
            if not piece:
                raise EOFError(f"{where.file} was cut short while it was read")
            file.write(piece)
            left -= len(piece)
