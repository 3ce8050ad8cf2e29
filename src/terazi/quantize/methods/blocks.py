"""Weights in groups along a row that share a scale and a zero point, each rounded to the nearest code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terazi import kernels

__all__ = ["Blocks", "round_to_nearest"]


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantized matrix: value = (code - zero point) * scale.

    ``codes`` uint8[rows, groups, group_size], ``scales`` float32[rows, groups], ``zero_points`` [rows,
    groups], uint8 or where they need not be whole float32, or None: the middle code, ``2 ** (bits - 1)``.
    """

    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    bits: int

    def decode(self) -> np.ndarray:
        """Return float32[rows, columns]."""
        middle = np.float32(1 << (self.bits - 1))
        zero = middle if self.zero_points is None else self.zero_points[..., None].astype(np.float32)
        values = (self.codes.astype(np.float32) - zero) * self.scales[..., None]
        return values.reshape(len(values), -1)


def round_to_nearest(
    weight: np.ndarray,
    bits: int,
    group_size: int,
    *,
    symmetric: bool = True,
    importance: np.ndarray | None = None,
    feedback: np.ndarray | None = None,
    threads: int = 0,
) -> Blocks:
    """Quantize ``weight`` (float32[rows, columns]) group by group, each code the nearest to its weight.

    Several trial scales are rounded with; each is refitted by weighted least squares to the codes it gave,
    and the one with the least weighted squared error wins (the search that llama.cpp's make_qx_quants does).
    ``importance`` (float32[columns]) weighs squared errors; ``feedback``: see `terazi.kernels.round_groups`.
    Columns must be a multiple of ``group_size``, and that of 16.
    """
    codes, scales, zeros = kernels.round_groups(
        np.ascontiguousarray(weight, np.float32),
        group_size,
        bits,
        symmetric=symmetric,
        importance=importance,
        feedback=feedback,
        threads=threads,
    )
    return Blocks(
        codes.reshape(len(codes), -1, group_size), scales, None if symmetric else zeros.astype(np.uint8), bits
    )
