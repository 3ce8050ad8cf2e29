"""Rewriting an ONNX graph: matrices and embedding tables replaced by quantized ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_dtypes import bfloat16
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from terazi.codecs.onnx import pack
from terazi.formats.onnx import array
from terazi.formats.onnx.wire import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from terazi.formats.onnx import Spool
    from terazi.quantize.methods.blocks import Blocks

__all__ = ["Matrix", "Rewrite", "channel_codes", "large_floats", "matrices", "named", "tables"]

_CONTRIB = "com.microsoft"
_SMALLEST_TABLE = 1 << 16


@dataclass(frozen=True, slots=True)
class Matrix:
    """A constant weight of a MatMul or Gemm node, as [outputs, inputs]; or of a Gather: [rows, width]."""

    node: str
    input: str
    initializer: str
    transposed: bool
    bias: str | None
    columns: int
    size: int


def matrices(model: ModelProto) -> list[Matrix]:
    """Return the matrix products by a constant, in the graph's order."""
    constants = _float_matrices(model.graph)
    found = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            continue
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
        if node.op_type == "Gemm" and (not plain or attributes.get("transA")):
            continue
        dims = constants[node.input[1]].dims
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else None
        # A MatMul's weight is stored [inputs, outputs]; a Gemm's with transB the other way.
        transposed = not attributes.get("transB", 0)
        columns = dims[0] if transposed else dims[1]
        size = int(np.prod(dims))
        found.append(Matrix(node.name, node.input[0], node.input[1], transposed, bias, columns, size))
    return found


def tables(model: ModelProto) -> list[Matrix]:
    """Return embedding tables: large constant matrices that rows are gathered from, and only that."""
    constants = _float_matrices(model.graph)
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    return [
        Matrix(node.name, node.input[1], node.input[0], False, None, constants[node.input[0]].dims[1], size)
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in constants and uses[node.input[0]] == 1
        and not any(entry.name == "axis" and entry.i for entry in node.attribute)
        and (size := int(np.prod(constants[node.input[0]].dims))) >= _SMALLEST_TABLE
    ]  # fmt: skip


def large_floats(model: ModelProto) -> list[TensorProto]:
    """Return the float32 weights, of any rank, that take a kilobyte or more."""
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    return [tensor for tensor in floats if 4 * prod(tensor.dims) >= LARGE]


def named(model: ModelProto) -> ModelProto:
    """Give every node without a name of its own one, in place; some exporters write none."""
    seen = {""}
    for number, node in enumerate(model.graph.node):
        if node.name in seen:
            node.name = f"{node.op_type}_{number}"
        seen.add(node.name)
    return model


def channel_codes(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8[outputs, inputs] and float32[outputs]: one symmetric scale per output channel."""
    scales = np.maximum(np.abs(weight).max(1), 1e-12) / np.float32(127)
    codes = weight * (1 / scales)[:, None]
    return np.rint(codes, out=codes).astype(np.int8), scales


class Rewrite:
    """Collects replacements for nodes of one model; `finish` puts them in and drops what is unused."""

    def __init__(self, model: ModelProto, path: Path, spool: Spool | None = None) -> None:
        self._model = model
        self._path = path
        self._spool = spool
        self._constants = _float_matrices(model.graph)
        self._nodes = {node.name: node for node in model.graph.node}
        self._replaced: dict[str, list[NodeProto]] = {}
        self._added: dict[str, TensorProto] = {}
        self._widened: list[NodeProto] = []
        self._writes = any(value.name.startswith("past") for value in model.graph.input)

    def weight(self, matrix: Matrix) -> np.ndarray:
        """Return float32[outputs, inputs] of a matrix, or float32[rows, width] of a table."""
        values = array(self._path, self._constants[matrix.initializer])
        return np.array(values.T if matrix.transposed else values, np.float32, order="C")

    def to_blocks(self, matrix: Matrix, blocks: Blocks) -> None:
        """Multiply by weights in groups: MatMulNBits.

        ``accuracy_level`` 4 lets onnxruntime round activations to int8: up to 60 times faster at 8 and 2 bits
        (else it widens all weights at each call), and 3 times at 4 bits with one token at a time.
        """
        node, name = self._nodes[matrix.node], matrix.initializer
        rows, groups, group_size = blocks.codes.shape
        inputs = [node.input[0], self._add(f"{name}_codes", pack(blocks.codes, blocks.bits))]
        inputs.append(self._add(f"{name}_scales", blocks.scales))
        if blocks.zero_points is not None:
            packed = blocks.zero_points.dtype == np.uint8
            zeros = pack(blocks.zero_points, blocks.bits) if packed else blocks.zero_points
            inputs.append(self._add(f"{name}_zeros", zeros))
        if matrix.bias:
            inputs += [""] * (5 - len(inputs)) + [matrix.bias]
        self._replace(
            node,
            "MatMulNBits",
            inputs,
            K=groups * group_size,
            N=rows,
            bits=blocks.bits,
            block_size=group_size,
            accuracy_level=0 if blocks.bits == 4 and not self._writes else 4,
        )

    def to_dynamic(self, matrix: Matrix) -> None:
        """Multiply in int8: one scale per output channel, activations quantized as they come."""
        node, name = self._nodes[matrix.node], matrix.initializer
        codes, scales = channel_codes(self.weight(matrix))
        inputs = [node.input[0], self._add(f"{name}_codes", np.ascontiguousarray(codes.T))]
        inputs.append(self._add(f"{name}_scales", scales))
        inputs.append(self._add(f"{name}_zeros", np.zeros(len(scales), np.int8)))
        self._replace(node, "DynamicQuantizeMatMul", [*inputs, *([matrix.bias] if matrix.bias else [])])

    def table_to_int8(self, matrix: Matrix) -> None:
        """Gather int8 rows and their 16-bit scales, in standard operators."""
        node, name = self._nodes[matrix.node], matrix.initializer
        weight = self.weight(matrix)
        scales = np.maximum(np.abs(weight).max(1, keepdims=True), 1e-4) / np.float32(127)
        scales = scales.astype(np.float16).astype(np.float32)
        weight *= 1 / scales
        np.clip(np.rint(weight, out=weight), -127, 127, out=weight)
        codes = self._add(f"{name}_codes", weight.astype(np.int8))
        indices, output = node.input[1], node.output[0]
        make = helper.make_node
        self._replaced[node.name] = [
            make("Gather", [codes, indices], [f"{output}_codes"], name=f"{node.name}_codes"),
            make("Cast", [f"{output}_codes"], [f"{output}_floats"], name=f"{node.name}_cast", to=1),
            make(
                "Gather",
                [self._add(f"{name}_scales", scales.astype(np.float16)), indices],
                [f"{output}_halves"],
                name=f"{node.name}_scales",
            ),
            make("Cast", [f"{output}_halves"], [f"{output}_scales"], name=f"{node.name}_widen", to=1),
            make("Mul", [f"{output}_floats", f"{output}_scales"], [output], name=f"{node.name}_scaled"),
        ]

    def table_to_int4(self, matrix: Matrix, blocks: Blocks) -> None:
        """Gather 4-bit rows (symmetric blocks) with 16-bit scales: GatherBlockQuantized."""
        node, name = self._nodes[matrix.node], matrix.initializer
        rows, groups, group_size = blocks.codes.shape
        signed = (blocks.codes.astype(np.int8) - 8).view(np.uint8) & 15
        packed = pack(signed.reshape(rows, -1), 4)
        codes = helper.make_tensor(
            f"{name}_codes", TensorProto.INT4, [rows, groups * group_size], packed.tobytes(), raw=True
        )
        self._keep(codes)
        scales = self._add(f"{name}_scales", blocks.scales.astype(np.float16))
        half = f"{node.output[0]}_half"
        self._replace(
            node,
            "GatherBlockQuantized",
            [codes.name, node.input[1], scales],
            gather_axis=0,
            quantize_axis=1,
            block_size=group_size,
        )
        gather = self._replaced[node.name][0]
        gather.output[0] = half
        cast = helper.make_node("Cast", [half], [node.output[0]], name=f"{node.name}_cast", to=1)
        self._replaced[node.name].append(cast)

    def to_bfloat16(self, tensor: TensorProto) -> None:
        """Store a float32 weight in 16 bits and widen it before its uses, under its own name."""
        name = f"{tensor.name}_bfloat16"
        values = array(self._path, tensor).astype(bfloat16)
        self._keep(
            helper.make_tensor(name, TensorProto.BFLOAT16, list(tensor.dims), values.tobytes(), raw=True)
        )
        self._widened.append(helper.make_node("Cast", [name], [tensor.name], name=f"{name}_widen", to=1))

    def finish(self) -> ModelProto:
        """Return the rewritten model; weights that remain are where they were, new ones in the spool."""
        graph = self._model.graph
        replaced = [new for node in graph.node for new in self._replaced.get(node.name, [node])]
        nodes = [*self._widened, *replaced]
        computed = {node.output[0] for node in self._widened}
        used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
        used |= {name for node in nodes for name in _inner_inputs(node)}
        kept = [tensor for tensor in graph.initializer if tensor.name in used - computed]
        result = ModelProto()
        result.CopyFrom(self._model)
        inputs = [value for value in graph.input if value.name not in computed]
        del result.graph.node[:], result.graph.initializer[:], result.graph.input[:]
        result.graph.input.extend(inputs)
        result.graph.node.extend(nodes)
        result.graph.initializer.extend([*kept, *self._added.values()])
        contributed = any(node.domain == _CONTRIB for node in replaced)
        if contributed and all(entry.domain != _CONTRIB for entry in result.opset_import):
            result.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
        if any(tensor.data_type == TensorProto.INT4 for tensor in self._added.values()):
            result.ir_version = max(result.ir_version, 10)
        return result

    def _add(self, name: str, values: np.ndarray) -> str:
        self._keep(numpy_helper.from_array(values, name))
        return name

    def _keep(self, tensor: TensorProto) -> None:
        self._added[tensor.name] = self._spool.add(tensor) if self._spool else tensor

    def _replace(self, node: NodeProto, operator: str, inputs: list[str], **attributes: Any) -> None:
        self._replaced[node.name] = [
            helper.make_node(
                operator, inputs, list(node.output), name=node.name, domain=_CONTRIB, **attributes
            )
        ]


def _float_matrices(graph: GraphProto) -> Mapping[str, TensorProto]:
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type in kinds}


def _inner_inputs(node: NodeProto) -> Iterator[str]:
    """Yield what graphs inside a node's attributes read, such as the branches of If."""
    for attribute in node.attribute:
        for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from _inner_inputs(inner)
            yield from (value.name for value in graph.output)
