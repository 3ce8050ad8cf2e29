"""Weights rearranged on the way to GGUF and back; each change reads only the rows that are asked for."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from terazi.codecs import quantize_rows
from terazi.dtypes import dtype
from terazi.errors import FormatError
from terazi.model.arch.table import Change
from terazi.model.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from terazi.model.arch.table import Source

__all__ = [
    "chain",
    "computed",
    "flat",
    "interleaved",
    "mapped",
    "padded_rows",
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
        return rows.view(np.uint8).reshape(stop - start, 4 * tensor.columns)

    return Tensor(name=tensor.name, shape=tensor.shape, type="F32", read=read)


def recoded(tensor: Tensor, type: str) -> Tensor:
    """Encode a tensor as ``type`` (F32, F16, BF16)."""

    def read(start: int, stop: int) -> np.ndarray:
        return quantize_rows(tensor.rows(start, stop), type)

    return Tensor(name=tensor.name, shape=tensor.shape, type=type, read=read)


def reordered(tensor: Tensor, order: np.ndarray, axis: int = 0) -> Tensor:
    """Take rows (``axis`` 0) or columns (1) of a matrix, or the elements of a vector, in another order."""
    if axis == 0:
        one_by_one = _viewed(tensor, (tensor.size, 1)) if len(tensor.shape) == 1 else tensor
        taken = one_by_one.taking_rows(order)
        return _viewed(taken, (len(order),)) if len(tensor.shape) == 1 else taken
    kind = dtype(tensor.type)
    if kind.quantized:
        raise FormatError(tensor.name, f"columns of {tensor.type} cannot be reordered")

    def read(start: int, stop: int) -> np.ndarray:
        size = kind.block_bytes
        rows = np.ascontiguousarray(tensor.read(start, stop)).reshape(stop - start, tensor.columns, size)
        return rows[:, order].reshape(stop - start, len(order) * size)

    return Tensor(name=tensor.name, shape=(*tensor.shape[:-1], len(order)), type=tensor.type, read=read)


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


def mapped(
    function: Callable[[np.ndarray], np.ndarray], inverse: Callable[[np.ndarray], np.ndarray] | None = None
) -> Change:
    """Apply an element-wise function."""
    return Change(
        lambda tensor, source: computed(tensor, function),
        inverse and (lambda tensor, source: computed(tensor, inverse)),
    )


plus_one = mapped(lambda rows: rows + np.float32(1), lambda rows: rows - np.float32(1))
"""Add one: norms that are stored as a difference from 1 (Gemma)."""


def shaped(*shape: int) -> Change:
    """View a tensor as ``shape``; one entry may be -1."""

    def make(tensor: Tensor, source: Source) -> Tensor:
        whole = tuple(tensor.size // -prod(shape) if size == -1 else size for size in shape)
        if prod(whole) != tensor.size:
            raise FormatError(tensor.name, f"{tensor.shape} cannot be seen as {shape}")
        return _viewed(tensor, whole)

    return Change(make, lambda tensor, source: _viewed(tensor, (tensor.size,)))


flat = Change(
    lambda tensor, source: _viewed(tensor, (tensor.shape[0], tensor.size // tensor.shape[0])),
    lambda tensor, source: tensor.reshaped((tensor.shape[0], 1, tensor.columns)),
)
"""Drop the middle axis of a depthwise convolution: [channels][1][width]."""


def _permuted(order: Callable[[Tensor, Source], np.ndarray]) -> Change:
    return Change(
        lambda tensor, source: reordered(tensor, order(tensor, source)),
        lambda tensor, source: reordered(tensor, np.argsort(order(tensor, source))),
    )


def interleaved(heads: str, *fallbacks: str) -> Change:
    """Reorder each head's rows from halves (Hugging Face's rotary layout) to pairs (ggml's NORM rope).

    ``heads`` names the configuration key with the number of heads in this tensor.
    """

    def order(tensor: Tensor, source: Source) -> np.ndarray:
        count = next((source.settings[key] for key in (heads, *fallbacks) if source.settings.get(key)), 0)
        rows = tensor.shape[0]
        if not isinstance(count, int) or count <= 0 or rows % (2 * count):
            raise FormatError(tensor.name, f"{rows} rows are not {count} heads of pairs")
        return np.arange(rows).reshape(count, 2, -1).swapaxes(1, 2).reshape(-1)

    return _permuted(order)


def regrouped(heads: str, parts: int) -> Change:
    """Reorder rows laid out as [head][part][size] to [part][head][size] (queries, keys, values of NeoX)."""

    def order(tensor: Tensor, source: Source) -> np.ndarray:
        count, rows = source.settings.get(heads), tensor.shape[0]
        if not isinstance(count, int) or count <= 0 or rows % (count * parts):
            raise FormatError(tensor.name, f"{rows} rows are not {parts} parts of {count} heads")
        return np.arange(rows).reshape(count, parts, -1).swapaxes(0, 1).reshape(-1)

    return _permuted(order)


def part(which: int, parts: int, axis: int = 0, *, alternating: bool = False) -> Change:
    """Take one of several equal parts along ``axis``: one after the other, or ``alternating``."""

    def make(tensor: Tensor, source: Source) -> Tensor:
        if tensor.shape[axis] % parts:
            raise FormatError(tensor.name, f"{tensor.shape} does not split into {parts} parts")
        size = tensor.shape[axis] // parts
        wanted = np.arange(which, parts * size, parts) if alternating else which * size + np.arange(size)
        if axis == len(tensor.shape) - 1:
            return reordered(tensor, wanted, axis=min(axis, 1))
        taken = np.arange(tensor.row_count).reshape(tensor.shape[:-1]).take(wanted, axis=axis)
        return tensor.taking_rows(taken.reshape(-1)).reshaped((*taken.shape, tensor.columns))

    return Change(make)


def skipping_rows(count: Callable[[Source], int]) -> Change:
    """Leave out leading rows: positions that a model reserves for padding (RoBERTa)."""
    return Change(
        lambda tensor, source: tensor.taking_rows(np.arange(count(source), tensor.shape[0])),
    )


def padded_rows(height: str) -> Change:
    """Add rows of zeros up to the number that the setting ``height`` names."""

    def make(tensor: Tensor, source: Source) -> Tensor:
        wanted, rows = source.settings.get(height), tensor.shape[0]
        if not isinstance(wanted, int) or wanted <= rows or len(tensor.shape) != 2:
            return tensor
        if wanted > 2 * rows:
            raise FormatError(tensor.name, f"{rows} rows are far from the {wanted} that {height} names")

        def read(start: int, stop: int) -> np.ndarray:
            kept = tensor.read(min(start, rows), min(stop, rows))
            return np.concatenate([kept, np.zeros((stop - start - len(kept), tensor.row_bytes), np.uint8)])

        return Tensor(name=tensor.name, shape=(wanted, tensor.columns), type=tensor.type, read=read)

    return Change(make)


def _swap(tensor: Tensor, source: Source) -> Tensor:
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
        empty = np.empty((0, high * kind.block_bytes), np.uint8)
        return np.ascontiguousarray(np.concatenate(pieces)) if pieces else empty

    return Tensor(name=tensor.name, shape=(*lead, wide, high), type=tensor.type, read=read)


swapped = Change(_swap, _swap)
"""Exchange the last two axes (layers that store inputs by outputs, such as GPT-2's); vectors stay."""


def chain(*changes: Change) -> Change:
    """Make several changes one after the other."""

    def make(tensor: Tensor, source: Source) -> Tensor:
        for step in changes:
            tensor = step.make(tensor, source)
        return tensor

    def undo(tensor: Tensor, source: Source) -> Tensor:
        for step in reversed(changes):
            assert step.undo is not None
            tensor = step.undo(tensor, source)
        return tensor

    return Change(make, undo if all(step.undo for step in changes) else None)
