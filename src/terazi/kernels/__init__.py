"""The compiled block kernels, typed; the only package that imports the native module.

The environment variable TERAZI_SIMD forces an instruction set: baseline, avx2 or avx512.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from terazi import _native
from terazi.errors import UsageError

if TYPE_CHECKING:
    from terazi.dtypes import DType

__all__ = ["dequantize", "first_invalid_block", "quantize", "round_groups"]

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


def round_groups(
    x: np.ndarray,
    group_size: int,
    bits: int,
    *,
    symmetric: bool = False,
    half_quadratic: bool = False,
    importance: np.ndarray | None = None,
    feedback: np.ndarray | None = None,
    threads: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round float32[rows, columns] in groups that share a scale and a zero point.

    The scale of a group is searched for the least squared error, weighed by ``importance`` float32[columns].
    Entry [j, i] of ``feedback`` float32[columns, columns] is the share of column i's error that column j > i
    takes over before it is rounded. With ``half_quadratic`` zero points may be any numbers, found for the
    least sum of |error| ** 0.75. Returns codes uint8[rows, columns], scales float32[rows, groups] and zero
    points float32[rows, groups], else whole numbers. Raises ValueError where ``x`` is not finite.
    """
    rows, columns = x.shape
    codes = np.empty((rows, columns), np.uint8)
    scales, zeros = (np.empty((rows, columns // group_size), np.float32) for _ in range(2))
    options = (group_size, bits, symmetric, half_quadratic, importance, feedback, threads)
    _native.round_groups(x, *options, codes, scales, zeros)
    return codes, scales, zeros
