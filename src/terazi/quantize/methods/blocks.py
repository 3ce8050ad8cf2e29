"""Weights in groups along a row that share a scale and a zero point, and choosing those two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Blocks", "choose_scales", "round_to_nearest"]

_SYMMETRIC_TRIALS = np.arange(-9, 10) * 0.1
_SHRINK_TRIALS = np.linspace(0.7, 1.0, 13)
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantized matrix: value = (code - zero point) * scale.

    ``codes`` uint8[rows, groups, group_size], ``scales`` float32[rows, groups], ``zero_points`` uint8[rows,
    groups] or None where it is the middle code, ``2 ** (bits - 1)``.
    """

    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray | None
    bits: int

    def decode(self) -> np.ndarray:
        """Return float32[rows, columns]."""
        middle = 1 << (self.bits - 1)
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
) -> Blocks:
    """Quantize ``weight`` (float32[rows, columns]) group by group, each code the nearest to its weight.

    ``importance`` (float32[columns]) weighs squared errors in the choice of scales. Columns must be a
    multiple of ``group_size``.
    """
    rows, columns = weight.shape
    groups = weight.reshape(rows, columns // group_size, group_size)
    weights = np.ones(columns, np.float32) if importance is None else importance
    scales = np.empty(groups.shape[:2], np.float32)
    zeros = np.empty(groups.shape[:2], np.float32)
    for index, group_weights in enumerate(weights.reshape(-1, group_size)):
        scales[:, index], zeros[:, index] = choose_scales(
            groups[:, index], group_weights, bits, symmetric=symmetric
        )
    codes = _codes(groups, scales[..., None], zeros[..., None], bits)
    return Blocks(codes.astype(np.uint8), scales, None if symmetric else zeros.astype(np.uint8), bits)


def choose_scales(
    group: np.ndarray, importance: np.ndarray, bits: int, *, symmetric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return (scale float32[rows], zero point float32[rows]) of ``group`` (float[rows, group_size]).

    Several trial scales are rounded with; each is refitted by weighted least squares to the codes it gave,
    and the one with the least weighted squared error wins (the search that llama.cpp's make_qx_quants does).
    """
    trials = _symmetric_trials(group, bits) if symmetric else _asymmetric_trials(group, bits)
    best_error = np.full(len(group), np.inf)
    best_scale = np.zeros(len(group), np.float32)
    best_zero = np.zeros(len(group), np.float32)
    for scale, zero in trials:
        levels = _codes(group, scale[:, None], zero[:, None], bits) - zero[:, None]
        size = (importance * levels * levels).sum(1)
        fitted = np.where(size > 0, (importance * levels * group).sum(1) / np.maximum(size, _TINY), scale)
        fitted = np.where(fitted == 0, scale, fitted).astype(np.float32)
        levels = _codes(group, fitted[:, None], zero[:, None], bits) - zero[:, None]
        error = (importance * (levels * fitted[:, None] - group) ** 2).sum(1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, fitted, best_scale)
        best_zero = np.where(better, zero, best_zero)
    return best_scale, best_zero


def _codes(group: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(np.round(group / scale) + zero, 0, (1 << bits) - 1)


def _symmetric_trials(group: np.ndarray, bits: int):
    middle = np.float32(1 << (bits - 1))
    largest = np.take_along_axis(group, np.abs(group).argmax(1)[:, None], 1)[:, 0]
    for shift in _SYMMETRIC_TRIALS:
        scale = -largest / (middle + shift)
        yield np.where(np.abs(scale) < _TINY, _TINY, scale), np.full(len(group), middle, np.float32)


def _asymmetric_trials(group: np.ndarray, bits: int):
    top = np.float32((1 << bits) - 1)
    low, high = np.minimum(group.min(1), 0), np.maximum(group.max(1), 0)
    for shrink in _SHRINK_TRIALS:
        scale = np.maximum((high - low) * shrink / top, _TINY)
        yield scale, np.clip(np.round(-low * shrink / scale), 0, top).astype(np.float32)
