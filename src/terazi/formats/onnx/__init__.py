"""ONNX: files to a Model, graphs whose weights stay where they are, and files again."""

from terazi.formats.onnx.reader import detect, read
from terazi.formats.onnx.weights import Spool, array, graph_file, inside, load_graph
from terazi.formats.onnx.writer import write_graph

__all__ = ["Spool", "array", "detect", "graph_file", "inside", "load_graph", "read", "write_graph"]
