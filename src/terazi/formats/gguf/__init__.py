"""GGUF files (versions 2 and 3, split or whole): read, write, exact sizes."""

from terazi.formats.gguf.reader import Contents, detect, read, read_contents, tensor_parts
from terazi.formats.gguf.writer import Output, file_size, split_by_size, write, write_many

__all__ = [
    "Contents",
    "Output",
    "detect",
    "file_size",
    "read",
    "read_contents",
    "split_by_size",
    "tensor_parts",
    "write",
    "write_many",
]
