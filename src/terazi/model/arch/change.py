"""Weights rearranged on the way to GGUF; each change reads only the rows that are asked for."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from terazi.codecs import quantize_rows
from terazi.dtypes import dtype
from terazi.errors import FormatError
from terazi.model.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from terazi.model.arch.table import Change, Source

__all__ = [
    "chain",
    "computed",
    "interleaved",
    "mapped",
    "part",
    "plus_one",
    "recoded",
    "regrouped",
    "reordered",
    "shaped",
    "skipping_rows",
    "swapped",
]


def computed(tensor: Tensor, function: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Apply an element-wise ``function`` (float32 to float32) to a tensor; the result is F32."""

    def read(start: int, stop: int) -> np.ndarray:
        rows = np.ascontiguousarray(function(tensor.rows(start, stop)), dtype=np.float32)
        return rows.view(np.uint8).reshape(stop - start, -1)

    return Tensor(name=tensor.name, shape=tensor.shape, type="F32", read=read)


def recoded(tensor: Tensor, type: str) -> Tensor:
    """Encode a tensor as ``type`` (F32, F16, BF16)."""

    def read(start: int, stop: int) -> np.ndarray:
        return quantize_rows(tensor.rows(start, stop), type)

    return Tensor(name=tensor.name, shape=tensor.shape, type=type, read=read)


def mapped(function: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Apply an element-wise function."""
    return lambda tensor, source: computed(tensor, function)


def plus_one(tensor: Tensor, source: Source) -> Tensor:
    """Add one: norms that are stored as a difference from 1 (Gemma)."""
    return computed(tensor, lambda rows: rows + np.float32(1))


def shaped(*shape: int) -> Change:
    """View a tensor as ``shape``; one entry may be -1."""

    def change(tensor: Tensor, source: Source) -> Tensor:
        whole = tuple(tensor.size // -prod(shape) if size == -1 else size for size in shape)
        if prod(whole) != tensor.size:
            raise FormatError(tensor.name, f"{tensor.shape} cannot be seen as {shape}")
        return _viewed(tensor, whole)

    return change


def _viewed(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """View the same weights with other axes; unlike `Tensor.reshaped`, the last axis may change too."""
    if shape and shape[-1] == tensor.columns:
        return tensor.reshaped(shape)
    kind = dtype(tensor.type)
    old, new = tensor.row_bytes, kind.row_bytes(shape[-1] if shape else 1)

    def read(start: int, stop: int) -> np.ndarray:
        first, last = start * new // old, -(-stop * new // old)
        flat = np.ascontiguousarray(tensor.read(first, last)).reshape(-1)
        return flat[start * new - first * old :][: (stop - start) * new].reshape(stop - start, new)

    return Tensor(name=tensor.name, shape=shape, type=tensor.type, read=read)


def _by_element(tensor: Tensor) -> Tensor:
    """View a vector as a matrix of one column, so that its elements can be taken like rows."""
    return _viewed(tensor, (tensor.size, 1)) if len(tensor.shape) == 1 else tensor


def _rows(tensor: Tensor, index: np.ndarray) -> Tensor:
    """Take rows of a matrix, or elements of a vector."""
    taken = _by_element(tensor).taking_rows(index)
    return _viewed(taken, (len(index),)) if len(tensor.shape) == 1 else taken


def _height(tensor: Tensor) -> int:
    return tensor.shape[0]


def interleaved(heads: str, *fallbacks: str, rotary: str | None = None) -> Change:
    """Reorder each head's rows from halves (Hugging Face's rotary layout) to pairs (ggml's NORM rope).

    ``heads`` names the configuration key with the number of heads in this tensor. With ``rotary``, a fraction
    of the head given by that key, only that leading part is reordered.
    """

    def change(tensor: Tensor, source: Source) -> Tensor:
        count = next((source.settings[key] for key in (heads, *fallbacks) if source.settings.get(key)), 0)
        rows = _height(tensor)
        if not isinstance(count, int) or count <= 0 or rows % (2 * count):
            raise FormatError(tensor.name, f"{rows} rows are not {count} heads of pairs")
        size = rows // count
        turned = int(size * source.settings.get(rotary, 1.0)) if rotary else size
        order = np.arange(size)
        order[:turned] = order[:turned].reshape(2, -1).T.reshape(-1)
        return _rows(tensor, (np.arange(count)[:, None] * size + order).reshape(-1))

    return change


def reordered(tensor: Tensor, order: np.ndarray, axis: int = 0) -> Tensor:
    """Take rows (``axis`` 0) or columns (1) of a matrix in another order."""
    if axis == 0:
        return _rows(tensor, order)
    kind = dtype(tensor.type)
    if kind.quantized:
        raise FormatError(tensor.name, f"columns of {tensor.type} cannot be reordered")

    def read(start: int, stop: int) -> np.ndarray:
        rows = np.ascontiguousarray(tensor.read(start, stop)).reshape(stop - start, -1, kind.block_bytes)
        return rows[:, order].reshape(stop - start, -1)

    return Tensor(name=tensor.name, shape=(*tensor.shape[:-1], len(order)), type=tensor.type, read=read)


def regrouped(heads: str, parts: int) -> Change:
    """Reorder rows laid out as [head][part][size] to [part][head][size] (queries, keys, values of NeoX)."""

    def change(tensor: Tensor, source: Source) -> Tensor:
        count, rows = source.settings.get(heads), _height(tensor)
        if not isinstance(count, int) or count <= 0 or rows % (count * parts):
            raise FormatError(tensor.name, f"{rows} rows are not {parts} parts of {count} heads")
        return _rows(tensor, np.arange(rows).reshape(count, parts, -1).swapaxes(0, 1).reshape(-1))

    return change


def part(which: int, parts: int, axis: int = 0) -> Change:
    """Take one of several equal parts stored one after the other along ``axis`` (not the last one)."""

    def change(tensor: Tensor, source: Source) -> Tensor:
        if tensor.shape[axis] % parts:
            raise FormatError(tensor.name, f"{tensor.shape} does not split into {parts} parts")
        size = tensor.shape[axis] // parts
        if len(tensor.shape) == 1:
            return _rows(tensor, np.arange(which * size, (which + 1) * size))
        index = np.arange(tensor.row_count).reshape(tensor.shape[:-1])
        taken = index.take(np.arange(which * size, (which + 1) * size), axis=axis)
        return tensor.taking_rows(taken.reshape(-1)).reshaped((*taken.shape, tensor.columns))

    return change


def skipping_rows(count: Callable[[Source], int]) -> Change:
    """Leave out leading rows: positions that a model reserves for padding (RoBERTa)."""

    def change(tensor: Tensor, source: Source) -> Tensor:
        return tensor.taking_rows(np.arange(count(source), _height(tensor)))

    return change


def swapped(tensor: Tensor, source: Source) -> Tensor:
    """Exchange the last two axes (layers that store inputs by outputs, such as GPT-2's); vectors stay."""
    kind = dtype(tensor.type)
    if len(tensor.shape) == 1:
        return tensor
    if kind.quantized or not tensor.shape:
        raise FormatError(tensor.name, f"a {tensor.type} tensor of {tensor.shape} has no axes to exchange")
    *lead, high, wide = tensor.shape

    def read(start: int, stop: int) -> np.ndarray:
        pieces = []
        for matrix in range(start // wide, -(-stop // wide)):
            whole = np.ascontiguousarray(tensor.read(matrix * high, (matrix + 1) * high))
            turned = whole.reshape(high, wide, kind.block_bytes).swapaxes(0, 1)
            low = matrix * wide
            pieces.append(turned[max(start - low, 0) : stop - low].reshape(-1, high * kind.block_bytes))
        return np.ascontiguousarray(np.concatenate(pieces)) if pieces else np.empty((0, high), np.uint8)

    return Tensor(name=tensor.name, shape=(*lead, wide, high), type=tensor.type, read=read)


def chain(*changes: Change) -> Change:
    """Make several changes one after the other."""

    def change(tensor: Tensor, source: Source) -> Tensor:
        for step in changes:
            tensor = step(tensor, source)
        return tensor

    return change
