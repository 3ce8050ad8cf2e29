"""The compiled block kernels, typed; the only package that imports the native module.

The environment variable TERAZI_SIMD forces an instruction set: baseline, avx2 or avx512.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from terazi import _native
from terazi.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from terazi.dtypes import DType

__all__ = ["dequantize", "first_invalid_block", "quantize"]

if _forced := os.environ.get("TERAZI_SIMD"):
    try:
        _native.use_instruction_set(_forced)
    except ValueError as error:
        choices = ", ".join(_native.instruction_sets())
        raise UsageError(f"TERAZI_SIMD: {error}", hint=f"it has {choices}") from None


def quantize(kind: DType, x: np.ndarray, importance: np.ndarray | None, threads: int) -> np.ndarray:
    """Encode float32[rows, columns] as uint8[rows, row_bytes]; see `terazi.quantize_rows`."""
    return _native.quantize(kind.id, x, importance, threads)


def dequantize(kind: DType, q: np.ndarray, columns: int, threads: int) -> np.ndarray:
    """Decode uint8[rows, row_bytes] into float32[rows, columns]."""
    return _native.dequantize(kind.id, q, columns, threads)


def first_invalid_block(kind: DType, q: np.ndarray, columns: int) -> int:
    """Index, counting blocks along rows, of the first with a scale that is not finite, or -1."""
    return _native.validate(kind.id, q, columns)
