"""A named weight whose rows are read only when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from terazi.codecs import dequantize_rows
from terazi.dtypes import dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Packed", "Tensor", "concatenate_rows"]


@dataclass(frozen=True, slots=True)
class Packed:
    """How a source stores a tensor that is decoded as it is read: its own name for that, bits and bytes."""

    name: str
    bits: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A weight matrix (or vector, or stack of matrices) in its stored encoding.

    ``shape`` is in row-major (NumPy) order: the last axis is contiguous in memory and is the one that blocks
    run along; GGUF files list the same axes in reverse. ``read(start, stop)`` returns the stored bytes of
    those rows as ``uint8[stop - start, row_bytes]``; it may be a view of a memory map. Where a format packs
    weights in a way that has no ``type``, ``read`` decodes and ``packed`` tells what is in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    read: Callable[[int, int], np.ndarray] = field(repr=False, compare=False)
    packed: Packed | None = None

    @property
    def columns(self) -> int:
        """Weights per row."""
        return self.shape[-1] if self.shape else 1

    @property
    def row_count(self) -> int:
        """Rows, over all leading axes (1 for a vector)."""
        return prod(self.shape[:-1])

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Stored bytes per row."""
        return dtype(self.type).row_bytes(self.columns)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows as `read` gives them."""
        return self.row_bytes * self.row_count

    @property
    def stored_bytes(self) -> int:
        """Bytes in the source."""
        return self.packed.nbytes if self.packed else self.nbytes

    def encoded(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows as stored: ``uint8[rows, row_bytes]``."""
        return self.read(start, self.row_count if stop is None else stop)

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows as ``float32[rows, columns]``, decoded."""
        return dequantize_rows(self.encoded(start, stop), self.type, self.columns)

    def renamed(self, name: str) -> Tensor:
        """Return the same weights under another name."""
        return Tensor(name=name, shape=self.shape, type=self.type, read=self.read)

    def reshaped(self, shape: tuple[int, ...]) -> Tensor:
        """Return the same rows with other leading axes; the last axis must stay as it is."""
        if prod(shape) != self.size or (shape and shape[-1] != self.columns):
            raise ValueError(f"{self.name}: cannot view {self.shape} as {shape}")
        return Tensor(name=self.name, shape=shape, type=self.type, read=self.read)

    def taking_rows(self, index: np.ndarray) -> Tensor:
        """Return the rows ``index`` (int[new_rows]) in that order, still encoded; the result is a matrix."""

        def read(start: int, stop: int) -> np.ndarray:
            wanted = index[start:stop]
            if wanted.size == 0:
                return self.read(0, 0)
            low = int(wanted.min())
            return self.read(low, int(wanted.max()) + 1)[wanted - low]

        return Tensor(name=self.name, shape=(len(index), self.columns), type=self.type, read=read)

    @staticmethod
    def from_array(name: str, array: np.ndarray, type: str | None = None) -> Tensor:
        """Wrap an array in memory. ``type`` defaults to the array's own (float32 -> F32, ...).

        Pass ``type`` for bits that NumPy has no type for: BF16 as uint16[...].
        """
        names = {"f4": "F32", "f2": "F16", "f8": "F64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64"}
        kind = type or names[array.dtype.str.lstrip("<>|=")]
        shape = array.shape
        flat = np.ascontiguousarray(array).reshape(prod(shape[:-1]), -1).view(np.uint8)
        return Tensor(name=name, shape=shape, type=kind, read=lambda start, stop: flat[start:stop])


def concatenate_rows(name: str, parts: Sequence[Tensor], shape: tuple[int, ...] | None = None) -> Tensor:
    """Put tensors of one type and width under each other, without reading them.

    ``shape`` (same size, same last axis) names leading axes, for example ``(experts, rows, columns)``.
    """
    first = parts[0]
    if any(part.type != first.type or part.columns != first.columns for part in parts):
        raise ValueError(f"{name}: parts differ in type or width")
    offsets = np.cumsum([0, *(part.row_count for part in parts)])

    def read(start: int, stop: int) -> np.ndarray:
        pieces = [
            part.read(max(start - low, 0), min(stop - low, part.row_count))
            for part, low in zip(parts, offsets[:-1].tolist(), strict=True)
            if start < low + part.row_count and stop > low
        ]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else first.read(0, 0)

    whole = (int(offsets[-1]), first.columns)
    return Tensor(name=name, shape=shape or whole, type=first.type, read=read)
