"""The compiled block kernels, typed; the only package that imports the native module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi import _native

if TYPE_CHECKING:
    import numpy as np

    from terazi.dtypes import DType

__all__ = ["dequantize", "first_invalid_block", "quantize"]


def quantize(kind: DType, x: np.ndarray, importance: np.ndarray | None, threads: int) -> np.ndarray:
    """Encode float32[rows, columns] as uint8[rows, row_bytes]; see `terazi.quantize_rows`."""
    return _native.quantize(kind.id, x, importance, threads)


def dequantize(kind: DType, q: np.ndarray, columns: int, threads: int) -> np.ndarray:
    """Decode uint8[rows, row_bytes] into float32[rows, columns]."""
    return _native.dequantize(kind.id, q, columns, threads)


def first_invalid_block(kind: DType, q: np.ndarray, columns: int) -> int:
    """Index, counting blocks along rows, of the first with a scale that is not finite, or -1."""
    return _native.validate(kind.id, q, columns)
