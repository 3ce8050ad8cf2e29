"""ONNX: files to a Model, graphs whose weights stay where they are, and files again."""

from terazi.formats.onnx.reader import EXPORTED, detect, operators, read
from terazi.formats.onnx.weights import Spool, array, graph_file, inside, load_graph
from terazi.formats.onnx.writer import write_graph

__all__ = [
    "EXPORTED",
    "Spool",
    "array",
    "detect",
    "graph_file",
    "inside",
    "load_graph",
    "operators",
    "read",
    "write_graph",
]
