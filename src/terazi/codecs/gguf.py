"""GGUF block encodings: checked arrays in, checked arrays out; the arithmetic is in the kernels."""

from __future__ import annotations

import numpy as np

from terazi import kernels
from terazi.dtypes import DType, dtype
from terazi.errors import FormatError, UsageError

__all__ = ["dequantize_rows", "quantize_rows", "validate_rows"]


def quantize_rows(
    x: np.ndarray, type: str, *, importance: np.ndarray | None = None, threads: int = 0
) -> np.ndarray:
    """Encode ``x`` (float32[rows, columns]) as ``type``; returns uint8[rows, row_bytes].

    ``importance`` (float32[columns], the mean squared activation of each column) weighs the rounding error.
    ``threads`` 0 uses every core this process may run on. The bytes are those of ggml's reference quantizer
    built for x86-64 (scalar order, no FMA contraction), for any number of threads and any CPU.

    Raises `UsageError` for a type that cannot be written, rows that are no whole number of blocks, missing
    required importance, and values that are not finite.
    """
    kind = dtype(type)
    if kind.importance == "none":
        raise UsageError(f"{kind.name} is not a type to quantize to", hint="see `terazi types`")
    x = np.ascontiguousarray(x, dtype=np.float32)
    if x.ndim != 2:
        raise UsageError(f"rows must be a matrix, not {x.ndim}-dimensional")
    kind.row_bytes(x.shape[1])
    if importance is not None:
        importance = np.ascontiguousarray(importance, dtype=np.float32)
        if importance.shape != (x.shape[1],):
            raise UsageError(f"importance has shape {importance.shape}, the rows need ({x.shape[1]},)")
        if not np.isfinite(importance).all() or (importance < 0).any():
            raise UsageError("importance must be finite and not negative")
    elif kind.importance == "required":
        raise UsageError(
            f"{kind.name} cannot be made without an importance matrix",
            hint="make one with `terazi calibrate`",
        )
    try:
        return kernels.quantize(kind, x, importance, threads)
    except ValueError as error:
        raise UsageError(f"cannot encode as {kind.name}: {error}") from None


def dequantize_rows(q: np.ndarray, type: str, columns: int, *, threads: int = 0) -> np.ndarray:
    """Decode ``q`` (uint8[rows, row_bytes]) of ``type`` into float32[rows, columns].

    Raises `UsageError` when the bytes do not make rows of ``columns`` weights.
    """
    kind, q = _stored_rows(q, type, columns)
    try:
        return kernels.dequantize(kind, q, columns, threads)
    except ValueError as error:
        raise UsageError(f"cannot decode {kind.name}: {error}") from None


def validate_rows(q: np.ndarray, type: str, columns: int) -> None:
    """Check that the blocks of ``q`` (uint8[rows, row_bytes]) hold only finite scales, as ggml does.

    Raises `FormatError` naming the first bad row and column, and `UsageError` when the bytes do not make
    rows of ``columns`` weights.
    """
    kind, q = _stored_rows(q, type, columns)
    bad = kernels.first_invalid_block(kind, q, columns)
    if bad >= 0:
        row, block = divmod(bad, columns // kind.block_size)
        raise FormatError(
            f"{kind.name} rows",
            f"the block at row {row}, column {block * kind.block_size} has a scale that is not finite",
            hint="the file is damaged, or was made from weights that are not finite",
        )


def _stored_rows(q: np.ndarray, type: str, columns: int) -> tuple[DType, np.ndarray]:
    kind = dtype(type)
    q = np.ascontiguousarray(q, dtype=np.uint8)
    if q.ndim != 2 or q.shape[1] != kind.row_bytes(columns):
        raise UsageError(
            f"{columns} weights of {kind.name} take {kind.row_bytes(columns)} bytes a row: got {q.shape}"
        )
    return kind, q
