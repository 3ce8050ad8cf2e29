"""ONNX files to a Model: the graph's facts, and initializers read lazily, external data included.

Format: onnx.proto3 (https://github.com/onnx/onnx).
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.dtypes import dtype
from terazi.errors import FormatError
from terazi.formats.huggingface.describe import (
    chat_template,
    read_config,
    read_license,
    read_tokenizer,
    variant,
)
from terazi.formats.huggingface.reader import read_json
from terazi.formats.onnx.weights import array, graph_file, load_graph, place
from terazi.model import Config, Model, Tensor

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

__all__ = ["EXPORTED", "detect", "operators", "read"]

EXPORTED = "terazi.operators.exported"
"""Metadata key: operators and their number (JSON) before any were fused."""

_COMPANIONS = (
    "config.json",
    "genai_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "1_Pooling/config.json",
)
# onnx.TensorProto.DataType -> our name.
_TYPES = {
    1: "F32",
    2: "U8",
    3: "I8",
    4: "U16",
    5: "I16",
    6: "I32",
    7: "I64",
    9: "BOOL",
    10: "F16",
    11: "F64",
    12: "U32",
    13: "U64",
    16: "BF16",
    17: "F8",
    18: "F8",
    19: "F8",
    20: "F8",
    21: "U4",
    22: "I4",
    23: "F4",
    25: "U2",
    26: "I2",
}


def detect(path: Path) -> bool:
    """Whether ``path`` is an .onnx file, or a directory that holds model.onnx or one other graph."""
    file = graph_file(path)
    return file.suffix == ".onnx" and file.is_file()


def read(path: Path | str) -> Model:
    """Open an ONNX model. ``metadata`` has ``opsets``, ``operators`` (name -> count; ``exported`` before
    they were fused), inputs and outputs.
    """
    path = Path(path)
    file = graph_file(path)
    proto = load_graph(file)
    directory = file.parent
    companions = tuple(directory / name for name in _COMPANIONS if (directory / name).is_file())
    external = {place(file, tensor).file for tensor in proto.graph.initializer if tensor.external_data}
    packed = _packed(proto)
    tensors = {
        tensor.name: _tensor(file, tensor, packed.get(tensor.name)) for tensor in proto.graph.initializer
    }
    return Model(
        path=path,
        format="onnx",
        files=(file, *sorted(external - {file}), *companions),
        name=path.stem if path.is_file() else path.name,
        tensors=tensors,
        metadata=_facts(proto),
        **_description(directory),
    )


def _packed(proto: ModelProto) -> dict[str, tuple[str, tuple[int, int]]]:
    """Return type and shape of the weights that MatMulNBits packs into bytes, by the initializer's name."""
    found = {}
    for node in proto.graph.node:
        if node.op_type == "MatMulNBits" and len(node.input) > 1:
            values = {entry.name: entry.i for entry in node.attribute}
            kind = {2: "U2", 4: "U4"}.get(values.get("bits", 4))
            if kind:
                found[node.input[1]] = kind, (values.get("N", 0), values.get("K", 0))
    return found


def _tensor(path: Path, tensor: TensorProto, packed: tuple[str, tuple[int, int]] | None) -> Tensor:
    kind, shape = _TYPES.get(tensor.data_type), tuple(tensor.dims)
    if kind is None or any(axis < 0 for axis in shape):
        raise FormatError(path, f"tensor {tensor.name!r}: type {tensor.data_type} or shape is not known")
    if packed and kind == "U8" and prod(packed[1]) == prod(shape) * dtype(packed[0]).block_size:
        kind, shape = packed

    def read_rows(start: int, stop: int) -> np.ndarray:
        values = array(path, tensor)
        rows = values.reshape(prod(shape[:-1]), -1)[start:stop]
        return np.ascontiguousarray(rows).view(np.uint8)

    return Tensor(name=tensor.name, shape=shape, type=kind, read=read_rows)


def operators(proto: ModelProto) -> dict[str, int]:
    """Count the operators of a graph by name, most frequent first."""
    found: dict[str, int] = {}
    for node in proto.graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _exported(proto: ModelProto) -> dict[str, int]:
    """Return what was counted before fusion; whatever else a file says there counts as nothing."""
    text = next((entry.value for entry in proto.metadata_props if entry.key == EXPORTED), "{}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: count for name, count in found.items() if isinstance(count, int)}


def _facts(proto: ModelProto) -> dict[str, Any]:
    known = {tensor.name for tensor in proto.graph.initializer}
    return {
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        "operators": operators(proto),
        "exported": _exported(proto),
        "inputs": [value.name for value in proto.graph.input if value.name not in known],
        "outputs": [value.name for value in proto.graph.output],
    }


def _description(directory: Path) -> dict[str, Any]:
    """Describe the model from the Hugging Face files beside it; without them only the graph is known."""
    if (directory / "config.json").is_file():
        values = read_json(directory / "config.json")
        template = chat_template(directory)
        return {
            "config": read_config(directory, values),
            "tokenizer": read_tokenizer(directory, template),
            "license": read_license(directory, values),
            "variant": variant(directory, values, template),
        }
    nothing = Config(
        architecture="unknown",
        context_length=0,
        embedding_length=0,
        block_count=0,
        head_count=0,
        head_counts_kv=(),
        key_length=0,
        value_length=0,
        feed_forward_length=0,
        vocabulary_size=0,
    )
    return {"config": nothing, "tokenizer": None}
