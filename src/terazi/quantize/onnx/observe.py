"""Graphs made to show something: activations as outputs, and products that can be quantized one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from terazi.quantize.onnx.graph import channel_codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.quantize.onnx.graph import Matrix, Rewrite

__all__ = ["PROBE", "float_outputs", "observing", "probing"]

PROBE = "terazi_probe"
"""The input of a probing graph: the number of the product that is quantized, or one that none has."""


def observing(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return the model with the activations ``names`` as its only outputs."""
    observed = ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    observed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    return observed


def float_outputs(model: ModelProto) -> list[str]:
    """Return the outputs that are float tensors: labels and the like have no distance."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return [value.name for value in model.graph.output if value.type.tensor_type.elem_type in kinds]


def probing(model: ModelProto, rewrite: Rewrite, probed: Sequence[Matrix]) -> ModelProto:
    """Return a graph whose input `PROBE` chooses which of the matrices ``probed`` multiplies in int8.

    Its outputs are the floats among the model's. One session answers for all: no graph is loaded anew.
    """
    numbers = {matrix.node: number for number, matrix in enumerate(probed)}
    graph = observing(model, float_outputs(model))
    nodes = []
    for node in graph.graph.node:
        if node.name not in numbers:
            nodes.append(node)
            continue
        number = numbers[node.name]
        matrix = probed[number]
        codes, scales = channel_codes(rewrite.weight(matrix))
        values = {
            "codes": np.ascontiguousarray(codes.T),
            "scales": scales,
            "zeros": np.zeros(len(scales), np.int8),
            "number": np.array(number, np.int64),
        }
        names = [f"{PROBE}_{number}_{name}" for name in values]
        graph.graph.initializer.extend(map(numpy_helper.from_array, values.values(), names))
        nodes += _choice(node, number, names, matrix.bias)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    graph.graph.input.append(helper.make_tensor_value_info(PROBE, TensorProto.INT64, []))
    if all(entry.domain != "com.microsoft" for entry in graph.opset_import):
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return graph


def _choice(node: NodeProto, number: int, names: Sequence[str], bias: str | None) -> list[NodeProto]:
    """Return the nodes of: if PROBE is this number, multiply in int8, else as before."""
    output, condition = node.output[0], f"{PROBE}_{number}"
    inputs = [node.input[0], *names[:3], *([bias] if bias else [])]
    quantized = helper.make_node(
        "DynamicQuantizeMatMul", inputs, [f"{output}_integers"], domain="com.microsoft"
    )
    exact = NodeProto()
    exact.CopyFrom(node)
    exact.output[0] = f"{output}_floats"
    branches = {}
    for name, inner in (("then_branch", quantized), ("else_branch", exact)):
        result = helper.make_tensor_value_info(inner.output[0], TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([inner], f"{condition}_{name}", [], [result])
    return [
        helper.make_node("Equal", [PROBE, names[3]], [condition], name=f"{condition}_chosen"),
        helper.make_node("If", [condition], [output], name=f"{condition}_either", **branches),
    ]
