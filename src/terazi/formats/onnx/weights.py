"""Graphs whose weights stay in files: where the bytes of each initializer are, read when they are wanted.

Weights stored in other files are untrusted paths: they must be regular files in the model's own directory
(CVE-2022-25882, CVE-2024-27318 and successors).
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from terazi.errors import FormatError, MissingExtraError
from terazi.formats.onnx.wire import LARGE, without_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import GraphProto, ModelProto, TensorProto

__all__ = ["Place", "Spool", "array", "graph_file", "inside", "load_graph", "place"]

_NAMES = ("model.onnx", "onnx/model.onnx")
_LARGEST_GRAPH = 2 << 30  # protobuf's own limit
# onnx.TensorProto.DataType of what NumPy has itself.
_NUMPY = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight's bytes are."""

    file: Path
    offset: int
    length: int


def graph_file(path: Path | str) -> Path:
    """Return the .onnx file that ``path`` stands for: itself, or a directory's model.onnx or only graph."""
    path = Path(path)
    if path.is_dir():
        for name in _NAMES:
            if (path / name).is_file():
                return path / name
        if len(graphs := [file for file in path.glob("*.onnx") if file.is_file()]) == 1:
            return graphs[0]
    return path


def load_graph(path: Path | str) -> ModelProto:
    """Parse an .onnx file but for its weights: large ones are external data, in this file or others.

    Raises `FormatError` when it is no ONNX model or a weight is not where it should be.
    """
    try:
        from google.protobuf.message import DecodeError
        from onnx import ModelProto
    except ImportError:
        raise MissingExtraError("reading ONNX", "onnx") from None
    path = graph_file(path)
    size = path.stat().st_size
    if size >= _LARGEST_GRAPH:
        raise FormatError(path, "over 2 GiB in one protobuf", hint="save it with external data")
    model = ModelProto()
    try:
        with path.open("rb") as file:
            if size:
                with (
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                    memoryview(mapped) as view,
                ):
                    model.ParseFromString(without_weights(view, path.name))
    except (DecodeError, ValueError) as error:
        raise FormatError(path, f"not an ONNX model: {error}", hint="get the file again") from None
    if not model.ir_version or not model.graph.node:
        raise FormatError(path, "an ONNX model without a graph", hint="get the file again")
    for tensor in _outside(model.graph):
        place(path, tensor)
    return model


def place(path: Path, tensor: TensorProto) -> Place:
    """Return where an initializer of the model at ``path`` is, once that is known to be the model's own."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(entries.get("location", ""))
    hint = "do not use this file: it names data outside its own directory"
    if location.is_absolute() or ".." in location.parts or "\\" in str(location) or not location.name:
        raise FormatError(path, f"tensor {tensor.name!r}: external data at {str(location)!r}", hint=hint)
    file = path.parent / location
    outside = file.is_symlink() or path.parent.resolve() not in file.resolve().parents
    if not file.is_file() or (outside and file != path):
        raise FormatError(path, f"tensor {tensor.name!r}: no regular file {str(location)!r} beside the model")
    size = file.stat().st_size
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
    except ValueError:
        raise FormatError(path, f"tensor {tensor.name!r}: bad external offset or length") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise FormatError(path, f"tensor {tensor.name!r}: external data ends past {file.name}")
    return Place(file, offset, length)


def array(path: Path, tensor: TensorProto) -> np.ndarray:
    """Return one initializer of the model at ``path``; plain numbers in other files are mapped, not read."""
    from onnx import TensorProto, numpy_helper

    if not tensor.external_data:
        return numpy_helper.to_array(tensor)
    where, kind = place(path, tensor), _NUMPY.get(tensor.data_type)
    if kind and where.length:
        values = np.memmap(where.file, np.uint8, "r", where.offset, (where.length,))
        try:
            return values.view(kind).reshape(tuple(tensor.dims))
        except ValueError:
            raise FormatError(path, f"tensor {tensor.name!r}: {where.length} bytes do not fit it") from None
    whole = TensorProto()
    whole.CopyFrom(tensor)
    del whole.external_data[:]
    whole.data_location = TensorProto.DEFAULT
    with where.file.open("rb") as opened:
        opened.seek(where.offset)
        whole.raw_data = opened.read(where.length)
    return numpy_helper.to_array(whole)


def inside(model: ModelProto, path: Path) -> ModelProto:
    """Return the model with every weight in memory."""
    from onnx import ModelProto, TensorProto

    whole = ModelProto()
    whole.CopyFrom(model)
    for tensor in whole.graph.initializer:
        if tensor.external_data:
            where = place(path, tensor)
            with where.file.open("rb") as opened:
                opened.seek(where.offset)
                tensor.raw_data = opened.read(where.length)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
    return whole


class Spool:
    """Weights of a graph in the making: their bytes go to a temporary file until the graph is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        self.places: dict[str, Place] = {}

    def add(self, tensor: TensorProto) -> TensorProto:
        """Write an initializer's bytes down and remember where. Returns it without them."""
        length = len(tensor.raw_data)
        if length < LARGE:
            return tensor
        with self._path.open("ab") as file:
            file.write(tensor.raw_data)
        self.places[tensor.name] = Place(self._path, self._size, length)
        self._size += length
        # Another one: a message keeps the memory of a field that is cleared.
        return type(tensor)(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)


def _outside(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every tensor with external data, also in attributes and inner graphs."""
    yield from (tensor for tensor in graph.initializer if tensor.external_data)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (tensor for tensor in (attribute.t, *attribute.tensors) if tensor.external_data)
            for inner in (attribute.g,) if attribute.HasField("g") else ():
                yield from _outside(inner)
            for inner in attribute.graphs:
                yield from _outside(inner)
