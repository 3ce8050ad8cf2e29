"""How a quantizer names and stores the parts of one layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from terazi.codecs import dequantize_rows, quantize_rows
from terazi.dtypes import dtype
from terazi.model import Tensor
from terazi.model.tensor import Packed

__all__ = ["Decode", "Layout", "Parts", "Settings", "decoded", "matrix", "numbers", "stored", "whole"]

Settings = Mapping[str, Any]
"""A ``quantization_config``."""

Parts = Mapping[str, Tensor]
"""The tensors of one layer by what their names end with, such as ``.scales``."""

Decode = Callable[[int, int], np.ndarray]
"""Decodes rows [start, stop): float32[stop - start, columns]."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A layer's parts are the tensors named ``<layer><suffix>``; one that ``mark`` ends makes it a layer.

    ``make`` returns the weight, under the name it is given (``<layer><result>``). It raises ``KeyError`` for
    a part that is missing and ``ValueError`` for parts that do not fit together.
    """

    mark: str
    suffixes: tuple[str, ...]
    make: Callable[[str, Parts, Settings], Tensor]
    result: str = ".weight"

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Find the layers and their parts."""
        layers = (name.removesuffix(self.mark) for name in tensors if name.endswith(self.mark))
        return {
            layer: {suffix: tensors[layer + suffix] for suffix in self.suffixes if layer + suffix in tensors}
            for layer in layers
        }


def decoded(name: str, shape: tuple[int, ...], type: str, decode: Decode, parts: Parts, bits: int) -> Tensor:
    """Make a weight of ``type`` (F32, F16, BF16) whose rows ``decode`` gives; ``bits`` is what codes take."""
    if not shape or not all(shape):
        raise ValueError(f"a weight of shape {shape}")

    def read(start: int, stop: int) -> np.ndarray:
        return quantize_rows(np.ascontiguousarray(decode(start, stop), dtype=np.float32), type)

    packed = Packed(f"packed {bits}-bit", bits, sum(part.nbytes for part in parts.values()))
    return Tensor(name=name, shape=shape, type=type, read=read, packed=packed)


def stored(tensor: Tensor, first: int, last: int) -> np.ndarray:
    """Return bytes [first, last) of a tensor: uint8[last - first]."""
    size = tensor.row_bytes
    rows = tensor.encoded(first // size, -(-last // size)).reshape(-1)
    return rows[first % size :][: last - first]


def numbers(tensor: Tensor, first: int, last: int) -> np.ndarray:
    """Return the floating-point numbers [first, last) of a tensor: float32[last - first]."""
    size = dtype(tensor.type).block_bytes
    raw = stored(tensor, first * size, last * size)
    return dequantize_rows(raw.reshape(-1, size), tensor.type, 1).reshape(-1)


def whole(settings: Settings, name: str, allowed: tuple[int, ...] | None = None) -> int:
    """Return a positive whole number, one of ``allowed``."""
    value = settings.get(name)
    if type(value) is not int or value <= 0 or (allowed is not None and value not in allowed):
        raise ValueError(f"{name} is {str(value)[:40]}" + (f", not one of {allowed}" if allowed else ""))
    return value


def matrix(tensor: Tensor, rows: int, columns: int, *types: str) -> Tensor:
    """Return ``tensor`` when it is rows by columns (a row or column may have another shape) of floats."""
    if tensor.size != rows * columns or (tensor.columns != columns and 1 not in (rows, columns)):
        raise ValueError(f"{tensor.name} is {tensor.shape}, not {(rows, columns)}")
    types = types or ("F32", "F16", "BF16")
    if tensor.type not in types:
        raise ValueError(f"{tensor.name} is {tensor.type}, not {' or '.join(types)}")
    return tensor
